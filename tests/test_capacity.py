"""Nothing is admitted that the machine has not got, nor less than anything starts in."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaos_hub.engines.local import machine
from kaos_hub.errors import InvalidResources, KaosError
from kaos_hub.schemas import Capacity
from kaos_hub.service.config.service import ServiceConfig
from kaos_hub.service.quota import check_size
from tests.hub import RunningHub, request, running_hub
from tests.shell import EXAMPLES, Shell

SMALL = Capacity(cpu=2, memory=3 << 30)
CONFIG = """
c.KaosService.capacity = {"memory": "3Gi"}
c.KaosService.limits = {"default": {"idle_timeout": "10m"}}
"""


@pytest.fixture(scope="module")
def small_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub that has what its machine has, and 3Gi of memory whatever that is."""
    with running_hub(tmp_path_factory.mktemp("hub"), config=CONFIG) as running:
        yield running


@pytest.fixture
def shell(small_hub: RunningHub, tmp_path: Path) -> Shell:
    shell = Shell(tmp_path, small_hub, "ada-who-wants-more")
    shell.log_in()
    return shell


def test_the_machine_has_what_its_container_may(tmp_path: Path) -> None:
    whole = machine.capacity(tmp_path)
    assert whole.cpu == len(os.sched_getaffinity(0))
    assert whole.memory and whole.memory > 64 << 20
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text("67108864\n")
    assert machine.capacity(tmp_path) == Capacity(cpu=0.5, memory=64 << 20)
    for file in ("cpu.max", "memory.max"):
        (tmp_path / file).write_text("max 100000\n" if file == "cpu.max" else "max\n")
    assert machine.capacity(tmp_path) == whole


@pytest.mark.parametrize(
    ("cpu", "memory", "why"),
    [
        (400, None, "cpu 400 is more than this hub's machine has: 2. .*--cpu 2"),
        (2.001, None, "more than"),
        (None, 4000 << 30, "memory 3.91Ti is more .*: 3Gi. .*--memory 3072Mi"),
        (None, (3 << 30) + 1, "more than"),
        (0.001, None, "the least is 0.01"),
        (None, 512_000, "too little: nothing starts in less than 6Mi"),
    ],
)
def test_sizes_that_cannot_be(cpu: float | None, memory: int | None, why: str) -> None:
    with pytest.raises(InvalidResources, match=why):
        check_size(SMALL, cpu, memory)


def test_sizes_that_can_be() -> None:
    check_size(SMALL, 2, 3 << 30)
    check_size(SMALL, None, None)
    check_size(Capacity(), 400, 4000 << 30)


def test_sizes_are_offered_as_far_as_there_is_room() -> None:
    config = ServiceConfig()
    assert [size.name for size in config.sizes_within(Capacity())[0]] == [
        "small",
        "medium",
        "large",
    ]
    fits, default = config.sizes_within(SMALL)
    assert ([size.name for size in fits], default) == (["small"], "small")
    tiny, default = config.sizes_within(Capacity(cpu=0.5, memory=1 << 30))
    assert ([(s.name, s.cpu, s.memory) for s in tiny], default) == (
        [("small", 0.5, 1 << 30)],
        "small",
    )
    config.default_size = "large"
    with pytest.raises(KaosError, match="'large' asks for more than this machine has"):
        config.sizes_within(SMALL)


def test_an_admin_may_say_more_or_less() -> None:
    config = ServiceConfig(capacity={"cpu": 64})
    assert config.capacity_within(SMALL) == Capacity(cpu=64, memory=SMALL.memory)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--cpu", "400"], "cpu 400 is more than this hub's machine has"),
        (["--memory", "4000Gi"], "memory 3.91Ti is more than this hub's machine has: 3Gi"),
        (["--memory", "512k"], "JupyterLab and one kernel need 128Mi"),
        (["--memory", "64Mi"], "JupyterLab and one kernel need 128Mi"),
        (["--idle-timeout", "1h"], "1 h is more than your limit of 10 min.*--idle-timeout 600s"),
        (["--idle-timeout", "never"], "never is more than your limit of 10 min"),
    ],
)
def test_a_notebook_is_refused_at_the_door(shell: Shell, words: list[str], why: str) -> None:
    done = shell.run("notebook", "deploy", "-n", "big", *words)
    assert done.returncode == 2, done.stderr
    assert re.search(why, done.stderr.replace("\n", " ")), done.stderr
    assert shell.json("notebook", "list") == []
    option = words[0].removeprefix("--").replace("-", "_")
    token = shell.hub.token(shell.user)
    answer = request("POST", f"{shell.hub.api}/notebooks", token, {"name": "big", option: words[1]})
    assert answer.status == 400 and re.search(why, answer.json["message"]), answer.text
    hubs = f"{shell.hub.url}/hub/api/users/{shell.user}/servers/big"
    answer = request("POST", hubs, shell.hub.token(shell.user), {option: words[1]})
    assert answer.status >= 400, answer.text


def test_a_training_is_refused_and_the_machine_is_shown(shell: Shell) -> None:
    words = ["-s", str(EXAMPLES / "mnist/model-train"), "-d", str(EXAMPLES / "mnist/data")]
    done = shell.run("train", "deploy", *words, "--cpu", "400")
    assert done.returncode == 2
    assert "cpu 400 is more than this hub's machine has" in done.stderr
    assert shell.json("train", "list") == []
    shown = shell.run("whoami").stdout
    assert " and 3Gi of memory: the most that one notebook or trial can have" in shown
    assert shell.json("whoami")["capacity"]["memory"] == 3 << 30
