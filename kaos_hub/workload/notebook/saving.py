"""Saving: the working copy becomes the next version of its bundle.

Runs in a thread of the server extension. Everything may be killed at any moment: until the service
has committed, there is only what may be sent again; after it, the working copy finds out by itself
(see :func:`.working_copy.saving`).
"""

import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from kaos_hub.bundles.gitignore import IgnoreFile
from kaos_hub.bundles.ignore import SOURCE_NAMES, Rules
from kaos_hub.bundles.limits import Limits, shown
from kaos_hub.bundles.scan import Scan, scan
from kaos_hub.bundles.source import DOCKERFILE, MODEL, check_source
from kaos_hub.errors import InvalidBundle
from kaos_hub.schemas import Contents, Errand, ErrandOrder, ErrandReport, Info
from kaos_hub.transport.workload import Api, Sender
from kaos_hub.util.quantities import show_memory
from kaos_hub.workload.archive import unpack
from kaos_hub.workload.git import record
from kaos_hub.workload.notebook import working_copy
from kaos_hub.workload.notebook.hook import NOTICE
from kaos_hub.workload.notebook.installed import Proposal, installed, packages_dir, propose

Tell = Callable[[ErrandReport], object]
"""Tells the service how far it is."""

REQUIREMENTS = f"{MODEL}/requirements.txt"

_HEX = "[0-9a-f]" * 8
_OURS = IgnoreFile(
    [
        f"/{NOTICE}",
        f"/{record.NOTICE}",
        # versions laid beside, and what an update that was killed left
        *(f"*.new-{_HEX}{more}" for more in ("", ".*", "-[0-9]", "-[0-9].*")),
        *(f".kaos-{role}-{_HEX}{_HEX}" for role in ("new", "old")),
    ]
)
_RULES = Rules(SOURCE_NAMES, specs=(("", _OURS),))
_PAUSE = 2.0
"""Seconds between two words about the progress."""
_SHOWN = 100
_LONGEST = 300

_TEXT = """\
# Made when this notebook was first saved. The build context is {model}/.
FROM {base}
WORKDIR /opt/program
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
"""


def save(
    home: Path, order: ErrandOrder, api: Api, tell: Tell, environ: Mapping[str, str] = os.environ
) -> Errand:
    """Save the working copy of a home, or say what would be saved.

    Args:
        home: the notebook's.
        order: what to do.
        api: to the service.
        tell: tells it how far we are; is told everything but the last.
        environ: variables of the notebook.

    Returns:
        The errand as the service left it.

    Raises:
        KaosError: the working copy cannot be a bundle, or the service refuses it.
        OSError: it cannot be read or written.
        Over: the service has ended this errand.
    """
    work = home / "work"
    tell(ErrandReport(note="reading the working copy"))
    limits = _limits(api)
    with working_copy.at_rest(home):
        lacking = _lacking(work, order.base)
        proposal = _proposal(work, environ)
        made = sorted(lacking)
        if not order.dry_run:
            _make(work, lacking)
            if order.requirements and proposal.shown():
                _write(work, REQUIREMENTS, proposal.text())
        found = scan(work, _RULES, limits, _reading(tell))
    if not (order.dry_run and made):
        check_source(found)
    contents = _contents(found, made, proposal, order)
    report = ErrandReport(note="saving", progress=99, contents=contents)
    if order.dry_run:
        return api.post(_place(order), report, Errand)
    Sender(api).send(found.objects, _sending(found, tell))
    working_copy.saving(home, found.root)
    errand = api.post(_place(order), report, Errand)
    if errand.version is None:
        working_copy.saving(home, None)
    else:
        follow(home, errand, api)
    return errand


def _place(order: ErrandOrder) -> str:
    name = quote(os.environ.get("KAOS_NOTEBOOK", ""), safe="")
    return f"notebooks/{name}/errands/{order.id}"


def follow(home: Path, errand: Errand, api: Api) -> None:
    """Have the working copy follow what was saved. It learns from the version what that holds:
    the files may have been changed since."""
    version = errand.version
    assert version is not None
    path = f"bundles/{version.kind}/{quote(version.name, safe='')}/{version.version}/archive"
    with tempfile.TemporaryDirectory(prefix="saved-", dir=home / ".kaos") as temporary:
        archive, tree = Path(temporary, "source.tar"), Path(temporary, "source")
        with archive.open("w+b") as file:
            api.save(path, file)
        unpack(archive, tree)
        working_copy.follow(home, tree, version.digest)


