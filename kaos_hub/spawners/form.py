"""The form in which one chooses what to start, and what it sends."""

from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from kaos_hub.errors import InvalidRequest
from kaos_hub.models import (
    IdleType,
)
from kaos_hub.quantities import parse_cpu, parse_duration, parse_gpu, parse_memory, show_memory
from kaos_hub.spawners import TEMPLATES
from kaos_hub.spawners.admission import FormOptions

FIELDS = ("source", "data", "size", "cpu", "memory", "gpu", "idle_timeout", "idle_type")
"""What a form (and thus ``user_options``) may hold; the names are those of a notebook request."""

_CHECKS = {
    "cpu": parse_cpu,
    "memory": parse_memory,
    "gpu": parse_gpu,
    "idle_timeout": parse_duration,
}
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
    return environment.get_template("spawn_form.html")


def render_form(options: FormOptions | None, notebook: str, problem: str = "") -> str:
    """The inside of the Hub's spawn form.

    Args:
        options: what can be chosen; None shows only the problem.
        notebook: the notebook's name; empty if it is not known.
        problem: why nothing can be chosen.
    """
    return _template().render(
        options=options, notebook=notebook, problem=problem, idle_types=_IDLE_TYPES
    )


def options_from_form(form: dict[str, list[Any]]) -> dict[str, str]:
    """What was chosen, as names and quantities; what was left open is absent.

    Raises:
        InvalidRequest: a quantity or choice is none; says what would be one.
    """
    chosen = {}
    for field in FIELDS:
        value = str((form.get(field) or [""])[0]).strip()
        if value:
            chosen[field] = value
    for field, check in _CHECKS.items():
        if field in chosen:
            check(chosen[field])
    if chosen.get("idle_type", IdleType.ACTIVITY) not in set(IdleType):
        raise InvalidRequest(f"idle_type is one of {', '.join(IdleType)}")
    return chosen


def show_duration(seconds: int) -> str:
    """A duration as the form takes it: ``90s``, ``30m``, ``2h``, ``never``."""
    if not seconds:
        return "never"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
