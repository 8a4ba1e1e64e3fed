"""``python -I -m kaos_hub.workload.ingest.ingest``

Fetches the files of a manifest from the web and makes a data bundle of them; see
:mod:`kaos_hub.formats.manifest`. Runs as the owner's workload: a manifest is a stranger's word.

Files are fetched in parallel, sent to the service as they come, and deleted: neither memory nor
disk grow with the bundle. What stands in the manifest as it did the last time is not fetched again.
Ends with 0; or with 1, each file that cannot be had by the line that names it, and one line on
standard error.

    KAOS_WORK_URL   the service's URL
    KAOS_ROOT       what stands before all paths, where there is no container
    KAOS_STORAGE    bytes that may be written
"""

import argparse
import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from kaos_hub.errors import KaosError
from kaos_hub.formats import manifest
from kaos_hub.formats.manifest import Entry
from kaos_hub.schemas import IngestEnd, IngestOrder, IngestPart
from kaos_hub.transport.hosts import Hosts, Wrong
from kaos_hub.transport.workload import Over, Sender, Trouble, Work
from kaos_hub.util import tls
from kaos_hub.workload.ingest.files import PATIENCE, Fetcher, Part, Room
from kaos_hub.workload.ingest.store import (
    Content,
    Shipper,
    grow,
    pieces,
    still_held,
    unchanged,
    write_index,
)
from kaos_hub.workload.ingest.web import Web

MOST_FAILURES = 50
"""Files that cannot be had, after which no others are tried."""

_PART = 60.0
"""Seconds after which the service is told what there is, so that another attempt has it."""
_ROOM = 4 << 30
_SHOWN_ALWAYS = 200


class Failed(Exception):
    """The reason why it cannot be done, in one line for people."""


@dataclass(frozen=True)
class IngestFolders:
    """The paths of the manifest and of the scratch folder."""

    manifest: Path
    scratch: Path


class Ingest:
    """One ingest.

    Args:
        work: to the service.
        order: what to do.
        places: where things are.
        patience: seconds without progress after which a file is given up.
        part: seconds after which the service is told what there is.
    """

    def __init__(
        self, work: Work, order: IngestOrder, places: IngestFolders, patience: float, part: float
    ) -> None:
        self._work, self._order, self._places, self._part = work, order, places, part
        self._stop = work.stop
        self._room = Room(_room(places.scratch), order.max_size)
        self._parallel = max(order.parallel, 1)
        web = Web(Hosts(order.allow), order.schemes, self._parallel, self._stop)
        self._fetcher = Fetcher(web, self._room, self._stop, patience)
        self._entries: list[Entry] = []
        self._held: dict[str, Content] = {}
        self._failures: list[tuple[Entry, str]] = []
        self._fetched = 0
        self._told = 0
        self._fatal: BaseException | None = None
        self._lock = threading.Lock()

    def run(self) -> IngestEnd:
        """Fetch everything; what it became, of which the service holds all.

        Raises:
            InvalidBundle: the manifest is wrong.
            Failed: files cannot be had.
            KaosError: the service refuses, or was away for too long.
            Over: the job is over.
        """
        self._entries = list(manifest.read(self._places.manifest))
        self._reuse()
        self._fetch([entry for entry in self._entries if entry.path not in self._held])
        if self._failures:
            self._tell()
            raise self._failure()
        return self._finish()

    def _reuse(self) -> None:
        """Take what the last ingest has fetched, as far as it is still so."""
        if self._order.index is not None:
            index = self._places.scratch / "index"
            with index.open("w+b") as file:
                self._work.save(f"object/{self._order.index}", file)
            found = unchanged(self._entries, index)
            self._held = still_held(self._work, found)
        kept, total = len(self._held), len(self._entries)
        said = f", of which {kept:,} are there already" if kept else ""
        print(f"kaos: {total:,} files{said}", flush=True)

    def _fetch(self, entries: list[Entry]) -> None:
        shipper = Shipper(self._work, self._shipped, self._break)
        rest = iter(enumerate(entries))
        with ThreadPoolExecutor(self._parallel, thread_name_prefix="fetch") as threads:
            runs = {threads.submit(self._run, rest, shipper) for _ in range(self._parallel)}
            while runs:
                done, runs = wait(runs, timeout=self._part, return_when=FIRST_EXCEPTION)
                for one in done:
                    if (e := one.exception()) is not None:
                        self._break(e)
                if runs and not done:
                    self._tell()
        shipper.finish()
        if self._fatal is not None:
            raise self._fatal

    def _run(self, rest: Iterator[tuple[int, Entry]], shipper: Shipper) -> None:
        """Fetch one file after the other, in a thread."""
        while not self._stop.is_set():
            with self._lock:
                number, entry = next(rest, (-1, None))
                if entry is None or len(self._failures) >= MOST_FAILURES:
                    return
            try:
                shipper.add(self._get(number, entry))
            except Wrong as e:
                if not self._stop.is_set():
                    self._fail(entry, str(e))

    def _get(self, number: int, entry: Entry) -> Part:
        return self._fetcher.fetch(entry, self._places.scratch / f"{number}")

    def _fail(self, entry: Entry, problem: str) -> None:
        with self._lock:
            self._failures.append((entry, problem))
        print(f"error: {entry.where}: {entry.path}: {problem}", flush=True)

    def _shipped(self, entry: Entry, content: Content) -> None:
        with self._lock:
            self._held[entry.path] = content
            self._fetched += 1
            done, total = len(self._held), len(self._entries)
        # Every file of a few, else every per cent.
        if total <= _SHOWN_ALWAYS or done * 100 // total > (done - 1) * 100 // total:
            print(f"Step {done}/{total} : {entry.path}", flush=True)

    def _break(self, e: BaseException) -> None:
        """End all work; only the first reason counts."""
        with self._lock:
            self._fatal = self._fatal or e
        self._stop.set()
        self._room.close()

    def _failure(self) -> Failed:
        failures = sorted(self._failures, key=lambda one: (one[0].file, one[0].line))
        entry, problem = failures[0]
        others = len(failures) - 1
        said = f" (and {others} more {'files' if others > 1 else 'file'})" if others else ""
        return Failed(f"{entry.where}: {entry.path}: {problem}{said}")

    # --- what the service is told ---

    def _index(self, sender: Sender) -> str:
        with self._lock:
            held = [(e, self._held[e.path]) for e in self._entries if e.path in self._held]
        path = self._places.scratch / "index"
        index = write_index(path, held)
        sender.send({index.digest: index.size}, lambda digest: pieces(path))
        return index.digest

    def _tell(self) -> None:
        """Tell what there is; another attempt begins there. It may fail."""
        if self._fetched == self._told:
            return
        self._told = self._fetched
        with contextlib.suppress(Trouble, Over, KaosError):
            part = IngestPart(index=self._index(Sender(self._work)))
            self._work.once("POST", "fetched", part.model_dump_json().encode())

    def _finish(self) -> IngestEnd:
        sender = Sender(self._work)
        root, nodes = grow(self._held.items())
        sender.send({d: len(node) for d, node in nodes.items()}, lambda digest: [nodes[digest]])
        return IngestEnd(
            root=root,
            index=self._index(sender),
            files=len(self._held),
            size=sum(content.size for content in self._held.values()),
            fetched=self._fetched,
        )


