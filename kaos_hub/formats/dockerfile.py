"""Reading Dockerfiles: instructions with their lines, base images, and what is copied from where.

Nothing here ever changes a user's Dockerfile. What cannot be understood is left as unknown, and
those who ask then assume the worst.
"""

import csv
import fnmatch
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from e2b_dockerfile_utils import (
    DockerfileAst,
    DockerfileInstruction,
    DockerfileSyntaxError,
    ShellLex,
    parse_dockerfile_ast,
)

from kaos_hub.errors import Unsupported
from kaos_hub.formats.dockerfile_arguments import Arguments

_DIRECTIVE = re.compile(r"#\s*kaos:\s*([a-z]+)\s*=(.*)")
_WILD = re.compile(r"[*?\[]")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9\-_.]*")


@dataclass(frozen=True)
class Instruction:
    """An instruction: ``word`` in capitals, flags given as ``--name=value``, and the rest."""

    word: str
    value: str
    """The rest as it is written, on one line, with the text of heredocs."""
    flags: Mapping[str, str]
    line: int
    """The line where it begins, counted from 1."""
    arguments: tuple[str, ...] = ()
    """The rest as the builder takes it apart; quotes and variables stand as written."""
    executed: bool = False
    """True if the rest is a list in JSON."""
    heredoc: bool = False
    """True if text follows that this module does not understand."""


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
        """True if it copies, or may copy, the whole context."""
        return self.unknown or "" in self.sources

    def files(self, context: Iterable[str]) -> set[str]:
        """Return the files of the context that it copies; more rather than fewer."""
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
    parent: int | None = None
    """The stage it goes on from, counted from 0."""


def instructions(text: str) -> list[Instruction]:
    """All instructions in order, without comments; up to the first that cannot be read."""
    try:
        return [_instruction(item) for item in parse_dockerfile_ast(text).instructions]
    except DockerfileSyntaxError as e:
        lines = text.splitlines(keepends=True)
        number = min(e.line or 1, len(lines))
        word, rest = [*lines[number - 1].split(None, 1), "", ""][:2]
        before = instructions("".join(lines[: number - 1]))
        return [*before, Instruction(word.upper(), rest.strip(), {}, number)]


def _parse(text: str) -> DockerfileAst:
    try:
        return parse_dockerfile_ast(text)
    except DockerfileSyntaxError as e:
        problem = str(e).partition(": ")[2] or str(e)
        raise Unsupported(f"Dockerfile:{e.line or 1}: {problem}") from None


def _instruction(item: DockerfileInstruction) -> Instruction:
    flags: dict[str, str] = {}
    for flag in item.flags:
        name, _, value = flag.removeprefix("--").partition("=")
        flags[name] = " ".join(filter(None, [flags.get(name), value]))
    rest = item.original.strip()
    for _ in range(len(item.flags) + 1):
        rest = [*rest.split(None, 1), ""][1]
    text = "\n".join([rest, *(h.content for h in item.heredocs)])
    return Instruction(
        word=item.name,
        value=text.strip(),
        flags=flags,
        line=item.start_line,
        arguments=tuple(item.args),
        executed=item.json,
        heredoc=bool(item.heredocs),
    )


def directives(text: str) -> dict[str, tuple[str, int]]:
    """The ``# kaos: name=value`` comments at the head: name → (value, line)."""
    found = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if not line.strip().startswith("#"):
            break
        match = _DIRECTIVE.fullmatch(line.strip())
        if match:
            found[match[1]] = (match[2].strip(), number)
    return found


def stages(text: str, platform: str = "linux/amd64", classic: bool = False) -> list[Stage]:
    """The build stages in order.

    Args:
        text: of the Dockerfile.
        platform: that it is built for and on, as ``OS/ARCHITECTURE[/VARIANT]``.
        classic: whether the builder is the Docker Engine's classic one, without BuildKit.

    Raises:
        Unsupported: there is none, or it cannot be told what one begins from; names the line.
    """
    parsed = _parse(text)
    arguments = Arguments(parsed.escape_token, platform, classic)
    found: list[Stage] = []
    if not any(item.name == "FROM" for item in parsed.instructions):
        raise Unsupported("Dockerfile:1: there is no FROM line; begin with FROM python:3.13-slim")
    for instruction in map(_instruction, parsed.instructions):
        if instruction.word == "FROM":
            found.append(_stage(instruction, arguments, found))
        elif found:
            last = found[-1]
            found[-1] = replace(last, instructions=(*last.instructions, instruction))
        elif instruction.word == "ARG":
            arguments.declare(instruction.arguments, instruction.line)
        else:
            raise Unsupported(
                f"Dockerfile:{instruction.line}: {instruction.word} stands before the first FROM"
            )
    return found


