"""Reading Dockerfiles: instructions with their lines, base images, and what is copied from where.

Nothing here ever changes a user's Dockerfile. What cannot be understood is left as unknown, and
those who ask then assume the worst.
"""

import fnmatch
import io
import json
import posixpath
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dockerfile_parse import DockerfileParser

from kaos_hub.errors import Unsupported

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-([^}]*))?\})")
_FLAG = re.compile(r"--([a-z-]+)(?:=(\S+))?\s+")
_DIRECTIVE = re.compile(r"#\s*kaos:\s*([a-z]+)\s*=\s*(.*?)\s*")
_HEREDOC = re.compile(r"(?<!<)<<(?!<)-?\s*[\"']?[A-Za-z_]\w*")
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Instruction:
    """An instruction: ``word`` in capitals, flags given as ``--name=value``, and the rest."""

    word: str
    value: str
    flags: Mapping[str, str]
    line: int
    """Where it begins, counted from 1."""

    @property
    def heredoc(self) -> bool:
        """Whether text follows that this module does not understand."""
        return self.word in ("RUN", "COPY", "ADD") and _HEREDOC.search(self.value) is not None


@dataclass(frozen=True)
class Copy:
    """A COPY or ADD out of the build context."""

    sources: tuple[str, ...]
    """Relative to the context, normalised; "" is the whole context."""
    target: str
    line: int
    unknown: bool = False
    """Some source cannot be told from the text alone."""

    @property
    def everything(self) -> bool:
        """Whether it copies the whole context."""
        return self.unknown or "" in self.sources

    def files(self, context: Iterable[str]) -> set[str]:
        """Which of the context's files it copies; more rather than fewer."""
        if self.everything:
            return set(context)
        return {path for path in context if any(_matches(path, s) for s in self.sources)}


@dataclass(frozen=True)
class Stage:
    """A build stage: ``base`` is an image, or None where it is an earlier stage or nothing."""

    base: str | None
    name: str
    line: int
    instructions: tuple[Instruction, ...]


def instructions(text: str) -> list[Instruction]:
    """All instructions in order, without comments."""
    parser = DockerfileParser(fileobj=io.BytesIO(text.encode("utf-8", "surrogateescape")))
    return [
        _instruction(item["instruction"], item["value"], item["startline"] + 1)
        for item in parser.structure
        if item["instruction"] != "COMMENT"
    ]


def _instruction(word: str, value: str, line: int) -> Instruction:
    flags: dict[str, str] = {}
    while word != "CMD" and (match := _FLAG.match(value + " ")):
        flags[match[1]] = " ".join(filter(None, [flags.get(match[1]), match[2]]))
        value = value[match.end() :]
    return Instruction(word, value.strip(), flags, line)


