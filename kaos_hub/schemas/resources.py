"""Resources that workloads ask for, and limits of what their owners may hold."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from kaos_hub.schemas.base import Model
from kaos_hub.schemas.words import IdleType
from kaos_hub.util.quantities import parse_cpu, parse_duration, parse_gpu, parse_memory

Cpu = Annotated[float, BeforeValidator(parse_cpu)]
Memory = Annotated[int, BeforeValidator(parse_memory)]
Gpu = Annotated[int, BeforeValidator(parse_gpu)]
Duration = Annotated[int, BeforeValidator(parse_duration)]


class Resources(Model):
    """The resources that a workload asks for. ``None`` is: whatever the default size says."""

    cpu: Cpu | None = Field(None, description="cores")
    memory: Memory | None = Field(None, description="bytes")
    gpu: Gpu = Field(0, description="whole devices")


class Capacity(Model):
    """The most that one workload can have, since there is no more. ``None`` is: not known."""

    cpu: Cpu | None = Field(None, description="cores")
    memory: Memory | None = Field(None, description="bytes")


class Limits(Model):
    """The most that an owner may hold at once. ``None`` is no limit."""

    notebooks: int | None = Field(None, ge=0, description="running notebooks")
    builds: int | None = Field(None, ge=0, description="running builds")
    trials: int | None = Field(None, ge=0, description="trials of trainings that run at once")
    cpu: float | None = Field(None, ge=0, description="cores, summed over all that runs")
    memory: Annotated[
        int | None, BeforeValidator(lambda v: v if v is None else parse_memory(v))
    ] = Field(None, description="bytes, summed over all that runs")
    gpu: int | None = Field(None, ge=0, description="devices, summed over all that runs")
    storage: Annotated[
        int | None, BeforeValidator(lambda v: v if v is None else parse_memory(v))
    ] = Field(None, description="bytes of bundles, each content counted once")
    idle_timeout: Annotated[
        int | None, BeforeValidator(lambda v: v if v is None else parse_duration(v))
    ] = Field(None, description="longest idle timeout one may choose, in seconds")


class Usage(Model):
    """The resources that an owner holds now, in the units of :class:`Limits`."""

    notebooks: int = 0
    builds: int = 0
    trials: int = 0
    cpu: float = 0
    memory: int = 0
    gpu: int = 0
    storage: int = 0


class Size(Model):
    """A named size that the admin offers."""

    name: str
    description: str = ""
    cpu: Cpu | None = None
    memory: Memory | None = None
    gpu: Gpu = 0
    pool: str | None = Field(None, description="the pool it runs in; on Kubernetes only")


class Image(Model):
    """A ready-made environment that the admin offers."""

    name: str
    description: str = ""
    image: str = Field(description="image reference")


class IdlePolicy(Model):
    """The rule by which a notebook counts as idle and is stopped. A timeout of 0 is never."""

    timeout: Duration = Field(0, description="seconds; 0 is never")
    type: IdleType = IdleType.KERNELS_OR_TERMINALS
