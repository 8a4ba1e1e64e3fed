"""The admin's settings of trainings, and what is the same in all."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kaos_hub.schemas import Pool, Size


@dataclass(frozen=True)
class Settings:
    """The settings by which trainings run here."""

    url: str
    """The service's address as a worker reaches it, with a slash at the end."""
    size: Size | None = None
    """The size of trials that ask for none."""
    gpus: int = 0
    """Devices that the engine can give out."""
    deadline: int = 24 * 3600
    """Seconds that a trial may take which asks for nothing else."""
    storage: int = 20 << 30
    """Bytes that a trial may write."""
    log_limit: int = 64 << 20
    """Bytes that are kept of a trial's log."""
    most_trials: int = 100_000
    """Trials of one training."""
    pools: Mapping[str, Pool] = field(default_factory=dict)
    """Nodes that sizes may name."""
    allow: tuple[str, ...] = ()
    """Networks that manifests may name though they are private."""
    schemes: tuple[str, ...] = ("http", "https")
    """Of the addresses in manifests."""
    parallel: int = 8
    """Files that one ingest fetches at once."""
    leaver_grace: float | None = 300.0
    """Seconds that a training is left to run whose author has left its group; None: to its end."""
    max_size: int = 1 << 40
    """Bytes of all files of one manifest."""
