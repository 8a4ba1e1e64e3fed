"""The working copy: the code of a bundle, in the user's hands.

It is seeded from the bundle at the first start and follows it from then on. **A user's edit is
never lost.** For each path three things are compared: what was laid out last, what the bundle has
now, and what stands in the working copy.

===============================  ==============================================================
the user…                        and the new version…
===============================  ==============================================================
has not touched it               takes its place; if the bundle has it no more, it is removed
has changed it                   is laid beside as ``train.new-1a2b3c4d.py``, if it changed too
has another of that name         is laid beside, unless it is the same
has deleted it                   is left out, and mentioned if it changed: it stays deleted
has a file or link for a folder  is laid beside as a whole folder, ``model.new-1a2b3c4d/``
===============================  ==============================================================

A version laid beside that the user hasn't touched goes when a still newer one is laid beside. All
of this may be killed at any moment and run again. Standard library only: it runs in any container.

What the user has saved is a version, too. The working copy then follows that, and nothing in it is
touched: whatever differs from the version was written since.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from kaos_hub.workload.notebook.tree_files import DIRECTORY, FileState, Kind, Tree, beside

Manifest = dict[str, FileState]


@dataclass
class Report:
    """The work of an update, path by path."""

    added: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    """The user's, kept → where the new version lies beside it (empty: the bundle has none now)."""
    left_out: list[str] = field(default_factory=list)
    """Deleted by the user; the bundle has a new version, which was not laid."""
    failed: dict[str, str] = field(default_factory=dict)
    """Path → why it could not be laid. The next update tries again."""

    def lines(self) -> Iterator[str]:
        """The report for people, a line for each path."""
        for what, paths in (("added", self.added), ("updated", self.updated)):
            yield from (f"{what} {path}" for path in paths)
        yield from (f"removed {path}: the new version has it no more" for path in self.removed)
        for path, place in self.kept.items():
            lies = f"the new version is {place}" if place else "the new version has it no more"
            yield f"kept your {path}; {lies}"
        for path in self.left_out:
            yield f"left out {path}: you deleted it; the new version changed it"
        yield from (f"could not lay {path}: {reason}" for path, reason in self.failed.items())

    def summary(self) -> str:
        """One line."""
        counts = [
            (len(self.added), "added"),
            (len(self.updated), "updated"),
            (len(self.removed), "removed"),
            (len(self.kept), "of yours kept"),
            (len(self.left_out), "left out"),
            (len(self.failed), "failed"),
        ]
        return ", ".join(f"{n} {what}" for n, what in counts if n) or "nothing to do"


def follow(home: Path, source: Path, digest: str | None) -> Report:
    """Let ``<home>/work`` follow the bundle laid out at ``source``; write what was done to the log.

    A working copy that was removed as a whole is seeded anew.

    Args:
        digest: the bundle's id. If the working copy follows it already, nothing is even looked at.

    Raises:
        OSError: the working copy or its memory cannot be read or written at all.
    """
    state = home / ".kaos" / "working-copy.json"
    if not os.path.lexists(home / "work"):
        state.unlink(missing_ok=True)
    (home / "work").mkdir(parents=True, exist_ok=True)
    state.parent.mkdir(mode=0o700, exist_ok=True)
    if digest is not None and followed(home) == digest:
        return Report()
    if digest is not None and digest == _Memory.load(state).saving:
        return _adopt(source, state, digest)
    report = update(home / "work", source, state, digest)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with (state.parent / "updates.log").open(
        "a", encoding="utf-8", errors="surrogateescape"
    ) as log:
        log.write(f"{now} {digest or source}: {report.summary()}\n")
        log.writelines(f"{now}   {line}\n" for line in report.lines())
    return report


def followed(home: Path) -> str | None:
    """The digest of the bundle that ``<home>/work`` follows; None if not known."""
    return _Memory.load(home / ".kaos" / "working-copy.json").source


def saving(home: Path, digest: str | None) -> None:
    """Note that the working copy is on its way to be a version of this digest; None: it is not.

    Once it is one, :func:`follow` finds it to be the user's own.

    Raises:
        OSError: it cannot be written.
    """
    state = home / ".kaos" / "working-copy.json"
    state.parent.mkdir(mode=0o700, exist_ok=True)
    with _lock(state):
        memory = _Memory.load(state)
        memory.saving = digest
        memory.save(state)


