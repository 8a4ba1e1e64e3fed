"""Plans of builds: from a source bundle's Dockerfile to a key that tells if it is built already.

The key holds all that the build's steps can see: the resolved base images, the Dockerfile, every
file copied before the last RUN, the platform. What is copied after the last RUN is code. Where the
code is the whole context in one directory, newer code is mounted there and nothing is built again.
What cannot be told from the text counts as part of the environment: rather a build too many than an
old one too many.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3

from kaos_hub.errors import Unsupported
from kaos_hub.formats import dockerfile as reading
from kaos_hub.formats.dockerfile import Copy, Instruction, Stage, final_base, refusals, warnings
from kaos_hub.service.builds.diagnosis import explain_failure

__all__ = [
    "Plan",
    "analyse",
    "explain_failure",
    "final_base",
    "image_name",
    "local_key",
    "refusals",
    "short_key",
    "warnings",
    "why_rebuilt",
]

CODE = "/opt/program"
"""The path of the code in an image that does not copy it anywhere."""

_INSTALLS = re.compile(
    r"\s*(?:(?:pip3?|python3?\s+-m\s+pip|uv\s+pip|apt-get|apt|conda|mamba|micromamba|npm)\b"
    r"|(?:useradd|groupadd|adduser|addgroup|usermod|locale-gen|update-ca-certificates)\b"
    r"|rm\s+-rf?\s+/(?:var|root/\.cache)|set\s+-|true\b|export\b).*",
    re.DOTALL,
)
"""Commands that leave nothing in the directory they run in…"""
_ELSEWHERE = re.compile(r"\s(?:-t|-p|-e|--target|--prefix|--root|--editable|\.)(?:[\s=]|$)|>")
"""…unless they are told to."""
_LEADS_ON = re.compile(
    r"^[^\S\n]*+(?:-[rce]|--(?:requirement|constraint|editable|find-links)\b|-f|[^#\s]*[/\\]"
    r"|\.(?:\s|$|\[)|[^#\n]*@[^\S\n]*file:|[^#\s]+\.(?:whl|zip|tar\.gz)\b)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Plan:
    """The plan of a bundle's build.

    ``environment`` and ``code`` are paths in the bundle with their digests: what a rebuild depends
    on, and what is copied after that.
    """

    context: str
    """The folder of the bundle that is the build context: ``model``, or ``.`` for all of it."""
    bases: tuple[str, ...]
    """The images to resolve: those of all stages, and those files are copied from."""
    dockerfile: str
    """Digest of its text."""
    environment: Mapping[str, str]
    code: Mapping[str, str]
    code_overlay: str | None = None
    """The path in the container where newer code may be mounted instead of a rebuild."""
    advice: tuple[str, ...] = field(default=())
    """Hints for people on how the bundle could be built less often."""

    def key(self, bases: Mapping[str, str], platform: str) -> tuple[str, dict[str, Any]]:
        """The key of the image, and (as JSON) all that it was made of.

        Args:
            bases: what each of :attr:`bases` was resolved to.
            platform: what it is built for, e.g. ``linux/amd64``.
        """
        inputs = self.environment_inputs(bases, platform)
        if not self.code_overlay:
            inputs["code"] = dict(self.code)
        return short_key(inputs), inputs

    def environment_key(self, bases: Mapping[str, str], platform: str) -> str:
        """The key without the code: what the steps of the build can see."""
        return short_key(self.environment_inputs(bases, platform))

    def environment_inputs(self, bases: Mapping[str, str], platform: str) -> dict[str, Any]:
        """Return what :meth:`environment_key` is made of."""
        return {
            "format": 1,
            "platform": platform,
            "context": self.context,
            "dockerfile": self.dockerfile,
            "bases": {base: bases[base] for base in self.bases},
            "files": dict(self.environment),
        }


def short_key(value: object) -> str:
    """A key, 32 hex digits, of anything JSON can say."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return blake3(text.encode("utf-8", "surrogatepass")).hexdigest(length=16)


def image_name(owner: str, key: str) -> str:
    """Return the name of an owner's image, which no other owner's builds ever meet."""
    return f"kaos-hub/{hashlib.sha256(owner.encode()).hexdigest()[:16]}:{key}"


