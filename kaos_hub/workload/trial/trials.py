"""``python -I -m kaos_hub.workload.trial.trials``: a worker, which runs trials until none is left.

It asks the service for a trial, runs ``train`` for it, sends what that left, tells how it ended,
and asks for the next: the last two in one request. All it needs is in its environment (see
:mod:`.trial_settings`) and in ``/kaos/ticket``, which is gone before any code of the user's runs.

What a trial sees is made anew for each; whatever it started is ended before the next begins. If the
service is away the trial goes on, and what could not be told is told when it is back. Ends with 0
when nothing is left for it or its job is over, with 143 when told to end, with 1 when it cannot go
on, and says why.

Standard library, pydantic and BLAKE3: it runs in any container with the runtime.
"""

import ctypes
import os
import resource
import signal
import ssl
import sys
import time

from kaos_hub.schemas import EndedBy, Lease, LeaseAnswer, LeaseRequest, TrialEnd
from kaos_hub.transport.upload import Sender
from kaos_hub.transport.worker import Gone, Link, Refused, patiently
from kaos_hub.workload.trial import settings as trial_settings
from kaos_hub.workload.trial.places import TrialFolders
from kaos_hub.workload.trial.process import Unkillable, Waker
from kaos_hub.workload.trial.settings import Settings
from kaos_hub.workload.trial.trial import Bench, Trial
from kaos_hub.workload.trial.watch import Hand

_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36
_TOLD_TO_END = 143


class _ToldToEnd(Exception):
    """SIGTERM."""


class Worker:
    """Runs one trial after the other.

    Args:
        settings: what it was told.
        ticket: what lets it ask the service.
        context: for TLS with the service, if that wants a certificate.
    """

    def __init__(
        self, settings: Settings, ticket: str, context: ssl.SSLContext | None = None
    ) -> None:
        link = Link(settings.url, ticket, context)
        self._bench = Bench(
            settings=settings,
            places=TrialFolders(settings),
            waker=Waker(),
            link=link,
            sender=Sender(link, say),
            new_link=lambda: Link(settings.url, ticket, context),
            tell=say,
            hands=(Hand("heart"), Hand("storage")),
        )
        self._trial: Trial | None = None

    def work(self) -> None:
        """Run trials until none is left.

        Raises:
            Gone: the job is over.
            Unkillable, OSError, Refused: it cannot go on.
        """
        lease = self._next(None)
        while lease is not None:
            place = self._bench.places.prepare(lease)
            self._trial = Trial(self._bench, lease)
            say(f"trial {lease.trial} begins")
            began = time.monotonic()
            end = self._trial.run(place)
            say(f"trial {lease.trial} {_ended(end)} after {time.monotonic() - began:.1f} s")
            lease = self._next(end)

    def kill(self) -> None:
        """End what runs."""
        if self._trial is not None:
            self._trial.kill()

    def _next(self, ended: TrialEnd | None) -> Lease | None:
        """Tell how the last trial ended; the next one."""
        try:
            return self._lease(ended)
        except Refused as e:
            if ended is None:
                raise
            again = self._accepted(ended, e)
        return self._lease(again)

    def _accepted(self, ended: TrialEnd, refused: Refused) -> TrialEnd:
        """Return an end that the service may take, as it refused ``ended``."""
        kept = self._trial.kept if self._trial else None
        if refused.status == 409 and kept is not None:
            self._bench.sender.forget()
            self._bench.sender.send(kept)
            return ended
        text = f"the service would not take how it ended: {refused.message}"
        say(text)
        by = EndedBy.STORAGE if ended.by is EndedBy.ITSELF else ended.by
        return ended.model_copy(
            update={"by": by, "reason": text[:500], "metrics": {}, "output": None}
        )

    def _lease(self, ended: TrialEnd | None) -> Lease | None:
        link, request = self._bench.link, LeaseRequest(ended=ended)
        return patiently(lambda: link.ask("lease", request, LeaseAnswer), say).lease


def say(text: str) -> None:
    """Tell the log of the worker's job."""
    print(f"kaos: {text}", flush=True)


def _ended(end: TrialEnd) -> str:
    if end.by is EndedBy.ITSELF and end.exit_code == 0:
        return "succeeded"
    return f"failed ({end.reason})"


def _protect() -> None:
    """Let programs of trials, which run as our own user, not read our memory, nor outlive us."""
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_CHILD_SUBREAPER, 1)):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
    # A core of a training may be as large as its memory.
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _on_terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _ToldToEnd


def main() -> int:
    """Run the worker. Returns its exit code."""
    signal.signal(signal.SIGTERM, _on_terminate)
    signal.signal(signal.SIGINT, _on_terminate)
    os.umask(0o022)
    worker = None
    try:
        _protect()
        settings = trial_settings.read(os.environ)
        worker = Worker(settings, *trial_settings.take_ticket(settings.root))
        worker.work()
    except Gone:
        say("the job is over")
    except _ToldToEnd:
        say("told to end")
        return _finish(worker, _TOLD_TO_END)
    except Unkillable:
        say("error: something that a trial started cannot be ended")
        return 1
    except (OSError, ValueError, Refused) as e:
        say(f"error: {e}")
        return _finish(worker, 1)
    return _finish(worker, 0)


def _finish(worker: Worker | None, code: int) -> int:
    """Leave nothing behind."""
    try:
        if worker is not None:
            worker.kill()
    except Unkillable:
        say("error: something that a trial started cannot be ended")
        return code or 1
    return code


if __name__ == "__main__":
    sys.exit(main())
