"""The form in which one chooses what to start, and what it sends."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from kaos_hub.errors import InvalidRequest
from kaos_hub.hub.spawners import TEMPLATES
from kaos_hub.hub.spawners.admission import FormOptions
from kaos_hub.installation.addresses import SERVICES
from kaos_hub.schemas import (
    NOTEBOOK_NAME,
    NOTHING,
    BundleLink,
    Choices,
    IdleType,
    Size,
    parse_repository,
    variable_name,
)
from kaos_hub.util.quantities import (
    parse_cpu,
    parse_duration,
    parse_gpu,
    parse_memory,
    plural,
    show_memory,
)

PLAIN = (
    "source", "data", "context", "size", "cpu", "memory", "gpu", "pool",
    "idle_timeout", "idle_type", "display_name", "image",
    "git", "fresh",
)  # fmt: skip
LINES = ("environment", "volumes", "bind_mounts")
_PLACED = {
    "volumes": ("Volumes", "NAME", "volume", "path"),
    "bind_mounts": ("Folders of the machine", "FOLDER", "host_path", "container_path"),
}
FIELDS = (*PLAIN, *LINES)
"""Fields of a form (and thus of ``user_options``); the names are those of a notebook request."""

SECRET = ("environment", "git_credentials")
"""Fields that the Hub must not keep once they have been admitted."""

ONCE = ("fresh",)
"""Fields that hold for one start, and must not be kept for the next."""

_CHECKS: dict[str, Callable[[str], object]] = {
    "cpu": parse_cpu,
    "memory": parse_memory,
    "gpu": parse_gpu,
    "idle_timeout": parse_duration,
    # The Hub keeps what is sent: no password may be part of it.
    "git": lambda text: text if text == NOTHING else parse_repository(text),
}
_NAMED = ("source", "data", "context")
"""Bundles: each has a field for a name, too, where there are more than a list offers."""
_IDLE_TYPES = {
    IdleType.KERNELS_OR_TERMINALS: "no kernel and no terminal is open",
    IdleType.KERNEL_CONNECTIONS: "nobody is connected to a kernel",
    IdleType.ACTIVITY: "nothing is done in it",
}


@cache
def _template() -> Template:
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["memory"] = show_memory
    environment.filters["duration"] = show_duration
    environment.filters["link"] = _link
    environment.filters["plural"] = plural
    return environment.get_template("spawn_form.html")


def render_form(
    options: FormOptions | None, notebook: str, problem: str = "", prefix: str = "/"
) -> str:
    """The inside of the Hub's spawn form.

    Args:
        options: what can be chosen; None shows only the problem.
        notebook: the notebook's name; empty if it is not known.
        problem: why nothing can be chosen.
        prefix: of the Hub and its services, with slashes at both ends.
    """
    known: dict[str, Any] = {"service": f"{prefix}services/{SERVICES[0]}"}
    if options is not None:
        known |= {
            "sizes": list(_sizes(options)),
            "own": _own(options),
            "free": _free(options),
            "pools": list(_pools(options)),
            "mounts": ", ".join(options.mounts),
            "images": list(_images(options)),
            "placed": _placed_now(options),
            "not_here": _not_here(options),
            "last_time": _last_time(options, notebook),
        }
    return _template().render(
        options=options,
        notebook=notebook,
        problem=problem,
        idle_types=_IDLE_TYPES,
        name_pattern=NOTEBOOK_NAME,
        **known,
    )


# --- what is offered ---


@dataclass(frozen=True)
class OfferedSize:
    """A size in the form."""

    name: str
    text: str
    problem: str
    """The reason why it cannot be had now; empty if it can."""
    chosen: bool


def _sizes(options: FormOptions) -> Iterator[OfferedSize]:
    chosen = (
        "" if options.notebook else _size_of(options.last, options) or options.info.default_size
    )
    problems = {size.name: _too_much(size, options) for size in options.info.sizes}
    if problems.get(chosen):
        chosen = next((name for name, problem in problems.items() if not problem), "")
    if options.notebook is not None:
        chosen = ""
    for size in options.info.sizes:
        problem = problems[size.name]
        yield OfferedSize(size.name, _described(size), problem, size.name == chosen)


def _size_of(chosen: Choices | None, options: FormOptions) -> str:
    """The size that was chosen, if one was."""
    if chosen is None:
        return ""
    has = chosen.resources
    for size in options.info.sizes:
        if (size.cpu, size.memory, size.gpu) == (has.cpu, has.memory, has.gpu):
            return size.name
    return ""


def _described(size: Size) -> str:
    if size.description:
        return size.description
    parts = [
        plural(size.cpu, "core") if size.cpu else "",
        show_memory(size.memory) if size.memory else "",
        plural(size.gpu, "GPU") if size.gpu else "",
    ]
    return ", ".join(filter(None, parts))


def _too_much(size: Size, options: FormOptions) -> str:
    """Return why a size cannot be had now; empty if it can."""
    limits, held = options.limits, options.usage
    if size.gpu and not options.info.gpu:
        return "There are no GPUs here."
    rows: list[tuple[float | None, float, float | None, Callable[[Any], str], str]] = [
        (size.cpu, held.cpu, limits.cpu, "{:g}".format, " cores"),
        (size.memory, held.memory, limits.memory, show_memory, " memory"),
        (size.gpu, held.gpu, limits.gpu, str, " GPUs"),
    ]
    for asked, used, limit, show, unit in rows:
        if not asked or limit is None:
            continue
        if asked > limit:
            return f"More than you may have: {show(limit)}{unit}."
        if used + asked > limit:
            rest = show(max(limit - used, 0))
            return f"{rest} of your {show(limit)}{unit} are free now; stop something first."
    return ""


def _own(options: FormOptions) -> dict[str, str]:
    """Resources that were said last, and are no size's."""
    last = options.last
    if last is None or options.notebook is not None or _size_of(last, options):
        return {"cpu": "", "memory": "", "gpu": ""}
    has = last.resources
    return {
        "cpu": f"{has.cpu:g}" if has.cpu else "",
        "memory": show_memory(has.memory) if has.memory else "",
        "gpu": str(has.gpu) if has.gpu else "",
    }