def local_key(
    requirements: str | bytes | None,
    python: str,
    platform: str,
    files: Mapping[str, str] | None = None,
) -> tuple[str, dict[str, Any]]:
    """The key of an environment without an image, and what it was made of.

    Args:
        requirements: the text of ``requirements.txt``; None if there is none.
        python: which interpreter, as something that never changes its meaning.
        platform: what it is built for.
        files: every file of the bundle with its digest. If the requirements lead to other files
            (``-r more.txt``, ``-e .``, a path), all of ``model/`` counts.
    """
    if isinstance(requirements, str):
        requirements = requirements.encode("utf-8", "surrogateescape")
    digest = None if requirements is None else blake3(requirements).hexdigest()
    seen = {} if digest is None else {"model/requirements.txt": digest}
    if files is not None and _LEADS_ON.search((requirements or b"").decode(errors="replace")):
        seen |= {path: d for path, d in sorted(files.items()) if path.startswith("model/")}
    inputs = {"format": 1, "platform": platform, "bases": {"python": python}, "files": seen}
    return short_key(inputs), inputs


def analyse(
    dockerfile: str,
    files: Mapping[str, str],
    context: str = "model",
    platform: str = "linux/amd64",
    classic: bool = False,
) -> Plan:
    """Find out what a bundle's build depends on.

    Args:
        dockerfile: its text.
        files: every file of the bundle → something that changes when its content or mode does.
        context: the folder that is the build context, if the Dockerfile doesn't say
            ``# kaos: context=.``.
        platform: that it is built for.
        classic: whether the builder is the Docker Engine's classic one, which builds all stages.

    Raises:
        Unsupported: it cannot be built; names the line.
    """
    directives = reading.directives(dockerfile)
    context = _context(directives, context)
    stages = reading.stages(dockerfile, platform, classic)
    seen = _in_context(files, context)
    last_run = max((i.line for s in stages for i in s.instructions if i.word == "RUN"), default=0)
    copies = [copy for stage in stages for copy in reading.copies(stage)]
    declared = directives.get("environment")
    before = [c for c in copies if c.line < last_run]
    needed = _needed(stages, before, seen, declared, last_run)
    copied = set().union(*(c.files(seen) for c in copies)) - needed
    overlay = _overlay(stages, copies, last_run, seen, declared is not None)
    return Plan(
        context=context,
        bases=tuple(dict.fromkeys(_bases(stages, classic))),
        dockerfile=blake3(dockerfile.encode("utf-8", "surrogateescape")).hexdigest(),
        environment=_in_bundle(files, context, needed),
        code=_in_bundle(files, context, copied),
        code_overlay=overlay,
        advice=tuple(_advice(stages, before, seen, last_run, declared, overlay)),
    )


def _context(directives: Mapping[str, tuple[str, int]], default: str) -> str:
    context, line = directives.get("context", (default, 0))
    if context in (".", "./"):
        return "."
    if context.rstrip("/") == default:
        return default
    raise Unsupported(
        f"Dockerfile:{line}: the build context is {default} or . (the whole bundle), not {context}"
    )


def _in_context(files: Mapping[str, str], context: str) -> set[str]:
    if context == ".":
        return set(files)
    return {p.removeprefix(f"{context}/") for p in files if p.startswith(f"{context}/")}


def _in_bundle(files: Mapping[str, str], context: str, paths: set[str]) -> dict[str, str]:
    prefix = "" if context == "." else f"{context}/"
    return {prefix + path: files[prefix + path] for path in sorted(paths)}


def _bases(stages: list[Stage], classic: bool = True) -> list[str]:
    """The images that all stages take something from, or only those that are built."""
    wanted = stages if classic else reading.built(stages)
    return [s.base for s in wanted if s.base] + reading.images_copied_from(stages, wanted)


def _needed(
    stages: list[Stage],
    before: list[Copy],
    seen: set[str],
    declared: tuple[str, int] | None,
    last_run: int,
) -> set[str]:
    """The files that the build's steps can see, as paths in the context."""
    rules = {".dockerignore"} & seen
    if declared is not None:
        return rules | _declared(declared, seen)
    if not last_run:
        return rules
    if any("onbuild" in base for base in _bases(stages)) or any(_opaque(s) for s in stages):
        return set(seen)
    return rules.union(*(copy.files(seen) for copy in before))


def _declared(declared: tuple[str, int], seen: set[str]) -> set[str]:
    text, line = declared
    wanted = [w for w in re.split(r"[\s,]+", text) if w]
    found: set[str] = set()
    for path in wanted:
        matched = Copy((posixpath.normpath(path),), "", line).files(seen)
        if not matched:
            raise Unsupported(
                f"Dockerfile:{line}: environment={text}: there is no {path} in the build context"
            )
        found |= matched
    return found


def _opaque(stage: Stage) -> bool:
    """Return whether a stage holds what this module cannot see through."""
    return any(i.heredoc or _binds(i) for i in stage.instructions)


def _binds(instruction: Instruction) -> bool:
    """Return whether a RUN mounts files of the build context, as a mount without a type does."""
    mount = instruction.flags.get("mount")
    return mount is not None and ("type=" not in mount or "type=bind" in mount)


