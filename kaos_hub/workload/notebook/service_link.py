"""The server extension's line to the kaos service: evidence out, verdicts and new code in.

Whatever the service does (it may be away, restart, answer nonsense), the user's server goes on;
trouble is logged once, and once more when it is over.
"""

import asyncio
import contextlib
import json
import logging
import tarfile
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from tornado.httpclient import HTTPError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from kaos_hub.schemas import Activity, ActivityAnswer
from kaos_hub.util import tls
from kaos_hub.workload.archive import unpack
from kaos_hub.workload.git import cloning
from kaos_hub.workload.notebook import working_copy
from kaos_hub.workload.notebook.errand_runner import ErrandRunner
from kaos_hub.workload.notebook.idle_watch import used_since

if TYPE_CHECKING:
    from tornado.httpclient import HTTPResponse

_TROUBLE = (OSError, HTTPError, ValidationError, ValueError, tarfile.TarError)
_LONGEST_PAUSE = 60.0
_BETWEEN_REPORTS = 1.0
_BETWEEN_USES = 5.0
_LATER = 600.0
_NO_LIMIT = 1 << 60


class ServiceLink:
    """Reports one server to the service until it is stopped.

    Args:
        url: the service's, without a slash at the end.
        notebook: its name there.
        token: the server's own.
        home: the notebook's home, whose working copy follows the service's word.
        evidence: makes the report; is given the digest that the working copy follows.
        interval: seconds between two reports when nothing happens.
        end: ends this server.
    """

    def __init__(
        self,
        url: str,
        notebook: str,
        token: str,
        home: Path,
        evidence: Callable[[str | None], Activity],
        interval: float,
        log: logging.Logger | logging.LoggerAdapter[Any],
        end: Callable[[], None],
    ) -> None:
        self._base = f"{url.rstrip('/')}/api/v1/notebooks/{notebook}"
        self._headers = {"Authorization": f"token {token}"}
        self._home = home
        self._evidence = evidence
        self._interval = interval
        self._log = log
        self._context = tls.of_environment()
        self._client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=_NO_LIMIT)
        self._errands = ErrandRunner(url, notebook, token, home, log, self._look_again)
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._reported = 0.0
        self._later: asyncio.TimerHandle | None = None
        self._end = end
        self._postponed: tuple[str, float] | None = None
        """A source that could not be laid completely, and when to try again (the loop's time)."""
        self.source = working_copy.followed(home)
        """The digest of the bundle that the working copy follows."""
        self.answer: ActivityAnswer | None = None
        """The last answer of the service."""
        self.problem = ""
        """The reason why the service cannot be reached now; empty if it can."""
        self.update: list[str] = []
        """Lines for people on what the last update of the working copy did."""

    def start(self) -> None:
        """Begin to report, on the running loop."""
        self._tasks = [
            asyncio.create_task(self._forever(self._report_until_trouble, self._trouble)),
            # Without events news arrives with the next report: no user needs to hear of that.
            asyncio.create_task(self._forever(self._listen, lambda _: None)),
        ]

    async def stop(self) -> None:
        """Stop reporting."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._errands.stop()
        self._client.close()

    def used(self) -> None:
        """Tell the service that a person is there: at once, or, if it has just heard something, a
        few seconds later."""
        if self._later is not None:
            return
        loop = asyncio.get_running_loop()
        at = self._reported + min(_BETWEEN_USES, self._interval)
        if at <= loop.time():
            self._wake.set()
        else:
            self._later = loop.call_at(at, self._hear_later)

    def _hear_later(self) -> None:
        self._later = None
        self._wake.set()

    async def _forever(
        self,
        work: Callable[[Callable[[], None]], Awaitable[None]],
        trouble: Callable[[BaseException], None],
    ) -> None:
        """Do ``work`` again and again; after trouble with a growing pause.

        ``work`` is given a function to call when the service has answered well.
        """
        pause = 1.0

        def well() -> None:
            nonlocal pause
            pause = 1.0

        while True:
            try:
                await work(well)
                continue
            except _TROUBLE as e:
                trouble(e)
            except Exception:
                # A defect of ours must not end the reports: a server in use would be stopped.
                self._log.exception("kaos: could not report")
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _trouble(self, e: BaseException) -> None:
        if not self.problem:
            self._log.warning(
                "kaos does not answer at %s (%s); this server goes on and keeps trying",
                self._base,
                e,
            )
        self.problem = str(e) or type(e).__name__

    async def _report_until_trouble(self, well: Callable[[], None]) -> None:
        while True:
            self._wake.clear()
            news = await self._report()
            well()
            if news:
                continue
            await asyncio.sleep(_BETWEEN_REPORTS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._pause() - _BETWEEN_REPORTS)

    def _pause(self) -> float:
        """Seconds until the next report, if nothing happens: at the latest when we may be idle."""
        due = self.answer.report_in if self.answer else None
        return self._interval if due is None else min(self._interval, due + _BETWEEN_REPORTS)

    async def _report(self) -> bool:
        """Report once; whether there is news to report at once."""
        following = self.source
        told = self._evidence(following)
        headers = {**self._headers, "Content-Type": "application/json"}
        answer = await self._fetch(
            "/activity", method="POST", body=told.model_dump_json(), headers=headers
        )
        self._reported = asyncio.get_running_loop().time()
        self.answer = ActivityAnswer.model_validate(json.loads(answer.body))
        if self.problem:
            self._log.info("kaos answers again")
        self.problem = ""
        if self.answer.stop and self._may_end(told):
            self._log.info("kaos: this server ends: %s", self.answer.stop)
            self._end()
            return False
        self._errands.take(self.answer.errands)
        git = self.answer.git
        if git is not None:
            cloning.begin(self._home, git.repository, git.model_dump_json())
        wanted = self.answer.source
        if wanted is None or wanted == following or self._is_postponed(wanted):
            return False
        await self._follow(wanted)
        return self.source != following

    def _may_end(self, told: Activity) -> bool:
        """Tell whether nothing has happened since that was told; report at once what did."""
        used = used_since(told, self._evidence(self.source))
        if used:
            self._wake.set()
        return not used

    async def _look_again(self) -> None:
        """Find which version the working copy follows, and report: saving may have changed that."""
        self.source = await asyncio.to_thread(working_copy.followed, self._home)
        self._wake.set()

    def _is_postponed(self, digest: str) -> bool:
        now = asyncio.get_running_loop().time()
        postponed = self._postponed
        return postponed is not None and postponed[0] == digest and now < postponed[1]

    async def _follow(self, digest: str) -> None:
        """Fetch the source that the notebook is to follow, and update the working copy."""
        directory = self._home / ".kaos"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="incoming-", dir=directory) as temporary:
            archive, tree = Path(temporary, "source.tar"), Path(temporary, "source")
            await self._fetch_file("/source", archive)
            report = await asyncio.to_thread(_update, self._home, archive, tree, digest)
        self.source = working_copy.followed(self._home)
        if report.failed:
            self._postponed = (digest, asyncio.get_running_loop().time() + _LATER)
        self.update = list(report.lines())
        self._log.info("kaos: working copy follows %s: %s", digest[:19], report.summary())
        for line in self.update:
            self._log.info("kaos:   %s", line)

    async def _fetch_file(self, path: str, to: Path) -> None:
        with to.open("wb") as file:

            def keep(piece: bytes) -> None:  # tornado would await what write() returns
                file.write(piece)

            await self._fetch(path, streaming_callback=keep, request_timeout=3600)

    async def _listen(self, well: Callable[[], None]) -> None:
        """Report at once whenever the service has something to say of this notebook."""
        heard = b""

        def hear(data: bytes) -> None:
            nonlocal heard
            *lines, heard = (heard + data).split(b"\n")
            if any(line.startswith(b"data:") for line in lines):
                well()
                self._wake.set()

        await self._fetch(
            "/events",
            headers={**self._headers, "Accept": "text/event-stream"},
            streaming_callback=hear,
            request_timeout=3600,  # a connection that died unnoticed is made anew
        )
        await asyncio.sleep(_BETWEEN_REPORTS)

    async def _fetch(self, path: str, **options: Any) -> "HTTPResponse":
        usual = {"headers": self._headers, "connect_timeout": 10, "ssl_options": self._context}
        options = {**usual, **options}
        return await self._client.fetch(HTTPRequest(self._base + path, **options))


def _update(home: Path, archive: Path, tree: Path, digest: str) -> working_copy.Report:
    unpack(archive, tree)
    return working_copy.follow(home, tree, digest)