def _limits(api: Api) -> Limits:
    info = api.get("info", Info)
    return Limits(max_files=info.max_files, max_file_size=info.max_file_size)


def _contents(found: Scan, made: list[str], proposal: Proposal, order: ErrandOrder) -> Contents:
    skipped = [shown(path)[:_LONGEST] for path in found.skipped[:_SHOWN]]
    if len(found.skipped) > _SHOWN:
        skipped.append(f"and {len(found.skipped) - _SHOWN:,} more")
    return Contents(
        root=found.root,
        size=found.size,
        files=found.count,
        skipped=skipped,
        made=made,
        installed=[line[:_LONGEST] for line in proposal.shown()],
        added=order.requirements and not order.dry_run and bool(proposal.shown()),
        notes=[note[:900] for note in [*found.notes, *proposal.notes][:90]],
    )


# --- what is made ---


def _lacking(work: Path, base: str) -> dict[str, str | None]:
    """Return what the working copy lacks to be a source bundle: path → text of a file, None for a
    folder."""
    made: dict[str, str | None] = {}
    if not os.path.lexists(work / MODEL):
        made[f"{MODEL}/"] = None
    if base and not os.path.lexists(work / DOCKERFILE):
        made[DOCKERFILE] = _TEXT.format(base=base, model=MODEL)
        if not os.path.lexists(work / REQUIREMENTS):
            made[REQUIREMENTS] = ""
    return made


def _make(work: Path, lacking: Mapping[str, str | None]) -> None:
    for path, text in sorted(lacking.items(), reverse=True):
        if text is None:
            (work / path).mkdir(exist_ok=True)
    for path, text in lacking.items():
        if text is not None:
            _write(work, path, text)


def _write(work: Path, path: str, text: str) -> None:
    """Write a file of the working copy, whole or not at all; never through a link."""
    place = work / path
    for each in (work, place.parent):
        if not stat.S_ISDIR(os.lstat(each).st_mode):
            raise InvalidBundle(f"{shown(str(each))} is no folder; nothing can be written into it")
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(place).st_mode):
            raise InvalidBundle(f"{path} is no file; nothing can be added to it")
    draft = place.with_name(f".kaos-new-{os.urandom(8).hex()}")
    try:
        draft.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
        with suppress(FileNotFoundError):
            draft.chmod(stat.S_IMODE(place.stat().st_mode))
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)


def _proposal(work: Path, environ: Mapping[str, str]) -> Proposal:
    place = packages_dir(environ)
    packages, notes = installed(place) if place else ([], [])
    proposal = propose(_read(work / REQUIREMENTS), packages, notes)
    dockerfile = _read(work / DOCKERFILE)
    if proposal.shown() and dockerfile and not re.search(r"requirements[^\s]*\.txt", dockerfile):
        proposal.notes.append("the Dockerfile does not install requirements.txt")
    return proposal


def _read(path: Path) -> str:
    """A small text of the user's; nothing if it is no such file, or not ours to read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return ""
            return file.read(1 << 20).decode("utf-8", "surrogateescape")
    except OSError:
        return ""


# --- how far it is ---


class _NowAndThen:
    """Tells of progress, but not all the time."""

    def __init__(self, tell: Tell, what: str) -> None:
        self._tell, self._what = tell, what
        self._done, self._told = 0, time.monotonic()

    def __call__(self, size: int) -> None:
        self._done += size
        now = time.monotonic()
        if now - self._told > _PAUSE:
            self._told = now
            self._tell(ErrandReport(note=f"{self._what}, {show_memory(self._done)} so far"))


def _reading(tell: Tell) -> Callable[[str, int], None]:
    count = _NowAndThen(tell, "reading the working copy")
    return lambda _path, size: count(size)


def _sending(found: Scan, tell: Tell) -> Callable[[str], Iterable[bytes]]:
    count = _NowAndThen(tell, "sending")

    def read(digest: str) -> Iterator[bytes]:
        for piece in found.read(digest):
            count(len(piece))
            yield piece

    return read
