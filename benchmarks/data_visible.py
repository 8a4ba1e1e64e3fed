"""100,000 small files, seen by a pod: from its creation until its container has listed one of them.

kaos_hub on a shared volume, on which they were laid out for another pod before, and without any,
where each pod fetches its own, against an init container that gets the same files with `tar x` from
an HTTP server. All main containers are the same, on the same node. What the first pod waits for,
where there is a shared volume, is shown apart.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from statistics import median

from benchmarks.clusters import engine_options, hub_options, skipped
from benchmarks.fetch_tree import SIZES, SMOKE, http_server
from benchmarks.harness import (
    Comparison,
    Contestant,
    Report,
    alternate,
    arguments,
    seconds,
    versions,
)
from benchmarks.hubs import ours
from benchmarks.rebuild import Sizes, make_data
from kaos_hub.bundles.scan import scan
from kaos_hub.engines.base import JobSpec, Materialise, Phase, Run
from kaos_hub.engines.kubernetes.engine import KubernetesEngine
from kaos_hub.engines.kubernetes.objects import Object
from kaos_hub.schemas import Mount, NotebookSpec, Resources
from tests.cluster import kubectl
from tests.engine_cluster import TREES, make_claim, namespace
from tests.fetching import waiting_job
from tests.hub import RunningHub, wait_until
from tests.pods import images, this_machine

_PATIENCE = 900
_DEADLINE = 6 * 3600
_DATA = "/data"

# Stays when it has told, since nothing large is to be deleted while others are timed.
_LIST = 'ls -l "$1" && exec 3<>"/dev/tcp/$2/$3" && echo "$4" >&3 && exec sleep infinity'
_GET = """\
set -e -o pipefail
if command -v curl > /dev/null; then
    get() { curl -sf "$1"; }
