"""The log of a build, and the bundle it is about: which step, which line of which file."""

import re
from collections.abc import Callable, Sequence

from kaos_hub.formats.dockerfile import instructions

Reader = Callable[[str], str | None]
"""The text of a file of the source bundle; None if there is no such file."""

REQUIREMENTS = ("model/requirements.txt", "requirements.txt")
NETWORK = re.compile(
    r"Temporary failure in name resolution|Name or service not known|Network is unreachable"
    r"|Connection refused|Connection timed out|NewConnectionError|no such host|ReadTimeoutError"
    r"|Could not resolve|Failed to fetch|TLS handshake timeout|i/o timeout",
    re.IGNORECASE,
)


class BuildLog:
    """A log, and the bundle it is about."""

    def __init__(self, lines: Sequence[str], read: Reader) -> None:
        self.lines = lines
        self.text = "\n".join(lines)
        self.read = read
        self.dockerfile = read("Dockerfile") or ""

    def find(self, pattern: str) -> re.Match[str] | None:
        """The first line that holds the pattern."""
        return re.search(pattern, self.text, re.MULTILINE)

    def step(self) -> str:
        """Return the place of the failed step, as ``Dockerfile:5``; ``Dockerfile`` if not known.

        In a build that runs no Dockerfile: the requirements file, or "the environment".
        """
        if self.find(r"^Step 1/4 : Python$"):  # a build that runs no Dockerfile
            installing = self.find(r"^Step 3/4 : (\S+)$")
            return installing[1] if installing else "the environment"
        named = re.findall(r"^Dockerfile:(\d+)$", self.text, re.MULTILINE)
        if named:
            return f"Dockerfile:{named[-1]}"
        steps = re.findall(r"^Step (\d+)/\d+ : ", self.text, re.MULTILINE)
        known = instructions(self.dockerfile) if steps else []
        if steps and int(steps[-1]) <= len(known):
            return f"Dockerfile:{known[int(steps[-1]) - 1].line}"
        return self._step_by_words()

    def _step_by_words(self) -> str:
        """As :meth:`step`; for buildah, which counts otherwise but repeats the instruction."""
        steps = re.findall(r"^(?:\[(\d+)/\d+\] )?STEP \d+/\d+: (.+)$", self.text, re.MULTILINE)
        if not steps:
            return "Dockerfile"
        stage, words = int(steps[-1][0] or 1), _words(steps[-1][1])
        found, at = 0, 0
        for instruction in instructions(self.dockerfile):
            at += instruction.word == "FROM"
            same = _words(f"{instruction.word} {instruction.value}") == words
            if same and (not found or at == stage):
                found = instruction.line
        return f"Dockerfile:{found}" if found else "Dockerfile"

    def requirement(self, name: str, file: str | None = None) -> str:
        """Return the line that asks for a package, like ``model/requirements.txt:2``.

        If none does: the failed step, or without a Dockerfile ``model/requirements.txt``.
        """
        wanted = _canonical(name)
        for path in self._requirement_files(file):
            for number, line in enumerate((self.read(path) or "").splitlines(), 1):
                if _canonical(re.split(r"[\s<>=!~;\[@#(]", line.strip(), maxsplit=1)[0]) == wanted:
                    return f"{path}:{number}"
        return self.step() if self.dockerfile else REQUIREMENTS[0]

    def line(self, *texts: str, file: str | None = None) -> str:
        """Return the line of a requirements file that has one of the texts, the first if possible.

        If none has: ``file``, if given; else as :meth:`requirement`.
        """
        for text in texts:
            for path in self._requirement_files(file):
                for number, line in enumerate((self.read(path) or "").splitlines(), 1):
                    if text and text in line:
                        return f"{path}:{number}"
        return self.file(file) if file else self.step() if self.dockerfile else REQUIREMENTS[0]

    def file(self, name: str) -> str:
        """The path in the bundle of a requirements file that a log calls ``name``."""
        for path in self._requirement_files(name):
            if self.read(path) is not None:
                return path
        return name

    def _requirement_files(self, name: str | None = None) -> list[str]:
        names = [name] if name else []
        names += re.findall(r"(?:-r|--requirement)[ =]([^\s'\"\\)]+)", self.text)
        paths = []
        for each in names:
            parts = [p for p in each.split("/") if p not in ("", ".", "..")]
            paths += [f"model/{'/'.join(parts)}", "/".join(parts)]
            paths += [f"model/{parts[-1]}", parts[-1]] if parts else []
        return list(dict.fromkeys([*paths, *REQUIREMENTS]))


def _words(instruction: str) -> list[str]:
    return [word for word in instruction.split() if not word.startswith("--")]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0]
