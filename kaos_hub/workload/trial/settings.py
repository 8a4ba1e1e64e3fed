"""Settings that a worker gets when it starts: its environment, and the file with its ticket."""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kaos_hub.util import tls, variables

OURS = (
    "KAOS_WORK_URL", "KAOS_ROOT", "KAOS_DATA", "KAOS_SOURCE", "KAOS_CODE",
    "KAOS_CONTEXT", "KAOS_STORAGE", "KAOS_LOG_LIMIT", "KAOS_PYTHON_BIN", "KAOS_RESULT",
)  # fmt: skip
"""Variables for this program alone."""

_STORAGE = 20 << 30
_LOG = 64 << 20


@dataclass(frozen=True)
class Settings:
    """The settings of a worker."""

    url: str
    """The service's, for workloads: ``…/services/kaos``."""
    root: str
    """Prefix of all paths, where an engine cannot show them at their places; else empty."""
    code: Path
    """The directory in which ``train`` runs."""
    context: Path | None
    """Copied there before a trial, unless the last copy is untouched; None: the code is there."""
    data: str | None
    storage: int
    """Bytes that a trial may write."""
    log_limit: int
    """Bytes of a trial's log."""
    environment: Mapping[str, str]
    """That of the user's programs, but for what each trial adds."""


def read(environ: Mapping[str, str]) -> Settings:
    """Settings from the environment.

    Raises:
        ValueError: something is missing or makes no sense.
    """
    root = environ.get("KAOS_ROOT", "")
    url = environ.get("KAOS_WORK_URL", "").rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"KAOS_WORK_URL is {url!r}, which is no URL")
    context = None
    if "KAOS_CONTEXT" in environ:
        source = environ.get("KAOS_SOURCE") or "/kaos/source"
        context = Path(f"{root}{source}", environ["KAOS_CONTEXT"])
    data = environ.get("KAOS_DATA")
    return Settings(
        url=url,
        root=root,
        code=_code(Path(f"{root}{environ.get('KAOS_CODE') or '/opt/program'}"), context),
        context=context,
        data=f"{root}{data}" if data else None,
        storage=int(environ.get("KAOS_STORAGE") or _STORAGE),
        log_limit=int(environ.get("KAOS_LOG_LIMIT") or _LOG),
        environment=_users(environ),
    )


def _code(told: Path, context: Path | None) -> Path:
    """Return where the code is. An image may have it elsewhere: in the directory we start in."""
    here = Path.cwd()
    if context is None and not (told / "train").exists() and (here / "train").exists():
        return here
    return told


def _users(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the user's programs: what image and engine set, nothing of ours."""
    found = {n: v for n, v in variables.users(environ).items() if n not in OURS}
    first = environ.get("KAOS_PYTHON_BIN")
    path = found.get("PATH") or os.defpath
    found["PATH"] = f"{first}{os.pathsep}{path}" if first else path
    found["PYTHONUNBUFFERED"] = "1"
    # A user id may have no name in the image, and then programs fail that ask for it.
    found.setdefault("USER", "kaos")
    found.setdefault("LOGNAME", found["USER"])
    return found


def take_ticket(root: str) -> tuple[str, ssl.SSLContext | None]:
    """Read the ticket, and the certificate where there is one, and delete both: what runs later
    cannot have them.

    Raises:
        OSError: the ticket is not there; one cannot be deleted, or makes no sense.
    """
    file = Path(f"{root}/kaos/ticket")
    ticket = file.read_text("ascii").strip()
    context = tls.take(file.with_name("identity.pem"))
    file.unlink()
    return ticket, context