else
    get() { python3 -c 'import shutil, sys, urllib.request as u
shutil.copyfileobj(u.urlopen(sys.argv[1]), sys.stdout.buffer, 1 << 20)' "$1"; }
fi
get "$1" | tar x -C "$2"
"""


def main() -> None:
    """Run the comparison and print what came out."""
    given = arguments(__doc__.partition("\n")[0], ["kubernetes"])
    report = Report("data_visible", versions("blake3", "kubernetes"))
    if skipped(report):
        report.show(given.json)
        return
    sizes = SMOKE if given.smoke else SIZES
    directory = Path(tempfile.mkdtemp(prefix="kaos-bench-"))
    try:
        report.comparisons += _compare(directory, sizes, given.rounds)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report.show(given.json)


def _compare(directory: Path, sizes: Sizes, rounds: int) -> Iterator[Comparison]:
    data, archive = directory / "data", directory / "served/data.tar"
    make_data(data, sizes)
    archive.parent.mkdir()
    # Without ".": the root of a volume is somebody else's.
    subprocess.run(["tar", "cf", archive, "-C", data, *sorted(os.listdir(data))], check=True)
    with contextlib.ExitStack() as stack:
        space = stack.enter_context(namespace())
        hub = hub_options(space)
        us = stack.enter_context(ours(directory / "hub", "kubernetes", **hub))
        us.client.bundles.submit(data, "data")
        url = stack.enter_context(http_server(archive.parent, this_machine()))
        # The last of all files.
        file = f"{_DATA}/{sizes.folders - 1:03}/{sizes.files_per_folder - 1:03}.csv"
        side = stack.enter_context(contextlib.closing(Side(us.hub, space, scan(data).root, file)))
        side.lay_out(TREES)
        series = alternate(
            [
                Contestant("init container, tar x", lambda: side.tar(f"{url}/data.tar")),
                Contestant("kaos_hub, shared volume", lambda: side.pod(TREES)),
                Contestant("kaos_hub, no shared volume", side.fetching_pod),
                Contestant("kaos_hub, shared volume, first pod", side.first_pod),
            ],
            rounds,
            "data visible",
        )
    number = f"{sizes.folders * sizes.files_per_folder:,} files of 4 kB"
    yield Comparison(f"{number}, a second pod sees them", series[:3])
    laid = f"Of that, laying them out: {median(side.laid[2:] or side.laid):.3g} s in the middle."
    yield Comparison(f"{number}, the first pod sees them", (series[0], series[3]), remarks=(laid,))


class Side:
    """Pods of one namespace that look for a file.

    Args:
        hub: what serves the tree.
        namespace: where the pods are.
        tree: digest of the tree.
        file: what they look for.
    """

    def __init__(self, hub: RunningHub, namespace: str, tree: str, file: str) -> None:
        self._hub, self._namespace, self._tree, self._file = hub, namespace, tree, file
        self._runner = asyncio.Runner()
        self._engines: dict[str, KubernetesEngine] = {}
        self._bell = socket.create_server((this_machine(), 0))
        self._bell.settimeout(2)
        self._numbers = count()
        self.laid: list[float] = []
        """Seconds of every time that the tree was laid out."""

    def close(self) -> None:
        """Let go of everything but the pods."""
        for engine in self._engines.values():
            self._runner.run(engine.close())
        self._runner.close()
        self._bell.close()

    # --- turns ---

    def tar(self, url: str) -> float:
        """A pod whose init container gets the archive."""
        engine = self._engine("")
        name = f"tar-{secrets.token_hex(4)}"
        body = _with_tar(engine.pods.run(self._spec(name), self._work()), url)
        _settle()
        begin = time.perf_counter()
        self._runner.run(engine.create(body))
        return self._heard(name) - begin

    def pod(self, claim: str) -> float:
        """A pod that finds the tree on a shared claim."""
        engine = self._engine(claim)
        name = waiting_job(self._hub)
        spec = self._spec(name, engine.places.tree(self._tree, _DATA))
        _settle()
        begin = time.perf_counter()
        self._runner.run(engine.submit(spec))
        return self._heard(name) - begin

    def fetching_pod(self) -> float:
        """A pod that fetches the tree before, as a notebook's does without a shared claim."""
        engine = self._engine("")
        name = waiting_job(self._hub)
        mount = engine.places.tree(self._tree, _DATA)
        body = engine.pods.run(self._spec(name, mount), self._work(mount))
        fetch = body["spec"]["initContainers"][0]
        # That is what sets a notebook's apart from a job's.
        fetch["command"].append("--no-sync")
        fetch["resources"] = body["spec"]["containers"][0]["resources"]
        admitted = NotebookSpec(
            notebook="", workload=name, owner="user:bench", mounts=[mount], resources=Resources()
        )
        _settle()
        begin = time.perf_counter()
        self._runner.run(engine.admitted(admitted))
        self._runner.run(engine.create(body))
        return self._heard(name) - begin

    def first_pod(self) -> float:
        """A new shared claim, on which the tree is laid out for a pod."""
        claim = f"{TREES}-{next(self._numbers)}"
        make_claim(self._namespace, claim)
        wait_until(lambda: self._claim_is_bound(claim), 60, "the claim")
        return self.lay_out(claim) + self.pod(claim)

    def lay_out(self, claim: str) -> float:
        """Lay the tree out on a claim."""
        name = waiting_job(self._hub)
        spec = JobSpec(name, "", Materialise(self._tree, ""), deadline=_DEADLINE)
        engine = self._engine(claim)
        _settle()
        taken = seconds(lambda: self._runner.run(_to_its_end(engine, spec)))
        self.laid.append(taken)
        return taken

    # --- parts ---

    def _engine(self, claim: str) -> KubernetesEngine:
        """An engine with that shared claim. It is not started: that would lay the runtime out."""
        if claim not in self._engines:
            ports = json.loads((self._hub.data / "ports.json").read_text())
            url = f"http://{this_machine()}:{ports['service']}/services/kaos"
            # What is set aside for pods that sleep is not there for others.
            settings = engine_options(self._namespace, url, trees_claim=claim, job_share=0.01)
            data = str(self._hub.data)
            self._engines[claim] = KubernetesEngine(data_dir=data, **settings)
        return self._engines[claim]

    def _work(self, *mounts: Mount) -> Run:
        host, port = self._bell.getsockname()
        command = ("bash", "-c", _LIST, "list", self._file, host, str(port), "seen")
        return Run(command, image=images()[0], mounts=mounts)

    def _spec(self, name: str, *mounts: Mount) -> JobSpec:
        return JobSpec(name, "", self._work(*mounts), deadline=_DEADLINE)

    def _heard(self, name: str) -> float:
        """The moment in which a pod tells that it sees the file."""
        deadline = time.perf_counter() + _PATIENCE
        while time.perf_counter() < deadline:
            with contextlib.suppress(TimeoutError):
                connection, _ = self._bell.accept()
                with connection:
                    connection.settimeout(10)
                    assert connection.recv(16).strip() == b"seen"
                    return time.perf_counter()
            said = kubectl("get", "pod", name, "-n", self._namespace, "-o", "json")
            status = json.loads(said)["status"]
            assert status["phase"] in ("Pending", "Running"), json.dumps(status, indent=2)
        raise AssertionError(f"{name} saw nothing within {_PATIENCE} s")

    def _claim_is_bound(self, claim: str) -> bool:
        said = kubectl("get", "pvc", claim, "-n", self._namespace, "-o", "jsonpath={.status.phase}")
        return said == "Bound"


async def _to_its_end(engine: KubernetesEngine, spec: JobSpec) -> None:
    await engine.submit(spec)
    async for seen in engine.watch(spec.name):
        last = seen
    assert last.phase is Phase.SUCCEEDED, last


def _with_tar(body: Object, url: str) -> Object:
    """A pod with an init container that gets an archive before."""
    main = body["spec"]["containers"][0]
    mount = {"name": "data", "mountPath": _DATA}
    main["volumeMounts"] = [mount | {"readOnly": True}]
    body["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
    get = {"name": "get", "command": ["bash", "-c", _GET, "get", url, _DATA]}
    same = {name: main[name] for name in ("image", "resources", "securityContext")}
    body["spec"]["initContainers"] = [get | same | {"volumeMounts": [mount]}]
    return body


def _settle() -> None:
    """What earlier turns wrote is not to be written on anybody else's time."""
    os.sync()


if __name__ == "__main__":
    main()
