"""Building again in a cluster, with nothing or only code changed.

A deploy on the engine `kubernetes` until nothing is left to build (folder read, sent, stored,
environment found or built and pushed, code laid out on the shared volume) against `buildah build
--layers` and `buildah push` by hand: once in a pod that is made for it, as for most builds in a
cluster, and once in a pod that is always there. All with the same builder image, on the same node,
with what was built before on a volume.

``unchanged`` and ``code``: a bundle as the example's, whose code is no part of the environment.
``image``: only code changed, but a step of the Dockerfile sees it, so that there is an image to
build each time, for us too.
"""

import contextlib
import json
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.clusters import HOSTNAME, hub_options, node, skipped
from benchmarks.harness import (
    ROOT,
    Comparison,
    Contestant,
    Report,
    alternate,
    arguments,
    seconds,
    versions,
)
from benchmarks.hubs import Ours, ours
from benchmarks.rebuild import SMOKE, Sizes, change_code, make_bundle
from kaos_hub.engines.kubernetes.objects import BUILDER_UID, builder_context, claim, registries_conf
from tests.cluster import kubectl
from tests.engine_cluster import TREES, images, namespace, registry
from tests.hub import wait_until

_EXAMPLE = ROOT / "examples/notebook/example"
_COMPILE = "RUN python -m compileall -q .\n"
_CACHE, _HAND = "cache-by-hand", "kaos-benchmark"
_STORAGE = 4  # GiB

# What comes in is the bundle as an archive.
_BY_HAND = """\
set -e
mkdir -p /scratch/run
rm -rf /scratch/bundle && mkdir /scratch/bundle && tar x -C /scratch/bundle
printf '%s\\n' "$REGISTRIES" > /scratch/registries.conf
export CONTAINERS_REGISTRIES_CONF=/scratch/registries.conf TMPDIR=/scratch
options="--storage-driver overlay --root /cache/root --runroot /scratch/run"
buildah $options build --isolation chroot --layers -t "$IMAGE" \
    -f /scratch/bundle/Dockerfile /scratch/bundle/model
buildah $options push "$IMAGE"
"""


def main() -> None:
    """Run the comparisons and print what came out."""
    cases = {"unchanged": "nothing changed", "code": "code changed", "image": "code changed"}
    given = arguments(__doc__.partition("\n")[0], list(cases))
    report = Report("rebuild_cluster", versions("kubernetes"))
    if skipped(report):
        report.show(given.json)
        return
    said = subprocess.check_output(
        ["docker", "run", "--rm", images()["builder"], "buildah", "--version"], text=True
    )
    report.versions["buildah"] = said.split()[2]
    directory = Path(tempfile.mkdtemp(prefix="kaos-bench-"))
    sizes = SMOKE if given.smoke else Sizes()
    try:
        with _both(directory, given.smoke) as (us, hand):
            for case in given.only:
                bundle = directory / ("image" if case == "image" else "plain")
                if not bundle.exists():
                    _bundle(bundle, sizes.code_files, case == "image")
                change = _nothing if case == "unchanged" else change_code
                title = cases[case] + (", a step sees it" if case == "image" else "")
                contestants = _contestants(us, hand, bundle, change, given.smoke)
                series = alternate(contestants, given.rounds, title)
                report.comparisons.append(Comparison(f"build in the cluster, {title}", series))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report.show(given.json)


def _contestants(
    us: Ours, hand: "Hand", bundle: Path, change: Callable[[Path], None], smoke: bool
) -> list[Contestant]:
    def theirs(do: Callable[[Path], float]) -> float:
        change(bundle)
        return do(bundle)

    def deployed(do: Callable[[Path], object]) -> float:
        def until_built() -> None:
            do(bundle)
            us.until_built()

        change(bundle)
        taken = seconds(until_built)
        if smoke:  # there, no other turn would notice what still starts
            us.client.notebooks.kill("bench")
        else:
            us.end()
        return taken

    found = [
        Contestant("buildah build, pod", lambda: theirs(hand.in_a_pod)),
        Contestant("buildah build, pod that stays", lambda: theirs(hand.in_the_pod)),
        Contestant("kaos_hub, SDK", lambda: deployed(us.deploy)),
        Contestant("kaos_hub, command line", lambda: deployed(us.deploy_by_command)),
    ]
    return found[:-1] if smoke else found


def _nothing(bundle: Path) -> None:
    pass


def _bundle(path: Path, code_files: int, compiles: bool) -> None:
    """A bundle as the example's, with more code; or one of whose code a step makes something."""
    make_bundle(path, code_files, 0)
    dockerfile = (_EXAMPLE / "Dockerfile").read_text()
    (path / "Dockerfile").write_text(dockerfile + _COMPILE * compiles)
    requirements = path / "model" / "requirements.txt"
    needed = (_EXAMPLE / "model/requirements.txt").read_text()
    requirements.write_text(requirements.read_text() + needed)


