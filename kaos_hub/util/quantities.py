"""Quantities as people write them: Kubernetes quantities of cores and bytes, durations.

Source of the suffixes: the Kubernetes API's resource quantities.
"""

import math
import re
from decimal import Decimal

from kaos_hub.errors import InvalidResources

_SUFFIX: dict[str, int | Decimal] = {
    "": 1, "m": Decimal("0.001"),
    "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*")
_LONGEST = 64
"""Characters of a quantity."""
_CPU_HELP = "cpu is cores: 0.5, 2 or 500m, more than zero"
_MEMORY_HELP = "memory is bytes with a suffix: 512Mi, 1.5Gi, 2G, more than zero"
_GPU_HELP = "gpu is a whole number of devices: 0, 1, 2…"


def _text(value: object) -> str:
    """Return what people wrote; empty if longer than any quantity, before it is looked through."""
    text = str(value)
    return text if len(text) <= _LONGEST else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _quantity(value: object, help: str, suffixes: tuple[str, ...]) -> Decimal:
    match = _QUANTITY.fullmatch(_text(value))
    if isinstance(value, bool) or match is None or match[2] not in suffixes:
        raise InvalidResources(f"{_shown(value)} is not understood; {help}")
    amount = Decimal(match[1]) * _SUFFIX[match[2]]
    if amount <= 0:
        raise InvalidResources(f"{value!r} is not more than zero; {help}")
    return amount


def parse_cpu(value: object) -> float:
    """Cores from a Kubernetes quantity (``2``, ``0.5``, ``500m``), rounded up to a millicore.

    Raises:
        InvalidResources: not a positive quantity of cores below 100,000.
    """
    cores = _quantity(value, _CPU_HELP, ("", "m"))
    if cores > 100_000:
        raise InvalidResources(f"{value!r} is too much; {_CPU_HELP}")
    return math.ceil(cores * 1000) / 1000


def parse_memory(value: object) -> int:
    """Bytes from a Kubernetes quantity (``512Mi``, ``2G``). A number is bytes; text has a suffix:
    who writes ``--memory 512`` means anything but 512 bytes.

    Raises:
        InvalidResources: not a positive quantity of bytes below 2**60.
    """
    plain = ("",) if isinstance(value, int | float) else ()
    size = _quantity(value, _MEMORY_HELP, (*plain, *(s for s in _SUFFIX if s not in ("", "m"))))
    if not 1 <= size < 2**60:
        raise InvalidResources(f"{value!r} is out of range; {_MEMORY_HELP}")
    return int(size)


def parse_gpu(value: object) -> int:
    """A whole number of GPUs.

    Raises:
        InvalidResources: anything else.
    """
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,4}", _text(value).strip()):
        raise InvalidResources(f"{_shown(value)} is not understood; {_GPU_HELP}")
    return int(str(value))


_DURATION = re.compile(r"\s*(\d+(?:\.\d*)?)\s*(s|m|h|d|)\s*")


def parse_duration(value: object) -> int:
    """Seconds from ``90``, ``45s``, ``30m``, ``1.5h`` or ``2d``; ``0`` or ``never`` is never.

    Raises:
        InvalidResources: not a duration below ten years.
    """
    if _text(value).strip().lower() in ("never", "none", "off"):
        return 0
    match = None if isinstance(value, bool) else _DURATION.fullmatch(_text(value))
    if match is None:
        raise InvalidResources(f"{_shown(value)} is no duration; say 90s, 30m, 1.5h, 2d or never")
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
    if seconds > 10 * 365 * 86400:
        raise InvalidResources(f"{value!r} is more than ten years")
    return int(seconds)


_UNITS = (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))


def duration(seconds: float) -> str:
    """A length of time for people, in its two largest units: ``12 s``, ``1 h 30 min``, ``8 h``."""
    whole = max(0, int(seconds))
    for large, length, small, part in _UNITS:
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length} {large}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def about(seconds: float) -> str:
    """Roughly how long, for ages and what is yet to come: ``5 min``, ``1 h 20 min``, ``8 h``."""
    minutes, hours = int(seconds // 60), round(seconds / 3600)
    if seconds < 60:
        return duration(seconds)
    if minutes < 120:
        return f"{minutes} min" if minutes < 60 else duration(round(minutes / 5) * 300)
    return f"{hours} h" if hours < 48 else f"{round(seconds / 86400)} d"


def plural(count: float, noun: str) -> str:
    """So many of something: ``1 file``, ``1,200 files``, ``0.5 cores``."""
    return f"{count:,g} {noun}{'s' * (count != 1)}"


def show_memory(size: int | None) -> str:
    """A size for people: ``512Mi``, ``1.5Gi``, ``87 B``, ``0``, or ``no limit``."""
    if size is None:
        return "no limit"
    for suffix in ("Ti", "Gi", "Mi", "Ki"):
        amount = size / int(_SUFFIX[suffix])
        if amount >= 1:
            return f"{amount:.2f}".rstrip("0").rstrip(".") + suffix
    return f"{size} B" if size else "0"
