"""The service as a process: where its Hub is, that it dies with it, alone on its data directory."""

import contextlib
import ctypes
import logging
import os
import signal
import sys
import time
from typing import NoReturn

from kaos_hub.addresses import in_cluster, namespace
from kaos_hub.datadir import DataDir, Held
from kaos_hub.errors import Conflict, KaosError

_PR_SET_PDEATHSIG = 1
_PATIENCE = 10.0
"""Seconds to wait for a predecessor that is ending."""


def know_hub(data: DataDir) -> None:
    """In a cluster no Hub starts us: set the variables that it would have set.

    Does nothing elsewhere. Those that are set already stay as they are.

    Raises:
        KaosError: the service's token is not mounted.
    """
    where = namespace()
    if where is None:
        return
    at = in_cluster(where)
    for name, value in {
        "JUPYTERHUB_SERVICE_NAME": "kaos",
        "JUPYTERHUB_SERVICE_PREFIX": "/services/kaos/",
        "JUPYTERHUB_SERVICE_URL": at.service_bind,
        "JUPYTERHUB_CLIENT_ID": "service-kaos",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_API_URL": f"{at.hub}/hub/api",
        "JUPYTERHUB_API_TOKEN": data.secret("service"),
        "KAOS_INSIDE_URL": at.inside,
        "KAOS_ADMISSION_URL": at.admission_bind,
    }.items():
        os.environ.setdefault(name, value)


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the Hub that started us is gone, however it went.

    A Hub killed with -9 cannot stop us; an orphan would hold the lock and the ports of the next.

    Raises:
        KaosError: the Hub is gone already.
    """
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise KaosError(f"Cannot bind the service's life to the Hub's: {reason}")
    # It may have died before the kernel knew of our wish. Where the configuration tells the Hub's
    # process id we also notice a death before our first line.
    expected = int(os.environ.get("KAOS_HUB_PID") or parent)
    if os.getppid() != expected:
        raise KaosError("The Hub that started this service is gone; so it ends, too.")


def leave(code: int) -> NoReturn:
    """End the process, when all of ours has been closed.

    The interpreter's own way waits for threads and takes itself apart while those of libraries may
    still be about to tell it something; by obstore's it has been seen to be aborted then.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def take_lock(data: DataDir, patience: float = _PATIENCE) -> Held:
    """Be the only service on a data directory.

    Args:
        data: the directory.
        patience: seconds to wait for a predecessor to end.

    Raises:
        KaosError: another service keeps it.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return data.hold()
        except Conflict as e:
            if time.monotonic() >= deadline:
                raise KaosError(
                    f"Another kaos service (process {e.details.get('pid') or '?'}) uses"
                    f" {data.path}. Stop that one first, or choose another data directory"
                    " (KAOS_DATA_DIR)."
                ) from None
            time.sleep(0.1)
