"""The service's account has exactly the rights of the manifest, and each of them is needed.

The rules are read from the chart: a right that is added there needs a feature here that cannot
do without it, one that is taken away fails a feature.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.engines.base import Build, JobSpec, Phase
from kaos_hub.engines.kubernetes.engine import KubernetesEngine
from kaos_hub.engines.kubernetes.objects import cache_claim
from kaos_hub.errors import EngineUnavailable
from kaos_hub.schemas import Mount, NotebookSpec, Resources
from tests.chart import one
from tests.engine_cluster import TREES, TreeServer, kubectl, make_claim, options
from tests.hub import wait_until
from tests.pods import Namespace, namespace, needs_cluster
from tests.test_engine_contract import end, output, shell

pytestmark = [pytest.mark.kubernetes, needs_cluster]

NAME = "kaos-train-rights"


def rules(component: str) -> list[dict[str, Any]]:
    """What the manifest lets the Hub or the service do among the workloads."""
    return list(one("Role", f"kaos-{component}", "kaos-workloads")["rules"])


RULES = rules("service")
RIGHTS = [(kind, verb) for r in RULES for kind in r["resources"] for verb in r["verbs"]]


class Account:
    """An account in a namespace of its own, whose rights can be taken away."""

    def __init__(self, space: Namespace, kubeconfig: Path, rules: list[dict[str, Any]]) -> None:
        self.space, self.kubeconfig, self._rules = space, kubeconfig, rules

    def grant(self, without: tuple[str, str] | None = None) -> None:
        """Grant all rights, or all but one; returns when the cluster knows."""
        left = [
            {"apiGroups": r["apiGroups"], "resources": [kind], "verbs": verbs}
            for r in self._rules
            for kind in r["resources"]
            if (verbs := [v for v in r["verbs"] if (kind, v) != without])
        ]
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "hub", "namespace": self.space.name},
            "rules": left,
        }
        kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", give=json.dumps(role))
        for rule in self._rules:
            for verb in rule["verbs"]:
                kind = rule["resources"][0]
                wanted = "no" if (kind, verb) == without else "yes"
                wait_until(
                    lambda k=kind, v=verb, w=wanted: self.may(k, v) == w, 10, "the new rights"
                )

    def may(self, kind: str, verb: str) -> str:
        """``yes`` or ``no``, as the cluster sees it."""
        kind, _, part = kind.partition("/")
        words = ["auth", "can-i", verb, kind, "-n", self.space.name]
        words += [f"--subresource={part}"] if part else []
        return kubectl("--kubeconfig", str(self.kubeconfig), *words, check=False).strip()

    def try_to(self, *words: str) -> bool:
        """Whether it can do something with kubectl."""
        given = ("--kubeconfig", str(self.kubeconfig), *words)
        return bool(kubectl(*given, check=False).strip())


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with namespace(tmp_path_factory.mktemp("account")) as (space, kubeconfig):
        make_claim(space.name)
        yield Account(space, kubeconfig, RULES)


Make = Callable[[], Awaitable[KubernetesEngine]]


@pytest.fixture
async def make(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Make]:
    """Makes engines that are that account."""
    server = await asyncio.to_thread(TreeServer, tmp_path / "data")
    given = await asyncio.to_thread(options, account.space.name, server.url)
    await asyncio.to_thread(account.grant)
    made: list[KubernetesEngine] = []

    async def make() -> KubernetesEngine:
        engine = KubernetesEngine(data_dir=str(tmp_path / "data"), **given, build_cache=True)
        made.append(engine)
        with monkeypatch.context() as changed:
            changed.setenv("KUBECONFIG", str(account.kubeconfig))
            with contextlib.suppress(EngineUnavailable):
                await engine.observe(NAME)  # from its first question on it is that account
        return engine

    yield make
    for engine in made:
        await engine.close()
    kubectl("delete", "pods,secrets", "-l", "kaos-hub.io/workload", "-n", account.space.name,
            "--grace-period=0", "--force")  # fmt: skip
    await asyncio.to_thread(server.close)


Feature = Callable[[KubernetesEngine], Awaitable[None]]


async def starts(engine: KubernetesEngine) -> None:
    await engine.start()


async def runs(engine: KubernetesEngine) -> None:
    await engine.submit(shell(NAME, "echo hello"))


async def is_observed(engine: KubernetesEngine) -> None:
    await engine.observe(NAME)


async def is_told_of_ends(engine: KubernetesEngine) -> None:
    """Without, it looks again and again, more and more seldom, and says so."""
    said = Said()
    logging.getLogger("kaos_hub.engines.listening").addHandler(said)
    await engine.submit(shell(NAME, "sleep 1"))
    assert (await end(engine, NAME)).phase is Phase.SUCCEEDED
    assert not said.warnings


class Said(logging.Handler):
    """Keeps what was said."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.warnings.append(record.getMessage())


