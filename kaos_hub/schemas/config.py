"""The keys of a file for ``--config-file``: those of the seeds, and every option by its name."""

from typing import Any

from pydantic import Field

from kaos_hub.schemas.base import Model
from kaos_hub.schemas.git import GitWish
from kaos_hub.schemas.options import BindMounts, Variables, VolumeMounts
from kaos_hub.schemas.resources import Cpu, Duration, Gpu, Memory
from kaos_hub.schemas.words import IdleType, NotebookName


class ConfigResources(Model):
    """The keys below ``resources``."""

    slots: Gpu | None = Field(None, description="whole GPUs; 0 is a notebook without any")
    resource_pool: str | None = Field(None, description="nodes of the cluster to run on")


class NotebookConfig(Model):
    """A notebook, as a file of YAML says it."""

    description: str | None = Field(None, max_length=120, description="what it is for")
    resources: ConfigResources | None = None
    environment: Variables | None = Field(None, description="a map, or a list of NAME=VALUE")
    bind_mounts: BindMounts | None = Field(
        None, description="a list of host_path, container_path and read_only"
    )
    volumes: VolumeMounts | None = Field(None, description="a list of volume, path and read_only")
    idle_timeout: Duration | None = Field(None, description="seconds, or 30m, 2h, never")
    notebook_idle_type: IdleType | None = None

    name: NotebookName | None = None
    source: str | None = Field(None, description="folder, from where the file lies; or NAME@v2")
    data: str | None = Field(None, description="likewise")
    context: str | None = Field(None, description="folder or file, likewise")
    run: str | None = Field(None, description="a trial: JOB.N")
    image: str | None = Field(None, description="a ready-made environment")
    git: GitWish | None = Field(None, description="a repository to begin with: URL[@REF]")
    size: str | None = Field(None, description="one of the sizes the Hub offers")
    cpu: Cpu | None = None
    memory: Memory | None = None
    gpu: Gpu | None = Field(None, description="the same as resources.slots")
    pool: str | None = Field(None, description="the same as resources.resource_pool")
    idle_type: IdleType | None = Field(None, description="the same as notebook_idle_type")
    pull: bool | None = None
    detach: bool | None = None
    no_browser: bool | None = None
    dry_run: bool | None = None


SAME = {
    "resources.slots": "gpu",
    "resources.resource_pool": "pool",
    "notebook_idle_type": "idle_type",
}
"""Keys of the seeds → the names that the same things have elsewhere."""


def config_keys() -> list[str]:
    """All keys, with dots where they are nested."""
    nested = [f"resources.{name}" for name in ConfigResources.model_fields]
    return [name for name in NotebookConfig.model_fields if name != "resources"] + nested


def plain(config: NotebookConfig) -> dict[str, Any]:
    """Return what was said, by the names that options have."""
    found = config.model_dump(exclude_none=True, exclude={"resources", "notebook_idle_type"})
    if config.resources is not None:
        nested = config.resources.model_dump(exclude_none=True)
        found |= {SAME[f"resources.{name}"]: value for name, value in nested.items()}
    if config.notebook_idle_type is not None:
        found["idle_type"] = config.notebook_idle_type
    return found