def _free(options: FormOptions) -> dict[str, str]:
    """Return the end of a sentence for each quantity: what is free of the user's limit.

    Without a limit it is the machine's capacity; for the idle timeout it is the limit itself.
    """
    limits, held = options.limits, options.usage
    free = {"cpu": "", "memory": "", "gpu": "", "idle": ""}
    there = options.capacity
    if there.cpu is not None:
        free["cpu"] = f"; at most {there.cpu:g}, of this machine"
    if there.memory is not None:
        free["memory"] = f"; at most {show_memory(there.memory)}, of this machine"
    if limits.cpu is not None:
        free["cpu"] = f"; {max(limits.cpu - held.cpu, 0):g} free"
    if limits.memory is not None:
        free["memory"] = f"; {show_memory(max(limits.memory - held.memory, 0))} free"
    if limits.gpu is not None:
        free["gpu"] = f"; {max(limits.gpu - held.gpu, 0)} free"
    if limits.idle_timeout is not None:
        free["idle"] = f"; at most {show_duration(limits.idle_timeout)}"
    return free


def _pools(options: FormOptions) -> Iterator[tuple[str, str, bool]]:
    now = options.notebook
    used = options.last.pool if options.last else None
    if now is not None:
        yield "", f"{now.pool} (as it is)" if now.pool else "any (as it is)", True
        yield from ((NOTHING, "any", False) for _ in range(now.pool is not None))
    else:
        yield "", "as the size says", False
    for pool in options.info.pools:
        yield pool, pool, now is None and pool == used


def _images(options: FormOptions) -> Iterator[tuple[str, str, bool]]:
    now = options.notebook
    yield "", "as it is" if now else "what the code asks for", True
    if now is not None:
        yield NOTHING, "what the code asks for", False
    for image in options.info.images:
        yield image.name, f"{image.name}: {image.description or image.image}", False


