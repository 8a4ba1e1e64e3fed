"""Certificates for TLS between the parts of a hub, with ``c.JupyterHub.internal_ssl``.

They lie where JupyterHub has its own (``c.JupyterHub.internal_certs_location``). Authorities tell
the parts apart; each part believes only those that it has to do with:

==================== ================================================ ==========================
authority            whose certificates it signs                      who believes it
==================== ================================================ ==========================
hub-ca               the Hub's                                        all
proxy-api-ca         the proxy's, where the Hub tells it routes       the Hub
proxy-client-ca      the proxy's, where it passes requests on         Hub, service, notebooks
services-ca          the service's                                    Hub, proxy, all workloads
notebooks-ca         one for each start of a notebook                 Hub, proxy, service
kaos-workers-ca      one for each worker, ingest, fetch               service
==================== ================================================ ==========================

So no workload can pass for Hub, proxy or service, and none can talk to another. JupyterHub makes
one certificate for all servers of a user, and gives services the same kind as users; here each
start has its own, for its own address alone. Of a workload's certificate nothing is kept.
"""

import contextlib
import os
import shutil
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaos_hub.errors import KaosError
from kaos_hub.util import tls

if TYPE_CHECKING:
    from cryptography import x509

VARIABLE = "KAOS_CERTIFICATES"
"""Tells the service where the certificates are; not set without TLS."""

HUB, PROXY_API, PROXY, SERVICES, NOTEBOOKS, WORKERS = (
    "hub-ca", "proxy-api-ca", "proxy-client-ca", "services-ca", "notebooks-ca", "kaos-workers-ca",
)  # fmt: skip
AUTHORITIES = (HUB, PROXY_API, PROXY, SERVICES, NOTEBOOKS, WORKERS)
_PAIRS = {
    "hub-internal": HUB,
    "proxy-api": PROXY_API,
    "proxy-client": PROXY,
    "kaos-service": SERVICES,
}
_LOCAL = ("IP:127.0.0.1", "IP:::1", "DNS:localhost")
_RENEW = timedelta(days=90)
"""The least validity left when a Hub starts; certificates with less are made anew."""
_NOTEBOOK = 5 * 365 * 24 * 3600
"""Seconds that a notebook may run; as long as an authority of JupyterHub's is valid."""


@dataclass(frozen=True)
class Notebook:
    """The certificates of a notebook's server, in PEM."""

    identity: str
    """For its own part, and for asking the service; see :mod:`kaos_hub.util.tls`."""
    callers: str
    """The authorities of those whom it answers, of which one is the Hub's."""


