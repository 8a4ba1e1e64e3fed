"""Addresses on which Hub, proxy and service listen and find each other.

On one machine all of them listen on ports that were free when they were chosen. In a cluster each
is a pod of its own, and they know each other by the names of their Kubernetes Services, which
``helm/`` makes. Needs only the standard library.
"""

import os
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from kaos_hub.errors import InvalidRequest
from kaos_hub.installation.datadir import DataDir

PUBLIC_PORT, PROXY_API_PORT = 8000, 8001
HUB_PORT = 8081
SERVICE_PORT, ADMISSION_PORT = 8080, 8090
SERVICES = ("kaos", "kaos-train")
"""The names by which the Hub knows our one service: two of its services, on one port."""
_RESERVED = {"hub", "services", "user"}
"""Words in the paths of a Hub: what is before them is its own path."""
_PREFIX = f"/services/{SERVICES[0]}"


@dataclass(frozen=True)
class Addresses:
    """URLs without a slash at the end, and without the path of the Hub.

    ``…_bind`` is where each listens.
    """

    public_bind: str
    """The address on which the proxy listens for people."""
    proxy_api: str
    hub: str
    hub_bind: str
    service: str
    service_bind: str
    admission: str
    admission_bind: str
    path: str = ""
    """Of everything that the Hub serves; empty, or like ``/jupyter``."""

    @property
    def inside(self) -> str:
        """The service as notebooks and builds reach it."""
        return f"{self.service}{self.path}{_PREFIX}"

    def over_tls(self) -> "Addresses":
        """The same, where the parts of the hub speak TLS with each other."""
        inner = (
            "proxy_api", "hub", "hub_bind", "service", "service_bind", "admission",
            "admission_bind",
        )  # fmt: skip
        return replace(self, **{n: getattr(self, n).replace("http:", "https:", 1) for n in inner})

    @property
    def hub_pages(self) -> str:
        """The Hub itself, below which its API and pages are."""
        return f"{self.hub}{self.path}/hub"


def namespace() -> str | None:
    """The namespace in which Hub, proxy and service are a pod each; None if they are not."""
    return os.environ.get("KAOS_NAMESPACE") or None


def on_this_machine(data: DataDir, public_port: int, inner: str) -> Addresses:
    """All on this machine.

    Args:
        data: remembers the ports.
        public_port: the port that people use.
        inner: the address that notebooks talk to.

    Raises:
        KaosError: there is no free port.
    """
    hub = f"http://{inner}:{data.port('hub', inner)}"
    service = f"http://{inner}:{data.port('service', inner)}"
    admission = f"http://127.0.0.1:{data.port('admission')}"
    return Addresses(
        public_bind=f"http://127.0.0.1:{public_port}",
        proxy_api=f"http://127.0.0.1:{data.port('proxy')}",
        hub=hub,
        hub_bind=hub,
        service=service,
        service_bind=service,
        admission=admission,
        admission_bind=admission,
    )


def in_cluster(namespace: str) -> Addresses:
    """Each in a pod of its own in ``namespace``; pods of other namespaces reach them, too.

    The Hub's path is that of ``KAOS_PUBLIC_URL``.

    Raises:
        InvalidRequest: that is no URL at which a Hub can be.
    """
    return Addresses(
        public_bind=f"http://0.0.0.0:{PUBLIC_PORT}",
        proxy_api=f"http://proxy-api.{namespace}:{PROXY_API_PORT}",
        hub=f"http://hub.{namespace}:{HUB_PORT}",
        hub_bind=f"http://0.0.0.0:{HUB_PORT}",
        service=f"http://service.{namespace}:{SERVICE_PORT}",
        service_bind=f"http://0.0.0.0:{SERVICE_PORT}",
        admission=f"http://admission.{namespace}:{ADMISSION_PORT}",
        admission_bind=f"http://0.0.0.0:{ADMISSION_PORT}",
        path=check_public_url(),
    )


def check_public_url() -> str:
    """The path of ``KAOS_PUBLIC_URL``; empty if that is not set.

    Raises:
        InvalidRequest: it is no URL at which a Hub can be.
    """
    public = os.environ.get("KAOS_PUBLIC_URL")
    return path_of(public) if public else ""


def path_of(url: str) -> str:
    """The path of a public URL, as ``KAOS_PUBLIC_URL`` has it: empty, or like ``/jupyter``.

    Raises:
        InvalidRequest: it is no URL at which a Hub can be.
    """
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # half an IPv6 address, or a port that is no number
        usable = False
    if not usable:
        raise InvalidRequest(
            f"KAOS_PUBLIC_URL is {url!r}; it is how people reach the Hub, like"
            " https://hub.example.org or https://example.org/jupyter"
        )
    if parts.query or parts.fragment:
        raise InvalidRequest(f"KAOS_PUBLIC_URL is {url!r}: nothing may follow its path.")
    return clean_path(parts.path)


def clean_path(text: str) -> str:
    """A path without a slash at the end.

    Raises:
        InvalidRequest: it has a word in it by which paths of a Hub are told apart.
    """
    words = [word for word in text.split("/") if word]
    if taken := _RESERVED.intersection(words):
        raise InvalidRequest(
            f"The Hub's path {text!r} has {min(taken)!r} in it, as the Hub's own paths have."
            " Take another."
        )
    return "".join(f"/{word}" for word in words)
