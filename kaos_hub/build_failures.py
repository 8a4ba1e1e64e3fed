"""What went wrong in a build, in one sentence, from its log: the file and line to look at.

Knows the words of pip, uv, Docker's classic builder, BuildKit and buildah. Of anything else it
names the step that failed and its exit code.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from kaos_hub.dockerfile import instructions
from kaos_hub.registry.answers import refused_base

Reader = Callable[[str], str | None]
"""The text of a file of the source bundle; None if there is no such file."""

_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d) ")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PREFIX = re.compile(r"^#\d+ (?:\d+\.\d+ )?")
_REQUIREMENTS = ("model/requirements.txt", "requirements.txt")
_KEPT = 20_000
_NETWORK = re.compile(
    r"Temporary failure in name resolution|Name or service not known|Network is unreachable"
    r"|Connection refused|Connection timed out|NewConnectionError|no such host|ReadTimeoutError"
    r"|Could not resolve|Failed to fetch|TLS handshake timeout|i/o timeout",
    re.IGNORECASE,
)


def explain_failure(log: Iterable[str], read: Reader) -> str:
    """Say what made a build fail.

    Args:
        log: its lines, with or without the engine's stamps.
        read: reads files of the source bundle, so that a line in one of them can be named.

    Returns:
        One line for people; it begins with ``file:line:`` where that is known.
    """
    build = _Log([_clean(line) for line in log][-_KEPT:], read)
    for look in _LOOKS:
        found = look(build)
        if found:
            return " ".join(found.split())
    last = next((" ".join(line.split()) for line in reversed(build.lines) if line.strip()), "")
    return f"the build failed; its log ends with: {last[:300]}" if last else "the build failed"


def _clean(line: str) -> str:
    line = _COLOUR.sub("", _STAMP.sub("", line.rstrip("\r\n")))
    return _PREFIX.sub("", line).rpartition("\r")[2]


class _Log:
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
        """Where the failed step stands, as ``Dockerfile:5``; ``Dockerfile`` if not known."""
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
        """Where a package is asked for: ``model/requirements.txt:2``, else the failed step."""
        wanted = _canonical(name)
        for path in self._requirement_files(file):
            for number, line in enumerate((self.read(path) or "").splitlines(), 1):
                if _canonical(re.split(r"[\s<>=!~;\[@#(]", line.strip(), maxsplit=1)[0]) == wanted:
                    return f"{path}:{number}"
        return self.step() if self.dockerfile else _REQUIREMENTS[0]

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
        return list(dict.fromkeys([*paths, *_REQUIREMENTS]))


def _words(instruction: str) -> list[str]:
    return [word for word in instruction.split() if not word.startswith("--")]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _name(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0]


# --- pip ------------------------------------------------------------------------------------------


def _pip_no_version(log: _Log) -> str | None:
    found = log.find(
        r"Could not find a version that satisfies the requirement (\S+).*?"
        r"\(from versions: ([^)]*)\)"
    )
    if not found:
        return None
    requirement, versions = found[1], [v.strip() for v in found[2].split(",")]
    where = log.requirement(_name(requirement))
    if versions in (["none"], [""]):
        if _NETWORK.search(log.text):
            return _network(log)
        name = _name(requirement)
        return f"{where}: no package {name} in the index (or the index cannot be reached)"
    return f"{where}: no version {requirement}{_there_are(requirement, versions)}"


def _there_are(requirement: str, versions: Sequence[str]) -> str:
    """The versions around the one asked for."""
    ordered = sorted(versions, key=_order)
    asked = re.search(r"[\d][\w.]*", requirement[len(_name(requirement)) :])
    below = sum(_order(v) < _order(asked[0]) for v in ordered) if asked else len(ordered)
    near = ordered[max(0, min(below - 2, len(ordered) - 3)) :][:3]
    return f"; there is {', '.join(near)}" if near else ""


def _order(version: str) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|[a-z]+", version.lower())
    return [(1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts] + [(0, 1, "")]


def _pip_syntax(log: _Log) -> str | None:
    found = log.find(r"Invalid requirement: ['\"](.*?)['\"].*\(from line (\d+) of ([^)]+)\)")
    if not found:
        return None
    return f"{log.file(found[3])}:{found[2]}: {found[1]!r} is no requirement{_hint(log)}"


def _hint(log: _Log) -> str:
    hint = log.find(r"^\s*Hint: (.+)$")
    return f" ({hint[1]})" if hint else ""


def _pip_conflict(log: _Log) -> str | None:
    found = log.find(r"Cannot install (.+) because these package versions have conflicting")
    if not found:
        return None
    causes = re.search(r"The conflict is caused by:\n((?: +.+\n?)+)", log.text)
    listed = [line.strip() for line in causes[1].splitlines()] if causes else [found[1]]
    first = next((m[1] for m in map(_ASKED.search, listed) if m), None)
    where = log.requirement(_name(first)) if first else log.step()
    return f"{where}: the requirements contradict each other: {'; '.join(listed)}"


_ASKED = re.compile(r"user requested (\S+)|^(\S+) \S+ depends on")


def _pip_no_file(log: _Log) -> str | None:
    found = log.find(r"Could not open requirements file: .*?['\"](.+?)['\"]")
    if not found:
        return None
    return f"{log.step()}: there is no {found[1]} where pip looks; copy it in before this step"


def _pip_not_built(log: _Log) -> str | None:
    failed = log.find(
        r"metadata-generation-failed|Failed to build '?(\S+?)'? when"
        r"|Failed building wheel for (\S+)"
    )
    if not failed:
        return None
    before = log.text[: failed.start()]
    named = failed[1] or failed[2]
    collected = re.findall(r"^\s*Collecting (\S+)", before, re.MULTILINE)
    requirement = named or (collected[-1] if collected else "a package")
    return (
        f"{log.requirement(_name(requirement))}: {_name(requirement)} cannot be built{_why(before)}"
    )


def _why(before: str) -> str:
    """The first line of a package's own complaint."""
    quoted = re.search(r"\[\d+ lines of output\]\n((?:.*\n)+)", before)
    lines = [line.strip() for line in quoted[1].splitlines()] if quoted else []
    errors = [line for line in lines if re.match(r"\w*(Error|Exception)\b|error:|fatal", line)]
    said = next(iter(errors or [line for line in lines if line]), "")
    return f": {said[:200]}" if said else ""


