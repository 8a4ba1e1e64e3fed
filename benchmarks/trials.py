"""Many small trials: what one costs beside what it does itself.

``no-op``: trials whose ``train`` is ``#!/bin/sh`` and nothing more, two at once, from the request
until the last has ended, against Ray Tune doing the same (a function trainable that runs the same
program; started before, and with actors used again or not) and against a ``docker run`` for each.
Ray Tune needs a Python that has it: KAOS_BENCHMARK_RAY names one.
``listing``: the first hundred trials of a large training and of a small one, against the first two
hundred users of a Hub with as many as the small one has trials.
``history``: what the first thousand trials of a large training took, and its last thousand.
"""

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import (
    ROOT,
    Comparison,
    Contestant,
    Report,
    Series,
    alternate,
    arguments,
    note,
    output,
    seconds,
    versions,
)
from benchmarks.hubs import Ours, ours
from kaos_hub.client.training_handle import TrainingHandle
from kaos_hub.schemas import Training
from tests.engines import docker_answers

SLOTS = 2
_IMAGE = "python:3.13-slim"
_RAY = ROOT / "benchmarks" / "ray_trials.py"


@dataclass(frozen=True)
class Sizes:
    """How many trials there are."""

    ours: int = 1000
    docker: int = 20
    ray: int = 20
    """With a new actor for each, which takes long."""
    ray_reused: int = 300
    large: int = 100_000
    history: int = 30_000
    users: int = 1000


SMOKE = Sizes(ours=20, docker=2, ray=2, ray_reused=4, large=300, history=300, users=20)


def main() -> None:
    """Run the comparisons and print what came out."""
    given = arguments(__doc__.partition("\n")[0], ["no-op", "listing", "history"])
    sizes = SMOKE if given.smoke else Sizes()
    report = Report("trials", versions())
    directory = Path(tempfile.mkdtemp(prefix="kaos-bench-"))
    try:
        source = make_bundle(directory / "bundle")
        with ours(directory / "hub", "local") as us:
            if "no-op" in given.only:
                report.comparisons.append(_no_ops(us, report, source, sizes, given.rounds))
            if "listing" in given.only:
                report.comparisons.append(_listing(us, source, sizes, given.rounds))
            if "history" in given.only:
                report.comparisons.append(_history(us, source, sizes))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report.show(given.json)


def make_bundle(folder: Path) -> Path:
    """A bundle whose trials do nothing."""
    (folder / "model").mkdir(parents=True)
    (folder / "Dockerfile").write_text(f"FROM {_IMAGE}\nWORKDIR /opt/program\nCOPY . .\n")
    train = folder / "model" / "train"
    train.write_text("#!/bin/sh\n")
    train.chmod(0o755)
    (folder.parent / "data").mkdir()
    (folder.parent / "data" / "nothing").write_text("")
    return folder


# --- ours ---


def _deploy(us: Ours, source: Path, trials: int) -> TrainingHandle:
    params = {"number": list(range(trials)), "run": [secrets.token_hex(4)]}
    return us.client.trainings.deploy(
        source, source.parent / "data", params=params, slots=SLOTS, cpu=0.5, memory="256Mi"
    )


def _train(us: Ours, source: Path, trials: int) -> Training:
    found = _deploy(us, source, trials).wait()
    assert found.trials.succeeded == trials, found
    return found


# --- trials that do nothing ---


def _no_ops(us: Ours, report: Report, source: Path, sizes: Sizes, rounds: int) -> Comparison:
    _train(us, source, SLOTS)  # its environment is there from now on
    train = source / "model" / "train"
    contestants = [*_ray(report, train, sizes)]
    if docker_answers():
        contestants.append(
            Contestant("docker run", lambda: _docker_runs(sizes.docker) / sizes.docker * 1000)
        )
    else:
        report.skip("docker run", "no Docker Engine answers")

    def us_all() -> float:
        return seconds(lambda: _train(us, source, sizes.ours)) / sizes.ours * 1000

    contestants.append(Contestant("kaos_hub, local", us_all))
    remark = (
        f"Of {sizes.ours:,} trials with us, {sizes.ray} and {sizes.ray_reused} of Ray Tune,"
        f" {sizes.docker} containers; {SLOTS} at once. Ours: from the SDK's call to the end of all."
    )
    series = alternate(contestants, rounds, "no-op trials")
    return Comparison("a trial that does nothing", series, "ms", (remark,))


