"""What all commands share: global options anywhere, late imports, one place for errors."""

import importlib
import sys
from collections.abc import Callable
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from kaos_hub.cli.output import clean, say, styled
from kaos_hub.errors import InvalidRequest, KaosError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from kaos_hub.client import Client


class Session:
    """One run of the command line.

    Attributes:
        json: print one JSON document on standard output and nothing else.
        url: the Hub that was named, if any.
        workspace: the workspace that was named, if any.
        quiet: keep progress and remarks to ourselves.
    """

    def __init__(self) -> None:
        self.json = False
        self.url: str | None = None
        self.workspace: str | None = None
        self.quiet = False

    @cached_property
    def client(self) -> "Client":
        """The client of the Hub in use."""
        from kaos_hub.client import Client

        return Client(self.url, workspace="" if self.workspace == "-" else self.workspace)

    def note(self, text: str) -> None:
        """Tell the person something, on standard error."""
        if not self.quiet:
            say(text)

    @property
    def can_ask(self) -> bool:
        """Whether a person is there to answer."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def confirm(self, question: str, yes: bool, what: str) -> None:
        """Ask before something is lost.

        Args:
            question: what is about to happen and what is kept.
            yes: the answer was given with ``-y``.
            what: how to say yes where nobody can be asked.

        Raises:
            InvalidRequest: there is no terminal to ask on.
        """
        if yes:
            return
        if not self.can_ask:
            raise InvalidRequest(f"{question} There is no terminal to ask on. If so: {what}")
        if not click.confirm(clean(question), default=False, err=True):
            say("Nothing was changed.")
            raise click.exceptions.Exit(1)


pass_session = click.make_pass_decorator(Session, ensure=True)


class Refused(click.ClickException):
    """A :class:`KaosError`, as click wants it."""

    def __init__(self, error: KaosError) -> None:
        super().__init__(error.message)
        # Of the instance: click reads it from there, whatever the class says.
        self.__dict__["exit_code"] = error.exit_code

    def show(self, file: Any = None) -> None:
        say(f"{styled('Error:', 'red', bold=True)} {clean(self.message)}", raw=True)


def _remember(attribute: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value:
            setattr(ctx.ensure_object(Session), attribute, value)

    return callback


def global_options(hidden: bool) -> list[click.Parameter]:
    """What every command understands; ``kaos --help`` alone shows it."""
    return [
        click.Option(
            ["--json", "json"], is_flag=True, expose_value=False, hidden=hidden,
            callback=_remember("json"), help="Print one JSON document, nothing else.",
        ),
        click.Option(
            ["--url"], metavar="URL", expose_value=False, hidden=hidden,
            callback=_remember("url"), help="The Hub to use, if not the one logged in to last.",
        ),
        click.Option(
            ["--workspace"], metavar="GROUP", expose_value=False, hidden=hidden,
            callback=_remember("workspace"), help="Whose trainings, models, bundles; - is yours.",
        ),
        click.Option(
            ["-q", "--quiet"], is_flag=True, expose_value=False, hidden=hidden,
            callback=_remember("quiet"), help="No progress, no remarks.",
        ),
    ]  # fmt: skip


class Command(click.Command):
    """A command that understands the global options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += global_options(hidden=True)


class Group(click.Group):
    """A group whose commands are imported when they are used.

    Args:
        lazy: name → (``module:attribute``, one line of help).
    """

    command_class = Command

    def __init__(
        self, *args: Any, lazy: dict[str, tuple[str, str]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy or {}
        self.params += global_options(hidden=not self._lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._lazy, *self.commands]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self._lazy:
            return super().get_command(ctx, name)
        module, _, attribute = self._lazy[name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if (
            self.get_command(ctx, name) is None
            and not name.startswith("-")
            and not ctx.resilient_parsing
        ):
            near = get_close_matches(name, self.list_commands(ctx), 1)
            path = ctx.command_path
            todo = f"Did you mean: {path} {near[0]}" if near else f"All there are: {path} --help"
            raise click.UsageError(f"There is no command {name!r}. {todo}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        if not self._lazy:
            return super().shell_complete(ctx, incomplete)
        from click.shell_completion import CompletionItem

        # Not click's own: it would import every command to see its help.
        names = [name for name in self._lazy if name.startswith(incomplete)]
        offered = [CompletionItem(name, help=self._lazy[name][1]) for name in names]
        return [*offered, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if not self._lazy:
            super().format_commands(ctx, formatter)
            return
        with formatter.section("Commands"):
            formatter.write_dl([(name, help) for name, (_, help) in self._lazy.items()])


class RootGroup(Group):
    """The outermost group: turns errors into messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KaosError as e:
            raise Refused(e) from e
        except KeyboardInterrupt:
            say("Interrupted.")
            raise click.exceptions.Exit(130) from None