async def is_cancelled(engine: KubernetesEngine) -> None:
    await engine.submit(shell(NAME, "sleep 600"))
    await engine.cancel(NAME)
    assert (await engine.observe(NAME)).phase is Phase.FAILED


async def is_removed(engine: KubernetesEngine) -> None:
    await engine.submit(shell(NAME, "true"))
    await end(engine, NAME)
    await engine.remove(NAME)
    assert (await engine.observe(NAME)).phase is Phase.ABSENT


async def is_heard(engine: KubernetesEngine) -> None:
    await engine.submit(shell(NAME, "echo hello"))
    await end(engine, NAME)
    assert b"hello" in await output(engine, NAME)


def admitted() -> NotebookSpec:
    mount = Mount(source="", target="/kaos/data", digest="blake3:" + "0" * 64)
    return NotebookSpec(
        notebook="one", workload=NAME, owner="user:ada", mounts=[mount], resources=Resources()
    )


async def gets_a_ticket(engine: KubernetesEngine) -> None:
    await engine.admitted(admitted())


async def loses_its_ticket(engine: KubernetesEngine) -> None:
    await engine.remove(NAME)


async def builds_with_a_cache(engine: KubernetesEngine) -> None:
    work = Build("blake3:" + "0" * 64, "key", "rights/none:1")
    await engine.submit(JobSpec(NAME, "user:ada", work))


async def knows_what_is_laid_out(engine: KubernetesEngine) -> None:
    engine.trees_claim = TREES
    assert await engine.places.uid()


async def deletes_a_home(engine: KubernetesEngine) -> None:
    await engine.places.remove_home("1234")


FEATURES: dict[tuple[str, str], Feature] = {
    ("pods", "create"): runs,
    ("pods", "get"): is_observed,
    ("pods", "list"): starts,
    ("pods", "watch"): is_told_of_ends,
    ("pods", "patch"): is_cancelled,
    ("pods", "delete"): is_removed,
    ("pods/log", "get"): is_heard,
    ("secrets", "create"): gets_a_ticket,
    ("secrets", "delete"): loses_its_ticket,
    ("persistentvolumeclaims", "create"): builds_with_a_cache,
    ("persistentvolumeclaims", "get"): knows_what_is_laid_out,
    ("persistentvolumeclaims", "delete"): deletes_a_home,
}


@pytest.mark.parametrize("right", RIGHTS, ids="-".join)
async def test_without_it_something_fails(
    account: Account, make: Make, right: tuple[str, str]
) -> None:
    feature, engine = FEATURES[right], await make()
    await feature(engine)
    await engine.remove(NAME)
    await asyncio.to_thread(account.grant, right)
    with pytest.raises((EngineUnavailable, AssertionError, TimeoutError)):
        await feature(await make())


FORBIDDEN = [
    ["get", "secrets"],
    ["get", "secret", "default-token"],
    ["get", "persistentvolumeclaims"],
    ["get", "configmaps"],
    ["get", "events"],
    ["get", "serviceaccounts"],
    ["get", "nodes"],
    ["get", "namespaces"],
    ["get", "pods", "--all-namespaces"],
    ["get", "pods", "-n", "kube-system"],
    ["create", "configmap", "mine"],
    ["create", "serviceaccount", "mine"],
    ["create", "token", "default"],
    ["create", "rolebinding", "mine", "--clusterrole=admin", "--serviceaccount=default:default"],
    ["patch", "role", "hub", "--type=json", "-p", "[]"],
    ["label", "namespace", "default", "mine=1"],
]


@pytest.mark.parametrize("words", FORBIDDEN, ids=" ".join)
def test_what_was_not_granted_is_refused(account: Account, words: list[str]) -> None:
    account.grant()
    elsewhere = "-n" in words or "--all-namespaces" in words
    given = words if elsewhere else [*words, "-n", account.space.name]
    assert account.try_to("get", "pods", "-n", account.space.name, "-o", "json")
    assert not account.try_to(*given), "that was possible"


async def test_nobody_enters_a_workload(account: Account, make: Make) -> None:
    engine = await make()
    await engine.submit(shell(NAME, "sleep 60"))
    async for seen in engine.watch(NAME):
        if seen.phase is Phase.RUNNING:
            break
    name = account.space.name
    assert kubectl("exec", NAME, "-n", name, "--", "echo", "admins can")
    for words in (["exec", NAME, "--", "id"], ["port-forward", NAME, "0:80"], ["attach", NAME]):
        assert not await asyncio.to_thread(account.try_to, words[0], "-n", name, *words[1:])


def test_a_cache_belongs_to_one_owner() -> None:
    assert cache_claim("user:ada") != cache_claim("user:bob")
    assert cache_claim("user:vision") != cache_claim("group:vision")


def test_every_right_has_its_feature() -> None:
    assert set(RIGHTS) == set(FEATURES)
