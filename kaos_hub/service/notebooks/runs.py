"""Notebooks on a run: they work on what a trial was made of, and on what it left."""

import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.engines.places import Places
from kaos_hub.errors import NotFound
from kaos_hub.schemas import Mount
from kaos_hub.service.db.tables import NotebookRow, TrainingRow, TrialRow

MODEL = "/kaos/model"
_LONGEST = 100_000
"""Bytes of parameters: what the kernel takes as one variable, and some to spare."""

Found = tuple[TrainingRow, TrialRow]


def find_run(session: Session, text: str) -> Found | None:
    """The training and trial of a model's id, if it is still there and left something."""
    training, _, number = text.partition(".")
    found = session.execute(
        select(TrainingRow, TrialRow)
        .join(TrialRow, TrialRow.training == TrainingRow.number)
        .where(TrainingRow.id == training, TrialRow.number == int(number))
    ).first()
    return None if found is None or found[1].output is None else (found[0], found[1])


def work_on(session: Session, row: NotebookRow, text: str, owners: Collection[str]) -> None:
    """Have a notebook work on a run.

    Raises:
        NotFound: there is none, it is none of the owners', or it left nothing.
    """
    found = find_run(session, text)
    if found is None or found[1].owner not in owners:
        raise NotFound(
            f"There is no model {text!r}. `kaos model list` shows yours, `kaos train list` what"
            " becomes one."
        )
    row.run, row.source_id, row.data_id = text, found[0].source_id, found[0].data_id


def output_of(session: Session, row: NotebookRow) -> str | None:
    """Digest of the model that a notebook works on; None, too, if its training was deleted."""
    found = find_run(session, row.run) if row.run else None
    return found[1].output if found else None


def inside(
    session: Session, row: NotebookRow, places: Places
) -> tuple[list[Mount], dict[str, str]]:
    """Return what a notebook on a run sees more than others: mounts and variables."""
    found = find_run(session, row.run) if row.run else None
    if row.run is None or found is None or found[1].output is None:
        return [], {}
    environment = {"KAOS_MODEL": MODEL, "KAOS_RUN": row.run}
    params = _text(found[1].params)
    if params is not None:
        environment["KAOS_PARAMS_TEXT"] = params
    return [places.tree(found[1].output, MODEL)], environment


def _text(params: dict[str, Any] | None) -> str | None:
    text = json.dumps(params or {}, ensure_ascii=False)
    return text if len(text.encode()) <= _LONGEST else None
