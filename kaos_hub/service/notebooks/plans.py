"""The steps of a deploy, and what of it a running notebook cannot take in."""

from collections.abc import Sequence

from kaos_hub.errors import RestartRequired
from kaos_hub.schemas import NotebookRequest
from kaos_hub.service.builds.environments import Environment
from kaos_hub.service.db.tables import NotebookRow
from kaos_hub.service.notebooks.records import held_options, options_of
from kaos_hub.service.notebooks.repositories import is_asked
from kaos_hub.util.quantities import show_memory


def needs_restart(
    row: NotebookRow, environment: Environment, run_before: str | None
) -> Sequence[str]:
    """Return what of the wish a running notebook cannot take in."""
    changes = [] if row.run == run_before else ["another model"]
    if row.data_id != row.mounted_data_id:
        changes.append("other data")
    if (row.cpu or 0, row.memory or 0, row.gpu) != (
        row.held_cpu,
        row.held_memory,
        row.held_gpu,
    ):
        changes.append("other resources")
    if row.pool != row.held_pool:
        changes.append("another pool")
    if options_of(row).environment != held_options(row).environment:
        changes.append("other environment variables")
    wanted, has = options_of(row), held_options(row)
    if (wanted.bind_mounts, wanted.volumes) != (has.bind_mounts, has.volumes):
        changes.append("other mounts")
    if environment.key != row.environment_key:
        changes.append(f"a new environment ({environment.why})")
    return changes


def restart_required(
    row: NotebookRow, wish: NotebookRequest, changes: Sequence[str]
) -> RestartRequired:
    """Return the error that stops a deploy which would end kernels, unless that was agreed to."""
    return RestartRequired(
        f"Notebook {row.name!r} is running and must restart for: {', '.join(changes)}."
        f" Its kernels would be lost, its files stay.{_instead(row, wish)} Confirm with -y.",
        changes=changes,
    )


def steps(row: NotebookRow, environment: Environment, restart: Sequence[str]) -> Sequence[str]:
    """Return what a deploy does, in order, for people."""
    found = []
    if environment.result is None and environment.work is None and options_of(row).image:
        found.append(f"fetch: {environment.why}")
    elif environment.result is None:
        found.append(f"build: {environment.why}")
    else:
        found.append("build nothing: the environment is known")
    found += environment.advice
    if is_asked(row):
        found.append(f"clone {options_of(row).git}")
    if row.held and not restart:
        found.append("update the working copy in place; kernels live on")
    elif row.held:
        found.append(f"restart, for {', '.join(restart)}")
    else:
        cpu = "any" if row.cpu is None else f"{row.cpu:g}"
        size = f"cpu {cpu}, memory {show_memory(row.memory)}, gpu {row.gpu}"
        found.append(f"start with {size}")
    return found


def _instead(row: NotebookRow, wish: NotebookRequest) -> str:
    """Return how to have data without a restart; empty if no other data is asked for."""
    if wish.data is None or row.data_id == row.mounted_data_id:
        return ""
    named = "DIR" if wish.data.startswith("blake3:") else wish.data
    return (
        " To have the data at once and keep the kernels:"
        f" kaos notebook attach -n {row.name} -d {named}."
    )
