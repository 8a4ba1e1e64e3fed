"""Wishes: what a request makes of a notebook's row, or why it cannot."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from secrets import token_hex

from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.engines.places import Places
from kaos_hub.errors import InvalidResources, Unsupported
from kaos_hub.schemas import (
    NOTHING,
    BundleKind,
    IdlePolicy,
    NotebookOptions,
    NotebookRequest,
    NotebookState,
    Size,
    check_apart,
)
from kaos_hub.service.builds.image_catalog import Images
from kaos_hub.service.bundles.versions import select_version
from kaos_hub.service.db.tables import NotebookRow, now
from kaos_hub.service.notebooks import volumes
from kaos_hub.service.notebooks.records import keep_options, options_of, refuse_deleted
from kaos_hub.service.notebooks.repositories import GitRules, ask
from kaos_hub.service.notebooks.runs import work_on
from kaos_hub.service.quota import Ledger, check_gpus
from kaos_hub.util.quantities import duration, show_memory
from kaos_hub.util.random_names import find_name


@dataclass(frozen=True)
class Offer:
    """The choices that engine and admin offer, besides sizes."""

    engine: str = "local"
    pools: Collection[str] = ()
    places: Places | None = None
    most_volumes: int = 20
    images: Images = field(default_factory=Images)
    git: GitRules = field(default_factory=GitRules)

    def check_pool(self, name: str) -> None:
        """Refuse a pool that there is not.

        Raises:
            Unsupported: this engine has none at all.
            InvalidResources: says which there are.
        """
        if self.engine != "kubernetes":
            raise Unsupported(
                f"There is no pool {name!r}: pools are nodes of a cluster, and notebooks run on"
                f" the engine {self.engine!r} here. Deploy without a pool."
            )
        if name not in self.pools:
            offered = ", ".join(sorted(self.pools))
            there = f"offered: {offered}" if offered else "none is offered, deploy without --pool"
            raise InvalidResources(f"There is no pool {name!r}; {there}.")


LEAST_MEMORY = 128 << 20
"""Bytes that a notebook needs to start at all: JupyterLab and one kernel."""


class Wishes:
    """Applies requests to rows, within what the admin offers.

    Args:
        ledger: limits.
        sizes: what the admin offers, and ``default_size`` among them.
        idle: the policy of notebooks that ask for none.
        gpus: how many devices the engine can give out.
        offer: what else there is.
    """

    def __init__(
        self,
        ledger: Ledger,
        sizes: Sequence[Size],
        default_size: str,
        idle: IdlePolicy,
        gpus: int = 0,
        offer: Offer = Offer(),
    ) -> None:
        self._ledger, self._sizes = ledger, {size.name: size for size in sizes}
        self._default_size, self._idle, self._gpus = default_size, idle, gpus
        self._offer = offer

    def check_fits(self, session: Session, row: NotebookRow) -> None:
        """Refuse before anything is built for it what would not be admitted after."""
        self._ledger.check(session, row, row.cpu or 0, row.memory or 0, row.gpu)
        if self._offer.places is not None:
            volumes.check_free(session, row, self._offer.places)

    def claim(self, session: Session, row: NotebookRow) -> None:
        """Make what a notebook asks for that is its owner's for good.

        Raises:
            LimitExceeded: it would be too much.
        """
        volumes.claim(session, row, self._offer.most_volumes)

    def draft(
        self, session: Session, owner: str, wish: NotebookRequest, owners: Collection[str] = ()
    ) -> tuple[NotebookRow, bool]:
        """The notebook as the wish wants it, and whether it is new. Nothing is written."""
        with session.no_autoflush:
            row, new = self.apply(session, owner, wish, wish.name, owners)
            if not new:
                session.expunge(row)
            return row, new

    def apply(
        self,
        session: Session,
        owner: str,
        wish: NotebookRequest,
        name: str | None,
        owners: Collection[str] = (),
    ) -> tuple[NotebookRow, bool]:
        """The notebook's row as the wish wants it, and whether it is new.

        A new row is not yet part of the session. Without a name one is found. ``owners``: whose
        runs, besides the owner's own, it may work on.

        Raises:
            NotFound: a bundle that is not there.
            Conflict: it is being deleted.
            InvalidResources: more than there is, or than the owner may ever have.
        """
        existing = {
            row.name: row
            for row in session.scalars(select(NotebookRow).where(NotebookRow.owner == owner))
        }
        row = existing.get(name) if name is not None else None
        new = row is None
        if row is None:
            row = self._new_row(owner, name or find_name(existing))
            if wish.size is None and self._default_size:
                self._resize(row, self._default_size)
        refuse_deleted(row)
        if wish.run is not None:
            work_on(session, row, wish.run, {owner, *owners})
        self._fill(session, row, wish)
        return row, new

    def _new_row(self, owner: str, name: str) -> NotebookRow:
        return NotebookRow(
            id=token_hex(8), owner=owner, name=name, display_name="", created=now(),
            wanted="STOPPED", restart=False, pull=False, gpu=0,
            idle_timeout=self._idle.timeout, idle_type=self._idle.type.value,
            state=NotebookState.STOPPED.value, reason="", progress=0,
            build_state="SKIPPED", build_reason="", starts=0, workload="", environment_key="",
            stop_reason="", idle_reason="", held=False, held_cpu=0, held_memory=0, held_gpu=0,
            options={}, held_options={}, clone={},
        )  # fmt: skip

    def _fill(self, session: Session, row: NotebookRow, wish: NotebookRequest) -> None:
        for kind, text, column in (
            (BundleKind.SOURCE, wish.source, "source_id"),
            (BundleKind.DATA, wish.data, "data_id"),
        ):
            if text is not None:
                setattr(row, column, select_version(session, row.owner, kind, text).id)
                # Of another source, or on other data, that model tells nothing.
                row.run = wish.run
        if wish.context == NOTHING:
            row.context_id = None
        elif wish.context is not None:
            context = select_version(session, row.owner, BundleKind.CONTEXT, wish.context)
            row.context_id = context.id
        if wish.size is not None:
            self._resize(row, wish.size)
        row.cpu = wish.cpu if wish.cpu is not None else row.cpu
        row.memory = wish.memory if wish.memory is not None else row.memory
        row.gpu = wish.gpu if wish.gpu is not None else row.gpu
        row.pull = row.pull or wish.pull
        if wish.image not in (None, NOTHING):
            self._offer.images.reference(str(wish.image))
        if wish.git not in (None, NOTHING):
            self._offer.git.check(str(wish.git))
        if wish.pool is not None:
            self._choose_pool(row, wish.pool)
        if wish.display_name is not None:
            row.display_name = wish.display_name
        if wish.idle_type is not None:
            row.idle_type = wish.idle_type
        if wish.idle_timeout is not None:
            row.idle_timeout = wish.idle_timeout
        before = options_of(row)
        keep_options(row, changed(before, wish))
        ask(row, before.git, wish)
        self._cap(row, wish)

    def _resize(self, row: NotebookRow, name: str) -> None:
        size = self._sizes.get(name)
        if size is None:
            offered = ", ".join(self._sizes) or "none"
            raise InvalidResources(f"There is no size {name!r}; offered: {offered}.")
        row.cpu, row.memory, row.gpu = size.cpu, size.memory, size.gpu
        row.pool = size.pool

    def _choose_pool(self, row: NotebookRow, name: str) -> None:
        if name != NOTHING:
            self._offer.check_pool(name)
        row.pool = None if name == NOTHING else name

    def _cap(self, row: NotebookRow, wish: NotebookRequest) -> None:
        """Refuse at once what can never be admitted, and more idle time than the owner may have.

        A timeout that was not asked for now (the default, or one from before the limit) is cut.
        """
        check_gpus(row.gpu, self._gpus)
        if row.memory is not None and row.memory < LEAST_MEMORY:
            raise InvalidResources(
                f"memory {show_memory(row.memory)} is too little for a notebook: JupyterLab and one"
                f" kernel need {show_memory(LEAST_MEMORY)} to start at all."
            )
        self._ledger.refuse_never(row.owner, row.cpu, row.memory, row.gpu)
        cap = self._ledger.limits(row.owner).idle_timeout
        if cap is not None and (row.idle_timeout == 0 or row.idle_timeout > cap):
            if wish.idle_timeout is not None:
                asked = duration(row.idle_timeout) if row.idle_timeout else "never"
                raise InvalidResources(
                    f"An idle timeout of {asked} is more than your limit of {duration(cap)};"
                    f" ask for less: --idle-timeout {cap}s"
                )
            row.idle_timeout = cap


def changed(options: NotebookOptions, wish: NotebookRequest) -> NotebookOptions:
    """The options as the wish wants them; what it leaves out stays."""
    given = options.environment | (wish.environment or {})
    environment = {name: value for name, value in given.items() if value}
    update: dict[str, object] = {"environment": environment}
    if wish.bind_mounts is not None:
        update["bind_mounts"] = wish.bind_mounts
    if wish.volumes is not None:
        update["volumes"] = wish.volumes
    if wish.image is not None:
        update["image"] = None if wish.image == NOTHING else wish.image
    if wish.git is not None:
        update["git"] = None if wish.git == NOTHING else wish.git
    found = options.model_copy(update=update)
    check_apart([*(m.container_path for m in found.bind_mounts), *(m.path for m in found.volumes)])
    return found
