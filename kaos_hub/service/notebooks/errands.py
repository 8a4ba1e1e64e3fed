"""Errands: what a notebook's own server is asked to do, and what becomes of it.

They are held in memory: a caller that waits for one asks again when the service was restarted, and
the notebook's server, told that its errand is not known any more, lets it be. What counts, a
version and that the notebook follows it, is written in one transaction.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field, replace
from secrets import token_hex

from sqlalchemy.orm import Session

from kaos_hub.errors import Conflict, KaosError, NotFound, Unavailable
from kaos_hub.schemas import (
    AttachRequest,
    BundleKind,
    BundleVersion,
    CommitRequest,
    Contents,
    Errand,
    ErrandKind,
    ErrandOrder,
    ErrandReport,
    ErrandState,
    NotebookState,
    SaveRequest,
    bundle_name,
)
from kaos_hub.service.bundles.versions import Versions, as_model, select_version
from kaos_hub.service.db.tables import NotebookRow, VersionRow
from kaos_hub.service.notebooks.hosting import Hosting
from kaos_hub.service.notebooks.records import announce, find, options_of
from kaos_hub.transport.tickets import Tickets

_UNHEARD = 30.0
"""Seconds that a notebook's server has to say that it has begun."""
_SILENT = 120.0
"""Seconds for which it may then be silent."""
_KEPT = 180.0
"""Seconds for which the end of an errand can be asked for."""
_TICKET = 24 * 3600
"""Seconds that fetching data may take."""


@dataclass(frozen=True)
class _Wanted:
    """The subject of an errand; the same twice is one errand."""

    kind: ErrandKind
    bundle: str
    requirements: bool = False
    dry_run: bool = False
    digest: str | None = None


