"""Click to JupyterLab: from the request that starts a notebook to a page of JupyterLab, warm.

``local``: kaos_hub's engine `local` against SimpleLocalProcessSpawner, both with the JupyterLab of
this environment. ``docker``: its engine `docker` against DockerSpawner with an image that has the
same JupyterLab (built here once, and kept).
"""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import (
    ROOT,
    Comparison,
    Contestant,
    Report,
    alternate,
    arguments,
    note,
    output,
    versions,
)
from benchmarks.hubs import Ours, Stock, click_to_lab, lab_version, ours, stock_docker, stock_local
from tests.engines import docker_answers

IMAGE = "kaos-benchmark/stock"
# The runtime's own constraints, so that every package that the server imports is the same one.
_DOCKERFILE = """\
FROM python:3.13-slim
RUN python3 -m venv /opt/jupyter
ENV PATH=/opt/jupyter/bin:$PATH PIP_NO_CACHE_DIR=1
COPY constraints.txt /
RUN pip install --quiet --constraint /constraints.txt jupyterlab jupyterhub=={hub}
RUN useradd --create-home --uid 1000 somebody
USER somebody
WORKDIR /home/somebody
CMD ["jupyterhub-singleuser"]
"""


def main() -> None:
    """Run the comparisons and print what came out."""
    given = arguments(__doc__.partition("\n")[0], ["local", "docker"])
    report = Report("click_to_lab", versions())
    directory = Path(tempfile.mkdtemp(prefix="kaos-bench-"))
    try:
        if "local" in given.only:
            report.versions["bubblewrap"] = output("bwrap", "--version").split(" ")[-1] or "none"
            with _local(directory) as contestants:
                report.comparisons.append(_compare("local", contestants, given.rounds))
        if "docker" in given.only and not docker_answers():
            report.skip("docker", "no Docker Engine answers")
        elif "docker" in given.only:
            engine = output("docker", "version", "--format", "{{.Server.Version}}")
            report.versions["Docker Engine"] = engine
            with _docker(directory, fresh_too=not given.smoke) as contestants:
                report.comparisons.append(_compare("docker", contestants, given.rounds))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report.show(given.json)


Contestants = dict[str, Ours | Stock]


@contextlib.contextmanager
def _local(directory: Path) -> Iterator[Contestants]:
    with (
        stock_local(directory / "stock") as theirs,
        ours(directory / "ours", "local") as us,
    ):
        _prepare(us, directory / "bundle")
        yield {"SimpleLocalProcessSpawner": theirs, "kaos_hub, local": us}


@contextlib.contextmanager
def _docker(directory: Path, fresh_too: bool) -> Iterator[Contestants]:
    image = build_stock_image()
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(stock_docker(directory / "stock-kept", image, remove=False))
        found: Contestants = {"DockerSpawner": kept}
        if fresh_too:
            fresh = stack.enter_context(stock_docker(directory / "stock-new", image, remove=True))
            found["DockerSpawner, remove=True"] = fresh
        us = stack.enter_context(ours(directory / "ours-docker", "docker"))
        _prepare(us, directory / "bundle")
        yield found | {"kaos_hub, docker": us}


def _prepare(us: Ours, bundle: Path) -> None:
    """Have the notebook built, which starts it for a moment."""
    (bundle / "model").mkdir(parents=True, exist_ok=True)
    (bundle / "Dockerfile").write_text("FROM python:3.13-slim\nCOPY . /opt/program\n")
    (bundle / "model" / "train.py").write_text("print('hello')\n")
    us.deploy(bundle)
    us.until_built()
    us.end()


def _compare(title: str, contestants: Contestants, rounds: int) -> Comparison:
    labs: dict[str, str | None] = {}

    def turn(name: str) -> float:
        taken = click_to_lab(contestants[name])
        labs[name] = lab_version(contestants[name])
        contestants[name].end()
        return taken

    series = alternate(
        [Contestant(name, lambda name=name: turn(name)) for name in contestants],  # type: ignore[misc]
        rounds,
        title,
    )
    assert len(set(labs.values())) == 1, f"not the same JupyterLab: {labs}"
    remark = f"JupyterLab {labs.popitem()[1]} on all sides."
    return Comparison(f"click to JupyterLab, {title}", series, remarks=(remark,))


def build_stock_image() -> str:
    """The name of an image for DockerSpawner, built if it is not there."""
    hub, lab = (versions()[package] for package in ("jupyterhub", "jupyterlab"))
    name = f"{IMAGE}:lab-{lab}-hub-{hub}"
    if not output("docker", "images", "-q", name):
        note(f"building {name}, once ...")
        with tempfile.TemporaryDirectory() as context:
            Path(context, "Dockerfile").write_text(_DOCKERFILE.format(hub=hub))
            shutil.copy(ROOT / "images/runtime/constraints.txt", context)
            subprocess.run(
                ["docker", "build", "--quiet", "--force-rm", "--tag", name, context],
                check=True,
                stdout=subprocess.DEVNULL,
            )
    return name


if __name__ == "__main__":
    main()
