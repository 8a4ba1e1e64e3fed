"""TLS between the parts of a hub: the one place where contexts for it are made.

With ``c.JupyterHub.internal_ssl`` each part has a certificate and asks for that of the other, in
both directions. What a workload has is one file in PEM, its *identity*: its private key, its
certificate, and the authorities of whom it talks to. Needs only the standard library: workloads
import it.
"""

import http.client
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult

VARIABLE = "KAOS_TLS"
"""Names the file with the identity of a notebook or of a program of ours; not set without TLS."""

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


def client(certificate: Path | str, key: Path | str | None = None, *, trust: str) -> ssl.SSLContext:
    """A context for asking: shows a certificate, checks that of whom it asks, and the name on it.

    Args:
        certificate: file with the own certificate.
        key: file with the private key; by default the same file.
        trust: certificates of the authorities that are believed, in PEM. No others are.

    Raises:
        OSError: a file cannot be read, or makes no sense.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False
    return _filled(context, certificate, key, trust)


def server(certificate: Path | str, key: Path | str | None = None, *, trust: str) -> ssl.SSLContext:
    """A context for answering only who shows a certificate of an authority that is believed.

    Arguments and errors are those of :func:`client`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _filled(context, certificate, key, trust)


def of_identity(file: Path | str) -> ssl.SSLContext:
    """A context for asking as the workload whose identity is in a file.

    Raises:
        OSError: the file cannot be read, or makes no sense.
    """
    return client(file, trust=_authorities(Path(file).read_text("ascii")))


def of_environment(environ: Mapping[str, str] = os.environ) -> ssl.SSLContext | None:
    """The context of the workload that we run in, or None: the hub speaks plain HTTP.

    Raises:
        OSError: the identity cannot be read, or makes no sense.
    """
    file = environ.get(VARIABLE)
    return of_identity(file) if file else None


def connection(
    to: SplitResult, timeout: float, context: ssl.SSLContext | None
) -> http.client.HTTPConnection:
    """A connection, not yet made.

    Args:
        to: URL of where to; its path does not matter.
        timeout: seconds for each step.
        context: for ``https``; None: the machine's own.
    """
    host = to.hostname or ""
    if to.scheme != "https":
        return http.client.HTTPConnection(host, to.port, timeout=timeout)
    return http.client.HTTPSConnection(host, to.port, timeout=timeout, context=context)


def take(file: Path) -> ssl.SSLContext | None:
    """The context of an identity, whose file is then deleted: what runs later cannot have it.

    Returns:
        None if there is no such file: the hub speaks plain HTTP.

    Raises:
        OSError: it cannot be read or deleted, or makes no sense.
    """
    if not file.exists():
        return None
    context = of_identity(file)
    file.unlink()
    return context


def _authorities(identity: str) -> str:
    """The certificates after the first, which is the workload's own."""
    return "".join(_CERTIFICATE.findall(identity)[1:])


def _filled(
    context: ssl.SSLContext, certificate: Path | str, key: Path | str | None, trust: str
) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cadata=trust)
    return context
