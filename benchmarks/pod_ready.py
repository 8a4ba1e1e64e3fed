"""Pod ready to redirected: how long a person waits who has a pod, but not yet its page.

kaos_hub's spawner for Kubernetes against KubeSpawner as it comes: two Hubs, pods of the same image
on the same cluster, in which the same Jupyter starts from the same volume. Each start is watched
from outside: when the cluster tells that the pod is ready, when Jupyter answers in it for the first
time, and when the Hub tells those who wait that they may go there.
"""

import asyncio
import contextlib
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import aiohttp
from kubernetes_asyncio import client, config, watch

from benchmarks.harness import (
    Comparison,
    Contestant,
    Report,
    Series,
    alternate,
    arguments,
    note,
    output,
    versions,
)
from benchmarks.hubs import StockHub
from kaos_hub.engines import runtime_image
from kaos_hub.schemas import Mount, NotebookSpec
from tests.desk import TOKEN, hub_at_desk
from tests.hub import request, wait_until
from tests.pods import (
    REGISTRY,
    Namespace,
    docker,
    images,
    kubectl,
    namespace,
    pushed,
    this_machine,
    why_not,
)

SERVER = "bench"
_LOOK = 0.005
"""Seconds between two looks whether Jupyter answers."""

_STOCK = """
c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
c.KubeSpawner.namespace = {namespace!r}
c.KubeSpawner.image = {image!r}
c.KubeSpawner.cmd = [{command!r}]
c.KubeSpawner.uid = c.KubeSpawner.fs_gid = 1000
c.KubeSpawner.storage_pvc_ensure = True
c.KubeSpawner.storage_capacity = "1Mi"
c.KubeSpawner.volumes = [
    {{"name": "runtime", "persistentVolumeClaim": {{"claimName": "runtime", "readOnly": True}}}},
    {{"name": "home", "persistentVolumeClaim": {{"claimName": "claim-{{user_server}}"}}}},
]
c.KubeSpawner.volume_mounts = [
    {{"name": "runtime", "mountPath": {root!r}, "readOnly": True}},
    {{"name": "home", "mountPath": "/home/kaos"}},
]
c.KubeSpawner.environment = {{"HOME": "/home/kaos", "KAOS_HOME": "/home/kaos"}}
"""
_OURS = """
c.KaosKubeSpawner.namespace = {namespace!r}
c.KaosKubeSpawner.storage_capacity = "1Mi"
"""


@dataclass(frozen=True)
class Start:
    """One start, in seconds."""

    from_ready: float
    """From the moment at which the cluster tells that the pod is ready until the Hub says go."""
    from_answer: float
    """From Jupyter's first answer until the Hub says go: what the Hub adds."""


@dataclass(frozen=True)
class Side:
    """A Hub, its namespace, and how to reach its one user's server."""

    url: str
    token: str
    user: str
    namespace: str

    @property
    def path(self) -> str:
        """Of the server in the Hub's API."""
        return f"{self.url}/hub/api/users/{self.user}/servers/{SERVER}"

    @property
    def headers(self) -> dict[str, str]:
        """Who asks."""
        return {"Authorization": f"token {self.token}"}

    def turn(self) -> Start:
        """Start it, stop it, and wait until the cluster has cleared away."""
        start = asyncio.run(self._start())
        asyncio.run(self._stop())
        return start

    async def _start(self) -> Start:
        async with aiohttp.ClientSession(headers=self.headers) as session:
            go, (ready, first) = await asyncio.gather(self._told_to_go(session), self._seen())
            return Start(go - ready, go - first)

    async def _told_to_go(self, session: aiohttp.ClientSession) -> float:
        """Ask for the server and follow its start, as the Hub's waiting page does."""
        asked = asyncio.create_task(self._ask(session))
        while not (asked.done() and asked.exception()):
            async with session.get(f"{self.path}/progress") as stream:
                if stream.status == 200:
                    async for line in stream.content:
                        event = json.loads(line[5:]) if line.startswith(b"data:") else {}
                        assert not event.get("failed"), event
                        if event.get("ready"):
                            go = time.perf_counter()
                            await asked
                            return go
            await asyncio.sleep(0.05)  # the Hub does not know of it yet
        await asked
        raise AssertionError("it was never ready")

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        async with session.post(self.path, json={}) as answer:
            assert answer.status < 300, await answer.text()

    async def _seen(self) -> tuple[float, float]:
        """When the pod was ready, and when Jupyter first answered in it."""
        ready, address = await self._pod_ready()
        return ready, await self._first_answer(address)

    async def _pod_ready(self) -> tuple[float, str]:
        await config.load_kube_config()
        async with client.ApiClient() as api:
            listing = client.CoreV1Api(api).list_namespaced_pod
            async with watch.Watch().stream(listing, self.namespace, timeout_seconds=120) as events:
                async for event in events:
                    pod = event["raw_object"]
                    conditions = pod["status"].get("conditions") or []
                    ready = {"Ready": "True"}.items() <= {
                        c["type"]: c["status"] for c in conditions
                    }.items()
                    if ready and "deletionTimestamp" not in pod["metadata"]:
                        return time.perf_counter(), str(pod["status"]["podIP"])
        raise AssertionError("no pod was ready within 120 s")

    async def _first_answer(self, address: str) -> float:
        url = f"http://{address}:8888/user/{self.user}/{SERVER}/api"
        async with aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(url):
                        return time.perf_counter()
                await asyncio.sleep(_LOOK)

    async def _stop(self) -> None:
        async with (
            aiohttp.ClientSession(headers=self.headers) as session,
            session.delete(self.path) as answer,
        ):
            assert answer.status < 300, await answer.text()
        wait = ("get", "pods", "-n", self.namespace, "-o", "name")
        wait_until(lambda: not kubectl(*wait).strip(), 90, "the pod's end", 0.3)
        wait_until(lambda: not self._pending(), 90, "the Hub's knowledge of it", 0.3)

    def _pending(self) -> bool:
        model = request("GET", f"{self.url}/hub/api/users/{self.user}", self.token).json
        return bool(model["servers"].get(SERVER, {}).get("pending"))


