"""Checks of the TLS between the parts of a hub, where that was asked for."""

import socket
import ssl
from datetime import UTC, datetime, timedelta

from kaos_hub.deployment.launch import certificates
from kaos_hub.doctor.finding import BAD, GOOD, WEAK, Finding
from kaos_hub.installation.datadir import DataDir

_NAME = "internal TLS"
_ALWAYS_LOCAL = {"the service": "admission", "the proxy": "proxy"}
"""The listeners that are on loopback with each engine, and the roles of their ports."""
_SOON = timedelta(days=60)


def checks(data: DataDir) -> list[Finding]:
    """Look at the wire within a Hub that runs; find nothing where it is plain HTTP."""
    found = certificates(data)
    if found is None:
        return []
    try:
        context, until = found.hub_client(), found.until()
    except (OSError, ValueError) as e:
        text = f"The certificates in {found.directory} cannot be used: {e}."
        return [Finding(_NAME, BAD, text, "Restart the hub: it makes them anew.")]
    for name, role in _ALWAYS_LOCAL.items():
        if why := _trouble(data.port(role), context):
            text = f"{name} does not answer as its certificate says: {why}"
            return [Finding(_NAME, BAD, text, f"Read {data.logs / 'hub.log'}")]
    text = (
        f"Hub, proxy, service and workloads know each other by certificates until {until:%Y-%m-%d}"
    )
    if until < datetime.now(UTC) + _SOON:
        return [Finding(_NAME, WEAK, text, "Restart the hub, then the notebooks that run.")]
    return [Finding(_NAME, GOOD, text)]


def _trouble(port: int, context: ssl.SSLContext) -> str:
    """Return why no TLS connection comes about on a local port; empty if one does."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1"),
        ):
            return ""
    except OSError as e:
        return str(e)
