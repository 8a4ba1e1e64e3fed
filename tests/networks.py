"""What tests of owners' networks need: things that must not be reached, and clearing away."""

import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PROBE = """
import json, socket, struct, sys

def tcp(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(3)
        s.connect((host, port))

def udp(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(3)
        # IP_RECVERR, so that a refusal is told; not connected, since any address may answer.
        s.setsockopt(socket.IPPROTO_IP, 11, 1)
        s.sendto(b"hello", (host, port))
        s.recvfrom(100)

def packet(host, port):
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))

def raw(host, port):
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)

def spoof(host, port):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind(("eth0", 0))
    mac = b"\\x02" * 6
    s.send(b"\\xff" * 6 + mac + b"\\x08\\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 2)
           + mac + socket.inet_aton(host) + b"\\xff" * 6 + socket.inet_aton(host))

def route(host, port):
    import fcntl
    with socket.socket() as s:
        fcntl.ioctl(s, 0x890B, bytes(120))

def name(host, port):
    socket.getaddrinfo(host, port)

seen = {}
for label, kind, host, port in json.loads(sys.argv[1]):
    try:
        globals()[kind](host, port)
        seen[label] = "through"
    except OSError as e:
        seen[label] = e.strerror or str(e) or type(e).__name__
print(json.dumps(seen), flush=True)
"""
"""Tries each of a list of ``[label, kind, host, port]``; says of each whether it got through."""


_PASSING = ("br", "ka", "kv", "ve")
"""How the names of links begin that tests and networks of Docker make."""


class Listening(http.server.ThreadingHTTPServer):
    """A web server in a thread of the test, at any address of this machine."""

    daemon_threads = True

    def __init__(self, host: str, port: int = 0) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Quiet)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        super().__exit__(*error)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing to stderr."""


class Echo:
    """Answers datagrams at all addresses of this machine."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("0.0.0.0", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                said, sender = self._socket.recvfrom(100)
                self._socket.sendto(said, sender)

    def close(self) -> None:
        """Be deaf."""
        self._socket.close()


def addresses() -> list[str]:
    """This machine's own IPv4 addresses, without those in networks that come and go."""
    told = json.loads(subprocess.check_output(["ip", "-j", "-4", "address"]))
    lasting = [
        link for link in told if link["ifname"] != "lo" and link["ifname"][:2] not in _PASSING
    ]
    return [str(a["local"]) for link in lasting for a in link["addr_info"]]


@contextlib.contextmanager
def neighbour(*hosts: str) -> Iterator[int]:
    """Another machine on a network of this one, with these addresses; the port it listens on."""
    name, port = f"kaos{os.getpid()}", 8000
    here, there = f"kv{os.getpid()}", f"kw{os.getpid()}"
    run = ["ip", "netns", "exec", name]
    commands = [
        ["ip", "netns", "add", name],
        ["ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name],
        ["ip", "link", "set", here, "up"],
        [*run, "ip", "link", "set", there, "up"],
        [*run, "ip", "link", "set", "lo", "up"],
        ["ip", "address", "add", "198.51.100.129/25", "dev", here],
        [*run, "ip", "address", "add", "198.51.100.130/25", "dev", there],
        [*run, "ip", "route", "add", "default", "via", "198.51.100.129"],
    ]
    for host in hosts:
        commands.append([*run, "ip", "address", "add", f"{host}/32", "dev", "lo"])
        commands.append(["ip", "route", "add", f"{host}/32", "via", "198.51.100.130"])
    try:
        for command in commands:
            subprocess.run(command, check=True, capture_output=True)
        server = subprocess.Popen(
            [*run, sys.executable, "-m", "http.server", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            for host in hosts:
                _await(host, port)
            yield port
        finally:
            server.kill()
            server.wait()
    finally:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def _await(host: str, port: int) -> None:
    from tests.hub import wait_until

    def answers() -> bool:
        try:
            socket.create_connection((host, port), 1).close()
        except OSError:
            return False
        return True

    wait_until(answers, 20, f"an answer of {host}")


def dismiss(data: Path) -> None:
    """Take away networks, guard and rules of the hub or engine of a data directory."""
    _clear([f"label=kaos_hub.data={data.absolute()}"])


def dismiss_all_below(directory: Path) -> None:
    """The same for all data directories below one."""
    for guard in _docker("ps", "-aq", "--filter", "label=kaos_hub.guard"):
        data = _docker("inspect", "-f", '{{index .Config.Labels "kaos_hub.data"}}', guard)
        if data and Path(data[0]).is_relative_to(directory):
            dismiss(Path(data[0]))


def _clear(filters: Sequence[str]) -> None:
    told = [word for each in filters for word in ("--filter", each)]
    for guard in _docker("ps", "-aq", *told):
        hub = _docker("inspect", "-f", '{{index .Config.Labels "kaos_hub.guard"}}', guard)[0]
        for network in _docker("network", "ls", "-q", "--filter", f"label=kaos_hub.network={hub}"):
            if left := _docker("ps", "-aq", "--filter", f"network={network}"):
                _docker("rm", "-f", *left)
            _docker("network", "rm", network)
        _docker("update", "--restart=no", guard)
        _docker("kill", "-s", "USR1", guard)
        _docker("wait", guard)
        _docker("rm", "-f", guard)


def _docker(*arguments: str) -> list[str]:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    return done.stdout.split()
