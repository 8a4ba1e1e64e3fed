"""Starting JupyterHub as a child process, and knowing when all of it really answers."""

import contextlib
import ctypes
import fcntl
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from kaos_hub.deployment.proxy import program
from kaos_hub.errors import Conflict, KaosError, Unavailable
from kaos_hub.installation.certificates import Certificates
from kaos_hub.installation.datadir import DataDir, Held
from kaos_hub.installation.ports import is_free, obstacle
from kaos_hub.installation.public_address import Settled, remembered

_PR_SET_PDEATHSIG = 1
_UP, _READY = "up.lock", "up.ready"
_INNER_PORTS = ("hub", "service", "admission", "proxy")
_LOG_LIMIT = 20 << 20
_BORING = (" ", "}", "[I ", "[D ")
_PROXY = "[ConfigProxy]"
# JupyterHub indents the tracebacks that it logs.
_FRAME = re.compile(r' {4,}File "(.+)", line (\d+)')
_ERROR = re.compile(r" {4}(kaos_hub\.errors\.\w+: )?((?(1)|[\w.]+: ).+)")

# Loopback is never behind a proxy, whatever the environment says.
_OPENER = build_opener(ProxyHandler({}))


def call(
    url: str,
    token: str | None = None,
    body: object = None,
    timeout: float = 10,
    context: ssl.SSLContext | None = None,
) -> tuple[int, Any]:
    """Ask something of the Hub on this machine: its status and the JSON answered (else None).

    Args:
        url: what to ask.
        token: with which right.
        body: sent as JSON.
        timeout: seconds for each step.
        context: for TLS, with a part of the hub that speaks it; see :func:`certificates`.

    Raises:
        Unavailable: it does not answer.
    """
    headers = {"Authorization": f"token {token}"} if token else {}
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data=data, headers=headers)  # noqa: S310  only http URLs of ours
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context)) if context else _OPENER
    try:
        with opener.open(request, timeout=timeout) as answer:
            return answer.status, _json(answer.read())
    except HTTPError as e:
        return e.code, _json(e.read())
    except (URLError, OSError) as e:
        raise Unavailable(f"{url} does not answer: {e}") from None


def certificates(data: DataDir) -> Certificates | None:
    """Those of a Hub whose parts speak TLS with each other, as it was when it started last."""
    known = remembered(data)
    return Certificates(Path(known.certificates)) if known and known.certificates else None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def config_file() -> Path:
    """The Hub's configuration, as installed or beside the sources.

    Raises:
        KaosError: it is in neither place.
    """
    try:
        installed = metadata.files("kaos-hub") or []
    except metadata.PackageNotFoundError:
        installed = []
    places = [Path(str(f.locate())) for f in installed if f.name == "jupyterhub_config.py"]
    places.append(Path(__file__).resolve().parents[2] / "jupyterhub_config.py")
    for place in places:
        if place.is_file():
            return place.resolve()
    raise KaosError(
        "jupyterhub_config.py is missing from this installation. Install kaos-hub again."
    )


def running(data: DataDir) -> int | None:
    """The process id of the Hub that runs on this data directory, or None."""
    if not os.access(data.path / "hub.lock", os.F_OK):  # also says no where we may not look
        return None
    try:
        data.hold("hub.lock").close()
    except Conflict as e:
        return int(e.details["pid"])
    return None


