"""Admission: the one place where a server is allowed to start, and told as what.

Users may ask the Hub for servers directly, so the spawner asks here before every start, however it
was asked for. What is admitted is held in the ledger until it is released.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from kaos_hub.engines.base import Engine
from kaos_hub.schemas import Mount, NotebookSpec, NotebookState, Pool, Resources
from kaos_hub.service.builds.image_catalog import Images
from kaos_hub.service.db.tables import NotebookRow, VersionRow, WorkloadRow, now
from kaos_hub.service.notebooks import runs, volumes
from kaos_hub.service.notebooks.mounting import told
from kaos_hub.service.notebooks.records import USER, options_of, set_state
from kaos_hub.service.notebooks.repositories import GitRules
from kaos_hub.service.quota import Ledger
from kaos_hub.service.users.identities import shown_owner

HOME = "/home/kaos"
CODE = "/opt/program"
RUNTIME = "/opt/kaos"


@dataclass(frozen=True)
class Inside:
    """The settings that are the same inside all notebooks."""

    url: str
    """The service's address as a notebook reaches it."""
    kernels: Path
    """The folder where the engine `local` has what kernels need."""
    pools: Mapping[str, Pool] = field(default_factory=dict)
    """The pools that sizes may name."""
    images: Images = field(default_factory=Images)
    """The ready-made environments."""
    git: GitRules = field(default_factory=GitRules)
    """The rules on what may be cloned."""


def admit(
    session: Session,
    row: NotebookRow,
    ledger: Ledger,
    result: dict[str, Any],
    engine: Engine,
    inside: Inside,
    tree: str | None = None,
    also: Sequence[Mount] = (),
) -> NotebookSpec:
    """Hold what the notebook needs and say as what it starts, in one transaction.

    Args:
        session: the transaction.
        row: the notebook, whose image and trees are ready.
        ledger: who may hold what.
        result: what the build of its environment left.
        engine: where it runs.
        inside: what is the same in all.
        tree: what its working copy is to follow: its source, with its context laid over it.
        also: what else was found to be mounted.

    Raises:
        LimitExceeded: it would not fit; nothing is held.
    """
    volumes.check_free(session, row, engine.places)
    ledger.admit(session, row, row.cpu or 0, row.memory or 0, row.gpu)
    row.held_pool, row.held_options = row.pool, row.options
    row.held_name = shown_owner(session, row.owner).removeprefix(USER)
    row.starts += 1
    row.workload = f"kaos-notebook-{row.id}-{row.starts}"
    session.add(WorkloadRow(name=row.workload))
    row.admitted, row.started, row.stopped = now(), None, None
    row.active_at = row.reported_at = None
    row.idle_reason = row.stop_reason = ""
    row.mounted_data_id, row.good_source_id = row.data_id, row.source_id
    row.restart = False
    set_state(session, row, NotebookState.STARTING, "starting", 60)
    source = session.get(VersionRow, row.source_id) if row.source_id else None
    row.good_tree = tree or (source.digest if source else None)
    data = session.get(VersionRow, row.data_id) if row.data_id else None
    mounts, environment = runs.inside(session, row, engine.places)
    also = [*also, *volumes.mounted(session, row, engine.places)]
    spec = _spec(row, source, data, result, engine, inside)
    return spec.model_copy(
        update={
            "mounts": [*spec.mounts, *mounts, *also],
            # What we say of the notebook comes last: it must be true.
            "environment": {
                **options_of(row).environment,
                **spec.environment,
                **environment,
                **told(also),
            },
        }
    )


def _spec(
    row: NotebookRow,
    source: VersionRow | None,
    data: VersionRow | None,
    result: dict[str, Any],
    engine: Engine,
    inside: Inside,
) -> NotebookSpec:
    places = engine.places
    mounts = [places.home(row.id, HOME)]
    environment = {
        "KAOS_URL": inside.url,
        "KAOS_NOTEBOOK": row.name,
        "KAOS_HOME": HOME,
        "KAOS_PACKAGES": f"{HOME}/.kaos/packages/{row.environment_key}",
    }
    image = options_of(row).image
    if image is not None:
        environment["KAOS_IMAGE"] = image
    clone = inside.git.order(row)
    if clone is not None:
        environment["KAOS_GIT"] = clone.model_dump_json()
    if row.good_tree is not None:
        mounts.append(places.tree(row.good_tree, "/kaos/source"))
        environment |= {"KAOS_SOURCE": "/kaos/source", "KAOS_SOURCE_DIGEST": row.good_tree}
    if source is not None:
        overlay = result.get("code_overlay")
        if overlay:
            mounts.append(places.tree(source.digest, overlay, result["context"]))
    if data is not None:
        mounts.append(places.tree(data.digest, "/kaos/data"))
        mounts.append(places.tree(data.digest, f"/pfs/{data.name}"))
        environment |= {"KAOS_DATA": "/kaos/data", "DATA_REPO": data.name}
    runtime = places.runtime(RUNTIME)
    if runtime is not None:
        mounts.append(runtime)
    python = result.get("python")
    if python:
        # the local engine's environment is seen where it was built; it cannot be moved
        prefix = str(Path(python).parent.parent)
        mounts.append(Mount(source=prefix, target=prefix))
        mounts.append(Mount(source=str(inside.kernels), target=str(inside.kernels)))
        environment |= {"KAOS_PYTHON": python, "KAOS_KERNELS": str(inside.kernels)}
    return NotebookSpec(
        notebook=row.name,
        workload=row.workload,
        owner=row.owner,
        image=result.get("image"),
        python=python,
        mounts=mounts,
        environment=environment,
        resources=Resources(cpu=row.cpu, memory=row.memory, gpu=row.gpu),
        labels={
            "kaos_hub.workload": row.workload,
            "kaos_hub.owner": row.owner,
            "kaos_hub.notebook": row.name,
        },
        uid=engine.uid,
        pool=inside.pools.get(row.pool) if row.pool else None,
    )


def release(session: Session, row: NotebookRow, state: NotebookState, reason: str) -> None:
    """Let go of what the notebook held, and record why it is no longer running."""
    if row.held or state is NotebookState.STOPPED:
        row.stopped = now()
    row.held = False
    row.held_cpu = row.held_memory = row.held_gpu = 0
    row.held_pool, row.held_options = None, {}
    row.active_at = row.reported_at = None
    row.stop_reason = ""
    set_state(session, row, state, reason)
