"""Code, data, params and model of a training as one tree: folders that can be sent again."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.bundles import tree
from kaos_hub.bundles.objects import ReadObject
from kaos_hub.errors import InvalidRequest, NotFound
from kaos_hub.schemas import EntryKind, TreeEntry, TrialState
from kaos_hub.service.db.tables import TrainingRow, TrialRow, VersionRow
from kaos_hub.service.trainings.records import find_trial

PARTS = ("code", "data", "params", "model")
"""The parts that an archive of a training may hold: a folder each."""


@dataclass
class Composed:
    """A tree put together from others; its own listings are nowhere but here."""

    root: str = tree.EMPTY
    made: dict[str, bytes] = field(default_factory=lambda: {tree.EMPTY: tree.encode([])})

    def folder(self, entries: Iterable[TreeEntry]) -> str:
        """The digest of a folder made of these."""
        data = tree.encode(entries)
        self.made[tree.digest(data)] = data
        return tree.digest(data)

    def file(self, name: str, content: bytes) -> TreeEntry:
        """A file with that content."""
        digest = tree.digest(content)
        self.made[digest] = content
        return TreeEntry(kind=EntryKind.FILE, digest=digest, size=len(content), name=name)

    def reader(self, read: ReadObject) -> ReadObject:
        """Reads what was made here, and everything else with ``read``."""

        def look(digest: str) -> Path | Iterable[bytes]:
            made = self.made.get(digest)
            return read(digest) if made is None else [made]

        return look


def compose(
    session: Session, row: TrainingRow, trial: int | None, parts: Sequence[str]
) -> Composed:
    """The tree of an archive.

    Args:
        session: a transaction.
        row: the training.
        trial: only this one's params and model.
        parts: which folders; if all are asked for, those that there are.

    Raises:
        NotFound: it has nothing of a part that was asked for; says which.
        InvalidRequest: no such part.
    """
    for part in parts:
        if part not in PARTS:
            raise InvalidRequest(f"There is no part {part!r}; there are {', '.join(PARTS)}.")
    composed = Composed()
    entries = _entries(session, row, trial, composed)
    lacking = [part for part in parts if part not in entries]
    if lacking and (set(parts) != set(PARTS) or not entries):
        raise NotFound(
            f"Training {row.id} has no {lacking[0]} (yet). What it has: kaos train info -j {row.id}"
        )
    composed.root = composed.folder(entries[part] for part in parts if part in entries)
    return composed


def _entries(
    session: Session, row: TrainingRow, trial: int | None, composed: Composed
) -> Mapping[str, TreeEntry]:
    found = {}
    for part, version_id in (
        ("code", row.source_id),
        ("data", row.data_id),
        ("params", row.params_id),
    ):
        if version_id is not None:
            version = session.get_one(VersionRow, version_id)
            found[part] = _folder(part, version.digest, version.size)
    if trial is not None:
        one = find_trial(session, row, trial)
        found.pop("params", None)
        if one.params is not None:
            text = json.dumps(_as_grid(one.params), indent=2).encode() + b"\n"
            entry = composed.file("params.json", text)
            found["params"] = _folder("params", composed.folder([entry]), entry.size)
    model = _model(session, row, trial, composed)
    if model is not None:
        found["model"] = model
    return found


def _as_grid(params: Mapping[str, object]) -> dict[str, object]:
    """A file of parameters that gives these, once: an object or list is a value only in a list."""
    return {k: [v] if isinstance(v, dict | list) else v for k, v in params.items()}


def _model(
    session: Session, row: TrainingRow, trial: int | None, composed: Composed
) -> TreeEntry | None:
    query = select(TrialRow).where(TrialRow.training == row.number, TrialRow.output.is_not(None))
    if trial is not None:
        query = query.where(TrialRow.number == trial)
    elif row.total > 1:
        query = query.where(TrialRow.state == TrialState.SUCCEEDED)
    left = list(session.scalars(query.order_by(TrialRow.number)))
    if not left:
        return None
    if trial is not None or row.total == 1:
        return _folder("model", left[0].output or tree.EMPTY, left[0].output_size)
    each = [_folder(str(one.number), one.output or tree.EMPTY, one.output_size) for one in left]
    return _folder("model", composed.folder(each), sum(one.output_size for one in left))


def _folder(name: str, digest: str, size: int) -> TreeEntry:
    return TreeEntry(kind=EntryKind.DIRECTORY, digest=digest, size=size, name=name)
