"""What tests of TLS between the parts of a hub share: a hub that has it, and who tries without."""

import json
from pathlib import Path

from tests.hub import RunningHub

SECURE = "\nc.JupyterHub.internal_ssl = True\n"

TRY = """
import json, ssl, sys

def plain(host, port):
    return socket.create_connection((host, port), 5)

def nobody(host, port):
    return trusting_all().wrap_socket(plain(host, port))

def own(host, port, certificate):
    context = trusting_all()
    context.load_cert_chain(certificate)
    return context.wrap_socket(plain(host, port))

def trusting_all():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context

import socket
said = {}
for label, kind, *where in json.loads(sys.argv[1]):
    try:
        with globals()[kind](*where) as s:
            s.settimeout(5)
            s.sendall(b"GET / HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n")
            said[label] = s.recv(12).decode(errors="replace")
    except OSError as e:
        said[label] = ""
print(json.dumps(said))
"""
"""Asks each of a list of ``[label, kind, host, port, …]``; the beginning of what was answered."""


def certificates(hub: RunningHub) -> Path:
    """Where the certificates of a hub are."""
    return hub.data / "internal-ssl"


def port(hub: RunningHub, role: str) -> int:
    """Where a part of a hub listens."""
    return int(json.loads((hub.data / "ports.json").read_text())[role])
