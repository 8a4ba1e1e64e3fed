"""Data attached to a running notebook: they appear whole, read-only, and without a restart."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.client import Client
from kaos_hub.errors import Conflict, KaosError, NotFound, Unavailable
from tests.hub import RunningHub, wait_until
from tests.kernels import Kernel
from tests.shell import EXAMPLES, Shell

HOME = "import os, pathlib, stat\nhome = pathlib.Path(os.environ['KAOS_HOME'])\n"
MANY = 12_000


@pytest.fixture(scope="module")
def shell(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Mary, logged in; what she leaves is taken away."""
    shell = Shell(tmp_path_factory.mktemp("mary"), hub, "mary-who-attaches")
    shell.log_in()
    yield shell
    for each in shell.json("notebook", "list"):
        shell.run("notebook", "delete", "-y", "-n", each["name"])


@pytest.fixture(scope="module")
def client(shell: Shell) -> Client:
    """The SDK as the same user."""
    return Client(shell.hub.url, shell.run("token").stdout.strip())


@pytest.fixture(scope="module")
def url(shell: Shell) -> str:
    """A notebook without data; its URL."""
    done = shell.run("notebook", "deploy", "-n", "reader")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def kernel(shell: Shell, url: str) -> Kernel:
    """A kernel that lives through all of it, until the notebook restarts."""
    kernel = Kernel(url, shell.run("token").stdout.strip())
    kernel.run(HOME)
    return kernel


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A copy of the example's data, to be changed."""
    return Path(shutil.copytree(EXAMPLES / "mnist" / "data", tmp_path / "digits"))


def names(kernel: Kernel, folder: str) -> list[str]:
    """What lies in a folder of the home."""
    return kernel.run(f"print(*sorted(os.listdir(home / {folder!r})))").split()


def test_data_appear_in_a_running_notebook(shell: Shell, kernel: Kernel, data: Path) -> None:
    """Complete and read-only; kernels live on; the next start has them where data belong."""
    done = shell.run("notebook", "attach", "-n", "reader", "-d", str(data))
    assert (done.returncode, done.stdout) == (0, "~/attached/digits\n"), done.stderr
    assert names(kernel, "attached/digits") == sorted(p.name for p in data.iterdir())
    assert kernel.run("print(stat.S_IMODE((home / 'attached/digits').stat().st_mode) & 0o222)") in (
        "0\n",
        "0",
    )
    assert shell.json("notebook", "info", "reader")["data"]["name"] == "digits"
    again = shell.run("notebook", "attach", "reader", "-d", "digits@v1")
    assert again.returncode == 0, again.stderr
    # Nothing needs a restart for their sake.
    plan = shell.run("notebook", "deploy", "-n", "reader", "-d", "digits@v1", "--dry-run")
    assert "restart" not in plan.stdout, plan.stdout


def test_another_version_takes_its_place(shell: Shell, kernel: Kernel, data: Path) -> None:
    """By its name; deploying it would restart, and says that attaching does not."""
    (data / "more.txt").write_text("more")
    asked = shell.run("notebook", "deploy", "-n", "reader", "-d", str(data))
    assert asked.returncode != 0 and "kaos notebook attach -n reader" in asked.stderr
    assert "more.txt" not in names(kernel, "attached/digits")
    done = shell.run("notebook", "attach", "reader", "-d", str(data))
    assert done.returncode == 0, done.stderr
    assert "more.txt" in names(kernel, "attached/digits")
    assert names(kernel, "attached") == ["digits"]


def test_what_is_the_users_own_is_left_alone(
    shell: Shell, kernel: Kernel, data: Path, client: Client
) -> None:
    """A folder of that name is no place for data."""
    kernel.run("(home / 'attached/mine').mkdir()\n(home / 'attached/mine/x').write_text('x')")
    mine = data.rename(data.with_name("mine"))
    done = shell.run("notebook", "attach", "reader", "-d", str(mine))
    assert done.returncode != 0 and "yours; rename it" in done.stderr, done.stderr
    assert names(kernel, "attached/mine") == ["x"]
    assert shell.json("notebook", "info", "reader")["data"]["name"] == "digits"
    with pytest.raises(NotFound):
        client.notebooks.attach("reader", "nothing@v1")


def test_the_next_start_has_them(shell: Shell, kernel: Kernel, url: str) -> None:
    """Where all data are; and a stopped notebook says what to do."""
    assert shell.run("notebook", "stop", "reader").returncode == 0
    wait_until(lambda: shell.json("notebook", "info", "reader")["state"] == "STOPPED")
    refused = shell.run("notebook", "attach", "reader", "-d", "digits@v1")
    assert refused.returncode != 0 and "kaos notebook start -n reader" in refused.stderr
    assert shell.run("notebook", "start", "reader", "--no-browser").returncode == 0
    fresh = Kernel(url, shell.run("token").stdout.strip())
    assert "more.txt" in fresh.run("import os\nprint(os.listdir(os.environ['KAOS_DATA']))")
    fresh.end()


def test_dying_midway_leaves_nothing(
    shell: Shell, url: str, client: Client, tmp_path: Path
) -> None:
    """Neither half of the data nor a notebook that believes to have them; a retry works."""
    many = tmp_path / "many"
    many.mkdir()
    for number in range(MANY):
        (many / f"{number}.bin").write_bytes(number.to_bytes(4, "big") * 5_000)
    version = client.bundles.submit(many, "data")
    seen: list[Any] = []
    failed: list[KaosError] = []

    def attach() -> None:
        try:
            client.notebooks.attach("reader", f"many@v{version.version}", on_news=seen.append)
        except KaosError as e:
            failed.append(e)

    thread = threading.Thread(target=attach)
    thread.start()
    wait_until(lambda: any("fetching" in each.note for each in seen), what="fetching")
    client.notebooks.kill("reader")
    thread.join(60)
    assert failed and isinstance(failed[0], Conflict | Unavailable), failed
    wait_until(lambda: shell.json("notebook", "info", "reader")["state"] == "STOPPED")
    assert shell.json("notebook", "info", "reader")["data"]["name"] == "digits"
    assert shell.run("notebook", "start", "reader", "--no-browser").returncode == 0
    fresh = Kernel(url, shell.run("token").stdout.strip())
    fresh.run(HOME)
    assert "many" not in names(fresh, "attached")
    thread = threading.Thread(target=attach)
    seen.clear()
    thread.start()
    wait_until(lambda: any("fetching" in each.note for each in seen), what="fetching")
    shell.hub.end_service()
    thread.join(120)
    assert len(failed) == 1, failed
    assert len(names(fresh, "attached/many")) == MANY
    fresh.end()
