"""The first page, with what runs, what it holds and what ended and why; and the page of limits."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kaos_hub.schemas import Limits, Notebook, NotebookState, Training, TrainingState, Usage
from kaos_hub.service.auth.auth import KAOS, TRAIN
from kaos_hub.service.db.tables import now
from kaos_hub.service.pages.owned import OwnedPage
from kaos_hub.util.quantities import show_memory

_LATELY = timedelta(days=7)
_MOST = 20
"""The number of each kind on the first page. All of them are a click away."""
_MOST_ENDED = 8

_GOING = tuple(
    state for state in NotebookState if state not in (NotebookState.STOPPED, NotebookState.FAILED)
)
_TRAINING = tuple(state for state in TrainingState if not state.ended)
_ENDED = (TrainingState.SUCCEEDED, TrainingState.FAILED, TrainingState.CANCELLED)


@dataclass(frozen=True)
class Held:
    """The usage of a limited resource, and its limit."""

    label: str
    used: str
    allowed: str
    """The limit; empty if there is none."""
    percent: int
    """The usage in percent of the limit, from 0 to 100."""

    @property
    def tone(self) -> str:
        """The CSS class of the bar: it warns from 80 % on."""
        if self.percent >= 100:
            return "bg-danger"
        return "bg-warning" if self.percent >= 80 else ""


_KINDS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("notebooks", "Notebooks", str),
    ("builds", "Builds", str),
    ("trials", "Trials", str),
    ("cpu", "Cores", "{:g}".format),
    ("memory", "Memory", show_memory),
    ("gpu", "GPUs", str),
    ("storage", "Storage", show_memory),
)


def held(limits: Limits, usage: Usage) -> list[Held]:
    """Return the usage of every kind that can be limited."""
    found = []
    for field, label, show in _KINDS:
        used, allowed = getattr(usage, field), getattr(limits, field)
        share = 0 if not allowed else min(100, int(100 * used / allowed))
        # What is used at all must be seen.
        percent = max(share, 5) if used and allowed else share
        found.append(Held(label, show(used), "" if allowed is None else show(allowed), percent))
    return found


@dataclass(frozen=True)
class Ended:
    """Something that has ended lately."""

    what: Notebook | Training
    at: datetime

    @property
    def is_notebook(self) -> bool:
        """True for a notebook, false for a training."""
        return isinstance(self.what, Notebook)


class HomePage(OwnedPage):
    """The overview page."""

    route_name = "/home"
    back = ("home", "Overview")

    async def get(self) -> None:
        """Show all at a glance, as far as the caller may see it."""
        owner, services = self.asker.owner, self.asker.services
        notebooks, trainings, ended = list[Notebook](), list[Training](), list[Ended]()
        if KAOS in services:
            notebooks += await self.core.notebooks.list(owner, _GOING, _MOST + 1)
            ended += await self._ended_notebooks(owner)
        if TRAIN in services:
            trainings += await self.core.trainings.list(owner, _TRAINING, _MOST + 1)
            ended += await self._ended_trainings(owner)
        ended.sort(key=lambda one: one.at, reverse=True)
        limits, usage = self.core.ledger.limits(owner), await self.core.ledger.usage(owner)
        known = bool(notebooks or trainings or ended) or await self._has_something(owner)
        self.show(
            "kaos_home.html",
            notebooks=notebooks[:_MOST],
            trainings=trainings[:_MOST],
            more=len(notebooks) > _MOST or len(trainings) > _MOST,
            ended=ended[:_MOST_ENDED],
            held=held(limits, usage),
            known=known,
            may_host=KAOS in services,
            may_train=TRAIN in services,
            events=self._events(),
            hub_url=self.core.public_url,
        )

    def _events(self) -> str:
        """Return the addresses of the event streams that tell when the page has changed."""
        here = f"{self.prefix}api/v1/"
        training = "events" if self.prefix.endswith(f"/{TRAIN}/") else "trainings/events"
        both = {KAOS: f"{here}notebooks/events", TRAIN: here + training}
        return " ".join(both[each] for each in both if each in self.asker.services)

    async def _ended_notebooks(self, owner: str) -> list[Ended]:
        found = await self.core.notebooks.ended(owner, now() - _LATELY, _MOST_ENDED)
        return [Ended(one, one.stopped or one.created) for one in found]

    async def _ended_trainings(self, owner: str) -> list[Ended]:
        found = await self.core.trainings.list(owner, _ENDED, _MOST_ENDED)
        all_of_them = [Ended(one, one.finished or one.created) for one in found]
        return [one for one in all_of_them if one.at > now() - _LATELY]

    async def _has_something(self, owner: str) -> bool:
        if await self.core.catalogue.names(owner, limit=1):
            return True
        return KAOS in self.asker.services and bool(await self.core.notebooks.list(owner, limit=1))


@dataclass(frozen=True)
class Account:
    """The limits and the usage of one owner."""

    name: str
    """The name of the group; empty for the caller's own account."""
    held: list[Held]
    limits: Limits


class QuotaPage(OwnedPage):
    """The page of the caller's limits and usage: alone, and in groups."""

    route_name = "/quota"
    back = ("home", "Overview")

    async def get(self) -> None:
        """Show an account for each."""
        accounts = []
        groups = await self.core.owners.groups(self.asker.owner)
        for name, owner in [("", self.asker.owner), *sorted(groups.items())]:
            limits, usage = self.core.ledger.limits(owner), await self.core.ledger.usage(owner)
            accounts.append(Account(name, held(limits, usage), limits))
        self.show("kaos_quota.html", accounts=accounts, there=self.core.ledger.capacity)


def home_rules(prefix: str) -> list[Any]:
    """Return tornado's rules for these pages below ``prefix``."""
    given = {"prefix": prefix}
    return [(f"{prefix}home", HomePage, given), (f"{prefix}quota", QuotaPage, given)]