def _stage(instruction: Instruction, arguments: Arguments, before: list[Stage]) -> Stage:
    line, parts = instruction.line, instruction.arguments
    if len(parts) not in (1, 3) or (len(parts) == 3 and parts[1].lower() != "as"):
        raise Unsupported(f"Dockerfile:{line}: a FROM line says FROM image, or FROM image AS name")
    name = parts[2].lower() if len(parts) == 3 else ""
    if name and not _STAGE_NAME.fullmatch(name):
        raise Unsupported(f"Dockerfile:{line}: {parts[2]} cannot be the name of a stage")
    image = arguments.expand(parts[0], line)
    _check_platform(instruction, arguments)
    names = {stage.name: number for number, stage in enumerate(before) if stage.name}
    if image.lower() in names:
        return Stage(None, name, line, (), names[image.lower()])
    missing = arguments.without_value(parts[0])
    if missing and (not image or image[-1] in ":/@-._" or image[0] in ":/@-._"):
        raise Unsupported(
            f"Dockerfile:{line}: FROM needs the argument {missing[0]}, which has no default"
            + arguments.advice(missing[0])
        )
    if not image:
        raise Unsupported(f"Dockerfile:{line}: FROM names no image")
    return Stage(None if image == "scratch" else image, name, line, ())


def _check_platform(instruction: Instruction, arguments: Arguments) -> None:
    platform = instruction.flags.get("platform")
    if platform is None:
        return
    if not arguments.expand(platform, instruction.line):
        missing = arguments.without_value(platform)
        name = missing[0] if missing else "PLATFORM"
        raise Unsupported(
            f"Dockerfile:{instruction.line}: --platform needs the argument {name}, which has no"
            f" default{arguments.advice(name)}"
        )


def final_base(dockerfile: str, platform: str = "linux/amd64", classic: bool = False) -> str:
    """The image that the last stage is built on, through other stages; empty for ``scratch``.

    Raises:
        Unsupported: the Dockerfile has none that can be told.
    """
    found = stages(dockerfile, platform, classic)
    stage = found[-1]
    while stage.parent is not None:
        stage = found[stage.parent]
    return stage.base or ""


def built(found: list[Stage]) -> list[Stage]:
    """The stages that BuildKit and buildah build: the last one, and what that needs."""
    wanted: set[int] = set()
    waiting = [len(found) - 1]
    names = {str(number): number for number in range(len(found))}
    while waiting:
        number = waiting.pop()
        if number in wanted:
            continue
        wanted.add(number)
        stage = found[number]
        earlier = names | {s.name: n for n, s in enumerate(found[:number]) if s.name}
        origins = [name for i in stage.instructions for name in _origins(i)]
        waiting += [earlier[o.lower()] for o in origins if earlier.get(o.lower(), number) < number]
        waiting += [] if stage.parent is None else [stage.parent]
    return [stage for number, stage in enumerate(found) if number in wanted]


def _origins(instruction: Instruction) -> list[str]:
    """The stages or images that an instruction takes files out of."""
    mounts = instruction.flags.get("mount", "").split() if instruction.word == "RUN" else []
    fields = [field for mount in mounts for field in next(csv.reader([mount]), [])]
    mounted = [f.partition("=")[2] for f in fields if f.lower().startswith("from=")]
    copied = instruction.flags.get("from", "") if instruction.word in ("COPY", "ADD") else ""
    return [name for name in (copied, *mounted) if name]


def images_copied_from(found: Iterable[Stage], only: Iterable[Stage] | None = None) -> list[str]:
    """Images that COPY --from and RUN --mount=from= take files out of, besides the bases.

    Args:
        found: all stages.
        only: those that count; all if not given.
    """
    images: list[str] = []
    known: set[str] = set()
    lines = None if only is None else {stage.line for stage in only}
    for number, stage in enumerate(found):
        if lines is None or stage.line in lines:
            names = [name for i in stage.instructions for name in _origins(i)]
            images += [n for n in names if n.lower() not in known and not n.isdigit()]
        known |= {stage.name, str(number), "scratch"}
    return images


