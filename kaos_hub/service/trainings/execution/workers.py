"""The work that the engine does for a training: workers, and the fetching of data."""

from pathlib import Path
from typing import Any

from kaos_hub.engines.base import Engine, Run
from kaos_hub.schemas import Mount
from kaos_hub.service.db.tables import JobRow, TrainingRow, VersionRow
from kaos_hub.service.trainings.settings import Settings
from kaos_hub.util import variables

CODE = "/opt/program"
DATA = "/kaos/data"
ANCESTORS_DATA = "/pfs/data"
"""The folder in which bundles written for kaos look: its only child is what they were given."""
SOURCE = "/kaos/source"
MANIFEST = "/kaos/manifest"
ENDLESS = 366 * 24 * 3600
"""Seconds that a worker may take; each trial of its has a deadline of its own."""


def worker(
    engine: Engine, settings: Settings, row: TrainingRow, source: VersionRow, data: VersionRow
) -> Run:
    """A worker of a training whose environment and trees are ready."""
    result: dict[str, Any] = row.environment
    overlay: str | None = result.get("code_overlay")
    environment = {
        "KAOS_WORK_URL": settings.url,
        "KAOS_TRAINING": row.id,
        "KAOS_SOURCE": SOURCE,
        "KAOS_DATA": DATA,
        "KAOS_CODE": overlay or CODE,
        "KAOS_STORAGE": str(settings.storage),
        "KAOS_LOG_LIMIT": str(settings.log_limit),
    }
    places = engine.places
    mounts = [
        places.tree(source.digest, SOURCE),
        places.tree(data.digest, DATA),
        places.tree(data.digest, _ancestors_data(row, data)),
    ]
    scratch = ["/kaos", "/pfs"]
    if overlay:
        # code is copied there before each trial: what one leaves behind the next must not see
        scratch.append(overlay)
        environment["KAOS_CONTEXT"] = result.get("context") or "."
    python = result.get("python")
    if python:
        # the local engine's environment is seen where it was built; it cannot be moved
        home = Path(python).parent
        mounts.append(Mount(source=str(home.parent), target=str(home.parent)))
        environment["KAOS_PYTHON_BIN"] = str(home)
    return Run(
        command=(),
        image=result.get("image"),
        environment=variables.apart(environment, {}),
        mounts=tuple(mounts),
        module="kaos_hub.workload.trial.trials",
        scratch=tuple(scratch),
        storage=_more(settings.storage),
        ticket=True,
        pool=settings.pools.get(row.pool) if row.pool else None,
    )


def _ancestors_data(row: TrainingRow, data: VersionRow) -> str:
    """Return the path at which a bundle written for kaos finds the data.

    A folder's top entries lie there side by side. What a manifest lists lay in a folder of the
    manifest's name, so a program that takes the only child finds ``training`` in either.
    """
    return f"{ANCESTORS_DATA}/{data.name}" if row.manifest_id else ANCESTORS_DATA


def ingest(engine: Engine, settings: Settings, image: str | None, manifest: VersionRow) -> Run:
    """The fetching of what a manifest lists."""
    environment = {"KAOS_WORK_URL": settings.url, "KAOS_STORAGE": str(settings.storage)}
    return Run(
        command=(),
        image=image,
        environment=variables.apart(environment, {}),
        mounts=(engine.places.tree(manifest.digest, MANIFEST),),
        module="kaos_hub.workload.ingest.ingest",
        scratch=("/kaos",),
        storage=_more(settings.storage),
        ticket=True,
    )


def _more(storage: int) -> int:
    """Return the bytes that the engine allows: more than the worker, which tells people why."""
    return storage + max(storage // 10, 1 << 30)


def training_of(job: JobRow) -> str:
    """The id of the training that a worker's job belongs to."""
    return job.key.partition("/")[0]