class Certificates:
    """The certificates of one hub.

    Args:
        directory: where they are; made by :meth:`prepare`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def of_service(cls) -> "Certificates | None":
        """Those that the service was told of; None: it speaks plain HTTP."""
        told = os.environ.get(VARIABLE)
        return cls(Path(told)) if told else None

    # --- made by the Hub ---

    def prepare(self, names: Sequence[str], anew: bool = False) -> bool:
        """Make what is missing, and anew what has too little time left or lacks a name.

        Args:
            names: by which Hub and service are found besides loopback, like ``IP:172.17.0.1``.
            anew: leave nothing as it is.

        Returns:
            Whether all was made anew: then what runs has certificates that no part believes.

        Raises:
            KaosError: they cannot be written.
        """
        from certipy import Certipy

        old = self.directory / "certipy.json"
        try:
            with _private():
                begun = old.exists() and (anew or not self._sound())
                if begun:
                    shutil.rmtree(self.directory)
                self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                store = Certipy(store_dir=str(self.directory))
                for authority in AUTHORITIES:
                    if authority not in store.store.store:
                        store.create_ca(authority)
                wanted = list(dict.fromkeys([*_LOCAL, f"DNS:{socket.getfqdn()}", *names]))
                for name, authority in _PAIRS.items():
                    if name not in store.store.store or not self._is_good(name, wanted):
                        store.create_signed_pair(name, authority, alt_names=wanted, overwrite=True)
                self.behind_proxy.write_text(self._trust(HUB, SERVICES, NOTEBOOKS))
        except (OSError, ValueError) as e:
            raise KaosError(
                f"The certificates for c.JupyterHub.internal_ssl cannot be made in"
                f" {self.directory}: {e}"
            ) from None
        return begun

    @property
    def behind_proxy(self) -> Path:
        """File with the authorities that the proxy believes of those behind it."""
        return self.directory / "kaos-behind-proxy_trust.crt"

    @property
    def hub(self) -> Path:
        """File with the authority of the Hub alone."""
        return self._file(HUB, "crt")

    def until(self) -> datetime:
        """Return when the first authority expires, and with it all that it signed.

        Raises:
            OSError, ValueError: an authority is missing, or damaged.
        """
        return min(self._certificate(name).not_valid_after_utc for name in AUTHORITIES)

    # --- contexts ---

    def hub_client(self) -> ssl.SSLContext:
        """For asking anything of the hub's, as the Hub."""
        return self._client("hub-internal", *AUTHORITIES)

    def service_client(self) -> ssl.SSLContext:
        """For asking the Hub, as the service."""
        return self._client("kaos-service", HUB)

    def service_server(self) -> ssl.SSLContext:
        """For answering all who have to do with the service."""
        return self._server("kaos-service", HUB, PROXY, NOTEBOOKS, WORKERS)

    def admission_server(self) -> ssl.SSLContext:
        """For answering the Hub alone, as the service."""
        return self._server("kaos-service", HUB)

    def _client(self, name: str, *authorities: str) -> ssl.SSLContext:
        files = self._file(name, "crt"), self._file(name, "key")
        return tls.client(*files, trust=self._trust(*authorities))

    def _server(self, name: str, *authorities: str) -> ssl.SSLContext:
        files = self._file(name, "crt"), self._file(name, "key")
        return tls.server(*files, trust=self._trust(*authorities))

    # --- of workloads ---

    def notebook(self, workload: str, address: str) -> Notebook:
        """Certificates for one start of a notebook.

        Args:
            workload: which start.
            address: the IP address at which the Hub finds it, and nothing else.
        """
        made = self._issue(NOTEBOOKS, workload, _NOTEBOOK, address)
        return Notebook(made + self._trust(SERVICES), self._trust(HUB, PROXY))

    def worker(self, workload: str, seconds: int) -> str:
        """The identity of what runs for a job: it can ask the service, and answer to none.

        Args:
            workload: which.
            seconds: for which it is valid.
        """
        return self._issue(WORKERS, workload, seconds) + self._trust(SERVICES)

    def _issue(self, authority: str, name: str, seconds: int, address: str | None = None) -> str:
        """A new key and its certificate, in PEM."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID

        signer = self._certificate(authority)
        signing = self._key(authority)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        common_name = x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([common_name]))
            .issuer_name(signer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(min(now + timedelta(seconds=seconds), signer.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
        )
        if address is not None:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
            builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=True)
        certificate = builder.sign(signing, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return (private + certificate.public_bytes(serialization.Encoding.PEM)).decode()

    # --- files ---

    def _file(self, name: str, kind: str) -> Path:
        return self.directory / name / f"{name}.{kind}"

    def _trust(self, *authorities: str) -> str:
        return "".join(self._file(name, "crt").read_text("ascii") for name in authorities)

    def _certificate(self, name: str) -> "x509.Certificate":
        from cryptography import x509

        return x509.load_pem_x509_certificate(self._file(name, "crt").read_bytes())

    def _key(self, name: str) -> Any:
        from cryptography.hazmat.primitives import serialization

        # Its arithmetic is not checked each time: the file is ours, and that takes long.
        return serialization.load_pem_private_key(
            self._file(name, "key").read_bytes(), None, unsafe_skip_rsa_key_validation=True
        )

    def _sound(self) -> bool:
        """Check that the files of an earlier Hub are whole; it may have died while it wrote."""
        from certipy import Certipy

        try:
            known = Certipy(store_dir=str(self.directory)).store.store
            made = [name for name in AUTHORITIES if name in known]
            return all(self._lasts(name) and self._matches(name) for name in made)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _is_good(self, name: str, wanted: Sequence[str]) -> bool:
        """Check that a pair is there, fits together, lasts, and has all names that are wanted."""
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature

        try:
            found = self._certificate(name).extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
            has = {f"DNS:{each}" for each in found.value.get_values_for_type(x509.DNSName)}
            has |= {f"IP:{each}" for each in found.value.get_values_for_type(x509.IPAddress)}
            signer = self._certificate(_PAIRS[name])
            self._certificate(name).verify_directly_issued_by(signer)
            return has.issuperset(wanted) and self._lasts(name) and self._matches(name)
        except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False

    def _lasts(self, name: str) -> bool:
        return self._certificate(name).not_valid_after_utc > datetime.now(UTC) + _RENEW

    def _matches(self, name: str) -> bool:
        return bool(self._key(name).public_key() == self._certificate(name).public_key())


@contextlib.contextmanager
def _private() -> Iterator[None]:
    """Create files that are their owner's alone from the first moment on."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