@dataclass
class _Entry:
    """An errand on its way."""

    errand: Errand
    owner: str
    wanted: _Wanted
    order: ErrandOrder
    workload: str
    source: BundleVersion | None
    """The version that the notebook follows when it is asked."""
    source_id: int | None = None
    data: int | None = None
    heard: float = field(default_factory=time.monotonic)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One report at a time: one whose answer was lost is told again."""


class Errands:
    """Asks notebooks' servers to save and to attach.

    Args:
        hosting: who knows the notebooks.
        versions: where what they save becomes a version.
        tickets: lets them fetch data.
        base: image of the Dockerfile that a notebook without a source gets.
    """

    def __init__(self, hosting: Hosting, versions: Versions, tickets: Tickets, base: str) -> None:
        self._hosting, self._versions, self._tickets = hosting, versions, tickets
        self._base = base
        self._db, self._bell = hosting.db, hosting.bell
        self._entries: dict[str, _Entry] = {}

    # --- asking ---

    async def save(self, owner: str, name: str, asked: SaveRequest) -> Errand:
        """Have the working copy saved. The same asked twice at a time is done once.

        Raises:
            Forbidden: it uses things of a group that its owner has left.
            Conflict: the notebook does not run, or is being saved in another way.
            NotFound: there is no such notebook.
        """
        row, source = await self._running(owner, name, "save")
        called = asked.bundle or (source.name if source else bundle_name(row.name))
        wanted = _Wanted(ErrandKind.SAVE, called, asked.requirements, asked.dry_run)
        order = ErrandOrder(
            id=token_hex(8),
            kind=ErrandKind.SAVE,
            requirements=asked.requirements,
            dry_run=asked.dry_run,
            base="" if source else self._base_of(row),
            bundle=called,
        )
        return await self._begin(row, source, wanted, order)

    def _base_of(self, row: NotebookRow) -> str:
        """The image that a notebook without a source runs in."""
        image = options_of(row).image
        return self._hosting.inside.images.reference(image) if image else self._base

    async def attach(self, owner: str, name: str, asked: AttachRequest) -> Errand:
        """Have a data bundle brought in; from the next start on it is the notebook's.

        Raises:
            Conflict: the notebook does not run.
            NotFound: there is no such notebook, or no such bundle.
        """
        row, source = await self._running(owner, name, "attach data to")
        data = await self._db.run(
            lambda session: select_version(session, owner, BundleKind.DATA, asked.data)
        )
        wanted = _Wanted(ErrandKind.ATTACH, data.name, digest=data.digest)
        order = ErrandOrder(
            id=token_hex(8),
            kind=ErrandKind.ATTACH,
            bundle=data.name,
            digest=data.digest,
            ticket=self._tickets.issue(row.workload, [data.digest], _TICKET),
        )
        return await self._begin(row, source, wanted, order, data.id)

    async def _running(
        self, owner: str, name: str, what: str
    ) -> tuple[NotebookRow, BundleVersion | None]:
        def look(session: Session) -> tuple[NotebookRow, BundleVersion | None]:
            row = find(session, owner, name)
            if row.state != NotebookState.RUNNING or not row.held:
                raise Conflict(
                    f"Notebook {name!r} is {row.state}; its files are in reach only while it runs."
                    f" Start it (kaos notebook start -n {name}), then {what} it."
                )
            source = session.get(VersionRow, row.source_id) if row.source_id else None
            return row, as_model(source) if source else None

        row, source = await self._db.run(look)
        await self._hosting.rights.check(row)
        return row, source

    async def _begin(
        self,
        row: NotebookRow,
        source: BundleVersion | None,
        wanted: _Wanted,
        order: ErrandOrder,
        data: int | None = None,
    ) -> Errand:
        for entry in self._of(row.owner, row.name):
            if entry.wanted == wanted:
                return entry.errand
            if wanted.kind is entry.wanted.kind and not entry.wanted.dry_run:
                raise Conflict(
                    f"Notebook {row.name!r} is busy with another {wanted.kind.value}; wait until it"
                    " is done, then ask again."
                )
        errand = Errand(
            id=order.id,
            notebook=row.name,
            kind=wanted.kind,
            state=ErrandState.ASKED,
            note="asking the notebook",
            bundle=wanted.bundle,
            dry_run=wanted.dry_run,
        )
        self._entries[errand.id] = _Entry(
            errand, row.owner, wanted, order, row.workload, source, row.source_id, data
        )
        # An event makes the notebook's server ask what there is to do.
        await self._db.run(lambda session: announce(session, find(session, row.owner, row.name)))
        self._bell.ring()
        return errand

    def _of(self, owner: str, name: str) -> list[_Entry]:
        """The errands of a notebook that have not ended, the oldest first."""
        self._forget_old()
        return [
            entry
            for entry in self._entries.values()
            if (entry.owner, entry.errand.notebook) == (owner, name)
            and not self._looked_after(entry).state.ended
        ]

    def _forget_old(self) -> None:
        limit = time.monotonic() - _KEPT
        for errand_id in [i for i, entry in self._entries.items() if entry.heard < limit]:
            del self._entries[errand_id]

    def _looked_after(self, entry: _Entry) -> Errand:
        """Return the errand; failed, if the notebook's server has been silent for too long."""
        state, quiet = entry.errand.state, time.monotonic() - entry.heard
        if state is ErrandState.ASKED and quiet > _UNHEARD:
            self._fail(
                entry,
                Unavailable(
                    f"Notebook {entry.errand.notebook!r} does not hear: its server is busy, or"
                    " older than this Hub. Try again; if that does not help, restart it."
                ),
            )
        elif state is ErrandState.RUNNING and quiet > _SILENT:
            self._fail(
                entry,
                Unavailable(
                    f"Notebook {entry.errand.notebook!r} began but has not been heard of since."
                    " Nothing is half-done; try again."
                ),
            )
        return entry.errand

    def _fail(self, entry: _Entry, error: KaosError) -> None:
        self._set(entry, state=ErrandState.FAILED, note=error.message, code=error.code)

    def _set(self, entry: _Entry, **changes: object) -> None:
        entry.errand = entry.errand.model_copy(update=changes)
        entry.heard = time.monotonic()
        self._bell.ring()

    # --- the notebook's server ---

    def orders(self, owner: str, name: str) -> list[ErrandOrder]:
        """Return what a notebook's server has to do now."""
        return [entry.order for entry in self._of(owner, name)]

    async def report(
        self, owner: str, author: str, name: str, errand_id: str, said: ErrandReport
    ) -> Errand:
        """Take what a notebook's server says of an errand.

        Raises:
            NotFound: the errand is not known any more: the server need not go on.
        """
        entry = self._find(owner, name, errand_id)
        async with entry.turn:
            if not entry.errand.state.ended:
                await self._take(entry, author, said)
        return entry.errand

    async def _take(self, entry: _Entry, author: str, said: ErrandReport) -> None:
        if said.code:
            self._set(entry, state=ErrandState.FAILED, note=said.note, code=said.code)
            return
        self._set(entry, state=ErrandState.RUNNING, note=said.note, progress=said.progress)
        try:
            if said.contents is not None:
                await self._saved(entry, author, said.contents)
            elif said.done and entry.data is not None:
                await self._attached(entry, entry.data)
        except KaosError as e:
            self._fail(entry, e)

    async def _saved(self, entry: _Entry, author: str, contents: Contents) -> None:
        changed = entry.source is None or entry.source.digest != contents.root
        done = {
            "state": ErrandState.DONE, "note": "", "progress": 100,
            "changed": changed or entry.wanted.bundle != (entry.source and entry.source.name),
            "contents": contents,
        }  # fmt: skip
        if entry.wanted.dry_run:
            self._set(entry, **done)
            return
        request = CommitRequest(
            kind=BundleKind.SOURCE, name=entry.wanted.bundle, root=contents.root
        )

        def follow(session: Session, version: VersionRow) -> None:
            row = self._still(session, entry)
            if row.source_id != entry.source_id:
                raise Conflict(
                    f"Notebook {row.name!r} was deployed while it was being saved. Save again."
                )
            # What lay over the source before is a part of it now.
            row.source_id, row.context_id = version.id, None
            announce(session, row)

        version = await self._versions.commit(entry.owner, author, request, follow)
        notes = [*contents.notes, *await self._settle(entry)]
        done["contents"] = contents.model_copy(update={"notes": notes})
        self._set(entry, version=version, **done)

    def _still(self, session: Session, entry: _Entry) -> NotebookRow:
        row = find(session, entry.owner, entry.errand.notebook)
        if row.workload != entry.workload or not row.held:
            raise Conflict(f"Notebook {row.name!r} stopped meanwhile. Start it and try again.")
        return row

    async def _settle(self, entry: _Entry) -> list[str]:
        """Note that what runs fits what was saved, unless that asks for another environment.

        Returns:
            Remarks: that what was saved cannot be built, or needs another environment.
        """
        row = await self._db.run(lambda session: find(session, entry.owner, entry.errand.notebook))
        try:
            environment = await self._hosting.environment_of(row, ask=False)
        except KaosError as e:
            return [f"as it is, it cannot be built: {e.message}"]

        def note(session: Session) -> None:
            fresh = find(session, entry.owner, entry.errand.notebook)
            if fresh.source_id == row.source_id and fresh.held:
                fresh.good_source_id, fresh.good_tree = row.source_id, None

        if environment.key == row.environment_key:
            await self._db.run(note)
            return []
        return [f"its environment is another one, from its next start on ({environment.why})"]

    async def _attached(self, entry: _Entry, data: int) -> None:
        def keep(session: Session) -> BundleVersion:
            row = self._still(session, entry)
            # It is at hand already, so that nothing needs a restart for its sake.
            row.data_id = row.mounted_data_id = data
            row.run = None
            announce(session, row)
            return as_model(session.get_one(VersionRow, data))

        version = await self._db.run(keep)
        place = f"attached/{entry.wanted.bundle}"
        self._set(
            entry, state=ErrandState.DONE, note="", progress=100, version=version, place=place
        )

    # --- waiting ---

    def _find(self, owner: str, name: str, errand_id: str) -> _Entry:
        entry = self._entries.get(errand_id)
        if entry is None or (entry.owner, entry.errand.notebook) != (owner, name):
            raise NotFound("Nobody waits for that any more: the service was restarted since.")
        return entry

    async def get(self, owner: str, name: str, errand_id: str, wait: float = 0) -> Errand:
        """Return how an errand stands; wait at most ``wait`` seconds for news of it.

        Raises:
            NotFound: there is none, or the service was restarted since.
        """
        entry = self._find(owner, name, errand_id)
        before = replace(entry).errand
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                while True:
                    ring = self._bell.listen()
                    await self._check(entry)
                    if entry.errand.state.ended or entry.errand != before:
                        break
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(ring.wait(), 2)
        return entry.errand

    async def _check(self, entry: _Entry) -> None:
        if self._looked_after(entry).state.ended:
            return
        try:
            await self._db.run(lambda session: self._still(session, entry))
        except KaosError as e:
            self._fail(entry, Conflict(e.message))
