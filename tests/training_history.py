"""Trainings of the past for tests: rows as the service itself would have written them."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import count
from typing import Any

from kaos_hub.service.db.tables import TrainingRow, TrialRow, now
from tests.history import version

# With gaps: whatever is trained in between gets the numbers that follow.
_numbers = count(50_000, 1000)
NASTY = "<script>alert(1)</script> & \"quotes\" 'too'"


def bundles(owner: str, first: int) -> list[Any]:
    """A version of each kind that a training is made of."""
    kinds = (("source", "digits"), ("data", "images"), ("params", "grid"), ("manifest", "list"))
    return [version(first + i, kind, name, 1, owner) for i, (kind, name) in enumerate(kinds)]


def training(id: int, owner: str = "user:ada", trials: int = 0, **more: Any) -> TrainingRow:
    """A training of some hours ago that went well, or whatever ``more`` says."""
    begun = now() - timedelta(hours=3, seconds=id % 1000)
    values: dict[str, Any] = {
        "number": next(_numbers), "id": f"{id:016x}", "owner": owner, "name": "digits",
        "author": "ada", "state": "SUCCEEDED", "progress": 100, "deadline": 3600, "cpu": 1.0,
        "memory": 2 << 30, "created": begun, "started": begun + timedelta(minutes=1),
        "finished": begun + timedelta(minutes=31), "total": trials, "succeeded": trials,
        "environment": {"image": "sha256:" + "ab" * 32}, "environment_key": "cd" * 32,
        "engine": "local", "metrics": ["accuracy", "loss"] if trials else [],
    }  # fmt: skip
    return TrainingRow(**{**values, **more})


def inputs(first: int) -> dict[str, int]:
    """The columns of a training that was made of :func:`bundles`."""
    return {"source_id": first, "data_id": first + 1, "params_id": first + 2}


def trials_of(row: TrainingRow, **more: Any) -> Sequence[TrialRow]:
    """All trials of a training: the accuracy grows with their number, the loss falls."""
    return [_trial(row, number, **more) for number in range(1, row.total + 1)]


def _trial(row: TrainingRow, number: int, **more: Any) -> TrialRow:
    begun = row.created + timedelta(minutes=1, seconds=number)
    values: dict[str, Any] = {
        "training": row.number, "number": number, "owner": row.owner, "state": "SUCCEEDED",
        "params": {"rate": number / 10, "kind": "ab"[number % 2], "seed": 7},
        "metrics": {"accuracy": float(number), "loss": 1 / number}, "score": float(number),
        "exit_code": 0, "output": f"blake3:{row.number * 1000 + number:064x}",
        "output_size": number * 1000, "output_files": 3, "skipped": [],
        "started": begun, "finished": begun + timedelta(seconds=60 + number),
    }  # fmt: skip
    return TrialRow(**{**values, **more})
