"""The inputs of a training: what is given at once, else what its source was trained with last.

Current inputs belong to the name of a source, within its owner: another project's never slip in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from kaos_hub.errors import Conflict, InvalidRequest
from kaos_hub.schemas import BundleKind, Inputs, Shown, TrainingRequest, TrainingState
from kaos_hub.service.bundles.versions import as_model, select_version
from kaos_hub.service.db.tables import IngestRow, InputRow, TrainingRow, VersionRow, now

DIGEST = "blake3:"
KINDS = (BundleKind.SOURCE, BundleKind.DATA, BundleKind.MANIFEST, BundleKind.PARAMS)


@dataclass(frozen=True)
class Chosen:
    """Versions that belong together."""

    versions: Mapping[BundleKind, VersionRow]
    given: frozenset[BundleKind] = frozenset()
    """Kinds of those that were asked for; the others were there already."""
    continues: str | None = None
    """The training that waited for what is given."""

    @classmethod
    def of(cls, session: Session, row: TrainingRow) -> "Chosen":
        """Return the versions that a training is made of."""
        ids = {kind: getattr(row, f"{kind.value}_id") for kind in KINDS}
        return cls({k: session.get_one(VersionRow, i) for k, i in ids.items() if i is not None})

    @property
    def source(self) -> VersionRow | None:
        """The source."""
        return self.versions.get(BundleKind.SOURCE)

    @property
    def data(self) -> VersionRow | None:
        """The data; none while there is only a manifest of it."""
        return self.versions.get(BundleKind.DATA)

    @property
    def manifest(self) -> VersionRow | None:
        """The manifest by which the data is (to be) fetched."""
        return self.versions.get(BundleKind.MANIFEST)

    @property
    def params(self) -> VersionRow | None:
        """The parameters."""
        return self.versions.get(BundleKind.PARAMS)

    @property
    def reused(self) -> list[str]:
        """Kinds of what was there before."""
        data = {BundleKind.DATA, BundleKind.MANIFEST}
        given = self.given | (data if self.given & data else set())
        return [kind.value for kind in KINDS if kind in self.versions and kind not in given]

    @property
    def ids(self) -> dict[str, int | None]:
        """As the columns of a training."""
        found = {kind: row.id for kind, row in self.versions.items()}
        return {f"{kind.value}_id": found.get(kind) for kind in KINDS}

    @property
    def lacks(self) -> list[str]:
        """The inputs that have to be given before anything can run."""
        lacking = [] if self.source else ["source"]
        return lacking if self.data or self.manifest else [*lacking, "data"]

    def same_as(self, other: "Chosen") -> bool:
        """Return whether it is the same choice, looked up again."""
        return (self.ids, self.continues) == (other.ids, other.continues)

    def shown(self, session: Session) -> Inputs:
        """As the API shows it."""
        shown = {kind.value: as_model(row, session) for kind, row in self.versions.items()}
        return Inputs(**shown)


def current(session: Session, owner: str, source: str | None = None) -> Chosen:
    """The owner's current inputs for a source of that name; without one, for the one used last."""
    query = (
        select(InputRow.kind, VersionRow)
        .join(VersionRow, VersionRow.id == InputRow.version_id)
        .where(InputRow.owner == owner)
        .where(InputRow.source.in_(("", _name(session, owner, source))))
        .order_by(InputRow.source.desc())  # what was given before there was a source is the newest
    )
    return Chosen({BundleKind(row[0]): row[1] for row in session.execute(query)})


def _name(session: Session, owner: str, source: str | None) -> str:
    """The name of the source that is meant by a reference, or by none: then the one used last."""
    if source is None:
        last = select(InputRow.source).where(
            InputRow.owner == owner, InputRow.kind == BundleKind.SOURCE
        )
        return session.scalar(last.order_by(InputRow.at.desc()).limit(1)) or ""
    if source.startswith(DIGEST):
        return select_version(session, owner, BundleKind.SOURCE, source).name
    return source.partition("@")[0]


def choose(session: Session, owner: str, wanted: TrainingRequest) -> Chosen:
    """Return the inputs of a request: all that it gives, and what is there already for the rest.

    Raises:
        NotFound: a bundle that the owner does not have.
        Conflict: what is not given is no longer what was expected.
        InvalidRequest: it makes no sense.
    """
    given = _given(session, owner, wanted)
    waiting = _waiting(session, owner)
    if waiting is not None and _completes(given, waiting):
        return _continued(session, waiting, given, wanted)
    source = given.get(BundleKind.SOURCE)
    chosen = _filled(current(session, owner, source.name if source else None), given, wanted)
    if waiting is not None and not given and chosen.lacks:
        lacking = " and ".join(chosen.lacks)
        raise Conflict(f"Training {waiting.id} waits for {lacking} already; give that.")
    if not chosen.versions:
        raise InvalidRequest("There is nothing to train with. Give a source (-s) and data (-d).")
    _check_expected(chosen, wanted.expected)
    return chosen