@contextmanager
def at_rest(home: Path) -> Iterator[None]:
    """Keeps updates of the working copy away while it is read."""
    state = home / ".kaos" / "working-copy.json"
    state.parent.mkdir(mode=0o700, exist_ok=True)
    with _lock(state):
        yield


def _adopt(source: Path, state: Path, digest: str) -> Report:
    """Follow what was saved here, and leave all files as they are."""
    with _lock(state), Tree(source) as theirs:
        memory = _Memory.load(state)
        memory.laid, memory.coming = theirs.scan(), None
        memory.source, memory.saving = digest, None
        memory.save(state)
    return Report()


def update(working: Path, source: Path, state: Path, digest: str | None = None) -> Report:
    """Bring the working copy to the version at ``source``, by the rule of this module.

    Args:
        working: the working copy; must be there, and no link.
        source: the new version; only read.
        state: the file that remembers what was laid out last. It lies outside the working copy.
        digest: what to remember as the version followed.

    Raises:
        OSError: one of the three cannot be read or written at all. Trouble with a single path is in
            the report instead.
    """
    with _lock(state), Tree(working) as mine, Tree(source) as theirs:
        memory = _Memory.load(state)
        if memory.coming is not None:
            memory.laid = _recover(mine, memory.laid, memory.coming)
        memory.source, memory.coming = None, theirs.scan()
        memory.save(state)
        step = _Update(mine, theirs, memory.laid, memory.coming, memory.beside)
        step.run()
        memory.laid = step.settled()
        memory.source = None if step.report.failed else digest
        memory.coming = memory.saving = None
        memory.save(state)
        return step.report


@dataclass
class _Memory:
    """The version laid out last. ``coming`` is set in an update, and after one that was killed."""

    source: str | None = None
    laid: Manifest = field(default_factory=dict)
    coming: Manifest | None = None
    beside: dict[str, tuple[str, FileState]] = field(default_factory=dict)
    """Path → what we laid beside it, and where."""
    saving: str | None = None
    """The digest that the user is about to save, or has, without our having learned of its end."""

    @classmethod
    def load(cls, state: Path) -> "_Memory":
        try:
            data = json.loads(state.read_text(encoding="ascii"))
            return cls(
                data["source"],
                _manifest(data["laid"]),
                None if data["coming"] is None else _manifest(data["coming"]),
                {
                    path: (place, FileState(Kind(k), d))
                    for path, (place, k, d) in data["beside"].items()
                },
                data.get("saving"),
            )
        except FileNotFoundError:
            return cls()
        except (ValueError, KeyError, TypeError, AttributeError):
            # Without a memory every file counts as the user's own: clumsy, but nothing is lost.
            return cls()

    def save(self, state: Path) -> None:
        data = {
            "source": self.source,
            "laid": _plain(self.laid),
            "coming": None if self.coming is None else _plain(self.coming),
            "beside": {path: [place, e.kind, e.digest] for path, (place, e) in self.beside.items()},
            "saving": self.saving,
        }
        new = state.with_name(state.name + ".new")
        new.write_text(json.dumps(data), encoding="ascii")
        new.replace(state)


def _plain(manifest: Manifest) -> dict[str, list[str]]:
    return {path: [entry.kind, entry.digest] for path, entry in manifest.items()}


def _manifest(data: dict[str, list[str]]) -> Manifest:
    return {path: FileState(Kind(pair[0]), pair[1]) for path, pair in data.items()}


