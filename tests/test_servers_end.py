"""The end of a server on a Hub on which something is started in the same moment."""

import asyncio
from typing import Any, ClassVar

import pytest

from kaos_hub.service.db.tables import NotebookRow
from kaos_hub.service.hub_client import Server
from kaos_hub.service.notebooks.servers import Servers

ROW = NotebookRow(id="1", owner="user:ada", name="lab")


class KnownUser:
    """The one user of the Hub."""

    name: ClassVar[str] = "ada"

    async def user(self, _owner: str) -> "KnownUser":
        return self

    async def require(self, _owner: str) -> "KnownUser":
        return self


def server(pending: str | None = None, ready: bool = False) -> Server:
    return Server("ada", "lab", ready, pending)


class HubThatStartsMeanwhile:
    """Shows one state of the server after the other."""

    def __init__(self, *states: Server | None) -> None:
        self.states, self.stops = list(states), 0

    async def server(self, _user: str, _name: str) -> Server | None:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    async def stop(self, _user: str, _name: str) -> None:
        self.stops += 1

    async def start(self, *_: Any) -> None:
        await asyncio.sleep(0.5)


async def ended(hub: HubThatStartsMeanwhile, starting: bool = False) -> int:
    """End the server; returns how often the Hub was told to stop it."""
    servers = Servers(hub, KnownUser(), None)  # type: ignore[arg-type]
    begun = asyncio.create_task(servers.start(ROW)) if starting else None
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await servers.end(ROW)
    if begun is not None:
        await begun
    return hub.stops


async def test_what_a_user_starts_after_the_stop_is_left_alone() -> None:
    assert await ended(HubThatStartsMeanwhile(server(ready=True), server("spawn"))) == 1
    slow = server(ready=True), server("stop"), server("spawn")
    assert await ended(HubThatStartsMeanwhile(*slow)) == 1


async def test_what_was_starting_is_stopped() -> None:
    assert await ended(HubThatStartsMeanwhile(server("spawn"), None)) == 1


async def test_what_runs_again_without_being_asked_for_is_stopped() -> None:
    runs = server(ready=True)
    assert await ended(HubThatStartsMeanwhile(runs, runs, None)) == 2


async def test_our_own_start_under_way_is_stopped_when_it_shows() -> None:
    states = server(ready=True), server("spawn"), None
    assert await ended(HubThatStartsMeanwhile(*states), starting=True) == 2


@pytest.mark.parametrize("gone", [None, server()])
async def test_nothing_to_stop(gone: Server | None) -> None:
    assert await ended(HubThatStartsMeanwhile(gone)) == 0
