"""The certificates of a notebook's server, where the parts of the hub speak TLS.

The Hub makes them for the address that the server got, which on Docker is known only once its
container runs. So the server waits for them.
"""

import os
import sys
import time
from pathlib import Path

from kaos_hub.util import tls

DIRECTORY = "/kaos/tls"
IDENTITY = f"{DIRECTORY}/identity.pem"
"""The server's own, see :mod:`kaos_hub.util.tls`."""
CALLERS = f"{DIRECTORY}/callers.pem"
"""The authorities of those whom it answers."""
READY = f"{DIRECTORY}/ready"
"""There once the others are complete."""
_PATIENCE = 60.0


def await_certificates() -> None:
    """Wait until they are there; not without TLS. Ends the process if they do not come."""
    identity = os.environ.get(tls.VARIABLE)
    if not identity:
        return
    ready = Path(identity).with_name(Path(READY).name)
    until = time.monotonic() + _PATIENCE
    while not ready.exists():
        if time.monotonic() > until:
            print(f"kaos: the Hub gave no certificate within {_PATIENCE:.0f} s", flush=True)
            sys.exit(1)
        time.sleep(0.02)