def _ray(report: Report, train: Path, sizes: Sizes) -> Sequence[Contestant]:
    python = os.environ.get("KAOS_BENCHMARK_RAY", "")
    version = output(python, "-c", "import ray; print(ray.__version__)") if python else ""
    if not version:
        report.skip("Ray Tune", "KAOS_BENCHMARK_RAY names no Python that has it")
        return []
    report.versions["ray"] = version

    def measure(trials: int, reuse: bool) -> float:
        said = subprocess.check_output(
            [
                python,
                str(_RAY),
                str(train),
                str(trials),
                str(SLOTS),
                *(["--reuse"] if reuse else []),
            ],
            text=True,
            stderr=subprocess.DEVNULL,
        )
        # its workers print there, too
        result = next(line for line in said.splitlines() if line.startswith('{"seconds"'))
        return float(json.loads(result)["seconds"]) / trials * 1000

    return [
        Contestant("Ray Tune", lambda: measure(sizes.ray, False)),
        Contestant("Ray Tune, reuse_actors", lambda: measure(sizes.ray_reused, True)),
    ]


def _docker_runs(trials: int) -> float:
    """A container for each trial, so many at once."""
    each = "docker run --rm --network none " + _IMAGE + " sh -c :"
    numbers = "\n".join(map(str, range(trials)))
    command = ["xargs", "-P", str(SLOTS), "-I{}", "sh", "-c", each]
    return seconds(
        lambda: subprocess.run(command, input=numbers, text=True, check=True, capture_output=True)
    )


# --- many of them ---


def _listing(us: Ours, source: Path, sizes: Sizes, rounds: int) -> Comparison:
    small = _train(us, source, min(sizes.ours, sizes.large)).id
    large = _deploy(us, source, sizes.large).id
    us.client.trainings.kill(large)
    us.client.trainings.follow(large)
    users = [f"bench-{number}" for number in range(sizes.users)]
    us.hub.hub_api("POST", "/users", {"usernames": users})

    def milliseconds(path: str) -> float:
        def ask() -> None:
            answer = us.hub.ask_train("GET", path, us.token)
            assert answer.status == 200, answer.text

        return seconds(ask) * 1000

    def hub() -> float:
        return seconds(lambda: us.hub.hub_api("GET", "/users?limit=200")) * 1000

    def listed(training: str, sort: str) -> float:
        return milliseconds(f"/trainings/{training}/trials?limit=100&sort={sort}")

    contestants = [
        Contestant(f"Hub, 200 of {sizes.users:,} users", hub),
        Contestant("kaos_hub, 100 of the small training", lambda: listed(small, "number")),
        Contestant(f"kaos_hub, 100 of {sizes.large:,}", lambda: listed(large, "number")),
        Contestant("kaos_hub, list of trainings", lambda: milliseconds("/trainings?limit=100")),
    ]
    return Comparison("listing", alternate(contestants, rounds, "listing"), "ms")


def _history(us: Ours, source: Path, sizes: Sizes) -> Comparison:
    found = _train(us, source, sizes.history)
    part = min(1000, sizes.history // 3)

    def took(first: int) -> float:
        """Milliseconds per trial, of ``part`` trials from the first one on."""
        page = us.client.trainings.trials(found.id, limit=part, after=first)
        moments = sorted(t.finished for t in page if t.finished)
        return (moments[-1] - moments[0]).total_seconds() / (len(moments) - 1) * 1000

    starts = {"the first": 0, "the last": sizes.history - part}
    for name, first in starts.items():
        note(f"history, {name} {part}: {took(first):.3g}")
    series = tuple(
        Series(f"{name} {part:,} of {sizes.history:,}", took(first), (took(first),))
        for name, first in starts.items()
    )
    return Comparison("a trial, however many there were before", series, "ms")


if __name__ == "__main__":
    main()
