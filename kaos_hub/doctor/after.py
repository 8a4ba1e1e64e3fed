"""``python -m kaos_hub.doctor.after URL``: do Hub and service answer who comes in there?

The chart runs it for ``helm test``. ``KAOS_CHECK_SECONDS`` is how long it waits for them, 60 if
not set.
"""

import os
import sys
import time
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

_PATHS = {"Hub": "/hub/health", "service": "/services/kaos/health", "login": "/hub/login"}


def answer(url: str) -> str:
    """Return what is wrong at a URL; empty if nothing is."""
    try:
        with urlopen(url, timeout=10):  # noqa: S310  the chart's
            return ""
    except HTTPError as e:
        return f"HTTP {e.code}"
    except (URLError, OSError) as e:
        return str(getattr(e, "reason", e))


def main() -> int:
    """Look, and say what one sees."""
    url, failed = sys.argv[1].rstrip("/"), 0
    until = time.monotonic() + float(os.environ.get("KAOS_CHECK_SECONDS") or 60)
    for name, path in _PATHS.items():
        while (wrong := answer(url + path)) and time.monotonic() < until:
            time.sleep(1)
        failed |= bool(wrong)
        print(f"✗ {name}: {url}{path}: {wrong}" if wrong else f"✔ {name} answers at {url}{path}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
