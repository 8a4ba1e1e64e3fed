"""Builds on a Docker Engine that has some of their layers: which are handed over again."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Container
from pathlib import Path

import pytest_asyncio

from kaos_hub.engines.base import Phase
from kaos_hub.engines.docker.client import connect, keeps_whole_images
from tests.attacks.test_builds_docker import ALICE, BOB, IMAGE, Hub, docker, tag
from tests.hub import wait_until
from tests.test_engine_contract import NO_DOCKER, needs_docker

pytestmark = needs_docker
WHOLE = not NO_DOCKER and keeps_whole_images(connect().info())
"""With containerd's store the Engine wants all layers each time; then only the images are seen."""


@pytest_asyncio.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    hub = Hub(tmp_path / "data")
    yield hub
    await hub.close()


async def built(hub: Hub, owner: str, *lines: str, given: Container[int]) -> None:
    """Build, and see how many layers the Engine was given."""
    seen, said = await hub.build(owner, *lines)
    assert seen.phase is Phase.SUCCEEDED, said
    told = [re.search(r"(\d+) of \d+ layers? handed to the Docker Engine", line) for line in said]
    assert WHOLE or next(int(found[1]) for found in told if found) in given


def run(hub: Hub, *command: str) -> str:
    return docker("run", "--rm", tag(hub.names[-1]), *command)


async def test_unchanged_and_changed(hub: Hub) -> None:
    mark = secrets.token_hex(8)
    first, second = f"RUN echo {mark} > /first", "RUN echo second > /second"
    await built(hub, ALICE, first, second, given=[2])
    await built(hub, ALICE, first, second, given=[0])
    assert run(hub, "cat", "/first", "/second") == f"{mark}\nsecond"
    # The last step is another one.
    await built(hub, ALICE, first, "RUN echo third > /third", given=[1])
    assert run(hub, "cat", "/first", "/third") == f"{mark}\nthird"
    # Labels and variables are no layers.
    await built(hub, ALICE, first, second, "ENV X=7", "LABEL a=b", given=[0])
    assert run(hub, "sh", "-c", "cat /second; echo $X") == "second\n7"


async def test_a_layer_upon_others_is_another(hub: Hub) -> None:
    # Empty folders at one time: the same content, wherever it lies.
    same = "RUN mkdir /made && touch -d @0 /made / && ls -d /made"
    await built(hub, ALICE, f"RUN echo {secrets.token_hex(8)} > /a", same, given=[2])
    mark = secrets.token_hex(8)
    await built(
        hub, ALICE, f"RUN echo {mark} > /a", same, same.replace("mkdir", "ls"), given=[2, 3]
    )
    assert run(hub, "sh", "-c", "cat /a; ls -d /made") == f"{mark}\n/made"


async def test_another_owners_layers_do_not_count(hub: Hub) -> None:
    lines = [f"RUN echo {secrets.token_hex(8)} > /a", "RUN touch /b"]
    await built(hub, ALICE, *lines, given=[2])
    await built(hub, BOB, *lines, given=[2])


async def test_the_layers_are_removed_meanwhile(hub: Hub) -> None:
    first = f"RUN echo {secrets.token_hex(8)} > /first"
    await built(hub, ALICE, first, given=[1])
    before = tag(hub.names[-1])
    slow = f"RUN sleep 12; echo {secrets.token_hex(8)} > /last"
    building = asyncio.create_task(built(hub, ALICE, first, slow, given=[2]))

    def runs() -> bool:
        return len(hub.names) > 1 and hub.names[1] in docker("ps", "--format", "{{.Names}}")

    await asyncio.to_thread(wait_until, runs, 60, "the build's container")
    docker("image", "rm", before)
    await building
    assert len(run(hub, "cat", "/first", "/last").split()) == 2


async def test_bases_go_by_their_names_in_the_log(hub: Hub) -> None:
    second = (f"FROM {IMAGE} AS last", "COPY --from=0 /first /", "RUN true")
    _, said = await hub.build(ALICE, "RUN touch /first", *second)
    begun = [line.partition(": ")[2] for line in said if "STEP 1/" in line]
    assert begun == [f"FROM {IMAGE}", f"FROM {IMAGE} AS last"], said


async def test_an_image_that_is_its_base(hub: Hub) -> None:
    await built(hub, ALICE, given=[0, 1])  # an empty one
    assert "Debian" in run(hub, "cat", "/etc/os-release")
