"""The pages of trainings: the list, one training with its trials, one trial, and the actions.

All of them work without JavaScript; with it they keep themselves up to date.
"""

import contextlib
import csv
import io
from collections.abc import Iterable
from typing import Any

from pydantic import Field
from tornado.iostream import StreamClosedError

from kaos_hub.errors import Conflict, NotFound
from kaos_hub.schemas import Training, TrainingState, Trial, TrialComparison
from kaos_hub.service.auth.auth import Right
from kaos_hub.service.pages import curves
from kaos_hub.service.pages.base import Searched
from kaos_hub.service.pages.owned import OwnedPage
from kaos_hub.service.pages.trials_table import (
    PAGE,
    TrialsQuery,
    TrialsTable,
    seconds_of,
    show_value,
)
from kaos_hub.service.trainings.trainings import Trainings

_ID = r"(?P<training>[0-9a-f]{16})"
_TRIAL = r"(?P<number>[1-9][0-9]{0,6})"
_MOST_COMPARED = 50
_ROWS = 2000

SHOWN = {
    "": (),
    "active": tuple(state for state in TrainingState if not state.ended),
    "succeeded": (TrainingState.SUCCEEDED,),
    "failed": (TrainingState.FAILED, TrainingState.CANCELLED),
}
"""The filters of the list of trainings, with the states that each one shows."""


class TrainPage(OwnedPage):
    """Base of the pages of trainings and models."""

    back = ("trainings", "Your trainings")

    @property
    def trainings(self) -> Trainings:
        """The trainings, and the models that they left."""
        return self.core.trainings


class TrainingsQuery(Searched):
    """The trainings that a list shows."""

    show: str = Field("", pattern=f"^({'|'.join(SHOWN)})$")
    after: str | None = Field(None, pattern="^[0-9a-f]{16}$")


class TrainingsPage(TrainPage):
    """The page of all trainings."""

    route_name = "/trainings"

    async def get(self) -> None:
        """Show the list, youngest first, a page at a time."""
        query = self.asked(TrainingsQuery)
        found = await self.trainings.list(
            self.whose, SHOWN[query.show], PAGE + 1, query.after, query.search
        )
        self.show(
            "kaos_trainings.html",
            trainings=found[:PAGE],
            more=len(found) > PAGE,
            query=query,
            hub_url=self.core.public_url,
            workspaces=await self.workspaces(),
        )


class TrainingPage(TrainPage):
    """The page of one training."""

    route_name = "/trainings/{training}"

    async def get(self, training: str) -> None:
        """Show its inputs, stages, trials, and the possible actions."""
        query = self.asked(TrialsQuery)
        found = await self.trainings.get(self.whose, training)
        trials = await self.trainings.trials(
            self.whose, training, query.sort, query.order, query.state, PAGE, query.after
        )
        comparison = await self._comparison(found)
        self.show(
            "kaos_training.html",
            training=found,
            table=TrialsTable(found, trials, query),
            comparison=comparison[:_MOST_COMPARED],
            not_compared=max(0, len(comparison) - _MOST_COMPARED),
        )

    async def _comparison(self, training: Training) -> list[TrialComparison]:
        if training.reproduces is None:
            return []
        try:
            return list(await self.trainings.comparison(self.whose, training.id))
        except (Conflict, NotFound):
            return []  # what it repeats was deleted


class TrialPage(TrainPage):
    """The page of one trial."""

    route_name = "/trainings/{training}/trials/{number}"

    async def get(self, training: str, number: str) -> None:
        """Show its parameters, metrics and their course, output and log."""
        found = await self.trainings.get(self.whose, training)
        trial = await self.trainings.trial(self.whose, training, int(number))
        pieces = await self.trainings.points(self.whose, training, trial.number)
        points = await curves.read_points(pieces)
        goal = found.goal.metric if found.goal else None
        self.show("kaos_trial.html", training=found, trial=trial, curves=curves.draw(points, goal))


