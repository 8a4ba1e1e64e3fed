"""The base of all commands: global options anywhere, late imports, one place for errors."""

import importlib
import shlex
import sys
from collections.abc import Callable
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kaos_hub.cli import former
from kaos_hub.cli.outcome import Declined, outcomes
from kaos_hub.cli.terminal.output import clean, say
from kaos_hub.errors import InvalidRequest

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
        """The client of the Hub in use; waits for one that `kaos up` is just starting."""
        from kaos_hub.cli.starting import wait_for_start
        from kaos_hub.client import Client

        wait_for_start(self)
        return Client(self.url, workspace="" if self.workspace == "-" else self.workspace)

    def note(self, text: str) -> None:
        """Tell the person something, on standard error."""
        if not self.quiet:
            say(text)

    @property
    def can_ask(self) -> bool:
        """True if a person is there to answer."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def confirm(self, question: str, yes: bool, what: str) -> None:
        """Ask before something is lost.

        Args:
            question: what is about to happen and what is kept.
            yes: the answer was given with ``-y``.
            what: how to say yes where no person can be asked.

        Raises:
            InvalidRequest: there is no terminal to ask on.
        """
        if yes:
            return
        if not self.can_ask:
            raise InvalidRequest(f"{question} There is no terminal to ask on. If so: {what}")
        if not click.confirm(clean(question), default=False, err=True):
            raise Declined


pass_session = click.make_pass_decorator(Session, ensure=True)


def _remember(attribute: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value:
            setattr(ctx.ensure_object(Session), attribute, value)

    return callback


def global_options(hidden: bool) -> list[click.Parameter]:
    """Return the options that every command understands; ``kaos --help`` alone shows them."""
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
    """A command that understands the global options, and words that are not quite its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += global_options(hidden=True)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        known = {opt for p in self.get_params(ctx) for opt in (*p.opts, *p.secondary_opts)}
        args = former.present(_path(ctx), known, args)
        # Looked at below: what is too much is answered with where it belongs.
        ctx.allow_extra_args = True
        try:
            rest = super().parse_args(ctx, args)
        except click.BadOptionUsage as e:
            raise click.UsageError(self._needs_value(ctx, e), ctx) from None
        if ctx.args:
            raise click.UsageError(_too_much(ctx, known), ctx)
        return rest

    def _needs_value(self, ctx: click.Context, error: click.BadOptionUsage) -> str:
        option = str(error.option_name)
        found = next((p for p in self.params if option in p.opts), None)
        if found is None or not isinstance(found, click.Option) or found.is_flag:
            return error.format_message()
        value = found.make_metavar(ctx)
        about_help = f" For help: {ctx.command_path} --help" if option == "-h" else ""
        return f"{option} needs a value: {ctx.command_path} {option} {value}.{about_help}"


def _path(ctx: click.Context) -> str:
    """Return the command's name as it was typed after `kaos`."""
    return ctx.command_path.removeprefix(ctx.find_root().command_path).strip()


def _too_much(ctx: click.Context, known: set[str]) -> str:
    """Say what a word that belongs nowhere may be."""
    extra, path = ctx.args[0], ctx.command_path
    if "--source" in known:
        said = shlex.quote(extra)
        if "--context" in known and Path(extra).is_file():
            return f"A file is given with --context: {path} --context {said}"
        return f"Say what {extra!r} is: {path} -s {said} (code) or {path} -d {said} (data)"
    return f"{path} takes no further {extra!r}. What it takes: {path} --help"


class Group(click.Group):
    """A group whose commands are imported when they are used.

    Args:
        lazy: name → (``module:attribute`` below ``kaos_hub.cli``, one line of help).
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
        command = getattr(importlib.import_module(f"kaos_hub.cli.{module}"), attribute)
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
            if (now := former.COMMANDS.get(f"{_path(ctx)} {name}".strip())) is not None:
                todo = f"What does that here: {now}"
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
    """The outermost group: turns errors into messages, documents and exit codes."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> click.Context:
        # Looked for before anything is parsed: it counts for a mistake in the line itself, too.
        words = args[: args.index("--")] if "--" in args else args
        as_json = "--json" in words
        with outcomes(lambda: as_json):
            ctx = super().make_context(info_name, args, parent, **extra)
        ctx.ensure_object(Session).json |= as_json
        return ctx

    def invoke(self, ctx: click.Context) -> Any:
        with outcomes(lambda: ctx.ensure_object(Session).json):
            return super().invoke(ctx)
