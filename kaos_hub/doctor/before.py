"""``python -m kaos_hub.doctor.before``: can registry and databases be reached from this cluster?

The chart runs it before it installs or changes anything. What is wrong is said on stdout, in the
words of ``kaos doctor``, and the exit code is 1. What may be a passing trouble is looked at again
for ``KAOS_CHECK_SECONDS``, 15 if not set.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from kaos_hub.deployment.extra_config import database_url
from kaos_hub.doctor.finding import BAD, GOOD, Finding
from kaos_hub.doctor.kubernetes import registry

_PATIENCE = 10
"""Seconds within which a database has to answer."""


def findings() -> Iterator[Finding]:
    """Yield the findings on the registry, and on each database whose URL is given."""
    yield registry()
    given = Path(os.environ.get("KAOS_SECRETS_DIR") or "/nowhere")
    for name in ("hub", "service"):
        if (given / name).exists():
            yield database(name, (given / name).read_text().strip())


def database(name: str, url: str) -> Finding:
    """Check that a database lets us in. Its URL, which holds a password, is never shown."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    what = f"database of the {name}"
    try:
        url = database_url(url, Path(os.devnull))
        parts = {"connect_timeout": _PATIENCE} if url.startswith("postgresql") else {}
        engine = create_engine(url, connect_args=parts)
        with engine.connect():
            return Finding(what, GOOD, f"{engine.url.host or 'a file'} lets us in")
    except ArgumentError:
        text = f"The key {name} of database.secret holds no URL of a database."
        return Finding(what, BAD, text, "postgresql://user:password@host/name")
    except (SQLAlchemyError, ImportError) as e:
        text = str(getattr(e, "orig", None) or e).splitlines()[0]
        return Finding(what, BAD, text, "Correct the Secret that database.secret names.")


def main() -> int:
    """Look at all of it, and say what is wrong."""
    until = time.monotonic() + float(os.environ.get("KAOS_CHECK_SECONDS") or 15)
    while True:
        found = list(findings())
        if all(f.state != BAD for f in found) or time.monotonic() >= until:
            break
        time.sleep(1)
    for finding in found:
        mark = "✗" if finding.state == BAD else "✔"
        advice = f" → {finding.advice}" if finding.advice and finding.state == BAD else ""
        print(f"{mark} {finding.name}: {finding.text}{advice}")
    return int(any(f.state == BAD for f in found))


if __name__ == "__main__":
    sys.exit(main())
