"""Our own regular expressions on the texts of strangers (cause 3 of the review).

Every pattern of a module is tried: a new one is covered by itself.
"""

import importlib
import pkgutil
import re
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

import kaos_hub

_LENGTH = 6000
_SECONDS = 0.3
_PUMPS = (
    " ", "a", "A", "0", "/", ".", "-", "@", ":", "=", "\n", "\t", "#", "\\", "_", "a ", "a/",
    "/a", "a.", ".a", "a-", "@a", "a@", ":a", "0.", " \n", "\na", "a\n", "a=", "[a", "a]", "&&",
    "; ",    "$a", "${a", "* ", "*a", '"', "'", "a,", "%a", "\r\n",
)  # fmt: skip
_HEADS = ("", "a", "/", "https://a", "#kaos:a=")
_TAILS = ("", "\n\0")
_BOUNDED = {
    # Their texts are cut before, or have a bound of their own.
    "kaos_hub.util.quantities._QUANTITY", "kaos_hub.util.quantities._DURATION",
}  # fmt: skip


class PatternThatHangs(Exception):
    """A pattern took too long."""


def _patterns() -> Iterator[Any]:
    """All compiled patterns of all modules."""
    for info in pkgutil.walk_packages(kaos_hub.__path__, "kaos_hub."):
        # What runs inside reads the texts of its own user alone.
        apart = info.name.startswith(("kaos_hub.workload", "kaos_hub.service.db.migrations"))
        if apart or info.name.endswith("__main__"):
            continue
        try:
            module = importlib.import_module(info.name)
        except ImportError:
            continue
        for name, value in vars(module).items():
            where = f"{info.name}.{name}"
            if isinstance(value, re.Pattern) and where not in _BOUNDED:
                yield pytest.param(value, id=where)


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise PatternThatHangs


@pytest.mark.parametrize("pattern", list(_patterns()))
def test_no_pattern_of_ours_hangs(pattern: re.Pattern[Any]) -> None:
    """Attack of cause 3: a requirements.txt of blank lines, a URL of forty slashes."""
    before = signal.signal(signal.SIGALRM, _raise)
    try:
        for head in _HEADS:
            for pump in _PUMPS:
                for tail in _TAILS:
                    text: Any = head + pump * (_LENGTH // len(pump)) + tail
                    if isinstance(pattern.pattern, bytes):
                        text = text.encode()
                    signal.setitimer(signal.ITIMER_REAL, 5)
                    began = time.process_time()
                    try:
                        pattern.fullmatch(text)
                        pattern.match(text)
                        # Whoever searches begins at every place.
                        pattern.search(text[:500] + text[-2:])
                    except PatternThatHangs:
                        raise AssertionError(f"hangs: {head!r} {pump!r} {tail!r}") from None
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                    took = time.process_time() - began
                    assert took < _SECONDS, f"{took:.1f} s: {head!r} {pump!r} {tail!r}"
    finally:
        signal.signal(signal.SIGALRM, before)
