"""Explanations of failed builds, one sentence from the log: the file and line to look at.

Knows the words of pip, uv, Docker's classic builder, BuildKit and buildah. Of anything else it
names the step that failed and its exit code.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from kaos_hub.registry.answers import refused_base
from kaos_hub.service.builds import uv_failures
from kaos_hub.service.builds.log import NETWORK, BuildLog, Reader, name_of

_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d) ")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PREFIX = re.compile(r"^#\d+ (?:\d+\.\d+ )?")
_KEPT = 20_000


def explain_failure(log: Iterable[str], read: Reader) -> str:
    """Say what made a build fail.

    Args:
        log: its lines, with or without the engine's stamps.
        read: reads files of the source bundle, so that a line in one of them can be named.

    Returns:
        One line for people; it begins with ``file:line:`` where that is known.
    """
    build = BuildLog([_clean(line) for line in log][-_KEPT:], read)
    for look in _LOOKS:
        found = look(build)
        if found:
            return " ".join(found.split())
    last = next((" ".join(line.split()) for line in reversed(build.lines) if line.strip()), "")
    return f"the build failed; its log ends with: {last[:300]}" if last else "the build failed"


def _clean(line: str) -> str:
    line = _COLOUR.sub("", _STAMP.sub("", line.rstrip("\r\n")))
    return _PREFIX.sub("", line).rpartition("\r")[2]


# --- pip ------------------------------------------------------------------------------------------


def _pip_no_version(log: BuildLog) -> str | None:
    found = log.find(
        r"Could not find a version that satisfies the requirement (\S+).*?"
        r"\(from versions: ([^)]*)\)"
    )
    if not found:
        return None
    requirement, versions = found[1], [v.strip() for v in found[2].split(",")]
    where = log.requirement(name_of(requirement))
    if versions in (["none"], [""]):
        if NETWORK.search(log.text):
            return _network(log)
        name = name_of(requirement)
        return f"{where}: no package {name} in the index (or the index cannot be reached)"
    return f"{where}: no version {requirement}{_there_are(requirement, versions)}"


def _there_are(requirement: str, versions: Sequence[str]) -> str:
    """The versions around the one asked for."""
    ordered = sorted(versions, key=_order)
    asked = re.search(r"[\d][\w.]*", requirement[len(name_of(requirement)) :])
    below = sum(_order(v) < _order(asked[0]) for v in ordered) if asked else len(ordered)
    near = ordered[max(0, min(below - 2, len(ordered) - 3)) :][:3]
    return f"; there is {', '.join(near)}" if near else ""


def _order(version: str) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|[a-z]+", version.lower())
    return [(1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts] + [(0, 1, "")]


def _pip_syntax(log: BuildLog) -> str | None:
    found = log.find(r"Invalid requirement: ['\"](.*?)['\"].*\(from line (\d+) of ([^)]+)\)")
    if not found:
        return None
    return f"{log.file(found[3])}:{found[2]}: {found[1]!r} is no requirement{_hint(log)}"


def _hint(log: BuildLog) -> str:
    hint = log.find(r"^\s*Hint: (.+)$")
    return f" ({hint[1]})" if hint else ""


def _pip_conflict(log: BuildLog) -> str | None:
    found = log.find(r"Cannot install (.+) because these package versions have conflicting")
    if not found:
        return None
    causes = re.search(r"The conflict is caused by:\n((?: +.+\n?)+)", log.text)
    listed = [line.strip() for line in causes[1].splitlines()] if causes else [found[1]]
    first = next((m[1] for m in map(_ASKED.search, listed) if m), None)
    where = log.requirement(name_of(first)) if first else log.step()
    return f"{where}: the requirements contradict each other: {'; '.join(listed)}"


_ASKED = re.compile(r"user requested (\S+)|^(\S+) \S+ depends on")


def _pip_no_file(log: BuildLog) -> str | None:
    found = log.find(r"Could not open requirements file: .*?['\"](.+?)['\"]")
    if not found:
        return None
    return f"{log.step()}: there is no {found[1]} where pip looks; copy it in before this step"


def _pip_not_built(log: BuildLog) -> str | None:
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
    name = name_of(requirement)
    return f"{log.requirement(name)}: {name} cannot be built{_why(before)}"


def _why(before: str) -> str:
    """The first line of a package's own complaint."""
    quoted = re.search(r"\[\d+ lines of output\]\n((?:.*\n)+)", before)
    lines = [line.strip() for line in quoted[1].splitlines()] if quoted else []
    errors = [line for line in lines if re.match(r"\w*(Error|Exception)\b|error:|fatal", line)]
    said = next(iter(errors or [line for line in lines if line]), "")
    return f": {said[:200]}" if said else ""


# --- docker ---------------------------------------------------------------------------------------


def _no_space(log: BuildLog) -> str | None:
    if not log.find(r"No space left on device|no space left on device"):
        return None
    return f"{log.step()}: the disk is full where images are built; tell the admin, or copy less in"


def _copy_source(log: BuildLog) -> str | None:
    found = (
        log.find(r"(?:COPY|ADD) failed: file not found in build context.*?stat (\S+?):")
        or log.find(r"building at STEP \"(?:COPY|ADD) .*copier: stat: \"/?([^\"]+)\": no such file")
        or log.find(
            r"failed to (?:compute cache key|calculate checksum).*?\"/?([^\"]+)\": not found"
        )
    )
    if not found:
        return None
    path = found[1]
    if path.partition("/")[0] == "model" and not re.search(r"(?m)^#.*\bcontext=\.", log.dockerfile):
        return (
            f"{log.step()}: there is no {path} in the build context, which is the folder model"
            " itself: leave out model/, or begin the Dockerfile with the line # kaos: context=."
        )
    return f"{log.step()}: there is no {path} in the build context (or .dockerignore hides it)"


def _dockerfile_syntax(log: BuildLog) -> str | None:
    found = log.find(r"[Dd]ockerfile parse error(?: on)? line (\d+): (.+)")
    if found:
        return f"Dockerfile:{found[1]}: {found[2]}"
    unknown = log.find(r"building at STEP .*Unknown instruction: \"(\w+)\"")
    return f"{log.step()}: there is no instruction {unknown[1]}" if unknown else None


def _base_image(log: BuildLog) -> str | None:
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
        and NETWORK.search(log.lines[-1])
    ):
        return f"{log.step()}: the registry of {steps[-1]} cannot be reached from here"
    return None


def _network(log: BuildLog) -> str | None:
    hit = next((line for line in log.lines if NETWORK.search(line)), None)
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


def _step(log: BuildLog) -> str | None:
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

_LOOKS: tuple[Callable[[BuildLog], str | None], ...] = (
    _dockerfile_syntax,
    _copy_source,
    _no_space,
    _pip_syntax,
    _pip_no_version,
    _pip_conflict,
    _pip_no_file,
    *uv_failures.BEFORE_PIP,
    _pip_not_built,
    *uv_failures.AFTER_PIP,
    _base_image,
    _network,
    _step,
)
