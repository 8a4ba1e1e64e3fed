"""One trial, from its lease to its end."""

import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kaos_hub.bundles.lenient import MOST_SKIPPED, Kept
from kaos_hub.errors import InvalidBundle
from kaos_hub.schemas import Beat, BeatAnswer, EndedBy, Lease, Output, TrialEnd
from kaos_hub.transport import upload
from kaos_hub.transport.worker import Gone, Link, Refused, patiently
from kaos_hub.util.quantities import show_memory
from kaos_hub.workload.memory_watch import MemoryWatch
from kaos_hub.workload.trial import metric_files, paths
from kaos_hub.workload.trial.command import NotStarted, command, shell_note
from kaos_hub.workload.trial.metrics import Metrics
from kaos_hub.workload.trial.output import Log, LogSender
from kaos_hub.workload.trial.places import Place, TrialFolders
from kaos_hub.workload.trial.process import Ending, Process, Waker
from kaos_hub.workload.trial.reason import last_line, reason
from kaos_hub.workload.trial.settings import Settings
from kaos_hub.workload.trial.watch import Hand, Heart, StorageWatch

_QUICK = 0.25
"""Seconds after which a trial is watched: most of those that do nothing are over by then."""
_GONE_GRACE = 2.0
_LAST_GRACE = 3.0


@dataclass(frozen=True)
class Bench:
    """The things that the trials of a worker share."""

    settings: Settings
    places: TrialFolders
    waker: Waker
    link: Link
    sender: upload.Sender
    new_link: Callable[[], Link]
    tell: Callable[[str], object]
    hands: tuple[Hand, Hand]


