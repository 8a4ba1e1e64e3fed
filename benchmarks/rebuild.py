"""Again, with little or nothing changed: what a build costs, and what submitting data costs.

``build``: a deploy on the engine `docker` until nothing is left to build (folder read, sent,
stored, environment found, code laid out) against `docker build` of the same bundle: unchanged, and
with one line of code changed; a small bundle, and one with much data beside the code.
``builders``: the same bundle by each of the builders of the engine `docker`, side by side: first,
unchanged, with one line of code changed, with one package more; and the disk that each keeps.
``resubmit``: an unchanged folder of 10,000 files against `rsync -a --stats` to a copy on the same
disk.
"""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import builders
from benchmarks.harness import (
    Comparison,
    Contestant,
    Report,
    alternate,
    arguments,
    output,
    seconds,
    versions,
)
from benchmarks.hubs import Ours, ours, remove_images
from tests.engines import docker_answers

_DOCKERFILE = """\
FROM python:3.13-slim
WORKDIR /opt/program
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
"""
_SUBMIT = """\
import sys
from kaos_hub import Client
url, token, folder = sys.argv[1:]
Client(url, token).bundles.submit(folder, "data")
"""


@dataclass(frozen=True)
class Sizes:
    """How much there is to build and to submit."""

    code_files: int = 60
    data_mb: tuple[int, ...] = (0, 1000)
    """Megabytes beside the code, of each bundle."""
    folders: int = 100
    files_per_folder: int = 100


SMOKE = Sizes(code_files=5, data_mb=(5,), folders=3, files_per_folder=10)


def main() -> None:
    """Run the comparisons and print what came out."""
    given = arguments(__doc__.partition("\n")[0], ["build", "builders", "resubmit"])
    sizes = SMOKE if given.smoke else Sizes()
    report = Report("rebuild", versions("uv"))
    directory = Path(tempfile.mkdtemp(prefix="kaos-bench-"))
    try:
        if "build" in given.only and not docker_answers():
            report.skip("build", "no Docker Engine answers")
        elif "build" in given.only:
            report.versions |= _docker_versions()
            with ours(directory / "build", "docker") as us:
                report.comparisons += _builds(us, directory, sizes, given.rounds)
        if "builders" in given.only and not docker_answers():
            report.skip("builders", "no Docker Engine answers")
        elif "builders" in given.only:
            report.versions |= _docker_versions()
            (directory / "builders").mkdir()
            report.comparisons += builders.compare(
                directory / "builders",
                lambda path: make_bundle(path, sizes.code_files, sizes.data_mb[0]),
                change_code,
                given.rounds,
            )
        if "resubmit" in given.only and shutil.which("rsync") is None:
            report.skip("resubmit", "rsync is not installed")
        elif "resubmit" in given.only:
            report.versions["rsync"] = output("rsync", "--version").split()[2]
            with ours(directory / "resubmit", "local") as us:
                report.comparisons.append(_resubmits(us, directory, sizes, given.rounds))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report.show(given.json)


# --- builds ---


def _builds(us: Ours, directory: Path, sizes: Sizes, rounds: int) -> Iterator[Comparison]:
    for data_mb in sizes.data_mb:
        name = f"with {data_mb} MB of data" if data_mb else "small"
        bundle = directory / f"bundle-{data_mb}"
        make_bundle(bundle, sizes.code_files, data_mb)
        for title, change in (
            ("nothing changed", lambda: None),
            ("code changed", lambda bundle=bundle: change_code(bundle)),
        ):
            with _contestants(us, bundle, change) as contestants:
                series = alternate(contestants, rounds, f"{name}, {title}")
            yield Comparison(f"build, {name}, {title}", series)


