"""The process of the service: its Hub's address, its end with the Hub, and the lock on its data."""

import asyncio
import contextlib
import ctypes
import faulthandler
import logging
import os
import signal
import sys
import time
from typing import NoReturn

from kaos_hub.errors import Conflict, KaosError
from kaos_hub.installation.addresses import in_cluster, namespace
from kaos_hub.installation.datadir import DataDir, Held

_PR_SET_PDEATHSIG = 1
PULSE = "KAOS_PULSE"
"""The variable that names the pipe for signs of life."""

_PATIENCE = 10.0
"""Seconds to wait for a predecessor that is ending."""


def know_hub(data: DataDir) -> None:
    """Set the variables that the Hub would set, in a cluster, where no Hub starts us.

    Do nothing elsewhere. Variables that are set already stay as they are.

    Raises:
        KaosError: the service's token is not mounted, or ``KAOS_PUBLIC_URL`` is not a URL.
    """
    where = namespace()
    if where is None:
        return
    at = in_cluster(where)
    for name, value in {
        "JUPYTERHUB_SERVICE_NAME": "kaos",
        "JUPYTERHUB_SERVICE_PREFIX": f"{at.path}/services/kaos/",
        "JUPYTERHUB_SERVICE_URL": at.service_bind,
        "JUPYTERHUB_CLIENT_ID": "service-kaos",
        "JUPYTERHUB_BASE_URL": f"{at.path}/",
        "JUPYTERHUB_API_URL": f"{at.hub_pages}/api",
        "JUPYTERHUB_API_TOKEN": data.secret("service"),
        "KAOS_INSIDE_URL": at.inside,
        "KAOS_ADMISSION_URL": at.admission_bind,
    }.items():
        os.environ.setdefault(name, value)


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the Hub that started us is gone, however it ended.

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


def beat() -> None:
    """Give our parent process a sign of life every second, as long as the event loop turns.

    A process that hangs is ended with SIGABRT, and prints where it was.
    """
    pipe = os.environ.get(PULSE)
    if pipe is None:
        return
    faulthandler.enable()
    descriptor = int(pipe)
    os.set_inheritable(descriptor, False)
    os.set_blocking(descriptor, False)
    loop = asyncio.get_running_loop()

    def once() -> None:
        # Full, or without a reader: the parent has enough signs of life, or is gone.
        with contextlib.suppress(OSError):
            os.write(descriptor, b".")
        loop.call_later(1, once)

    once()


def leave(code: int) -> NoReturn:
    """End the process, when all our parts are closed.

    The interpreter's own way waits for threads and takes itself apart while threads of libraries
    may still be about to report to it; obstore's have been seen to abort the process then.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def take_lock(data: DataDir, patience: float = _PATIENCE) -> Held:
    """Hold the lock that lets only one service use a data directory.

    Args:
        data: the directory.
        patience: seconds to wait for a predecessor to end.

    Raises:
        KaosError: another service holds it.
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