def directives(text: str) -> dict[str, tuple[str, int]]:
    """The ``# kaos: name=value`` comments at the head: name → (value, line)."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip().startswith("#"):
            break
        match = _DIRECTIVE.fullmatch(line.strip())
        if match:
            found[match[1]] = (match[2], number)
    return found


def stages(text: str) -> list[Stage]:
    """The build stages in order.

    Raises:
        Unsupported: there is none, or a base depends on an ARG without a default.
    """
    found: list[Stage] = []
    arguments: dict[str, str] = {}
    body: list[Instruction] = []
    for instruction in instructions(text):
        if instruction.word == "FROM":
            base, name = _base(instruction, arguments, {s.name for s in found if s.name})
            body = []
            found.append(Stage(base, name, instruction.line, ()))
        elif found:
            body.append(instruction)
            found[-1] = Stage(found[-1].base, found[-1].name, found[-1].line, tuple(body))
        elif instruction.word == "ARG":
            name, has_default, default = instruction.value.partition("=")
            if has_default:
                arguments[name.strip()] = default.strip().strip("\"'")
    if not found:
        raise Unsupported("Dockerfile:1: there is no FROM line; begin with FROM python:3.13-slim")
    return found


def _base(
    instruction: Instruction, arguments: Mapping[str, str], known: set[str]
) -> tuple[str | None, str]:
    image, _, rest = instruction.value.partition(" ")
    name = rest.split()[-1].lower() if rest.strip().lower().startswith("as ") else ""

    def replace(match: re.Match[str]) -> str:
        variable, default = match[1] or match[2], match[3]
        if variable not in arguments and default is None:
            raise Unsupported(
                f"Dockerfile:{instruction.line}: FROM needs the argument {variable}, which has no"
                f" default; write ARG {variable}=… above it"
            )
        return arguments.get(variable) or default or ""

    image = _VARIABLE.sub(replace, image)
    return (None if image.lower() == "scratch" or image.lower() in known else image), name


def images_copied_from(found: Iterable[Stage]) -> list[str]:
    """Images that COPY --from and RUN --mount=from= take files out of, besides the bases."""
    images: list[str] = []
    known: set[str] = set()
    for number, stage in enumerate(found):
        for instruction in stage.instructions:
            origin = instruction.flags.get("from", "")
            mounted = re.findall(r"\bfrom=([^,\s]+)", instruction.flags.get("mount", ""))
            for name in filter(None, [origin, *mounted]):
                if name.lower() not in known and not name.isdigit():
                    images.append(name)
        known |= {stage.name, str(number)}
    return images


def copies(stage: Stage) -> list[Copy]:
    """What a stage copies out of the build context, with absolute targets ("" if not known)."""
    found = []
    directory = "" if stage.base else "/"
    for instruction in stage.instructions:
        if instruction.word == "WORKDIR":
            directory = join(directory, instruction.value.strip("\"'"))
        elif instruction.word in ("COPY", "ADD") and "from" not in instruction.flags:
            copy = _copy(instruction, directory)
            if copy is not None:
                found.append(copy)
    return found


def _copy(instruction: Instruction, directory: str) -> Copy | None:
    words = _words(instruction.value)
    if instruction.heredoc or words is None or len(words) < 2:
        return Copy((), "", instruction.line, unknown=True)
    *sources, target = words
    local = [s for s in sources if not re.match(r"(https?|git|ssh)://|git@", s)]
    if not local:
        return None
    unknown = any("$" in source for source in local) or "exclude" in instruction.flags
    paths = tuple(posixpath.normpath("/" + s).lstrip("/") for s in local)
    return Copy(paths, join(directory, target), instruction.line, unknown)


def _words(value: str) -> list[str] | None:
    try:
        if value.startswith("["):
            return [str(word) for word in json.loads(value)]
        return shlex.split(value)
    except ValueError:
        return None


def join(directory: str, path: str) -> str:
    """``path`` seen from ``directory``, both in a container; "" if that cannot be told."""
    if "$" in path or not (directory or path.startswith("/")):
        return ""
    return posixpath.normpath(posixpath.join(directory or "/", path))


def _matches(path: str, pattern: str) -> bool:
    """Whether a source of a COPY takes in a file: itself, or the directory it lies in."""
    if "**" in pattern:
        return path.startswith(pattern[: pattern.index("**")].rpartition("/")[0])
    wanted, parts = pattern.split("/"), path.split("/")
    if len(parts) < len(wanted):
        return False
    return all(_part_matches(part, want) for part, want in zip(parts, wanted, strict=False))


def _part_matches(part: str, wanted: str) -> bool:
    if not _WILD.search(wanted):
        return part == wanted
    return fnmatch.fnmatchcase(part, wanted.replace("[^", "[!"))


def warnings(dockerfile: str, classic: bool = True) -> list[str]:
    """What the builder will ignore, each as ``Dockerfile:LINE: …``."""
    lines = dockerfile.splitlines()
    if classic and lines and re.match(r"#\s*syntax\s*=", lines[0].strip()):
        return ["Dockerfile:1: this Docker Engine's builder ignores `# syntax=`"]
    return []


def refusals(dockerfile: str, classic: bool = True) -> list[str]:
    """Why it cannot be built, each as ``Dockerfile:LINE: …``; empty if nothing is known against it.

    Args:
        dockerfile: its text.
        classic: whether the builder is the Docker Engine's classic one, without BuildKit.
    """
    try:
        found_stages = stages(dockerfile)
    except Unsupported as e:
        return [e.message]
    if not classic:
        return []
    found = []
    for instruction in (i for stage in found_stages for i in stage.instructions):
        for what in _beyond_classic(instruction):
            found.append(
                f"Dockerfile:{instruction.line}: {what} needs BuildKit, which this Docker Engine"
                " does not have (the admin can install docker-buildx)"
            )
        if instruction.heredoc:
            break  # what follows is its text, not instructions
    return found


_BUILDKIT_FLAGS = {
    "RUN": ("mount", "network", "security"),
    "COPY": ("chmod", "link", "parents", "exclude"),
    "ADD": ("chmod", "link", "checksum", "keep-git-dir", "exclude"),
}


def _beyond_classic(instruction: Instruction) -> list[str]:
    wanted = _BUILDKIT_FLAGS.get(instruction.word, ())
    found = [f"{instruction.word} --{flag}" for flag in wanted if flag in instruction.flags]
    return [*found, *(["a heredoc (<<)"] if instruction.heredoc else [])]