def main() -> None:
    """Run the comparison and print what came out."""
    given = arguments(__doc__.partition("\n")[0], ["kubernetes"])
    report = Report("pod_ready", versions("jupyterhub-kubespawner", "kubernetes-asyncio"))
    if why_not():
        report.skip("kubernetes", why_not())
        report.show(given.json)
        return
    said = json.loads(output("kubectl", "version", "-o", "json"))
    report.versions["Kubernetes"] = said["serverVersion"]["gitVersion"].lstrip("v")
    directory = Path(tempfile.mkdtemp(prefix="kaos-bench-"))
    try:
        with _sides(directory) as sides:
            report.comparisons += _compare(sides, given.rounds)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report.show(given.json)


def _compare(sides: dict[str, Side], rounds: int) -> list[Comparison]:
    starts: dict[str, list[Start]] = {name: [] for name in sides}

    def turn(name: str) -> float:
        starts[name].append(sides[name].turn())
        return starts[name][-1].from_ready

    contestants = [Contestant(name, lambda name=name: turn(name)) for name in sides]  # type: ignore[misc]
    alternate(contestants, rounds, "pod ready")
    return [
        _comparison("pod ready → redirected", starts, lambda start: start.from_ready),
        _comparison("Jupyter answers → redirected", starts, lambda start: start.from_answer),
    ]


def _comparison(
    title: str, starts: dict[str, list[Start]], value: Callable[[Start], float]
) -> Comparison:
    """As :func:`alternate` makes series: the first turn counts for itself."""
    series = []
    for name, all_of_them in starts.items():
        first, *rest = map(value, all_of_them)
        series.append(Series(name, first, tuple(rest or [first])))
    tails = "; ".join(f"{s.name} {_p95(s.values):.3g} s" for s in series)
    return Comparison(title, tuple(series), remarks=(f"95 of 100 within: {tails}.",))


def _p95(values: tuple[float, ...]) -> float:
    return quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


# --- the two sides ---


@contextlib.contextmanager
def _sides(directory: Path) -> Iterator[dict[str, Side]]:
    runtime, image, host = _runtime(), images()[0], this_machine()
    with contextlib.ExitStack() as stack:
        spaces = []
        for name in ("stock", "ours"):
            (directory / name).mkdir()
            space, kubeconfig = stack.enter_context(namespace(directory / name))
            _lay_out(space, runtime)
            spaces.append((space, {"KUBECONFIG": str(kubeconfig), "KAOS_BRIDGE": host}))
        (theirs, environment), (mine, my_environment) = spaces
        stock = StockHub(
            directory / "stock",
            engine="kubernetes",
            config=_STOCK.format(
                namespace=theirs.name,
                image=image,
                command=runtime_image.COMMAND,
                root=runtime_image.ROOT,
            ),
            environment=environment,
        )
        stock.start()
        stack.callback(stock.stop)
        user = f"bench-{secrets.token_hex(4)}"
        side = Side(stock.url, stock._admin_token, user, theirs.name)
        assert stock.hub_api("POST", f"/users/{user}").status == 201
        config = _OURS.format(namespace=mine.name)
        hub, desk = stack.enter_context(
            hub_at_desk(directory / "ours", config, "kubernetes", host, my_environment)
        )
        admitted = desk.admit
        desk.decide = lambda asked: _spec(admitted(asked), image)
        yield {
            "KubeSpawner": side,
            "kaos_hub, kubernetes": Side(hub.url, TOKEN, hub.me, mine.name),
        }


def _spec(admitted: NotebookSpec, image: str) -> NotebookSpec:
    home = Mount(source="", target="/home/kaos", read_only=False, volume="home")
    runtime = Mount(source="", target=runtime_image.ROOT, volume="runtime")
    # Without limits, as on the other side: this is not about how fast Jupyter may be.
    free = admitted.resources.model_copy(update={"cpu": None, "memory": None})
    return admitted.model_copy(
        update={"image": image, "uid": 1000, "mounts": [home, runtime], "resources": free}
    )


def _runtime() -> str:
    """The runtime's image, where the cluster finds it."""
    import docker as engine

    with contextlib.closing(engine.from_env(timeout=900)) as connection:
        runtime_image.ensure(connection, note)
    name = f"{REGISTRY}/kaos-benchmark/runtime"
    docker("tag", runtime_image.reference(), name)
    return pushed(name)


def _lay_out(space: Namespace, runtime: str) -> None:
    """Have the runtime on a claim of the namespace."""
    storage = {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteMany"]}
    space.apply("PersistentVolumeClaim", "runtime", spec=storage)
    container: dict[str, Any] = {"name": "fill", "image": runtime}
    container["volumeMounts"] = [{"name": "v", "mountPath": "/volume"}]
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "runtime"}}
    spec = {"restartPolicy": "Never", "containers": [container], "volumes": [volume]}
    space.apply("Pod", "fill", spec=spec)
    done = "Succeeded"
    wait_until(lambda: space.get("pod", "fill")["status"]["phase"] == done, 180, "the runtime")
    space.delete("pod", "fill")


if __name__ == "__main__":
    main()
