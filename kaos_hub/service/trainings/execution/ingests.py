"""The requests and reports of jobs of kind INGEST."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.errors import NotFound
from kaos_hub.schemas import (
    BundleKind,
    BundleVersion,
    CommitRequest,
    IngestEnd,
    IngestOrder,
    IngestPart,
    JobKind,
)
from kaos_hub.service.bundles.versions import Versions, select_version
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import ACTIVE_JOBS, IngestRow, InputRow, JobRow, VersionRow, now
from kaos_hub.service.quota import Ledger
from kaos_hub.service.trainings.settings import Settings


class Ingests:
    """Answers those who fetch.

    Args:
        db, versions, ledger, settings: what it works with.
    """

    def __init__(
        self, db: Database, versions: Versions, ledger: Ledger, settings: Settings
    ) -> None:
        self._db, self._versions, self._ledger = db, versions, ledger
        self._settings = settings

    async def order(self, job_id: str) -> IngestOrder:
        """Return what the job is to fetch."""

        def look(session: Session) -> IngestOrder:
            job, manifest = _find(session, job_id)
            left, room = self._ledger.room(session, job.owner), self._settings.max_size
            if left is not None:
                room = min(room, left)
            return IngestOrder(
                manifest=manifest.digest,
                index=_latest(session, manifest),
                allow=list(self._settings.allow),
                schemes=list(self._settings.schemes),
                parallel=self._settings.parallel,
                max_size=room,
            )

        return await self._db.run(look)

    async def fetched(self, job_id: str, part: IngestPart) -> None:
        """Remember what was fetched up to now."""
        _, manifest = await self._db.run(lambda session: _find(session, job_id))
        await self._versions.require(manifest.owner, {part.index: None})
        await self._db.run(lambda session: _remember(session, manifest, part.index, None))

    async def ingested(self, job_id: str, end: IngestEnd) -> None:
        """Make a version of the data, and use it wherever it is waited for."""
        job, manifest = await self._db.run(lambda session: _find(session, job_id))
        await self._versions.require(job.owner, {end.index: None})
        author = job.author or manifest.author
        wanted = CommitRequest(kind=BundleKind.DATA, name=manifest.name, root=end.root)
        data = await self._versions.commit(job.owner, author, wanted)

        def write(session: Session) -> None:
            version = _version(session, job.owner, data)
            _remember(session, manifest, end.index, version.id)
            waiting = select(InputRow).where(
                InputRow.owner == job.owner,
                InputRow.kind == BundleKind.MANIFEST,
                InputRow.version_id == manifest.id,
            )
            for current in session.scalars(waiting).all():
                session.merge(
                    InputRow(
                        owner=job.owner, source=current.source, kind=BundleKind.DATA,
                        version_id=version.id, author=current.author, at=now(),
                    )
                )  # fmt: skip

        await self._db.run(write)


def _find(session: Session, job_id: str) -> tuple[JobRow, VersionRow]:
    job = session.get(JobRow, job_id)
    if job is None or job.kind != JobKind.INGEST or job.state not in ACTIVE_JOBS:
        raise NotFound("There is no such job (any more).")
    return job, select_version(session, job.owner, BundleKind.MANIFEST, job.key)


def _version(session: Session, owner: str, data: BundleVersion) -> VersionRow:
    query = select(VersionRow).where(
        VersionRow.owner == owner,
        VersionRow.kind == data.kind,
        VersionRow.name == data.name,
        VersionRow.number == data.version,
    )
    return session.scalars(query).one()


def _latest(session: Session, manifest: VersionRow) -> str | None:
    """Return the index of what was fetched last by this manifest, or by one of the same name."""
    own = session.get(IngestRow, (manifest.owner, manifest.digest))
    if own is not None:
        return own.index
    same = select(IngestRow.index).where(
        IngestRow.owner == manifest.owner, IngestRow.name == manifest.name
    )
    return session.scalar(same.order_by(IngestRow.at.desc()).limit(1))


def _remember(session: Session, manifest: VersionRow, index: str, data_id: int | None) -> None:
    row = session.get(IngestRow, (manifest.owner, manifest.digest))
    if row is not None and row.data_id is not None and data_id is None:
        return  # all of it is there already
    session.merge(
        IngestRow(
            owner=manifest.owner, manifest=manifest.digest, name=manifest.name, index=index,
            data_id=data_id, at=now(),
        )
    )  # fmt: skip