def _last_time(options: FormOptions, notebook: str) -> dict[str, str]:
    """The bundles chosen last, for a new notebook that may have them as well."""
    last = options.last
    if last is None or options.notebook is not None or not notebook or options.handed:
        return {}
    chosen = {"source": last.source, "data": last.data, "context": last.context}
    return {kind: _link(bundle) for kind, bundle in chosen.items() if bundle}


def _placed_now(options: FormOptions) -> dict[str, str]:
    """Volumes and folders of the notebook, as lines."""
    shown = options.notebook
    if shown is None:
        return dict.fromkeys(_PLACED, "")
    return {
        "volumes": _as_lines((v.volume, v.path, v.read_only) for v in shown.volumes),
        "bind_mounts": _as_lines(
            (m.host_path, m.container_path, m.read_only) for m in shown.bind_mounts
        ),
    }


def _as_lines(places: Iterable[tuple[str, str, bool]]) -> str:
    return "\n".join(f"{what}:{place}{':ro' * read_only}" for what, place, read_only in places)


def _not_here(options: FormOptions) -> str:
    """Return a sentence on what is not offered here, for people; empty if all of it is."""
    info = options.info
    missing = [
        ("" if info.gpu else "GPUs"),
        ("" if info.pools else "groups of nodes"),
        ("" if info.images or info.any_image else "ready-made environments"),
        ("" if options.mounts else "folders of the machine"),
    ]
    words = [each for each in missing if each]
    if not words:
        return ""
    listed = " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    return f"Not offered here: {listed}. Your admin decides on that."


def _link(bundle: BundleLink | None) -> str:
    return f"{bundle.name}@v{bundle.version}" if bundle else ""


# --- what was chosen ---


def options_from_form(form: dict[str, list[Any]]) -> dict[str, Any]:
    """Return what was chosen, as names and quantities; what was left open is absent.

    Raises:
        InvalidRequest: a quantity or choice is none; says what would be one.
    """
    chosen: dict[str, Any] = {}
    for field in PLAIN:
        value = str((form.get(field) or [""])[0]).strip()
        if value:
            chosen[field] = value
    for field in _NAMED:
        named = str((form.get(f"{field}_named") or [""])[0]).strip()
        if named:
            chosen[field] = named
    for field, check in _CHECKS.items():
        if field in chosen:
            check(chosen[field])
    if chosen.get("idle_type", IdleType.ACTIVITY) not in set(IdleType):
        raise InvalidRequest(f"idle_type is one of {', '.join(IdleType)}")
    environment = dict(map(_variable, _lines(form, "environment")))
    if environment:
        chosen["environment"] = environment
    for field in _PLACED:
        lines = _lines(form, field)
        if lines:
            given = [line for line in lines if line != NOTHING]
            chosen[field] = [_placed(line, *_PLACED[field]) for line in given]
    return chosen


def _lines(form: dict[str, list[Any]], field: str) -> list[str]:
    text = str((form.get(field) or [""])[0])
    return [line.strip() for line in text.splitlines() if line.strip()]


def _variable(line: str) -> tuple[str, str]:
    # What is wrong is never repeated beyond its name: it may be a secret.
    name, separator, value = line.partition("=")
    if not separator:
        raise InvalidRequest("Variables: a line is no NAME=value.")
    return variable_name(name.strip()), value


def _placed(line: str, label: str, said: str, what: str, place: str) -> dict[str, Any]:
    """A line ``NAME:PLACE``, or ``NAME:PLACE:ro``."""
    first, colon, inside = line.partition(":")
    inside, _, how = inside.partition(":")
    if not (colon and first and inside) or how not in ("", "ro", "rw"):
        raise InvalidRequest(f"{label}: {line!r} is no {said}:PLACE, nor {said}:PLACE:ro.")
    return {what: first.strip(), place: inside.strip(), "read_only": how == "ro"}


def show_duration(seconds: int) -> str:
    """A duration as the form takes it: ``90s``, ``30m``, ``2h``, ``never``."""
    if not seconds:
        return "never"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
