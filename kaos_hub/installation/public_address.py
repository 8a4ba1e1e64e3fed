"""The address that people use: what was asked for, settled once for Hub, service and ``kaos``.

JupyterHub can be told in several ways (``bind_url``, ``base_url``, ``ip``, ``port``), of which some
silently undo what another says: with ``base_url`` alone it would listen everywhere. So the
configuration settles all of them into ``bind_url``, or refuses what contradicts itself.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from kaos_hub.errors import InvalidRequest
from kaos_hub.installation.addresses import clean_path, path_of
from kaos_hub.installation.datadir import DataDir

_EVERYWHERE = {"", "*", "0.0.0.0", "::"}  # noqa: S104
_OLD = ("base_url", "ip", "port")
"""Settings that repeat parts of ``bind_url``."""


@dataclass(frozen=True)
class Settled:
    """The address of a Hub, URLs without a slash at the end."""

    bind: str
    """The address on which the proxy listens, with the path."""
    path: str
    """Of everything that the Hub serves; empty, or like ``/jupyter``."""
    local: str
    """The address by which this machine reaches it."""
    public: str
    """The address by which people reach it."""
    certificates: str = ""
    """The directory with those of the Hub's parts; empty: they speak plain HTTP with each other."""


def settle(
    hub: Mapping[str, Any], command_line: Mapping[str, Any], bind: str, public: str
) -> Settled:
    """Make one of all that was said.

    Args:
        hub: the section ``JupyterHub`` of the configuration.
        command_line: the same of ``jupyterhub``'s command line, which comes before files.
        bind: what ``bind_url`` is if it is not configured.
        public: ``KAOS_PUBLIC_URL``, or empty.

    Raises:
        InvalidRequest: it contradicts itself, or cannot work; says what to write instead.
    """
    said = [name for name in ("bind_url", *_OLD) if name in command_line]
    if said:
        raise InvalidRequest(
            f"jupyterhub's option for {said[0]} would undo what kaos_hub has settled. Say it by"
            " KAOS_PORT, KAOS_PUBLIC_URL, or c.JupyterHub.bind_url in a file"
            " (KAOS_EXTRA_CONFIG)."
        )
    parts = urlsplit(str(hub.get("bind_url") or bind))
    paths = {
        "c.JupyterHub.bind_url": clean_path(parts.path),
        "c.JupyterHub.base_url": clean_path(str(hub.get("base_url") or "")),
        "KAOS_PUBLIC_URL": path_of(public) if public else "",
    }
    given = {name: path for name, path in paths.items() if path}
    if len(set(given.values())) > 1:
        told = ", ".join(f"{name} says {path}" for name, path in given.items())
        raise InvalidRequest(f"The Hub has one path: {told}. Say the same, or say it once.")
    path = next(iter(given.values()), "")
    if public and path and not paths["KAOS_PUBLIC_URL"]:
        raise InvalidRequest(
            f"The Hub's path is {path} ({next(iter(given))}), but KAOS_PUBLIC_URL is {public},"
            " which has none. What is in front of a Hub must pass its path on:"
            f" {public.rstrip('/')}{path}"
        )
    host = str(hub.get("ip", parts.hostname or ""))
    port = int(hub.get("port") or parts.port or (443 if parts.scheme == "https" else 80))
    scheme = "https" if hub.get("ssl_cert") else parts.scheme
    within = "127.0.0.1" if host in _EVERYWHERE else host
    local = f"{scheme}://{_bracketed(within)}:{port}{path}"
    return Settled(
        bind=f"{parts.scheme}://{_bracketed(host)}:{port}{path}",
        path=path,
        local=local,
        public=public.strip().rstrip("/") or local,
    )


def apply(hub: Any, settled: Settled) -> None:
    """Put what was settled into the section ``JupyterHub`` of the configuration."""
    hub["bind_url"] = settled.bind + "/"
    for name in _OLD:
        hub.pop(name, None)


def remember(data: DataDir, settled: Settled) -> None:
    """Write down where the Hub that starts can be reached, for ``kaos`` on this machine."""
    draft = data.address.with_suffix(".new")
    draft.write_text(json.dumps(asdict(settled)))
    draft.replace(data.address)


def remembered(data: DataDir) -> Settled | None:
    """Return what the last Hub that started has written down; None if none did."""
    try:
        return Settled(**json.loads(data.address.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
