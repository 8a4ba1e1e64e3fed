"""Real registries that want a login and have certificates of a CA of their own."""

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kaos_hub.registry.names import Reference
from kaos_hub.registry.registries import Registries
from tests.cluster import kubectl
from tests.hub import free_port, wait_until

PASSWORDS = {"pusher": "canary-pusher", "reader": "canary-reader"}
# Registries take bcrypt only, which no library here makes.
_HTPASSWD = """\
pusher:$2b$04$kaoshubtestsaltkaoshuO..QCVAW1ZEb4w5r/9TF8Oju6ECkLSmu
reader:$2b$04$kaoshubtestsaltkaoshuO8BXpkfBYBQoifbvCDmg2d06pr.dW9.G
"""
_CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {storage}}}}}
http:
  addr: {address}
"""


def program() -> str:
    """The registry's program; empty if there is none."""
    return shutil.which("docker-registry") or shutil.which("registry") or ""


needed = pytest.mark.skipif(
    not program(), reason="no docker-registry to start (Debian's docker-registry)"
)


class Authority:
    """A CA. Like many a company's it lacks what only the strictest ask for.

    Args:
        directory: where certificates go.
        name: of its file.
    """

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"tests' {name}")])
        basic = x509.BasicConstraints(ca=True, path_length=None)
        made = _certificate(self._name, self._name, self._key, days=2)
        made = made.add_extension(basic, critical=True)
        self.certificate = directory / f"{name}.crt"
        self.certificate.write_bytes(_pem(made.sign(self._key, hashes.SHA256())))

    def issue(self, host: str, days: int = 1) -> tuple[Path, Path]:
        """A certificate for an address, and its key. With ``days=-1`` it ended yesterday."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        numbers = not host.strip("0123456789.")
        shown = x509.IPAddress(ip_address(host)) if numbers else x509.DNSName(host)
        names = x509.SubjectAlternativeName([shown])
        made = _certificate(subject, self._name, key, days).add_extension(names, critical=False)
        certificate = self._directory / f"{host}{days}.crt"
        certificate.write_bytes(_pem(made.sign(self._key, hashes.SHA256())))
        certificate.with_suffix(".key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate, certificate.with_suffix(".key")


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    return made.not_valid_before(now - timedelta(days=3)).not_valid_after(
        now + timedelta(days=days)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@contextlib.contextmanager
def serving(
    directory: Path, host: str, tls: tuple[Path, Path] | None = None, login: bool = True
) -> Iterator[str]:
    """A registry while you use it; its address. All of one directory have the same images."""
    address = f"{host}:{free_port()}"
    text = _CONFIG.format(storage=directory / "storage", address=address)
    if tls:
        text += f"  tls: {{certificate: {tls[0]}, key: {tls[1]}}}\n"
    if login:
        (directory / "htpasswd").write_text(_HTPASSWD)
        text += f"auth: {{htpasswd: {{realm: tests, path: {directory}/htpasswd}}}}\n"
    config = directory / f"{address.replace(':', '-')}.yml"
    config.write_text(text)
    process = subprocess.Popen([program(), "serve", str(config)], stderr=subprocess.PIPE, text=True)
    said: list[str] = []
    assert process.stderr is not None
    # Whoever does not read it stops it.
    reading = threading.Thread(target=said.extend, args=(process.stderr,), daemon=True)
    reading.start()
    try:
        wait_until(lambda: _listens(process, address, said), 10, "the registry")
        yield address
    finally:
        process.terminate()
        process.wait(10)
        reading.join(5)
        process.stderr.close()


def _listens(process: "subprocess.Popen[str]", address: str, said: list[str]) -> bool:
    assert process.poll() is None, "".join(said)
    host, _, port = address.partition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
        return True
    return False


def auths() -> list[str]:
    """Users and passwords as they go over the wire."""
    pairs = [f"{user}:{password}" for user, password in PASSWORDS.items()]
    return [base64.b64encode(pair.encode()).decode() for pair in pairs]


def docker_config(address: str, user: str, password: str = "") -> str:
    """What `docker login` writes. The password is there to be found as it is, too."""
    password = password or PASSWORDS[user]
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    entry = {"username": user, "password": password, "auth": auth}
    return json.dumps({"auths": {address: entry}})


def copy(source: Registries, image: str, target: Registries, to: Reference) -> None:
    """Bring an image from one registry to another."""
    found = source.image(source.manifest(Reference.parse(image)), "amd64")
    for blob in [found.json["config"], *found.json["layers"]]:
        if not target.has_blob(to, blob["digest"]):
            with contextlib.closing(_Spool(source.blob(found.where, blob["digest"]))) as file:
                target.upload(to, blob["digest"], file.file, blob["size"])
    target.put_manifest(to, found.body, found.media_type)


class _Spool:
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115  closed by whoever made it
        for piece in pieces:
            self.file.write(piece)
        self.file.seek(0)

    def close(self) -> None:
        self.file.close()


# --- what the nodes trust ---


def node_certificates() -> Path | None:
    """Where the cluster's containerd, if it is on this machine, looks for registries' CAs."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if Path(words[0]).name != "containerd":
                continue
            given = [b for a, b in pairwise(words) if a in ("--config", "-c")]
            root = process / "root"
            config = root / (given or ["/etc/containerd/config.toml"])[0].lstrip("/")
            found = re.search(r'^\s*config_path\s*=\s*"([^":]+)', config.read_text(), re.MULTILINE)
            if found and os.access(root / found[1].lstrip("/"), os.W_OK):
                return root / found[1].lstrip("/")
    return None


@contextlib.contextmanager
def trusted_by_node(address: str, ca: Path) -> Iterator[None]:
    """Have the node trust a registry: a folder of its own, which containerd reads at every pull."""
    place = node_certificates()
    assert place is not None
    folder = place / address
    folder.mkdir()
    try:
        shutil.copy(ca, folder / "ca.crt")
        (folder / "hosts.toml").write_text(
            f'server = "https://{address}"\n[host."https://{address}"]\n'
            '  capabilities = ["pull", "resolve"]\n  ca = "ca.crt"\n'
        )
        yield
    finally:
        shutil.rmtree(folder)


needs_node = pytest.mark.skipif(
    node_certificates() is None,
    reason="this machine's containerd looks nowhere for certificates (config_path)",
)


def login_secret(namespace: str, name: str, config: str) -> None:
    """A secret with a login, as `kubectl create secret docker-registry` makes it."""
    secret = {
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {".dockerconfigjson": config},
    }  # fmt: skip
    kubectl("apply", "-f", "-", give=json.dumps(secret))


# --- an index of packages ---


@contextlib.contextmanager
def package_index(
    directory: Path, host: str, name: str, text: str, tls: tuple[Path, Path] | None = None
) -> Iterator[int]:
    """An index (PEP 503) with one package, whose one module has that text; its port."""
    folder = directory / "simple" / name
    folder.mkdir(parents=True)
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(f"{name}.py", text)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr(f"{info}/WHEEL", tags)
        file.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n")
    (folder / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    handler = partial(_Quiet, directory=str(directory))
    server = ThreadingHTTPServer((host, 0), handler)
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""