def copies(stage: Stage) -> list[Copy]:
    """List a stage's copies out of the build context, with absolute targets ("" if not known)."""
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
    words = _words(instruction)
    if instruction.heredoc or words is None or len(words) < 2:
        return Copy((), "", instruction.line, unknown=True)
    *sources, target = words
    local = [s for s in sources if not re.match(r"(https?|git|ssh)://|git@", s)]
    if not local:
        return None
    unknown = any("$" in source for source in local) or "exclude" in instruction.flags
    paths = tuple(posixpath.normpath("/" + s).lstrip("/") for s in local)
    return Copy(paths, join(directory, target), instruction.line, unknown)


def _words(instruction: Instruction) -> list[str] | None:
    if instruction.executed:
        return list(instruction.arguments)
    try:
        return [str(ShellLex("\\").process_word(word)) for word in instruction.arguments]
    except ValueError:
        return None


def join(directory: str, path: str) -> str:
    """``path`` seen from ``directory``, both in a container; "" if that cannot be told."""
    if "$" in path or not (directory or path.startswith("/")):
        return ""
    return posixpath.normpath(posixpath.join(directory or "/", path))


def _matches(path: str, pattern: str) -> bool:
    """Return whether a source of a COPY takes in a file: itself, or the directory it lies in."""
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


def warnings(dockerfile: str, classic: bool = True, buildah: bool = False) -> list[str]:
    """List what the builder will ignore, each as ``Dockerfile:LINE: …``."""
    lines = dockerfile.removeprefix("\ufeff").splitlines()
    if (classic or buildah) and lines and re.match(r"#\s*syntax\s*=", lines[0].strip()):
        return ["Dockerfile:1: the builder here ignores `# syntax=`"]
    return []


def refusals(
    dockerfile: str, classic: bool = True, platform: str = "linux/amd64", buildah: bool = False
) -> list[str]:
    """List why it cannot be built, each as ``Dockerfile:LINE: …``; empty if no reason is known.

    Args:
        dockerfile: its text.
        classic: whether the builder is the Docker Engine's classic one, without BuildKit.
        platform: that it is built for.
        buildah: whether the builder is buildah.
    """
    try:
        found_stages = stages(dockerfile, platform, classic)
    except Unsupported as e:
        return [e.message]
    return [
        f"Dockerfile:{instruction.line}: {what}"
        for instruction in (i for stage in found_stages for i in stage.instructions)
        for what in _beyond(instruction, classic, buildah)
    ]


_BUILDKIT_FLAGS = {
    "RUN": ("mount", "network", "security"),
    "COPY": ("chmod", "link", "parents", "exclude"),
    "ADD": ("chmod", "link", "checksum", "keep-git-dir", "exclude"),
}
_BEYOND_BUILDAH = {
    "RUN": {"security": "", "device": ""},
    "COPY": {"link": "the image is the same without it", "parents": "copy folder by folder"},
    "ADD": {"link": "the image is the same without it", "keep-git-dir": "", "unpack": ""},
}


def _beyond(instruction: Instruction, classic: bool, buildah: bool) -> list[str]:
    if classic:
        return _beyond_classic(instruction)
    return _beyond_buildah(instruction) if buildah else []


def _beyond_classic(instruction: Instruction) -> list[str]:
    wanted = _BUILDKIT_FLAGS.get(instruction.word, ())
    found = [f"{instruction.word} --{flag}" for flag in wanted if flag in instruction.flags]
    found += ["a heredoc (<<)"] if instruction.heredoc else []
    return [
        f"{what} needs BuildKit, which this Docker Engine does not have (the admin can install"
        " docker-buildx)"
        for what in found
    ]


def _beyond_buildah(instruction: Instruction) -> list[str]:
    word, flags = instruction.word, instruction.flags
    found = [
        f"the builder here does not know {word} --{flag}{f'; {advice}' if advice else ''}"
        for flag, advice in _BEYOND_BUILDAH.get(word, {}).items()
        if flag in flags
    ]
    if word in ("COPY", "ADD") and re.search("[a-zA-Z]", flags.get("chmod", "")):
        found.append(f"the builder here wants a number in {word} --chmod, as in --chmod=755")
    return found