class TrainingConfirmPage(TrainPage):
    """A question before what cannot be undone."""

    route_name = "/trainings/{training}/confirm/{action}"

    async def get(self, training: str, action: str) -> None:
        """Ask the question."""
        found = await self.trainings.get(self.whose, training)
        here, number = f"trainings/{training}", self.get_query_argument("trial", "")
        if action == "delete":
            self.ask(
                f"Delete {found.name} {found.id}?",
                "Its trials, logs, metrics and models are deleted for good. Bundles stay. While one"
                " of its models has a name it is refused.",
                "Delete",
                self.at(f"{here}/delete"),
                self.at(here),
            )
        elif number:
            await self._ask_trial(found, _trial_number(number))
        else:
            self.ask(
                f"Kill {found.name} {found.id}?",
                "What runs for it ends within seconds, and no further trial begins. Whatever there"
                " is by then is kept.",
                "Kill",
                self.at(f"{here}/kill"),
                self.at(here),
            )

    async def _ask_trial(self, training: Training, number: int) -> None:
        here = f"trainings/{training.id}"
        trial = await self.trainings.trial(self.whose, training.id, number)
        self.ask(
            f"Kill trial {trial.number} of {training.name}?",
            "It ends within seconds. What it has written by then is kept; the other trials go on.",
            "Kill",
            self.at(f"{here}/kill"),
            self.at(f"{here}/trials/{trial.number}"),
            trial=trial.number,
        )


class TrainingActionHandler(TrainPage):
    """A form's action: the end of a training or trial, or the deletion of a training."""

    route_name = "/trainings/{training}/{action}"
    right = Right.MANAGE

    async def post(self, training: str, action: str) -> None:
        """Do the action, then show the training, the trial or the list.

        The XSRF token was checked when the caller was identified.
        """
        user, number = self.asker.user, self.get_body_argument("trial", "")
        where = f"trainings/{training}"
        if action == "delete":
            await self.trainings.delete(self.whose, user, training)
            where = "trainings"
        elif number:
            await self.trainings.kill(self.whose, user, training, _trial_number(number))
            where += f"/trials/{_trial_number(number)}"
        else:
            await self.trainings.kill(self.whose, user, training)
        # 303: reloading what follows does not do it again.
        self.redirect(self.at(where), status=303)


class ReproduceHandler(TrainPage):
    """The repetition of a training."""

    route_name = "/trainings/{training}/reproduce"

    async def post(self, training: str) -> None:
        """Run it again, and redirect to the repetition."""
        answer = await self.trainings.reproduce(self.whose, self.asker.author, training)
        again = answer.training.id if answer.training else training
        self.redirect(self.at(f"trainings/{again}"), status=303)


class TableFile(TrainPage):
    """A table of all trials for spreadsheets and programs."""

    route_name = "/trainings/{training}/trials.csv"

    async def get(self, training: str) -> None:
        """Send every parameter and metric, in the order of the trials."""
        found = await self.trainings.get(self.whose, training)
        first = await self.trainings.trials(self.whose, training, limit=1)
        keys = list(first[0].params or {}) if first else []
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="{training}.csv"')
        heads = [*(f"params.{key}" for key in keys), *(f"metrics.{m}" for m in found.metrics)]
        self.write(_csv([["trial", "state", "seconds", *heads]]))
        with contextlib.suppress(StreamClosedError):
            for after in range(0, found.trials.total, _ROWS):
                rows = await self.trainings.trials(self.whose, training, limit=_ROWS, after=after)
                self.write(_csv(_row(trial, keys, found.metrics) for trial in rows))
                await self.flush()
            self.finish()


def _row(trial: Trial, keys: list[str], metrics: list[str]) -> list[Any]:
    params = trial.params or {}
    values = [show_value(params[key]) if key in params else "" for key in keys]
    seconds = seconds_of(trial)
    took = "" if seconds is None else round(seconds, 3)
    return [trial.number, trial.state.value, took, *values, *map(trial.metrics.get, metrics)]


def _csv(rows: Iterable[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _trial_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 8):
        raise NotFound(f"{text!r} is no trial; trials have numbers from 1 on")
    return int(text)


def training_rules(prefix: str) -> list[Any]:
    """Return tornado's rules for these pages below ``prefix`` (with slashes at both ends)."""
    one, given = f"{prefix}trainings/{_ID}", {"prefix": prefix}
    return [
        (prefix, TrainingsPage, given),
        (f"{prefix}trainings", TrainingsPage, given),
        (one, TrainingPage, given),
        (f"{one}/trials\\.csv", TableFile, given),
        (f"{one}/trials/{_TRIAL}", TrialPage, given),
        (f"{one}/confirm/(?P<action>kill|delete)", TrainingConfirmPage, given),
        (f"{one}/(?P<action>kill|delete)", TrainingActionHandler, given),
        (f"{one}/reproduce", ReproduceHandler, given),
    ]
