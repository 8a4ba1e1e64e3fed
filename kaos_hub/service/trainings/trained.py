"""Models: what trials left, by id or by name, and all that made them."""

import re

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from kaos_hub.errors import Conflict, NotFound
from kaos_hub.schemas import (
    BundleKind,
    BundleVersion,
    MetricComparison,
    Provenance,
    Resources,
    TrainedModel,
    TrialComparison,
    TrialState,
)
from kaos_hub.service.bundles.versions import as_model, in_use, select_version
from kaos_hub.service.db.tables import TrainingRow, TrialRow, VersionRow
from kaos_hub.service.trainings.listing import as_trained
from kaos_hub.service.trainings.records import find, find_trial

_ID = re.compile(r"(?P<training>[0-9a-f]{16})\.(?P<number>[1-9][0-9]{0,6})")
_VERSION = re.compile(r".+@v?[0-9]{1,9}")

Found = tuple[TrainingRow, TrialRow]


def find_model(session: Session, owner: str, text: str) -> Found:
    """The training and trial that left the model of an id, a name, or a name and version.

    Raises:
        NotFound: there is none.
    """
    match = _ID.fullmatch(text)
    if match is None:
        return _named(session, owner, text)
    row = find(session, owner, match["training"])
    trial = find_trial(session, row, int(match["number"]))
    if trial.output is None:
        raise NotFound(
            f"Trial {trial.number} of training {row.id} left nothing ({trial.state}). What it said:"
            f" kaos train logs -j {row.id}.{trial.number}"
        )
    return row, trial


def _named(session: Session, owner: str, text: str) -> Found:
    try:
        version = select_version(session, owner, BundleKind.ARTIFACT, text)
    except NotFound:
        raise NotFound(f"There is no model {text!r}. `kaos model list` shows yours.") from None
    trial = session.scalar(select(TrialRow).where(TrialRow.named_id == version.id).limit(1))
    if trial is None:
        raise NotFound(
            f"{version.name} v{version.number} was sent, not trained: it is a bundle. To fetch it:"
            f" kaos bundle get {version.name}@v{version.number} --kind artifact"
        )
    return session.get_one(TrainingRow, trial.training), trial


def shown(session: Session, found: Found) -> TrainedModel:
    """A model as the API shows it."""
    return as_trained(session, [found])[0]


def set_name(session: Session, found: Found, version: BundleVersion) -> TrainedModel:
    """The model has a name, as which a version was made. Another one that was called the same,
    with the very same content, is called so no longer."""
    row, trial = found
    named = select_version(
        session, row.owner, BundleKind.ARTIFACT, f"{version.name}@v{version.version}"
    )
    session.execute(update(TrialRow).where(TrialRow.named_id == named.id).values(named_id=None))
    trial = find_trial(session, row, trial.number)
    trial.named_id = named.id
    session.flush()
    return shown(session, (row, trial))


def forget_name(session: Session, owner: str, text: str) -> None:
    """Take a name, or one version of it, from what it names.

    Raises:
        NotFound: there is no such name.
        Conflict: it is in use.
    """
    newest = select_version(session, owner, BundleKind.ARTIFACT, text)
    versions = [newest]
    if not _VERSION.fullmatch(text):
        query = select(VersionRow).where(
            VersionRow.owner == owner,
            VersionRow.kind == BundleKind.ARTIFACT,
            VersionRow.name == newest.name,
        )
        versions = list(session.scalars(query))
    for version in versions:
        if in_use(session, version.id):
            raise Conflict(
                f"{version.name} v{version.number} is in use; `kaos notebook list` and `kaos train"
                " list` show by what. Delete that first."
            )
    ids = [version.id for version in versions]
    session.execute(update(TrialRow).where(TrialRow.named_id.in_(ids)).values(named_id=None))
    session.execute(delete(VersionRow).where(VersionRow.id.in_(ids)))
    _make_current(session, owner, newest.name)


def _make_current(session: Session, owner: str, name: str) -> None:
    """The newest version that is left is the one that the name alone means."""
    mine = (
        VersionRow.owner == owner,
        VersionRow.kind == BundleKind.ARTIFACT,
        VersionRow.name == name,
    )
    if session.scalar(select(VersionRow.id).where(*mine, VersionRow.current).limit(1)) is None:
        query = select(VersionRow).where(*mine).order_by(VersionRow.number.desc()).limit(1)
        left = session.scalar(query)
        if left is not None:
            left.current = True


def provenance(session: Session, found: Found) -> Provenance:
    """All that made a model."""
    row, trial = found
    versions = {
        name: as_model(session.get_one(VersionRow, version_id))
        for name, version_id in (
            ("source", row.source_id),
            ("data", row.data_id),
            ("manifest", row.manifest_id),
            ("params", row.params_id),
        )
        if version_id is not None
    }
    return Provenance(
        model=shown(session, found),
        source=versions["source"],
        data=versions["data"],
        manifest=versions.get("manifest"),
        params=versions.get("params"),
        engine=row.engine,
        image=row.environment.get("image"),
        environment=row.environment_key,
        packages=row.environment.get("packages", []),
        build_job=row.build_job,
        resources=Resources(cpu=row.cpu, memory=row.memory, gpu=row.gpu),
        reproduces=f"{row.reproduces}.{trial.number}" if row.reproduces else None,
    )


def comparison(session: Session, row: TrainingRow) -> list[TrialComparison]:
    """The trials of a repetition beside those that it repeats.

    Raises:
        Conflict: it repeats none, or that was deleted.
    """
    if row.reproduces is None:
        raise Conflict(f"Training {row.id} repeats no other one. `kaos train reproduce` makes one.")
    first = session.scalar(select(TrainingRow).where(TrainingRow.id == row.reproduces))
    if first is None:
        raise Conflict(
            f"Training {row.reproduces}, which it repeats, was deleted; there is nothing to compare"
            f" with. Its own metrics: kaos train metrics -j {row.id}"
        )
    query = select(TrialRow).order_by(TrialRow.number)
    before = session.scalars(query.where(TrialRow.training == first.number))
    known = {trial.number: trial for trial in before}
    after = session.scalars(query.where(TrialRow.training == row.number))
    return [_compare(known[trial.number], trial) for trial in after if trial.number in known]


def _compare(before: TrialRow, after: TrialRow) -> TrialComparison:
    names = sorted({*before.metrics, *after.metrics})
    return TrialComparison(
        trial=after.number,
        state=TrialState(after.state),
        same_output=after.output is not None and after.output == before.output,
        metrics=[
            MetricComparison(
                metric=name, before=before.metrics.get(name), after=after.metrics.get(name)
            )
            for name in names
        ],
    )


def has_names(session: Session, row: TrainingRow) -> str | None:
    """The name of one of its models, if any has one."""
    query = (
        select(VersionRow)
        .join(TrialRow, TrialRow.named_id == VersionRow.id)
        .where(TrialRow.training == row.number)
    )
    version = session.scalar(query.limit(1))
    return f"{version.name}@v{version.number}" if version else None