@contextmanager
def _lock(state: Path) -> Iterator[None]:
    fd = os.open(
        state.with_name(state.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _is_leaf(entry: FileState | None) -> bool:
    return entry is not None and entry.kind is not Kind.DIRECTORY


def _recover(mine: Tree, laid: Manifest, coming: Manifest) -> Manifest:
    """Return what was really laid out when an update from ``laid`` to ``coming`` was killed."""
    base: Manifest = {}
    for path in laid.keys() | coming.keys():
        old, new = laid.get(path), coming.get(path)
        if _is_leaf(old) or _is_leaf(new):
            mine.mend(path, {old, new})
        now = mine.look(path) if old != new else old
        if now == new:
            settled = new
        elif now is None and _is_leaf(old) != _is_leaf(new):
            settled = None  # it was we who took it away, to make room for the other kind
        else:
            settled = old
        if settled is not None:
            base[path] = settled
    return base


class _Update:
    """One update: ``base`` was laid out, ``target`` shall be."""

    def __init__(
        self,
        mine: Tree,
        theirs: Tree,
        base: Manifest,
        target: Manifest,
        laid_beside: dict[str, tuple[str, FileState]],
    ) -> None:
        self.report = Report()
        self._mine, self._theirs = mine, theirs
        self._base, self._target = base, target
        self._beside = laid_beside
        self._obstacles: dict[str, str | None] = {"": None}

    def run(self) -> None:
        self._clear()
        obstructed: dict[str, None] = {}
        for path, entry in self._target.items():
            if self._base.get(path) == entry:
                continue
            obstacle = self._obstacle(path.rpartition("/")[0])
            if obstacle is not None:
                obstructed[obstacle] = None
            elif entry == DIRECTORY:
                self._guarded(path, self._directory)
            else:
                self._guarded(path, self._leaf)
        for path in obstructed:
            self._guarded(path, self._folder_beside)

    def settled(self) -> Manifest:
        """Return what to compare with the next time: what failed is as before."""
        settled = dict(self._target)
        for path in self._target.keys() | self._base.keys():
            if any(
                path == failed or path.startswith(f"{failed}/") for failed in self.report.failed
            ):
                settled.pop(path, None)
                if path in self._base:
                    settled[path] = self._base[path]
        return settled

    def _guarded(self, path: str, act: Callable[[str], object]) -> None:
        try:
            act(path)
        except OSError as e:
            self.report.failed[path] = e.strerror or str(e)

    def _clear(self) -> None:
        """Remove what the target has no more, children before their directories."""
        for path, entry in sorted(self._base.items(), reverse=True):
            coming = self._target.get(path)
            if _is_leaf(entry) and not _is_leaf(coming):
                self._guarded(path, self._withdraw)
            elif entry == DIRECTORY and coming != DIRECTORY:
                self._guarded(path, self._mine.remove_directory)

    def _withdraw(self, path: str) -> None:
        now = self._mine.look(path)
        if now is None:
            return
        if self._mine.remove(path, self._base[path]):
            if path not in self._target:
                self.report.removed.append(path)
        elif path not in self._target:
            self.report.kept[path] = ""

    def _obstacle(self, directory: str) -> str | None:
        """The nearest thing at or above ``directory`` that is none: the user's, and in our way."""
        if directory not in self._obstacles:
            above = self._obstacle(directory.rpartition("/")[0])
            if above is None and self._mine.kind(directory) not in (None, Kind.DIRECTORY):
                above = directory
            self._obstacles[directory] = above
        return self._obstacles[directory]

    def _directory(self, path: str) -> None:
        if self._mine.kind(path) is None:
            self._mine.make_directory(path)
        elif self._obstacle(path) is not None:
            self._folder_beside(path)

    def _leaf(self, path: str) -> None:
        before, coming, now = self._base.get(path), self._target[path], self._mine.look(path)
        if now == coming:
            return
        if now is None and _is_leaf(before):
            self.report.left_out.append(path)
        elif now is None and self._mine.lay(path, self._theirs, path):
            self.report.added.append(path)
        elif _is_leaf(now) and now == before and self._mine.lay(path, self._theirs, path, now):
            self.report.updated.append(path)
        else:
            self.report.kept[path] = self._file_beside(path, coming)

    def _file_beside(self, path: str, coming: FileState) -> str:
        place, number = beside(path, coming.digest), 1
        while not self._lay_beside(place, path, coming):
            number += 1
            place = beside(path, coming.digest, number)
        older = self._beside.get(path)
        if older is not None and older[0] != place:
            self._mine.remove(*older)
        self._beside[path] = (place, coming)
        return place

    def _lay_beside(self, place: str, path: str, entry: FileState) -> bool:
        """Lay a version at ``place``, unless a killed run did; return whether it lies there."""
        self._mine.mend(place, {entry})
        return self._mine.look(place) == entry or self._mine.lay(place, self._theirs, path)

    def _folder_beside(self, path: str) -> None:
        """Lay a folder of the target beside the file or link that the user has in its place."""
        inside = {p: e for p, e in self._target.items() if p.startswith(f"{path}/")}
        listing = "".join(f"{p}\0{e.kind}\0{e.digest}\0" for p, e in inside.items())
        tag = hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()
        place, number = beside(path, tag), 1
        while self._mine.kind(place) not in (None, Kind.DIRECTORY):
            number += 1
            place = beside(path, tag, number)
        self._mine.make_directory(place)
        for origin, entry in inside.items():
            new = place + origin[len(path) :]
            if entry == DIRECTORY:
                self._mine.make_directory(new)
            else:
                self._lay_beside(new, origin, entry)
        self.report.kept[path] = place