@contextlib.contextmanager
def _contestants(us: Ours, bundle: Path, change: Callable[[], None]) -> Iterator[list[Contestant]]:
    builders = {"docker build (classic)": "0"}
    if output("docker", "buildx", "version"):
        builders["docker build (buildx)"] = "1"
    repository = f"kaos-benchmark/{secrets.token_hex(4)}"

    def theirs(buildkit: str) -> float:
        change()
        tag = f"{repository}:{buildkit}"
        before = output("docker", "images", "-q", "--no-trunc", tag)
        taken = seconds(lambda: docker_build(bundle, tag, buildkit))
        if before and before != output("docker", "images", "-q", "--no-trunc", tag):
            # One layer with all the data in each round would soon fill the disk.
            subprocess.run(["docker", "rmi", before], capture_output=True)
        return taken

    def deployed(do: Callable[[Path], object]) -> float:
        def until_built() -> None:
            do(bundle)
            us.until_built()

        change()
        taken = seconds(until_built)
        us.end()
        return taken

    try:
        yield [
            *(
                Contestant(name, lambda buildkit=buildkit: theirs(buildkit))  # type: ignore[misc]
                for name, buildkit in builders.items()
            ),
            Contestant("kaos_hub, SDK", lambda: deployed(us.deploy)),
            Contestant("kaos_hub, command line", lambda: deployed(us.deploy_by_command)),
        ]
    finally:
        remove_images(repository)


def docker_build(bundle: Path, tag: str, buildkit: str) -> None:
    """What people type, with the context that kaos_hub uses too."""
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", tag, "--file", bundle / "Dockerfile",
         bundle / "model"],
        env=os.environ | {"DOCKER_BUILDKIT": buildkit},
        check=True,
        capture_output=True,
    )  # fmt: skip


def make_bundle(path: Path, code_files: int, data_mb: int) -> None:
    """A source bundle.

    Args:
        path: the folder to make.
        code_files: files of code, 8 kB each.
        data_mb: megabytes of data beside the code, in files of at most 50.
    """
    model = path / "model"
    (model / "data").mkdir(parents=True)
    (path / "Dockerfile").write_text(_DOCKERFILE)
    # Nobody has built exactly this before.
    (model / "requirements.txt").write_text(f"# {secrets.token_hex(8)}\n")
    for number in range(code_files):
        (model / f"part{number}.py").write_text(f"x = {number}\n" * (8000 // len(f"x = {number}")))
    for number in range(0, data_mb, 50):
        (model / "data" / f"{number}.bin").write_bytes(os.urandom(min(50, data_mb) * 1_000_000))


def change_code(bundle: Path) -> None:
    """Change one line of code, to what it never was."""
    (bundle / "model" / "part0.py").write_text(f"x = {secrets.token_hex(8)!r}\n")


def _docker_versions() -> dict[str, str]:
    said = json.loads(output("docker", "version", "--format", "{{json .}}"))
    return {
        "Docker Engine": said["Server"]["Version"],
        "docker CLI": said["Client"]["Version"],
        "buildx": output("docker", "buildx", "version") or "not there",
    }


# --- data ---


def _resubmits(us: Ours, directory: Path, sizes: Sizes, rounds: int) -> Comparison:
    folder, copy = directory / "data", directory / "copy"
    make_data(folder, sizes)

    def rsync() -> None:
        command = ["rsync", "-a", "--stats", f"{folder}/", f"{copy}/"]
        subprocess.run(command, check=True, capture_output=True)

    def process() -> None:
        command = [sys.executable, "-c", _SUBMIT, us.hub.url, us.token, str(folder)]
        subprocess.run(command, check=True)

    def submit() -> None:
        us.client.bundles.submit(folder, "data")

    # Whatever is measured, even the first turn, has nothing to send.
    rsync()
    submit()
    todo = {
        "rsync -a --stats": rsync,
        "kaos_hub, SDK": submit,
        "kaos_hub, SDK in a new process": process,
    }
    series = alternate(
        [Contestant(name, lambda do=do: seconds(do)) for name, do in todo.items()],  # type: ignore[misc]
        rounds,
        "resubmit",
    )
    files = sizes.folders * sizes.files_per_folder
    return Comparison(f"resubmit of {files:,} unchanged files of 4 kB", series)


def make_data(path: Path, sizes: Sizes) -> None:
    """Folders of files, 4 kB each, no two alike."""
    for folder in range(sizes.folders):
        (path / f"{folder:03}").mkdir(parents=True)
        for file in range(sizes.files_per_folder):
            line = f"{folder},{file},0.125\n"
            (path / f"{folder:03}" / f"{file:03}.csv").write_text(line * (4000 // len(line)))


if __name__ == "__main__":
    main()
