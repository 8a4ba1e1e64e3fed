"""The Hub's account has exactly the rights of the manifest, and each of them is needed."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.schemas import Mount, NotebookSpec
from tests.desk import hub_at_desk
from tests.hub import wait_until
from tests.pods import Namespace, images, namespace, needs_cluster, this_machine
from tests.test_kubernetes_rights import Account, rules

pytestmark = [pytest.mark.kubernetes, needs_cluster]

RULES = rules("hub")
RIGHTS = [(kind, verb) for r in RULES for kind in r["resources"] for verb in r["verbs"]]
CONFIG = """
c.KaosKubeSpawner.namespace = {namespace!r}
c.KaosKubeSpawner.runtime_image = {runtime!r}
c.KaosKubeSpawner.storage_capacity = "1Mi"
c.KaosKubeSpawner.unschedulable_patience = 3
c.KaosKubeSpawner.delete_grace_period = 1
c.KaosKubeSpawner.start_timeout = 20
"""


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with namespace(tmp_path_factory.mktemp("account")) as (space, kubeconfig):
        yield Account(space, kubeconfig, RULES)


@contextlib.contextmanager
def a_hub(account: Account, directory: Path) -> Iterator[tuple[Any, Any]]:
    """A Hub that is that account, and its desk."""
    directory.mkdir()
    user, runtime = images()
    config = CONFIG.format(namespace=account.space.name, runtime=runtime)
    environment = {"KUBECONFIG": str(account.kubeconfig)}
    with hub_at_desk(directory, config, "kubernetes", this_machine(), environment) as (hub, desk):
        admitted = desk.admit

        def in_a_pod(asked: Any) -> NotebookSpec:
            spec = admitted(asked)
            home = Mount(
                source="", target="/home/kaos", read_only=False,
                volume=f"kaos-home-{spec.notebook}",
            )  # fmt: skip
            small = spec.resources.model_copy(update={"cpu": 0.25, "memory": 128 << 20})
            # a name of its own, also after another Hub's
            name = f"{spec.workload}-{directory.name}"
            return spec.model_copy(
                update={
                    "image": user, "uid": 1000, "mounts": [home], "resources": small,
                    "workload": name,
                }
            )  # fmt: skip

        desk.admit = desk.decide = in_a_pod
        yield hub, desk


Feature = Callable[[Any, Namespace], None]


def starts(hub: Any, space: Namespace) -> None:
    """A notebook starts within seconds, in a home of its own."""
    hub.launch("one")
    assert hub.server("one")["ready"]


def stops(hub: Any, space: Namespace) -> None:
    """A notebook's pod is gone after it was stopped."""
    starts(hub, space)
    hub.end("one")
    wait_until(lambda: not space.names("pod"), 15, "the pod's end")


def watches(hub: Any, space: Namespace) -> None:
    """A notebook starts, and the Hub's log has no trouble with watching."""
    starts(hub, space)
    time.sleep(1)
    assert "Forbidden" not in hub.log.read_text()


def keeps_a_home_without_quota(hub: Any, space: Namespace) -> None:
    """Who has a home needs no more room for homes."""
    starts(hub, space)
    hub.end("one")
    wait_until(lambda: not space.names("pod"), 15, "the pod's end")
    space.apply("ResourceQuota", "few", spec={"hard": {"persistentvolumeclaims": "1"}})
    try:
        wait_until(lambda: space.get("resourcequota", "few")["status"].get("used"), 10)
        hub.stop()
        hub.start()
        starts(hub, space)
    finally:
        space.delete("resourcequota", "few")


FEATURES: dict[tuple[str, str], Feature] = {
    ("pods", "create"): starts,
    ("pods", "delete"): stops,
    ("pods", "list"): starts,
    ("pods", "watch"): watches,
    ("events", "list"): starts,
    ("events", "watch"): watches,
    ("persistentvolumeclaims", "create"): starts,
    ("persistentvolumeclaims", "get"): keeps_a_home_without_quota,
}


@pytest.mark.parametrize("right", RIGHTS, ids="-".join)
def test_without_it_something_fails(
    account: Account, right: tuple[str, str], tmp_path: Path
) -> None:
    feature = FEATURES[right]
    account.grant(without=right)
    try:
        with a_hub(account, tmp_path / "-".join(right)) as (hub, _), pytest.raises(Exception) as e:
            feature(hub, account.space)
        print(right, type(e.value), str(e.value)[:300])
    finally:
        account.space.delete("pods", "--all", "--grace-period=0", "--force")
        account.space.delete("pvc", "--all", "--wait=false")


def test_with_all_of_them_nothing_fails(account: Account, tmp_path: Path) -> None:
    account.grant()
    with a_hub(account, tmp_path / "all") as (hub, _):
        for feature in dict.fromkeys(FEATURES.values()):
            feature(hub, account.space)
            if hub.server("one").get("ready"):
                hub.end("one")
            wait_until(lambda: not account.space.names("pod"), 15, "the pod's end")


def test_every_right_has_its_feature() -> None:
    assert set(RIGHTS) == set(FEATURES), json.dumps(RULES)
