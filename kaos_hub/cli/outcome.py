"""The end of a command that did not succeed.

It is words on standard error, an exit code, and with ``--json`` one document on standard output.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import click

from kaos_hub.cli.terminal.output import answered, clean, on_terminal, say, show_json, styled
from kaos_hub.errors import InvalidRequest, KaosError, Unavailable


class Interrupted(KaosError):
    """Interrupted."""

    code, exit_code = "interrupted", 130


class Declined(KaosError):
    """Nothing was changed."""

    code, exit_code = "declined", 1


class OutputFailed(KaosError):
    """The output of a command cannot be written."""

    code: ClassVar[str] = "output_failed"


class Refused(click.ClickException):
    """An error, as click wants it.

    Args:
        error: what went wrong.
        as_json: print it as a document, too.
        words: prints it for people; without it, its message after ``Error:``.
    """

    def __init__(
        self, error: KaosError, as_json: bool, words: Callable[[], object] | None = None
    ) -> None:
        super().__init__(error.message)
        # Of the instance: click reads it from there, whatever the class says.
        self.__dict__["exit_code"] = error.exit_code
        self._error, self._words = error, words
        # A command that answered already has printed its one document.
        self._as_json = as_json and not answered()

    def show(self, file: Any = None) -> None:
        if self._words is not None:
            self._words()
        elif isinstance(self._error, Interrupted | Declined):
            say(self.message)
        else:
            say(f"{styled('Error:', 'red', bold=True)} {clean(self.message)}", raw=True)
        if self._as_json:
            show_json(self._error.body())


@contextmanager
def outcomes(as_json: Callable[[], bool]) -> Iterator[None]:
    """Turn all that may end a command into what click shows and exits with.

    Args:
        as_json: whether ``--json`` was said, asked when something went wrong.
    """
    try:
        yield
    except click.UsageError as e:
        error = InvalidRequest(_without_help(e))
        raise Refused(error, as_json(), _words(e)) from e
    except click.ClickException as e:
        raise Refused(InvalidRequest(e.format_message()), as_json(), _words(e)) from e
    except KaosError as e:
        raise Refused(e, as_json()) from e
    except (KeyboardInterrupt, click.Abort, EOFError):
        if on_terminal():
            say("")  # after the ^C
        raise Refused(Interrupted(), as_json()) from None
    except BrokenPipeError:
        raise  # click ends quietly: the reader has seen enough
    except OSError as e:
        place = f"{e.filename}: " if e.filename else ""
        raise Refused(OutputFailed(f"{place}{e.strerror or e}"), as_json()) from None


def _words(error: click.ClickException) -> Callable[[], object]:
    # The stream is named, for click would write UTF-8 to one that says it is ASCII.
    return lambda: error.show(sys.stderr)


def _without_help(error: click.UsageError) -> str:
    """The message; where it is a group's whole help, one sentence."""
    text = error.format_message()
    if "\n\n" in text and error.ctx is not None:
        return f"{error.ctx.command_path} needs a command; all there are: --help"
    return text


@contextmanager
def going_on(what: str, again: str, follows: bool = True) -> Iterator[None]:
    """Say that what is followed goes on, and how to come back, when following it breaks off.

    Args:
        what: what is followed, as in ``Training 1f3a``.
        again: the command that shows it.
        follows: False: it is not followed; nothing is said.

    Raises:
        Interrupted: Ctrl-C was pressed.
        Unavailable: the Hub is gone.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not follows:
            raise
        raise Interrupted(f"Interrupted. {what} goes on without you: {again}") from None
    except Unavailable as e:
        if not follows:
            raise
        text = f"{e.message.rstrip('. ')}. {what} goes on meanwhile; later: {again}"
        raise type(e)(text, **e.details) from None
