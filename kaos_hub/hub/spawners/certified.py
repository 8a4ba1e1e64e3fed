"""Servers whose hub's parts speak TLS with each other (``c.JupyterHub.internal_ssl``)."""

import ssl
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from kaos_hub.installation.certificates import Certificates
from kaos_hub.transport.certified import CALLERS, IDENTITY, READY
from kaos_hub.util import tls

CHANGED = "it was started before c.JupyterHub.internal_ssl was changed; start it again"
"""The reason for ending a server that can neither ask the Hub nor be asked."""


class Certified:
    """The part of a spawner that gives each launch a certificate of its own, where JupyterHub has
    one for all servers of a user."""

    workload: str
    """Names the launch."""
    internal_ssl: bool
    internal_certs_location: str

    async def create_certs(self) -> dict[str, str]:
        """Nothing yet: each launch makes its own, see :meth:`certificate_files`."""
        return {}

    async def move_certs(self, paths: dict[str, str]) -> dict[str, str]:
        """Return the paths at which the server finds the files that its launch gives it."""
        return {"keyfile": IDENTITY, "certfile": IDENTITY, "cafile": CALLERS}

    @property
    def scheme(self) -> str:
        """Of the server's address."""
        return "https" if self.internal_ssl else "http"

    @property
    def context(self) -> ssl.SSLContext | None:
        """The Hub's, for asking service and servers; None: they speak plain HTTP."""
        return _hub_client(self.internal_certs_location) if self.internal_ssl else None

    def speaks_as(self, address: str) -> bool:
        """Tell if a server at an address speaks as the Hub does now; one that is not known does."""
        return urlsplit(address).scheme in ("", self.scheme)

    def certificate_files(self, host: str) -> dict[str, str]:
        """Files that the server waits for, by their names, in the order in which they are needed.

        Args:
            host: the address at which the Hub finds the server.
        """
        made = Certificates(Path(self.internal_certs_location)).notebook(self.workload, host)
        return {
            PurePosixPath(CALLERS).name: made.callers,
            PurePosixPath(IDENTITY).name: made.identity,
            PurePosixPath(READY).name: "",
        }

    def certificate_variables(self) -> dict[str, str]:
        """Variables of the server besides JupyterHub's."""
        return {tls.VARIABLE: IDENTITY} if self.internal_ssl else {}


@lru_cache(maxsize=1)
def _hub_client(directory: str) -> ssl.SSLContext:
    """Made once, as it does not change while the Hub runs."""
    return Certificates(Path(directory)).hub_client()