def _room(scratch: Path) -> int:
    """Bytes that files may take before they are sent: some of what there is."""
    free = shutil.disk_usage(scratch).free
    said = os.environ.get("KAOS_STORAGE", "")
    allowed = int(said) if said.isdigit() else free
    return max(min(_ROOM, free // 2, allowed * 3 // 4), 1)


# --- the command ---


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        # As first process of a container nothing else would end us. There is nothing to save.
        signal.signal(number, lambda number, frame: os._exit(128 + number))
    try:
        _ingest(options)
    except Over:
        problem = "the job is over; nobody waits for this any more"
    except KaosError as e:
        problem = e.message
    except (Failed, Wrong) as e:
        problem = str(e)
    except ValidationError:
        problem = "the service sent something that this version does not understand"
    except OSError as e:
        problem = f"{e.filename or options.scratch} cannot be used: {e.strerror}"
    else:
        return 0
    print(f"error: {' '.join(problem.split())}", file=sys.stderr, flush=True)
    return 1


def _ingest(options: argparse.Namespace) -> None:
    ticket = options.ticket.read_text("ascii", errors="replace").strip()
    work = Work(options.url, ticket, context=tls.take(options.ticket.with_name("identity.pem")))
    places = IngestFolders(options.manifest, options.scratch)
    # Whatever a killed attempt has left there.
    shutil.rmtree(places.scratch, ignore_errors=True)
    places.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        order = work.get("order", IngestOrder)
        ingest = Ingest(work, order, places, options.patience, options.part)
        end = ingest.run()
        work.insist(lambda: work.once("POST", "ingested", end.model_dump_json().encode()))
    finally:
        shutil.rmtree(places.scratch, ignore_errors=True)
    seconds = time.monotonic() - began
    print(
        f"kaos: {end.files:,} files, {end.size:,} bytes; {end.fetched:,} of them fetched now, in"
        f" {seconds:.1f} s",
        flush=True,
    )


def _parser() -> argparse.ArgumentParser:
    place = Path(os.environ.get("KAOS_ROOT") or "/") / "kaos"
    parser = argparse.ArgumentParser(
        prog="python -m kaos_hub.workload.ingest.ingest",
        description="Fetch the files of a manifest and make a data bundle of them.",
    )
    parser.add_argument("--url", default=os.environ.get("KAOS_WORK_URL", ""), help="the service's")
    parser.add_argument("--ticket", type=Path, default=place / "ticket", help="file with it")
    parser.add_argument("--manifest", type=Path, default=place / "manifest", help="folder of it")
    parser.add_argument("--scratch", type=Path, default=place / "ingest", help="folder to make")
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        help="seconds without progress after which a file is given up (%(default).0f)",
    )
    parser.add_argument(
        "--part",
        type=float,
        default=_PART,
        help="seconds after which the service is told what there is (%(default).0f)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
