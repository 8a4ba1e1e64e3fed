"""``python -I -m kaos_hub.workload.fetch.fetch --url URL --ticket FILE --tree DIGEST=FOLDER…``

Fetches trees from the service and lays them out, read-only, where no engine can mount them.
Standard library and BLAKE3 only.

A folder appears whole or not at all: the tree is laid out beside it under a name of its own, and
renamed. So any number may fetch the same tree at the same time, on any number of machines that
share the volume; the second one throws its own away. A fetch that is killed leaves a hidden folder
that is no longer touched; after some minutes the next fetch beside it removes it.

Everything is checked: the listing by the tree's digest, each file by the listing. Progress goes to
standard output, a line ``40% 12,345,678 of 30,000,000 bytes`` at every per cent. Ends with 0, or
with 1 and one line on standard error.

    KAOS_FETCH_URL      the service's URL, where --url is not given
    KAOS_FETCH_TICKET   the file with the ticket, where --ticket is not given
"""

import argparse
import errno
import io
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from http.client import HTTPResponse
from pathlib import Path
from typing import BinaryIO

from kaos_hub.transport.fetch import FetchError, Patience, Source, Trouble, Wire
from kaos_hub.workload.fetch.files import FOLDER, Files, Progress
from kaos_hub.workload.fetch.listing import LINE, BadListing, Entry, Totals, check, read
from kaos_hub.workload.fetch.place import Target

_DIGEST = re.compile(r"blake3:[0-9a-f]{64}")
_LISTING = 1 << 30
"""Bytes of the longest listing that is taken: several million entries."""
_MANY_BYTES = 8 << 20
_MANY_FILES = 500
"""Bytes and files of one request: few enough to hold, enough that asking costs nothing."""


def fetch(source: Source, digest: str, target: Path, jobs: int = 8, sync: bool = True) -> bool:
    """Fetch the tree ``digest`` to ``target``, unless it is there; whether it was not.

    Expects a umask that takes nothing from others' rights to read, as :func:`main` sets it.

    Args:
        source: where from.
        digest: of the tree.
        target: the folder to make. An empty one counts as none: orchestrators make such.
        jobs: connections at once.
        sync: wait until the disk holds everything, so that a power failure cannot leave a folder
            that only looks complete.

    Raises:
        FetchError: it cannot be had; nothing is left.
        OSError: it cannot be written; nothing is left.
    """
    place = Target(target)
    if place.taken():
        return False
    above = place.target.parent
    above.mkdir(0o755, parents=True, exist_ok=True)
    with place, tempfile.TemporaryFile(dir=above) as listing:
        progress = Progress(_get_listing(source, digest, listing).bytes)
        with tempfile.TemporaryFile(dir=above) as folders:
            with Files(source, digest, place.folder, jobs, progress) as files:
                for first, entries in _ranges(_lay_out(listing, place.folder, folders)):
                    if place.taken():
                        return False
                    files.add(first, entries)
                files.finish()
            folders.seek(0)
            for path in folders:
                os.chmod(path[:-1], FOLDER, dir_fd=place.folder)
        os.fchmod(place.folder, FOLDER)
        return place.keep(sync)


def _get_listing(source: Source, digest: str, keep: BinaryIO) -> Totals:
    """Get and check the listing; it is written down in ``keep``."""
    wire, patience = Wire(source), Patience(threading.Event())
    try:
        while True:
            try:
                keep.seek(0)
                keep.truncate()
                return check(_lines(wire.get(f"{digest}/listing")), digest[-64:], keep)
            except Trouble as e:
                wire.close()
                patience.wait(e)
    except BadListing as e:
        raise FetchError(f"the service sent a wrong listing of {digest}: {e}") from None
    finally:
        wire.close()


def _lines(answer: HTTPResponse) -> Iterator[bytes]:
    left = answer.length
    if left is None or left > _LISTING:
        raise FetchError(f"the service sent a listing of {left} bytes, which cannot be")
    body = io.BufferedReader(answer, 1 << 18)
    try:
        while line := body.readline(LINE):
            left -= len(line)
            if line[-1:] == b"\n":
                yield line
            elif len(line) == LINE:
                raise BadListing("it has a line that is too long")
    except OSError as e:
        raise Trouble(str(e) or type(e).__name__) from None
    if left:
        raise Trouble("the connection broke")