# --- uv -------------------------------------------------------------------------------------------


def _uv_reason(log: _Log) -> str:
    """Why uv finds no solution, on one line."""
    found = re.search(r"cause: (Because (?:.*\n?)+?)(?=\s*hint:|\s*cause:|\Z|\n\n)", log.text)
    return " ".join(found[1].split()) if found and "No solution found" in log.text else ""


_UV_REASONS = (
    (r"there (?:is|are) no versions? of (?P<asked>\S+) and", "no version {asked}"),
    (
        r"only (?P<there>(?P<name>[\w.-]+)\S*) is available and you require (?P<asked>\S+?),? we",
        "no version {asked}; there is {there}",
    ),
    (
        r"only the following versions of \S+ are available: (?P<there>.+?) and you require"
        r" (?P<asked>\S+), we",
        "no version {asked}; there is {there}",
    ),
    (r"(?P<asked>\S+) was not found in the package registry", "no package {asked} in the index"),
    (
        r"the current Python version \((?P<has>\S+)\) does not satisfy (?P<needs>\S+) and"
        r" (?P<asked>\S+) depends",
        "{asked} needs {needs}, and this is Python {has}",
    ),
    (
        r"(?P<asked>\S+) has no (?P<needs>wheels with a matching .+?) and",
        "{asked} has no {needs}",
    ),
)


def _uv_no_version(log: _Log) -> str | None:
    reason = _uv_reason(log)
    for pattern, text in _UV_REASONS:
        found = re.search(pattern, reason)
        if found:
            where = log.requirement(_name(found["asked"]))
            return f"{where}: {text.format(**found.groupdict())}"
    return None


def _uv_syntax(log: _Log) -> str | None:
    found = log.find(r"Couldn't parse requirement in `([^`]+)`")
    if not found:
        return None
    rest = log.text[found.end() :].splitlines()
    wrong = next((a.strip() for a, b in pairwise(rest) if "^" in b), "")
    path = log.file(found[1])
    text = (log.read(path) or "").splitlines()
    number = next((n for n, line in enumerate(text, 1) if wrong and wrong in line), 0)
    why = log.find(r"cause: (.+)")
    where = f"{path}:{number}" if number else path
    return f"{where}: {wrong!r} is no requirement" + (f" ({why[1]})" if why else "")


def _uv_conflict(log: _Log) -> str | None:
    reason = _uv_reason(log)
    if not reason:
        return None
    asked = re.search(r"you require ([A-Za-z0-9._-]+)", reason)
    where = log.requirement(asked[1]) if asked else _REQUIREMENTS[0]
    why = re.sub(r", we can conclude.*", "", reason.removeprefix("Because "))
    return f"{where}: the requirements contradict each other: {why}"


def _uv_not_built(log: _Log) -> str | None:
    found = log.find(r"Failed to (?:build|download and build) `([^`]+)`")
    if not found:
        return None
    said = re.search(r"\[stderr\]\n\s*(\S.*)", log.text)
    why = f": {said[1].strip()[:200]}" if said else ""
    return f"{log.requirement(_name(found[1]))}: {found[1]} cannot be built{why}"