class Trial:
    """Runs once.

    Args:
        bench: what it works with.
        lease: what to run.
    """

    def __init__(self, bench: Bench, lease: Lease) -> None:
        self._bench, self._lease = bench, lease
        self._log = Log(bench.places.private, bench.settings.log_limit)
        self._log_sender = LogSender(self._log, lease.trial, lease.attempt)
        self._notes: list[str] = []
        self._metrics = Metrics(lease.trial, self._note)
        self._memory = MemoryWatch()
        self._process = Process(
            bench.waker, self._log.feed, bench.places.metrics, self._metrics.feed
        )
        self._heart: Heart | None = None
        self._watch: StorageWatch | None = None
        self._gone = False
        self._by, self._code, self._reason = EndedBy.ITSELF, 0, ""
        self.kept: Kept | None = None
        """Its output, as it was sent."""

    def run(self, place: Place) -> TrialEnd:
        """Run it, and send what it left.

        Raises:
            Gone: the job is over.
            Unkillable: something of it is still there.
            OSError: it could not be made ready.
        """
        started = datetime.now(UTC)
        try:
            self._run(place)
        except NotStarted as e:
            self._by, self._code, self._reason = EndedBy.NOT_STARTED, 127, str(e)
            self._log.say(self._reason)
        finished = datetime.now(UTC)
        if self._watch is not None:
            self._watch.stop()
        metrics = self._all_metrics(place)
        self._log.finish()
        output = self._keep(place)
        self._tell_the_rest()
        return TrialEnd(
            trial=self._lease.trial,
            attempt=self._lease.attempt,
            by=self._by,
            exit_code=self._code if self._code >= 0 else None,
            reason=self._reason,
            metrics=metrics,
            output=output,
            started=started,
            finished=finished,
        )

    def kill(self) -> None:
        """End it, and everything that it started; the service is not told."""
        self._process.kill(_LAST_GRACE)

    # --- while it runs ---

    def _run(self, place: Place) -> None:
        bench, process = self._bench, self._process
        what = command(bench.places.code, str(place.out), bench.places.private)
        process.later(_QUICK, self._accompany)
        process.later(self._lease.deadline, lambda: process.end(EndedBy.DEADLINE))
        ending = process.run(what, bench.places.code, place.environment)
        if self._gone:
            raise Gone
        self._explain(ending)

    def _accompany(self) -> None:
        """Tell of a trial that takes a while, and watch its use of the disk."""
        bench, process = self._bench, self._process
        self._start_heart()
        self._watch = StorageWatch(
            bench.places.written,
            bench.settings.storage,
            lambda: process.end(EndedBy.STORAGE, grace=0),
        )
        bench.hands[1].give(self._watch.run)

    def _start_heart(self) -> None:
        if self._heart is None:
            cancel = self._process.end
            self._heart = Heart(
                self._bench.new_link(),
                self._lease,
                self._metrics,
                self._log_sender,
                on_cancel=lambda: cancel(EndedBy.CANCELLED),
                on_gone=self._on_gone,
            )
            self._bench.hands[0].give(self._heart.run)

    def _on_gone(self) -> None:
        self._gone = True
        self._process.end(EndedBy.CANCELLED, _GONE_GRACE)

    # --- how it ended ---

    def _explain(self, ending: Ending) -> None:
        self._by, self._code = ending.by, ending.code
        if ending.by is EndedBy.CANCELLED:
            self._reason = "cancelled"
        elif ending.by is EndedBy.DEADLINE:
            self._reason = f"its deadline of {self._lease.deadline} s passed"
        elif ending.by is EndedBy.STORAGE:
            limit = show_memory(self._bench.settings.storage)
            self._reason = f"it wrote more than the {limit} that a trial may"
        elif ending.code and self._memory.last_end() is not None:
            self._by = EndedBy.OUT_OF_MEMORY
            self._reason = "out of memory: it needed more than it may have; give it more (--memory)"
        elif ending.code < 0:
            self._by = EndedBy.SIGNAL
            self._reason = _killed(-ending.code, last_line(self._log.tail()))
        elif ending.code:
            self._reason = reason(self._log.tail(), self._bench.places.code, ending.code)
            if note := paths.note(self._reason, self._bench.settings.root):
                self._log.say(note)
                self._reason = f"{self._reason} ({note})"
            if note := shell_note(self._bench.places.code):
                self._log.say(note)
                self._reason = f"{self._reason} ({note})"

    def _all_metrics(self, place: Place) -> dict[str, float]:
        found = dict(self._metrics.last)
        for out in (self._bench.places.kaos_out, place.out):
            found |= metric_files.from_files(out, self._note)
        return found

    def _note(self, text: str) -> None:
        """Tell of metrics that cannot be used: in its log, and with what is not kept."""
        self._log.say(text)
        self._notes.append(text)

    # --- what it left ---

    def _keep(self, place: Place) -> Output | None:
        """Send its output. What cannot be kept is said."""
        folders = [_single_file_in_a_folder(place.out), self._bench.places.kaos_out]
        try:
            kept = upload.collect(folders, self._bench.settings.storage)
            if kept.size > upload.LITTLE:
                self._start_heart()
            self._bench.sender.send(kept)
        except (InvalidBundle, Refused, OSError) as e:
            self._lose(e)
            return None
        self.kept = kept
        beside = self._bench.places.beside({place.out.name, folders[0].name})
        said = [f"{name!r} lies beside the output directory, not in it" for name in beside]
        skipped = [*self._notes, *kept.skipped, *said][:MOST_SKIPPED]
        return Output(
            digest=kept.root,
            size=kept.size,
            files=kept.count,
            partial=self._by is not EndedBy.ITSELF or self._code != 0,
            skipped=[line[:500] for line in skipped],
        )

    def _lose(self, error: Exception) -> None:
        said = str(error) if not isinstance(error, OSError) else f"{error.strerror}"
        text = f"its output could not be kept: {said}"
        if self._by is EndedBy.ITSELF and self._code == 0:
            self._by = EndedBy.STORAGE
        self._reason = f"{self._reason}; {text}" if self._reason else text

    def _tell_the_rest(self) -> None:
        """Send the last of its log and metrics, before the service hears that it ended."""
        if self._heart is not None:
            self._heart.stop()
        link, tell = self._bench.link, self._bench.tell
        try:
            if self._log_sender.behind:
                patiently(lambda: self._log_sender.send(link), tell)
            while points := self._metrics.take():
                said = Beat(trial=self._lease.trial, attempt=self._lease.attempt, points=points)
                patiently(lambda said=said: link.ask("beat", said, BeatAnswer), tell)  # type: ignore[misc]
        except Refused as e:
            tell(f"the service would not take the end of a log: {e.message}")
        self._log.close()


def _single_file_in_a_folder(out: Path) -> Path:
    """Put an output that is a file into a folder: a trial may make a file of its directory."""
    try:
        if not stat.S_ISREG(out.lstat().st_mode):
            return out
        folder = out.with_suffix(".folder")
        folder.mkdir()
        out.rename(folder / "output")
    except OSError:
        return out
    return folder


def _killed(number: int, line: str) -> str:
    names = {int(known): known.name for known in signal.Signals}
    text = f"killed by {names.get(number, f'signal {number}')}"
    if number == signal.SIGKILL:
        return f"{text}, not by kaos_hub; perhaps the machine ran out of memory"
    return f"{text}: {line}" if line else text
