"""Dockerfiles as the Engine's own builders read them: what they accept, and what they build on."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaos_hub.formats.dockerfile import final_base, refusals
from kaos_hub.service.builds.analysis import analyse
from tests.dockerfiles import BASES, DOCKERFILES, PLATFORM

pytestmark = pytest.mark.docker

BUILDKIT, CLASSIC = "1", "0"


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A build context; the bases are there while it is."""
    asked = subprocess.run(["docker", "buildx", "version"], capture_output=True)
    if asked.returncode:
        pytest.skip("needs a Docker Engine and buildx")
    directory = tmp_path_factory.mktemp("context")
    make_bases(directory)
    yield directory
    subprocess.run(["docker", "image", "rm", "--force", *BASES], capture_output=True)


def make_bases(context: Path) -> None:
    (context / "file").write_text("x")
    for name in BASES:
        text = f"FROM scratch\nCOPY file /base\nLABEL kd={name}\n"
        assert build(context, text, BUILDKIT, name) == name


def build(context: Path, text: str, builder: str, name: str = "") -> str | None:
    """What a builder makes of it: the base of its image, "" for none; None if it refuses."""
    made = name or f"kd-made-{os.urandom(4).hex()}"
    file = context / f"Dockerfile-{made.replace(':', '-')}"
    file.write_bytes(text.encode())
    done = subprocess.run(
        ["docker", "build", "--quiet", "--tag", made, "--file", file, context],
        env={**os.environ, "DOCKER_BUILDKIT": builder},
        capture_output=True,
    )
    file.unlink()
    if done.returncode:
        print(done.stderr.decode())
        return None
    form = '{{index .Config.Labels "kd"}}'
    asked = ["docker", "image", "inspect", "--format", form, made]
    label = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    if not name:
        subprocess.run(["docker", "image", "rm", made], capture_output=True)
    return "" if label == "<no value>" else label


def ours(text: str, builder: str) -> str | None:
    """What we make of it."""
    classic = builder == CLASSIC
    if refusals(text, classic, PLATFORM):
        return None
    plan = analyse(text, {}, platform=PLATFORM, classic=classic)
    if set(plan.bases) - set(BASES):
        return None  # there is no such image
    return final_base(text, PLATFORM, classic)


@pytest.mark.parametrize("builder", [BUILDKIT, CLASSIC], ids=["buildkit", "classic"])
@pytest.mark.parametrize("text", DOCKERFILES)
def test_it_is_read_as_the_builder_reads_it(context: Path, text: str, builder: str) -> None:
    assert ours(text, builder) == build(context, text, builder)


@pytest.mark.parametrize("builder", [BUILDKIT, CLASSIC], ids=["buildkit", "classic"])
def test_arguments_and_no_stage_are_refused_before_any_builder(builder: str) -> None:
    """BuildKit 0.13 (Docker 26) ends with the whole Engine over this, so it is not compared."""
    assert ours("ARG A=b", builder) is None