# --- the two sides ---


@contextlib.contextmanager
def _both(directory: Path, smoke: bool) -> Iterator[tuple[Ours, "Hand"]]:
    with contextlib.ExitStack() as stack:
        space = stack.enter_context(namespace())
        hand = Hand(space)
        storage = {"build_cache": True, "build_storage": f"{_STORAGE}Gi", "trees_claim": TREES}
        options = hub_options(space, **storage)
        us = stack.enter_context(ours(directory / "hub", "kubernetes", **options))
        hand.ready()
        if not smoke:
            _runtime_is_there(space, directory / "hub/data/claims")
        yield us, hand


def _runtime_is_there(space: str, known: Path) -> None:
    """Until the runtime is on the volume, the pod that brings it would be in everybody's way."""
    pods = ("get", "pods", "-n", space, "-l", "kaos-hub.io/kind=runtime", "-o", "name")
    wait_until(lambda: any(known.glob("*/runtime-*")), 120, "the runtime's being laid out")
    wait_until(lambda: not kubectl(*pods).strip(), 60, "the end of what laid it out")


class Hand:
    """Builds by hand, in pods that may do what ours may.

    Args:
        namespace: where the pods are.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._image = f"{registry()}/{_HAND}/{secrets.token_hex(4)}"
        body = claim(_CACHE, _STORAGE << 30, {}) | {"apiVersion": "v1"}
        body["metadata"]["namespace"] = namespace
        kubectl("create", "-f", "-", give=json.dumps(body))
        stays = self._pod("stays", ["sleep", "infinity"])
        stays |= {"apiVersion": "v1", "kind": "Pod"}
        kubectl("create", "-f", "-", give=json.dumps(stays))

    def ready(self) -> None:
        """Wait for the pod that stays."""
        self._kubectl("wait", "--for=condition=Ready", "pod/stays", "--timeout=180s")

    def in_a_pod(self, bundle: Path) -> float:
        """Have a pod made, build in it, and wait for its end."""
        pod = self._pod("build", ["sh", "-c", _BY_HAND])
        pod["spec"]["containers"][0] |= {"stdin": True, "stdinOnce": True}
        line = ["run", "build", "-i", "--quiet", "--restart=Never", "--image=builder"]
        line += [f"--overrides={json.dumps({'apiVersion': 'v1'} | pod)}"]
        taken = seconds(lambda: self._feed(bundle, line))
        self._kubectl("delete", "pod", "build")
        return taken

    def in_the_pod(self, bundle: Path) -> float:
        """Build in the pod that is there."""
        line = ["exec", "-i", "stays", "--", "sh", "-c", _BY_HAND]
        return seconds(lambda: self._feed(bundle, line))

    def _feed(self, bundle: Path, line: list[str]) -> None:
        """Run kubectl, with the bundle as its input."""
        with subprocess.Popen(["tar", "c", "-C", bundle, "."], stdout=subprocess.PIPE) as tar:
            done = subprocess.run(
                ["kubectl", "-n", self._namespace, *line],
                stdin=tar.stdout,
                capture_output=True,
                text=True,
                timeout=600,
            )
        assert done.returncode == 0, done.stdout + done.stderr

    def _kubectl(self, *words: str) -> str:
        return kubectl("-n", self._namespace, *words)

    def _pod(self, name: str, command: list[str]) -> dict[str, Any]:
        host = registry()
        environment = {
            "IMAGE": self._image,
            "REGISTRIES": registries_conf({"docker.io": host}, [host]),
        }
        build = {
            "name": name,
            "image": images()["builder"],
            "command": command,
            "env": [{"name": k, "value": v} for k, v in environment.items()],
            "securityContext": builder_context(""),
            "resources": {"limits": {"cpu": "2", "memory": "4Gi"}, "requests": _LITTLE},
            "volumeMounts": [
                {"name": "cache", "mountPath": "/cache"},
                {"name": "scratch", "mountPath": "/scratch"},
            ],
        }
        volumes = [
            {"name": "cache", "persistentVolumeClaim": {"claimName": _CACHE}},
            {"name": "scratch", "emptyDir": {}},
        ]
        unconfined = {f"container.apparmor.security.beta.kubernetes.io/{name}": "unconfined"}
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "nodeSelector": {HOSTNAME: node()},
            "securityContext": {"fsGroup": BUILDER_UID, "fsGroupChangePolicy": "OnRootMismatch"},
            "containers": [build],
            "volumes": volumes,
        }
        metadata = {"name": name, "namespace": self._namespace, "annotations": unconfined}
        return {"metadata": metadata, "spec": spec}


_LITTLE = {"cpu": "40m", "memory": "82Mi"}


if __name__ == "__main__":
    main()
