"""``c.JupyterHub.internal_ssl`` in the Hub's configuration: who speaks TLS, and with what."""

import ssl
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kaos_hub.errors import Unsupported
from kaos_hub.installation.addresses import Addresses
from kaos_hub.installation.certificates import VARIABLE, Certificates
from kaos_hub.installation.datadir import DataDir
from kaos_hub.util import tls

_OPTIONS = (
    "internal_ssl", "internal_certs_location", "recreate_internal_certs", "trusted_alt_names",
    "external_ssl_authorities",
)  # fmt: skip
_ADDRESSES = (
    ("JupyterHub", "hub_bind_url"),
    ("JupyterHub", "hub_connect_url"),
    ("ConfigurableHTTPProxy", "api_url"),
    ("KaosSpawnerMixin", "admission_url"),
)
_ANEW = (
    "kaos: the certificates of the hub's parts were made anew (c.JupyterHub.internal_ssl);"
    " notebooks that run have old ones and must be restarted"
)


def check(hub: Mapping[str, Any], command_line: Mapping[str, Any], where: str) -> bool:
    """Tell if the parts of the hub are to speak TLS.

    Args:
        hub: the section ``JupyterHub`` of the configuration.
        command_line: the same of ``jupyterhub``'s command line.
        where: ``local`` or ``docker``; ``kubernetes``, also for a Hub that is in a cluster.

    Raises:
        Unsupported: not there, or not so; says what to do instead.
    """
    if said := [name for name in _OPTIONS if name in command_line]:
        raise Unsupported(
            f"jupyterhub's option for {said[0]} comes too late: the service would not know of it."
            f" Say c.JupyterHub.{said[0]} in a file (KAOS_EXTRA_CONFIG, `kaos up -f FILE`)."
        )
    if not hub.get("internal_ssl"):
        return False
    if where == "kubernetes":
        raise Unsupported(
            "c.JupyterHub.internal_ssl does not work with kaos_hub on Kubernetes: what runs there,"
            " be it the service, the proxy or users' pods, has no part in the Hub's certificates."
            " Leave it out; let the cluster's network encrypt what is on the wire"
            " (docs/howto/internal-tls.md)."
        )
    if hub.get("external_ssl_authorities"):
        raise Unsupported(
            "c.JupyterHub.external_ssl_authorities does not work with kaos_hub, whose Hub starts"
            " the proxy itself and makes the authorities of all certificates. Leave it out."
        )
    return True


def secure(c: Any, at: Addresses, data: DataDir, make: bool) -> Addresses:
    """Have the parts of the hub speak TLS.

    Args:
        c: the configuration, changed.
        at: where they are without it; what an admin has set otherwise stays.
        data: the data directory.
        make: make what is missing; else, as in the service, everything is there.

    Returns:
        Where they are then.

    Raises:
        KaosError: certificates cannot be made.
    """
    secured = at.over_tls()
    changed = {getattr(at, name): getattr(secured, name) for name in vars(at)}
    for section, name in _ADDRESSES:
        if name in c[section]:
            c[section][name] = changed.get(c[section][name], c[section][name])
    for each in c.JupyterHub.services:
        if "url" in each:
            each["url"] = changed.get(each["url"], each["url"])
    networks = c.DockerNetworks
    if "hub_addresses" in networks:
        networks.hub_addresses = [changed.get(url, url) for url in networks.hub_addresses]
    given = c.JupyterHub.get("internal_certs_location")
    place = Path(given).absolute() if given else data.path / "internal-ssl"
    c.JupyterHub.internal_certs_location = str(place)
    if make:
        anew = bool(c.JupyterHub.pop("recreate_internal_certs", False))
        if Certificates(place).prepare([*_names(c, secured)], anew):
            print(_ANEW, file=sys.stderr)
        _mend_hub()
    for each in c.JupyterHub.services:
        if "KAOS_ADMISSION_URL" in each.get("environment", {}):
            more = {"KAOS_ADMISSION_URL": secured.admission_bind, VARIABLE: str(place)}
            each["environment"] = each["environment"] | more
    return secured


def _mend_hub() -> None:
    """Put right what JupyterHub 6.1 does with contexts, in the Hub of this process.

    - It believes all authorities of the machine, too, so with a certificate for any name at all one
      would be heard by the Hub.
    - It looks whether its services answer with the context for answering. No connection can be made
      with that, and the Hub ends because its service does not answer.
    """
    from jupyterhub import app

    def context(
        keyfile: str,
        certfile: str,
        cafile: str | None = None,
        purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH,
    ) -> ssl.SSLContext | None:
        if not (keyfile and certfile and cafile):
            return None
        make = tls.client if purpose is ssl.Purpose.SERVER_AUTH else tls.server
        return make(certfile, keyfile, trust=Path(cafile).read_text("ascii"))

    async def start_service(self: Any, name: str, service: Any, _: object = None) -> bool:
        return bool(await original(self, name, service))  # makes the right one by itself

    original = app.JupyterHub.start_service
    app.JupyterHub.start_service = start_service
    app.make_ssl_context = context


def _names(c: Any, at: Addresses) -> Iterator[str]:
    """Yield the names by which Hub and service are found, as certificates have them."""
    yield from c.JupyterHub.get("trusted_alt_names", [])
    told = (at.hub, at.service, str(c.JupyterHub.get("hub_connect_url") or at.hub))
    for host in (urlsplit(url).hostname or "" for url in told):
        yield f"IP:{host}" if _is_address(host) else f"DNS:{host}"
    if domain := urlsplit(str(c.JupyterHub.get("subdomain_host") or "")).hostname:
        yield f"DNS:{domain}"


def _is_address(host: str) -> bool:
    from ipaddress import ip_address

    try:
        ip_address(host)
    except ValueError:
        return False
    return True