def _given(session: Session, owner: str, wanted: TrainingRequest) -> dict[BundleKind, VersionRow]:
    if wanted.data is not None and wanted.manifest is not None:
        raise InvalidRequest("Give data or a manifest of where it is, not both.")
    if wanted.params is not None and wanted.without_params:
        raise InvalidRequest("Give params, or leave them out, not both.")
    texts = {kind: getattr(wanted, kind.value) for kind in KINDS}
    return {
        kind: select_version(session, owner, kind, text)
        for kind, text in texts.items()
        if text is not None
    }


def _waiting(session: Session, owner: str) -> TrainingRow | None:
    query = select(TrainingRow).where(
        TrainingRow.owner == owner,
        TrainingRow.state == TrainingState.WAITING,
        TrainingRow.kill_reason == "",
    )
    return session.scalar(query.order_by(TrainingRow.number.desc()).limit(1))


def _completes(given: Mapping[BundleKind, VersionRow], row: TrainingRow) -> bool:
    """Return whether the training lacks all that is given. Parameters alone do not count."""
    data = row.data_id is None and row.manifest_id is None
    lacking = {
        BundleKind.SOURCE: row.source_id is None,
        BundleKind.DATA: data,
        BundleKind.MANIFEST: data,
        BundleKind.PARAMS: row.params_id is None,
    }
    needed = any(kind is not BundleKind.PARAMS for kind in given)
    return needed and all(lacking[kind] for kind in given)


def _continued(
    session: Session,
    row: TrainingRow,
    given: Mapping[BundleKind, VersionRow],
    wanted: TrainingRequest,
) -> Chosen:
    chosen = replace(_filled(Chosen.of(session, row), given, wanted), continues=row.id)
    _check_expected(chosen, wanted.expected)
    return chosen


def _filled(
    present: Chosen, given: Mapping[BundleKind, VersionRow], wanted: TrainingRequest
) -> Chosen:
    left_out = {BundleKind.PARAMS} if wanted.without_params else set()
    if given.keys() & {BundleKind.DATA, BundleKind.MANIFEST}:
        left_out |= {BundleKind.DATA, BundleKind.MANIFEST}
    kept = {kind: row for kind, row in present.versions.items() if kind not in left_out}
    return Chosen({**kept, **given}, frozenset(given))


def _check_expected(chosen: Chosen, expected: Shown | None) -> None:
    if expected is None:
        return
    data_given = {BundleKind.DATA, BundleKind.MANIFEST} & chosen.given
    for name in ("source", "data", "params"):
        if BundleKind(name) in chosen.given or (name == "data" and data_given):
            continue
        row = chosen.versions.get(BundleKind(name))
        if (row.digest if row else None) != getattr(expected, name):
            now_is = "none"
            if row:
                now_is = f"{row.name} v{row.number}, by {as_model(row).author}"
            raise Conflict(
                f"The current {name} is no longer what you were shown; now it is {now_is}."
                " Look again, and repeat the command.",
                kind=name,
            )


def with_fetched(session: Session, owner: str, chosen: Chosen) -> Chosen:
    """The same with the data that was fetched by its manifest before, if it was."""
    if chosen.manifest is None or chosen.data is not None:
        return chosen
    done = session.get(IngestRow, (owner, chosen.manifest.digest))
    if done is None or done.data_id is None:
        return chosen
    data = session.get_one(VersionRow, done.data_id)
    return replace(chosen, versions={**chosen.versions, BundleKind.DATA: data})


def remember(session: Session, row: TrainingRow, chosen: Chosen, wanted: TrainingRequest) -> None:
    """Make what was given current for the source of that name. What was left out stays so."""
    name = chosen.source.name if chosen.source else ""
    remembering = _Memory(session, row.owner, name, row.author)
    # What waited for a source belongs to it from now on.
    kinds = frozenset(chosen.versions) if chosen.continues else chosen.given
    for kind in kinds:
        remembering.set(kind, chosen.versions[kind])
    if BundleKind.DATA in kinds and BundleKind.MANIFEST not in kinds:
        remembering.set(BundleKind.MANIFEST, None)
    if BundleKind.MANIFEST in kinds:
        remembering.set(BundleKind.DATA, chosen.data)
    if wanted.without_params:
        remembering.set(BundleKind.PARAMS, None)
    if chosen.source is not None:
        nobodys = delete(InputRow).where(InputRow.owner == row.owner, InputRow.source == "")
        session.execute(nobodys)


@dataclass(frozen=True)
class _Memory:
    """The current inputs of an owner for a source."""

    session: Session
    owner: str
    source: str
    author: str

    def set(self, kind: BundleKind, version: VersionRow | None) -> None:
        """Make a version the current one; None: there is none."""
        if version is None:
            same = InputRow.owner == self.owner, InputRow.source == self.source
            self.session.execute(delete(InputRow).where(*same, InputRow.kind == kind))
            return
        self.session.merge(
            InputRow(
                owner=self.owner, source=self.source, kind=kind, version_id=version.id,
                author=self.author, at=now(),
            )
        )  # fmt: skip