def _uv_no_file(log: _Log) -> str | None:
    found = log.find(r"^error: File not found: `?([^`\n]+)`?")
    return f"there is no file {found[1]}" if found else None


# --- docker ---------------------------------------------------------------------------------------


def _no_space(log: _Log) -> str | None:
    if not log.find(r"No space left on device|no space left on device"):
        return None
    return f"{log.step()}: the disk is full where images are built; tell the admin, or copy less in"


def _copy_source(log: _Log) -> str | None:
    found = (
        log.find(r"(?:COPY|ADD) failed: file not found in build context.*?stat (\S+?):")
        or log.find(r"building at STEP \"(?:COPY|ADD) .*copier: stat: \"/?([^\"]+)\": no such file")
        or log.find(
            r"failed to (?:compute cache key|calculate checksum).*?\"/?([^\"]+)\": not found"
        )
    )
    if not found:
        return None
    return f"{log.step()}: there is no {found[1]} in the build context (or .dockerignore hides it)"


def _dockerfile_syntax(log: _Log) -> str | None:
    found = log.find(r"[Dd]ockerfile parse error(?: on)? line (\d+): (.+)")
    if found:
        return f"Dockerfile:{found[1]}: {found[2]}"
    unknown = log.find(r"building at STEP .*Unknown instruction: \"(\w+)\"")
    return f"{log.step()}: there is no instruction {unknown[1]}" if unknown else None


def _base_image(log: _Log) -> str | None:
    if refused := refused_base(log.text):
        return f"{log.step()}: {refused}"
    steps = re.findall(r"STEP \d+/\d+ ?: FROM (?:--\S+ )?(\S+)", log.text, re.IGNORECASE)
    refused = r"pull access denied for (\S+?)[,:]|manifest (?:for (\S+) not found|unknown)"
    found = (
        log.find(r"initializing source \w+://(\S+?): .*manifest unknown")
        or log.find(refused)
        or log.find(r"failed to solve: (\S+?):? .*not found")
    )
    if found:
        image = next(filter(None, found.groups()), "") or (steps[-1] if steps else "the base image")
        return f"{log.step()}: there is no image {image}, or it may not be read"
    if (
        steps
        and log.find(r"registry-1|/v2/|registry|initializing source")
        and _NETWORK.search(log.lines[-1])
    ):
        return f"{log.step()}: the registry of {steps[-1]} cannot be reached from here"
    return None


def _network(log: _Log) -> str | None:
    hit = next((line for line in log.lines if _NETWORK.search(line)), None)
    if hit is None:
        return None
    place = re.search(r"https?://[^\s'\")]+", log.text)
    where = f" ({place[0]})" if place else ""
    step = f"{log.step()}: " if log.find(r"^(?:\[\d+/\d+\] )?S(?:tep|TEP) ") else ""
    return f"{step}the network does not answer{where}: {hit.strip()[:200]}"


_OUTCOME = (
    r"The command '(?:/bin/sh -c )?(.*)' returned a non-zero code: (\d+)",
    r"process \"(?:/bin/sh -c )?(.*)\" did not complete successfully: exit code: (\d+)",
    r"building at STEP \"RUN (.*)\": (?:while running runtime: )?exit status (\d+)",
)


def _step(log: _Log) -> str | None:
    found = next(filter(None, map(log.find, _OUTCOME)), None)
    if not found:
        return None
    command = re.sub(r"\s+", " ", found[1])[:80]
    if found[2] == "137":
        why = "was killed, most likely for want of memory"
    elif found[2] == "127":
        said = next((m[1] for m in map(_NOT_FOUND.search, reversed(log.lines)) if m), "")
        why = (
            f"returned 127: there is no command {said}" if said else "returned 127: no such command"
        )
    else:
        said = next((line for line in reversed(log.lines) if _ERROR.search(line)), "")
        why = f"returned {found[2]}" + (f": {said.strip()[:200]}" if said else "")
    return f"{log.step()}: RUN {command} {why}"


_NOT_FOUND = re.compile(r"([^\s:]+): (?:command )?not found")
_ERROR = re.compile(
    r"^\s*(?!Error: building at STEP)(?:\w+: )?(?:E:|\w*[Ee]rror\b|ERROR|fatal|\w+Exception\b)"
)

_LOOKS: tuple[Callable[[_Log], str | None], ...] = (
    _dockerfile_syntax,
    _copy_source,
    _no_space,
    _pip_syntax,
    _pip_no_version,
    _pip_conflict,
    _pip_no_file,
    _uv_syntax,
    _uv_no_file,
    _uv_no_version,
    _uv_not_built,
    _pip_not_built,
    _uv_conflict,
    _base_image,
    _network,
    _step,
)
