"""Explanations of failed installs by uv, each in one sentence, from its words."""

import re
from collections.abc import Callable
from itertools import pairwise

from kaos_hub.service.builds.log import REQUIREMENTS, BuildLog, name_of


def _reason(log: BuildLog) -> str:
    """Return why uv finds no solution, on one line; empty if it does not say so."""
    found = re.search(r"cause: (Because (?:.*\n?)+?)(?=\s*hint:|\s*cause:|\Z|\n\n)", log.text)
    return " ".join(found[1].split()) if found and "No solution found" in log.text else ""


_REASONS = (
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


def _no_version(log: BuildLog) -> str | None:
    reason = _reason(log)
    for pattern, text in _REASONS:
        found = re.search(pattern, reason)
        if found:
            where = log.requirement(name_of(found["asked"]))
            return f"{where}: {text.format(**found.groupdict())}"
    return None


def _syntax(log: BuildLog) -> str | None:
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


def _conflict(log: BuildLog) -> str | None:
    reason = _reason(log)
    if not reason:
        return None
    asked = re.search(r"you require ([A-Za-z0-9._-]+)", reason)
    where = log.requirement(asked[1]) if asked else REQUIREMENTS[0]
    why = re.sub(r", we can conclude.*", "", reason.removeprefix("Because "))
    return f"{where}: the requirements contradict each other: {why}"


def _not_built(log: BuildLog) -> str | None:
    found = log.find(r"Failed to (?:build|download and build) `([^`]+)`")
    if not found:
        return None
    said = re.search(r"\[stderr\]\n((?:.*\n?)+)", log.text)
    lines = [line.strip() for line in said[1].splitlines() if line.strip()] if said else []
    errors = [line for line in lines if re.match(r"\w*(Error|Exception)\b|error:|fatal", line)]
    told = next(iter([*errors[-1:], *lines]), "")
    why = f": {told[:200]}" if told else ""
    return f"{log.requirement(name_of(found[1]))}: {found[1]} cannot be built{why}"


def _no_file(log: BuildLog) -> str | None:
    found = log.find(r"^error: File not found: `?([^`\n]+)`?")
    return f"there is no file {found[1]}" if found else None


def _hash(log: BuildLog) -> str | None:
    found = log.find(r"Hash mismatch for `([^`]+)`")
    if not found:
        short = log.find(r"^error: (Invalid hash digest .+)")
        return f"{log.line('--hash')}: {short[1]}" if short else None
    computed = re.search(r"Computed:\s+(\S+)", log.text)
    has = f" (the file in the index has {computed[1]})" if computed else ""
    return (
        f"{log.requirement(name_of(found[1]))}: the hash of {found[1]} is not the one that is asked"
        f" for{has}"
    )


def _elsewhere(log: BuildLog) -> str | None:
    found = log.find(r"Distribution not found at: file://(\S+)")
    if not found:
        return None
    path = found[1]
    where = log.line(path, path.rpartition("/")[2])
    if "/croot/" in path or "/feedstock_root/" in path:
        return (
            f"{where}: {path} is a folder of the machine on which conda built the package; write"
            " the package's name and version instead (pip list --format=freeze does)"
        )
    return f"{where}: there is nothing at {path}"


def _encoding(log: BuildLog) -> str | None:
    found = log.find(r"failed to decode file `([^`]+)`|stream did not contain valid UTF-8")
    if not found:
        return None
    where = log.line("\N{REPLACEMENT CHARACTER}", file=found[1])
    return f"{where}: is not UTF-8 (Latin-1?); save the file as UTF-8"


def _included(log: BuildLog) -> str | None:
    found = log.find(
        r"Error parsing included file in `([^`]+)` at position (\d+)\n\s*cause: failed to read"
        r" from file `(?:[^`]*/)?([^`/]+)`: (.+?)(?: \(os error|$)"
    )
    if not found:
        return None
    path = log.file(found[1])
    before = (log.read(path) or "").encode()[: int(found[2])]
    return f"{path}:{before.count(10) + 1}: {found[3]} cannot be read: {found[4]}"


def _unexpected(log: BuildLog) -> str | None:
    found = log.find(r"^error: (.+): (\S+\.(?:txt|in)):(\d+):\d+$")
    return f"{log.file(found[2])}:{found[3]}: {found[1]}" if found else None


def _bad_wheel(log: BuildLog) -> str | None:
    found = log.find(r"The wheel filename `([^`]+)` is invalid: (.+)")
    return f"{log.line(found[1])}: {found[1]} is no name of a wheel: {found[2]}" if found else None


def _git(log: BuildLog) -> str | None:
    if not log.find(r"Git operation failed"):
        return None
    url = log.find(r"(?:Updating|--update-head-ok|clone) '?((?:https?|ssh|git|file)://[^\s']+)")
    said = log.find(r"fatal: (.+)")
    where = log.line(url[1]) if url else REQUIREMENTS[0]
    return f"{where}: git cannot fetch it" + (f": {said[1][:200]}" if said else "")


def _unreachable(log: BuildLog) -> str | None:
    if not log.find(r"^error: (?:Request failed after|Failed to (?:fetch|download))"):
        return None
    url = log.find(r"(?:Failed to fetch: |request for url \()`?(https?://[^\s`)]+)")
    why = [m[1] for m in map(re.compile(r"^\s*cause: (.+)").match, log.lines) if m]
    if not url or not why:
        return None
    project = re.search(r"/simple/([^/]+)/?$", url[1])
    where = log.requirement(project[1]) if project else log.line(url[1])
    refused = re.search(r"HTTP status (?:client|server) error \((.+?)\)", log.text)
    if refused:
        return f"{where}: {url[1]} answers {refused[1]}"
    return f"{where}: {url[1]} does not answer: {why[-1][:200]}"


Look = Callable[[BuildLog], str | None]
BEFORE_PIP: tuple[Look, ...] = (
    _hash, _elsewhere, _encoding, _included, _unexpected, _bad_wheel, _git, _syntax, _no_file,
    _no_version, _not_built, _unreachable,
)  # fmt: skip
AFTER_PIP: tuple[Look, ...] = (_conflict,)