def _lay_out(listing: BinaryIO, root: int, folders: BinaryIO) -> Iterator[Entry]:
    """Make folders and links; yields the files. Notes the folders, to be made read-only later."""
    listing.seek(0)
    for entry in read(listing):
        if entry.kind == "d":
            os.mkdir(entry.path, 0o700, dir_fd=root)
            folders.write(entry.path.encode() + b"\n")
        elif entry.kind == "l":
            os.symlink(entry.target, entry.path, dir_fd=root)
        else:
            yield entry


def _ranges(files: Iterator[Entry]) -> Iterator[tuple[int, list[Entry]]]:
    """Files in parcels, each with the number of its first."""
    first, parcel, size = 0, list[Entry](), 0
    for entry in files:
        parcel.append(entry)
        size += entry.size
        if size >= _MANY_BYTES or len(parcel) >= _MANY_FILES:
            yield first, parcel
            first, parcel, size = first + len(parcel), [], 0
    if parcel:
        yield first, parcel


# --- the command ---


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    os.umask(0)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    options = _parser().parse_args(arguments)
    target = options.target
    try:
        source = Source(_url(options.url), _ticket(options.ticket))
        for digest, target in _trees(options):
            fetch(source, digest, target, options.jobs, options.sync)
            print(f"laid out {target}", flush=True)
    except FetchError as e:
        problem = str(e)
    except OSError as e:
        problem = f"{e.filename or target} cannot be written: {e.strerror}"
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = f"no space left to lay out {target}; nothing of it was kept"
    else:
        return 0
    print(f"error: {' '.join(problem.split())}", file=sys.stderr, flush=True)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kaos_hub.workload.fetch.fetch",
        description="Fetch trees from the service and lay them out, read-only.",
    )
    parser.add_argument("--url", help="of the service; default: $KAOS_FETCH_URL")
    parser.add_argument("--ticket", help="file with the ticket; default: $KAOS_FETCH_TICKET")
    parser.add_argument("--digest", help="of the tree: blake3:…")
    parser.add_argument("--target", type=Path, help="the folder to make of it")
    parser.add_argument(
        "--tree",
        action="append",
        default=[],
        metavar="DIGEST=FOLDER",
        help="one more tree and the folder to make of it; may be repeated",
    )
    parser.add_argument("--jobs", type=int, default=8, help="connections at once (8)")
    parser.add_argument(
        "--no-sync",
        dest="sync",
        action="store_false",
        help="do not wait for the disk; for folders that are gone after a power failure anyway",
    )
    return parser


def _url(given: str | None) -> str:
    url = given or os.environ.get("KAOS_FETCH_URL")
    if not url:
        raise FetchError("where from? Say --url, or set KAOS_FETCH_URL")
    return url


def _ticket(given: str | None) -> str:
    path = given or os.environ.get("KAOS_FETCH_TICKET")
    if not path:
        raise FetchError("with which ticket? Say --ticket, or set KAOS_FETCH_TICKET")
    try:
        return Path(path).read_text("ascii").strip()
    except (OSError, ValueError) as e:
        raise FetchError(f"the ticket cannot be read: {e}") from None


def _trees(options: argparse.Namespace) -> list[tuple[str, Path]]:
    pairs = [tree.partition("=")[::2] for tree in options.tree]
    trees = [(digest, Path(folder)) for digest, folder in pairs if folder]
    if options.digest and options.target:
        trees.insert(0, (options.digest, options.target))
    elif options.digest or options.target:
        raise FetchError("--digest and --target belong together")
    if not trees or len(trees) < len(pairs) or not all(_DIGEST.fullmatch(d) for d, _ in trees):
        raise FetchError("which trees? Say --tree blake3:…=FOLDER")
    if options.jobs < 1:
        raise FetchError("--jobs must be 1 or more")
    return trees


def _end(number: int, _frame: object) -> None:
    """End on a signal: clean up first, which a second signal does not shorten."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise FetchError(f"ended by signal {number}")


if __name__ == "__main__":
    sys.exit(main())
