"""The credentials of the command line: one file, readable by its owner alone.

``$XDG_CONFIG_HOME/kaos_hub/credentials.json`` holds
``{"current": url, "hubs": {url: {"token": …, "user": …, "data": …}}, "workspaces": {url: name},
"local": data directory}``. A data directory stands there for Hubs that `kaos up` has started.
"""

import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kaos_hub.errors import InvalidRequest

SERVICE_PATH = "/services/kaos"
"""The path of the service below a Hub's base URL."""
TRAIN_PATH = "/services/kaos-train"
"""The path of trainings and models there."""


@dataclass(frozen=True)
class Credentials:
    """A Hub and the token for it."""

    url: str
    """The Hub's base, e.g. ``http://127.0.0.1:8000``."""
    token: str
    user: str | None = None
    data: str | None = None
    """The Hub's data directory, if `kaos up` of the same OS user started it."""


def hub_base(url: str) -> str:
    """The base URL of a Hub, from any of its URLs that a person may have copied.

    Raises:
        InvalidRequest: that is no http or https URL.
    """
    text = url.strip()
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequest(f"{url!r} is no URL of a Hub; one looks like http://127.0.0.1:8000")
    path = re.split(r"/(?:hub|services|user)(?=/|$)", parts.path, maxsplit=1)[0]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path.rstrip('/')}"


def credentials_path() -> Path:
    """Return the path of the file with the credentials."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "kaos_hub" / "credentials.json"


def _read() -> dict[str, Any]:
    try:
        data = json.loads(credentials_path().read_text("utf-8"))
    except FileNotFoundError:
        return {"current": None, "hubs": {}}
    except (ValueError, OSError) as e:
        raise InvalidRequest(
            f"{credentials_path()} cannot be read ({e}); remove it and run: kaos login URL"
        ) from None
    if not isinstance(data, dict) or not isinstance(data.get("hubs"), dict):
        return {"current": None, "hubs": {}}
    return data


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # mkstemp makes it 0600, and the rename lets no reader see half a file.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write(data: dict[str, Any]) -> None:
    path = credentials_path()
    try:
        write_private(path, json.dumps(data, indent=2))
    except OSError as e:
        raise InvalidRequest(
            f"{path} cannot be written: {e.strerror}. Make its folder writable, or let the variable"
            " XDG_CONFIG_HOME name another one"
        ) from None


def save_credentials(
    url: str, token: str, user: str | None = None, data: str | None = None
) -> Path:
    """Remember a token, and make its Hub the current one.

    Args:
        url: the Hub's base URL.
        token: a Hub token of the user.
        user: whose it is, to be shown.
        data: the Hub's data directory, if it is on this machine.

    Returns:
        The file they were written to.

    Raises:
        InvalidRequest: the URL is none, or the file cannot be written.
    """
    base = hub_base(url)
    kept = _read()
    kept["current"] = base
    kept["hubs"][base] = {"token": token, "user": user} | ({"data": data} if data else {})
    _write(kept)
    return credentials_path()


def local_data() -> str | None:
    """The data directory of the Hub that `kaos up` started last, if it did.

    Raises:
        InvalidRequest: the file is broken.
    """
    found = _read().get("local")
    return found if isinstance(found, str) else None


def save_local_data(path: Path) -> None:
    """Remember the data directory of the Hub that `kaos up` starts.

    Raises:
        InvalidRequest: the file is broken or cannot be written.
    """
    kept = _read()
    if kept.get("local") != str(path):
        _write(kept | {"local": str(path)})


def load_credentials(url: str | None = None) -> Credentials | None:
    """The credentials for a Hub, or for the current one; None if there are none.

    Raises:
        InvalidRequest: the file is broken.
    """
    data = _read()
    base = hub_base(url) if url else data.get("current")
    entry = data["hubs"].get(base) if base else None
    if not isinstance(entry, dict) or not entry.get("token"):
        return None
    return Credentials(str(base), str(entry["token"]), entry.get("user"), entry.get("data"))


def forget_credentials(url: str | None = None) -> Credentials | None:
    """Forget the credentials for a Hub, or for the current one; returns what was forgotten.

    Raises:
        InvalidRequest: the file is broken or cannot be written.
    """
    known = load_credentials(url)
    if known is None:
        return None
    data = _read()
    del data["hubs"][known.url]
    if data.get("current") == known.url:
        data["current"] = next(iter(data["hubs"]), None)
    _write(data)
    return known


def load_workspace(url: str) -> str | None:
    """The group of the Hub whose things are worked on; None: the user's own.

    ``KAOS_WORKSPACE`` comes before what was saved; empty, it is one's own.

    Raises:
        InvalidRequest: the file is broken.
    """
    named = os.environ.get("KAOS_WORKSPACE")
    if named is not None:
        return named or None
    workspaces = _read().get("workspaces")
    name = workspaces.get(url) if isinstance(workspaces, dict) else None
    return str(name) if name else None


def save_workspace(url: str, name: str | None) -> None:
    """Remember the workspace for a Hub; None: the user's own.

    Raises:
        InvalidRequest: the file is broken or cannot be written.
    """
    data = _read()
    workspaces = data.get("workspaces")
    kept = dict(workspaces) if isinstance(workspaces, dict) else {}
    kept.pop(url, None)
    data["workspaces"] = kept | ({url: name} if name else {})
    _write(data)
