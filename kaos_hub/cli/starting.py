"""Waits for the Hub of this machine while `kaos up` starts it."""

import os
import time
from typing import TYPE_CHECKING

from kaos_hub.installation.datadir import DataDir
from kaos_hub.transport.credentials import load_credentials, local_data

if TYPE_CHECKING:
    from kaos_hub.cli.base import Session

PATIENCE = 180.0
"""Seconds."""
_PAUSE = 0.2


def wait_for_start(session: "Session") -> None:
    """Return when the Hub that is going to be asked is not just starting, or after a while.

    Only a Hub of this machine that `kaos up` starts is waited for, and only if the command would
    ask that one: it is the one logged in to, or there is none.
    """
    if session.url is not None or os.environ.get("KAOS_URL"):
        return
    data = DataDir(os.environ.get("KAOS_DATA_DIR") or local_data(), create=False)
    if not os.access(data.path / "up.lock", os.R_OK):
        return
    from kaos_hub.deployment.launch import local_url, starting

    pid = starting(data)
    known = load_credentials() if pid else None
    if pid is None or (known and known.url != local_url(data)):
        return
    session.note(f"The Hub of this machine is starting (process {pid}); waiting …")
    until = time.monotonic() + PATIENCE
    while starting(data) is not None and time.monotonic() < until:
        time.sleep(_PAUSE)