def starting(data: DataDir) -> int | None:
    """The process id of the `kaos up` that is starting the Hub of a data directory, or None.

    None, too, once the Hub is ready, and where nothing can be seen.
    """
    try:
        with (data.path / _UP).open(encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        ready = (data.path / _READY).exists()
        return None if ready else int((data.path / _UP).read_text() or 0)
    except OSError:
        pass
    return None


@contextlib.contextmanager
def told(data: DataDir) -> Iterator[Callable[[], None]]:
    """Let other commands know that the Hub is being started, until they are told that it is there.

    Yields:
        To be called when it is.

    Raises:
        Conflict: another `kaos up` is at it.
    """
    ready = data.path / _READY
    with _held(data):
        ready.unlink(missing_ok=True)
        yield ready.touch


def _held(data: DataDir, patience: float = 1) -> Held:
    until = time.monotonic() + patience
    while True:
        try:
            return data.hold(_UP)
        except Conflict:
            if time.monotonic() > until:  # not only looked at
                raise
            time.sleep(0.05)


def local_url(data: DataDir) -> str:
    """Return the URL of a data directory's Hub for this machine, as far as that is known."""
    known = remembered(data)
    return known.local if known else f"http://127.0.0.1:{data.port('public', prefer=8000)}"


def check_ports(data: DataDir, public: int, inner: str, patience: float = 5) -> None:
    """Make sure that the Hub can listen, so that it does not find out halfway.

    Args:
        data: the data directory.
        public: the port for people.
        inner: the address that notebooks talk to.
        patience: seconds to wait for what a killed Hub left to be gone.

    Raises:
        Conflict: a port is taken by another program; says how to take another.
    """
    orphan = program.leftover(data.path / "proxy.pid")
    if orphan is None and (why := obstacle("127.0.0.1", public)):
        raise Conflict(f"Port {public} {why}. Choose another: kaos up --port N")
    for role in _INNER_PORTS:
        if role == "proxy" and orphan is not None:
            continue  # the Hub ends it and takes its place
        host = inner if role in ("hub", "service") else "127.0.0.1"
        port = data.port(role, host)
        until = time.monotonic() + patience
        while not is_free(host, port):
            if time.monotonic() > until:
                raise Conflict(
                    f"Port {port}, which kaos uses inside this machine ({role}), is taken by"
                    f" another program. Stop that program, or delete {data.ports}: then others are"
                    " chosen, and notebooks that run must be restarted."
                )
            time.sleep(0.1)


@dataclass
class HubProcess:
    """JupyterHub as our child. It ends with us, notebooks don't."""

    process: "subprocess.Popen[bytes]"
    log: Path
    since: int = 0
    """Bytes of the log that are of earlier starts."""

    @classmethod
    def start(cls, data: DataDir, environment: Mapping[str, str]) -> "HubProcess":
        """Start it; what it says goes to ``logs/hub.log``."""
        data.address.unlink(missing_ok=True)  # an earlier one's may be another
        log = data.logs / "hub.log"
        if log.exists() and log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as output:
            since = output.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "kaos_hub.hub.app", "-f", str(config_file())],
                cwd=data.path,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Not the terminal's business: Ctrl-C reaches us, and we end it in order.
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        return cls(process, log, since)

    def wait_for_address(self, data: DataDir, patience: float = 180) -> Settled:
        """Wait until the configuration has settled the address that people use; return it.

        Raises:
            KaosError: it ended, with the last lines of its log, or took longer than ``patience``
                seconds.
        """
        until = time.monotonic() + patience
        while (found := remembered(data)) is None:
            self._check_alive()
            if time.monotonic() > until:
                raise Unavailable(f"The Hub does not start. {self.last_words()}")
            time.sleep(0.05)
        return found

    def wait_until_ready(
        self,
        checks: Sequence[str],
        patience: float = 180,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Return when all of ``checks`` (URLs), one after the other, answer 200.

        Args:
            checks: the URLs.
            patience: seconds.
            context: for those of parts of the hub that speak TLS.

        Raises:
            KaosError: it ended, with the last lines of its log, or took longer than ``patience``
                seconds.
        """
        until = time.monotonic() + patience
        for url in checks:
            pause = 0.05
            while not _answers(url, context):
                self._check_alive()
                if time.monotonic() > until:
                    raise Unavailable(
                        f"{url} does not answer after {patience:.0f} s. {self.last_words()}"
                    )
                time.sleep(pause)
                pause = min(1.5 * pause, 0.5)

    def _check_alive(self) -> None:
        code = self.process.poll()
        if code is not None:
            raise KaosError(f"The Hub ended (exit code {code}). {self.last_words()}")

    def last_words(self, count: int = 8) -> str:
        """The end of what it logged, for people: no tracebacks, nothing that went well."""
        try:
            with self.log.open("rb") as log:
                log.seek(self.since)
                lines = log.read().decode(errors="replace").splitlines()[-500:]
        except OSError:
            lines = []
        kept = list(_telling(lines))[-count:]
        return f"{self.log} ends with:\n" + "\n".join(f"  {line}" for line in kept)

    def wait(self) -> int:
        """Wait for its end; our own signals are passed on. Returns its exit code."""

        def end(number: int, frame: FrameType | None) -> None:
            # JupyterHub takes no notice of a second one while it ends.
            self.process.send_signal(signal.SIGTERM if number == signal.SIGTERM else signal.SIGINT)

        for number in _endings():
            signal.signal(number, end)
        return self.process.wait()

    def end(self, patience: float = 40) -> None:
        """End it in order; after ``patience`` seconds, by force."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def _telling(lines: Iterable[str]) -> Iterator[str]:
    place = ""
    for line in lines:
        if frame := _FRAME.match(line):
            place = f" ({frame[1]}, line {frame[2]})"
        elif error := _ERROR.fullmatch(line):
            yield error[2] + ("" if error[1] else place)  # ours say where themselves
        elif line.strip() and not line.startswith(_BORING) and _PROXY not in line:
            yield line


def interruptible() -> None:
    """Make every request to end us an interrupt, even if a shell started us deaf to it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in _endings():
        signal.signal(number, interrupt)


def _endings() -> list[signal.Signals]:
    """List the signals that end us; a hang-up only if it is not ignored, as by ``nohup``."""
    endings = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        endings.append(signal.SIGHUP)
    return endings


def end_leftover_proxy(data: DataDir) -> None:
    """End the proxy of a Hub that is gone: it would hold the port and answer errors."""
    if running(data) is None:
        program.end_leftover(data.path / "proxy.pid")


def _answers(url: str, context: ssl.SSLContext | None) -> bool:
    try:
        status, _ = call(url, timeout=5, context=context)
    except Unavailable:
        return False
    return status == 200


def _end_with_parent() -> None:
    """In the child, before it becomes JupyterHub."""
    # Shells start background jobs with SIGINT ignored, and children would inherit that: then
    # nothing ends the service in order.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
