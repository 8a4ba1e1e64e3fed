"""What schemathesis is told of our services beyond their documents; it loads this by itself.

``KAOS_FUZZ_SLOW`` is the time in seconds that an answer may take on a machine that has nothing else
to do, ``KAOS_FUZZ_NAMES`` a JSON object with what there is by the names of path parameters.
"""

import json
import os
import zlib
from typing import Any

import schemathesis
from schemathesis.core.failures import ResponseTimeExceeded

SLOW = float(os.environ.get("KAOS_FUZZ_SLOW", "1"))
NAMES: dict[str, list[str]] = json.loads(os.environ.get("KAOS_FUZZ_NAMES", "{}"))


def allowed(slow: float, wait: float = 0) -> float:
    """Seconds that an answer may take now.

    Args:
        slow: on an idle machine. Where more processes want a core than there are, all take longer.
        wait: seconds for which the request asked to be kept waiting.
    """
    return slow * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)) + wait


@schemathesis.check
def answers_soon(ctx: Any, response: Any, case: Any) -> None:
    """An answer comes within the time that is allowed."""
    bound = allowed(SLOW, _wait((case.query or {}).get("wait")))
    if response.elapsed > bound:
        raise ResponseTimeExceeded(
            operation=case.operation.label,
            message=f"Took {response.elapsed:.2f} s of {bound:.2f} s",
            elapsed=response.elapsed,
            deadline=bound,
        )


@schemathesis.hook
def map_path_parameters(ctx: Any, path_parameters: Any) -> Any:
    """Names of what is there, half of the time: else nearly all answers are 404."""
    for name, there in NAMES.items():
        given = (path_parameters or {}).get(name)
        if isinstance(given, str):
            drawn = zlib.crc32(given.encode("utf-8", "surrogatepass"))
            if drawn % 2:
                path_parameters[name] = there[drawn // 2 % len(there)]
    return path_parameters


def _wait(given: object) -> float:
    """What a request said of ``wait``; zero if it is nothing that is obeyed."""
    try:
        wait = float(str(given))
    except ValueError:
        return 0.0
    return wait if 0 <= wait <= 60 else 0.0
