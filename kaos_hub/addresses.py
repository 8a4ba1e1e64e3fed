"""Where Hub, proxy and service listen, and where they find each other.

On one machine all of them listen on ports that were free when they were chosen. In a cluster each
is a pod of its own, and they know each other by the names of their Kubernetes Services, which
``helm/`` makes. Needs only the standard library.
"""

import os
from dataclasses import dataclass

from kaos_hub.datadir import DataDir

PUBLIC_PORT, PROXY_API_PORT = 8000, 8001
HUB_PORT = 8081
SERVICE_PORT, ADMISSION_PORT = 8080, 8090
SERVICES = ("kaos", "kaos-train")
"""What the Hub knows our one service as: two of its services, on one port."""
_PREFIX = f"/services/{SERVICES[0]}"


@dataclass(frozen=True)
class Addresses:
    """URLs without a slash at the end; ``…_bind`` is where somebody listens."""

    public_bind: str
    """Where people come in."""
    proxy_api: str
    hub: str
    hub_bind: str
    service: str
    service_bind: str
    admission: str
    admission_bind: str

    @property
    def inside(self) -> str:
        """The service as notebooks and builds reach it."""
        return self.service + _PREFIX


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
    """Each in a pod of its own in ``namespace``; pods of other namespaces reach them, too."""
    return Addresses(
        public_bind=f"http://0.0.0.0:{PUBLIC_PORT}",
        proxy_api=f"http://proxy-api.{namespace}:{PROXY_API_PORT}",
        hub=f"http://hub.{namespace}:{HUB_PORT}",
        hub_bind=f"http://0.0.0.0:{HUB_PORT}",
        service=f"http://service.{namespace}:{SERVICE_PORT}",
        service_bind=f"http://0.0.0.0:{SERVICE_PORT}",
        admission=f"http://admission.{namespace}:{ADMISSION_PORT}",
        admission_bind=f"http://0.0.0.0:{ADMISSION_PORT}",
    )