def _overlay(
    stages: list[Stage], copies: list[Copy], last_run: int, seen: set[str], declared: bool
) -> str | None:
    """Return where the whole context lies, if newer code mounted there shows what a build would."""
    final = stages[-1]
    if ".dockerignore" in seen or any(_opaque(s) for s in stages):
        return None
    whole = [c for c in reading.copies(final) if c.sources == ("",) and not c.unknown]
    if declared:
        return (whole[-1].target or None) if whole and whole[-1].target != "/" else None
    after = [c for c in copies if c.line > last_run]
    if not after and CODE not in _without_workdirs(final):
        target = CODE
    elif len(after) == 1 and after[0] in whole and after[0].target not in ("", "/"):
        target = after[0].target
    else:
        return None
    return None if _filled_otherwise(final, target, last_run, seen) else target


def _without_workdirs(stage: Stage) -> str:
    return "\n".join(i.value for i in stage.instructions if i.word != "WORKDIR")


def _filled_otherwise(stage: Stage, target: str, last_run: int, seen: set[str]) -> bool:
    """Return whether a stage may put something into ``target`` that a mount over it would hide."""
    directory = "" if stage.base else "/"
    named = re.compile(rf"{re.escape(target)}(?![\w.-])")
    for i in stage.instructions:
        if i.word == "WORKDIR":
            directory = reading.join(directory, i.value)
        elif i.word == "RUN":
            here = not directory or _within(directory, target) or _within(target, directory)
            if named.search(i.value) or (here and not _only_installs(i.value)):
                return True
        elif i.word in ("COPY", "ADD") and "from" in i.flags:
            to = reading.join(directory, i.value.split()[-1].strip("\"'[]"))
            if not to or _within(to, target):
                return True
    return any(
        _within(copy.target, target) and not _same_place(copy, target, seen)
        for copy in reading.copies(stage)
        if copy.line < last_run
    )


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def _same_place(copy: Copy, target: str, seen: set[str]) -> bool:
    """Return whether the copied files lie in ``target`` as they do in the context."""
    if copy.unknown:
        return False
    if [copy.target] == [f"{target}/{source}" for source in copy.sources]:
        return True
    # a file keeps its name below the target; of a folder only what is in it gets there
    places = {posixpath.dirname(source) for source in copy.sources}
    inside = {posixpath.dirname(path) for path in copy.files(seen)}
    return inside <= places and {f"{target}/{p}".rstrip("/") for p in places} == {copy.target}


def _only_installs(command: str) -> bool:
    steps = [step for step in re.split(r"&&|\|\||;|\n", command) if step.strip()]
    return all(_INSTALLS.fullmatch(step) and not _ELSEWHERE.search(step) for step in steps)


def _advice(
    stages: list[Stage],
    before: list[Copy],
    seen: set[str],
    last_run: int,
    declared: tuple[str, int] | None,
    overlay: str | None,
) -> list[str]:
    if declared is not None:
        if overlay:
            return []
        return [
            f"line {declared[1]} declares what the environment needs, but no line copies the whole"
            " folder to one directory, so changed code is still built into the image"
        ]
    whole = next((c for c in before if c.everything), None)
    if whole is not None:
        run = min(
            i.line
            for s in stages
            for i in s.instructions
            if i.word == "RUN" and i.line > whole.line
        )
        return [
            f"line {whole.line} copies all code before line {run} installs; move the requirements"
            " first, or declare `# kaos: environment=requirements.txt` in the first line"
        ]
    if last_run and any(_opaque(s) for s in stages):
        return ["a heredoc or a bind mount can see all files, so each change builds anew"]
    return []


def why_rebuilt(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Tell what made the key another one: a line for people, empty if the keys are the same.

    Args:
        old, new: what the keys were made of, from :meth:`Plan.key` or :func:`local_key`.
    """
    reasons = [
        *_changed(old.get("files", {}), new.get("files", {})),
        *(["Dockerfile changed"] if old.get("dockerfile") != new.get("dockerfile") else []),
        *(
            f"{name} is another {'interpreter' if name == 'python' else 'image'} now"
            for name, resolved in new.get("bases", {}).items()
            if old.get("bases", {}).get(name, resolved) != resolved
        ),
        *(["the platform changed"] if old.get("platform") != new.get("platform") else []),
        *_changed(old.get("code", {}), new.get("code", {})),
    ]
    more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return ", ".join(reasons[:3]) + more


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    words = []
    for path in sorted(old.keys() | new.keys()):
        if path not in old:
            words.append(f"{path} is new")
        elif path not in new:
            words.append(f"{path} is gone")
        elif old[path] != new[path]:
            words.append(f"{path} changed")
    return words
