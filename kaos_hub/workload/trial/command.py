"""The execution of ``train``, whatever it is and however it came here."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

TRAIN = "train"
_RUN = f"./{TRAIN}"
_HEAD = 1024
_ELF = b"\x7fELF"
SHELL = "/bin/sh"
_SAY = "#!/usr/bin/env python3"


class NotStarted(Exception):
    """The reason why it cannot be executed, for people."""


@dataclass(frozen=True)
class Command:
    """A command to execute in the directory of the code."""

    program: str
    arguments: tuple[str, ...]


def command(code: Path, out: str, private: Path) -> Command:
    """Return the command that runs the ``train`` of a directory.

    Without the exec bit, which archives and Windows lose, its first line says what runs it. So it
    does where that line ends as on Windows, for no system finds a program of such a name.

    Args:
        code: the directory; everything runs in it.
        out: the argument.
        private: where a copy may be made.

    Raises:
        NotStarted: there is no such file.
    """
    file = code / TRAIN
    if not code.is_dir():
        raise NotStarted(f"there is no folder {code} to run {TRAIN} in")
    if not file.is_file():
        raise NotStarted(f"there is no file called {TRAIN} in {code}; that is what a trial runs")
    head, executable = _head(file), os.access(file, os.X_OK)
    line, newline, _ = head.partition(b"\n")
    if head.startswith(b"#!") and not (executable and newline and not line.endswith(b"\r")):
        return _interpreted(line[2:].decode(errors="surrogateescape"), out)
    if executable:
        return Command(_RUN, (_RUN, out))
    if head.startswith(_ELF):
        copy = private / TRAIN
        shutil.copyfile(file, copy)
        copy.chmod(0o755)
        return Command(str(copy), (_RUN, out))
    return by_shell(code, out)


def by_shell(code: Path, out: str) -> Command:
    """Return the command for a text that says no interpreter: as in shells, the shell runs it.

    Raises:
        NotStarted: it is no text.
    """
    if _head(code / TRAIN).startswith(_ELF):
        raise NotStarted(f"{TRAIN} is a program for another kind of machine")
    return Command(SHELL, (SHELL, _RUN, out))


def shell_note(code: Path) -> str:
    """Return a note on a failure of a text that a shell had to run: mostly it is no shell script.

    It is empty if ``train`` is no such text.
    """
    head = _head(code / TRAIN)
    if not head or head.startswith((b"#!", _ELF)):
        return ""
    return f"{TRAIN} does not say what runs it, so {SHELL} did; begin it with {_SAY}"


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_HEAD)
    except OSError:
        # A program may be executed and not read.
        return b""


def _interpreted(line: str, out: str) -> Command:
    """Return the command that the kernel makes: interpreter, at most one argument, the file."""
    interpreter, _, argument = line.strip().partition(" ")
    words = (interpreter, argument.strip()) if argument.strip() else (interpreter,)
    return Command(interpreter, (*words, _RUN, out))


def explained(code: Path, program: str, error: OSError) -> NotStarted:
    """Return the error that says why the system would not execute it."""
    head = _head(code / TRAIN)
    if isinstance(error, FileNotFoundError) and head.startswith(b"#!"):
        wanted = head[2:].split(b"\n")[0].strip().decode(errors="replace").partition(" ")[0]
        return NotStarted(f"{TRAIN} line 1: there is no {wanted} here to run it")
    if isinstance(error, FileNotFoundError) and program != SHELL:
        return NotStarted(f"{TRAIN} is a program whose loader is not here: built for another image")
    if isinstance(error, FileNotFoundError):
        return NotStarted(f"{TRAIN} does not say what runs it, and there is no {SHELL} here")
    return NotStarted(f"{TRAIN} cannot be executed: {error.strerror}")
