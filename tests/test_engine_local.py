"""The local engine: which Python, whose settings, and environments that are whole or not there."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kaos_hub.engines.base import Build, JobSpec, Phase
from kaos_hub.engines.local import build as local_build, interpreters, kernel_set
from kaos_hub.engines.local.engine import LocalEngine
from kaos_hub.engines.local.interpreters import Interpreter
from kaos_hub.engines.local.pip_settings import no_index, uv_environment
from kaos_hub.errors import InvalidRequest
from kaos_hub.workload.notebook import launch
from tests.bundled import laid


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("python:3.13-slim", "3.13"),
        ("python:3.13.1", "3.13.1"),
        ("docker.io/library/python:3", "3"),
        ("registry:5000/python:3.12@sha256:0", "3.12"),
        ("jupyter/minimal-notebook:python-3.11", "3.11"),
        ("python", None),
        ("python:latest", None),
        ("registry:5000/python", None),
        ("debian:12", None),
        ("scratch", None),
        ("", None),
    ],
)
def test_the_version_an_image_names(image: str, version: str | None) -> None:
    assert interpreters.asked(image) == version


def test_our_own_python_where_it_fits() -> None:
    own = interpreters.own()
    assert interpreters.find(f"python:{own.minor}-slim") == own
    assert interpreters.find("debian:trixie") == own


def test_another_python_is_said() -> None:
    found = interpreters.find("python:3.4-slim")
    assert found == interpreters.own()
    assert "3.4 is not on this machine" in interpreters.note("python:3.4-slim", found)


@pytest.mark.parametrize("place", ["pyenv/versions/3.99.1", "home/miniconda3/envs/mine"])
def test_pythons_that_are_not_on_the_path_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """As those of pyenv, whose shims answer only for the version that was chosen."""
    python = tmp_path / place / "bin/python3.99"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 3.99.1 cpython\n")
    python.chmod(0o755)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = interpreters.find("python:3.99-slim")
    assert (found.path, found.version) == (str(python), "3.99.1")
    assert interpreters.mismatch("python:3.99-slim", found.version) == ""


async def test_a_python_that_stands_in_is_said_before_anything_is_built(tmp_path: Path) -> None:
    engine = LocalEngine(data_dir=str(tmp_path))
    resolved = await engine.resolve("python:3.4-slim")
    told = engine.substitution("python:3.4-slim", resolved)
    assert "Python 3.4 is not on this machine" in told
    assert engine.substitution("debian:12", resolved) == ""
    await engine.close()


async def test_resolve_names_the_interpreter(tmp_path: Path) -> None:
    engine = LocalEngine(data_dir=str(tmp_path))
    version = ".".join(map(str, sys.version_info[:3]))
    assert await engine.resolve("debian:12") == f"python-{version}-cpython"
    await engine.close()


def test_settings_of_pip_reach_uv(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://one/simple\nextra-index-url =\n  https://two\n  https://three\n"
        "cert = /etc/ca.pem\ntimeout = 60\n[install]\nfind-links = /wheels /more\nno-index = yes\n"
    )
    environ = {"PIP_CONFIG_FILE": str(config), "HOME": str(tmp_path)}
    told = uv_environment(environ)
    assert told["UV_DEFAULT_INDEX"] == "https://one/simple"
    assert told["UV_INDEX"] == "https://two https://three"
    assert told["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert told["UV_FIND_LINKS"] == "/wheels,/more"
    assert told["SSL_CERT_FILE"] == "/etc/ca.pem"
    assert told["UV_HTTP_TIMEOUT"] == "60"
    assert no_index(environ)


def test_variables_win_over_files_and_uv_over_pip(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = https://file\ncert = /file.pem\n")
    environ = {
        "PIP_CONFIG_FILE": str(config),
        "HOME": str(tmp_path),
        "PIP_INDEX_URL": "https://variable",
        "SSL_CERT_FILE": "/mine.pem",
    }
    told = uv_environment(environ)
    assert told["UV_DEFAULT_INDEX"] == "https://variable"
    assert told["SSL_CERT_FILE"] == "/mine.pem"


def test_a_damaged_pip_conf_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("index-url = before any section\n")
    made = uv_environment({"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "HOME": str(tmp_path)})
    assert "UV_DEFAULT_INDEX" not in made
    assert "UV_INDEX_URL" not in made


def test_what_a_dockerfile_says_that_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(
        "# a comment\nFROM python:3.13 AS base\nRUN apt-get update \\\n  && true\n"
        "FROM base\nENV A=1\nEXPOSE 80\nUSER ada\n"
    )
    assert local_build.read_dockerfile(path) == ("python:3.13", [3, 6, 8])


def test_an_argument_names_the_base(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text("ARG VERSION=3.12\nFROM python:${VERSION}\n")
    assert local_build.read_dockerfile(path)[0] == "python:3.12"


def test_jobs_see_no_secrets_of_the_service(tmp_path: Path) -> None:
    engine = LocalEngine(data_dir=str(tmp_path))
    given = {"PATH": "/bin", "PIP_INDEX_URL": "x", "https_proxy": "y", "LC_ALL": "C"}
    secret = {"JUPYTERHUB_API_TOKEN": "s", "CONFIGPROXY_AUTH_TOKEN": "s", "AWS_SECRET": "s"}
    assert engine._environment(given | secret) == given


async def test_a_key_is_no_path(tmp_path: Path) -> None:
    engine = LocalEngine(data_dir=str(tmp_path))
    with pytest.raises(InvalidRequest):
        await engine.submit(JobSpec("kaos-build-1", "user:ada", Build("", "../x", "t")))
    await engine.close()


def make_distribution(directory: Path, name: str, version: str, *needs: str) -> None:
    info = directory / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (directory / f"{name}.py").touch()
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "RECORD").write_text(f"{name}.py,,\n{info.name}/METADATA,,\n")


def test_a_kernel_set_knows_what_its_packages_need(tmp_path: Path) -> None:
    make_distribution(tmp_path, "ipykernel", "7.0", "traitlets>=5.4", 'old; python_version < "3.9"')
    make_distribution(tmp_path, "traitlets", "5.9")
    make_distribution(tmp_path, "pydantic", "2.12", "traitlets!=5.8")
    python = Interpreter("/usr/bin/python3.12", "3.12.1", "cpython")
    found = kernel_set.describe(tmp_path, python, ["pydantic>=2.10"])
    assert found["kernel"] == {
        "ipykernel": {"version": "7.0", "modules": ["ipykernel"], "needs": []},
        "traitlets": {"version": "5.9", "modules": ["traitlets"], "needs": [(">=", "5.4")]},
    }
    assert found["sdk"]["pydantic"]["needs"] == [(">=", "2.10")]
    assert found["sdk"]["traitlets"]["needs"] == [("!=", "5.8")]


def test_a_kernel_set_is_made_once_and_again_for_another_release(tmp_path: Path) -> None:
    python = Interpreter("/usr/bin/python3.8", "3.8.1", "cpython")
    made = []

    def install(directory: Path, wanted: list[str]) -> None:
        made.append(wanted)
        directory.mkdir()
        make_distribution(directory, "ipykernel", "6.0")

    for _ in range(2):
        assert kernel_set.ensure(tmp_path, python, install) == tmp_path / "cp38"
    assert made == [["ipykernel"]], "Python 3.8 is too old for the SDK"
    manifest = tmp_path / "cp38" / "kaos-manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"stamp": "older"}))
    kernel_set.ensure(tmp_path, python, install)
    assert len(made) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [".cp38.lock", "cp38"]


def test_the_launcher_of_kernels_lies_beside_them_and_keeps_pace(tmp_path: Path) -> None:
    """A notebook that runs finds it after an upgrade, whatever the package looks like then."""
    kept = tmp_path / "kernels" / "launch.py"
    kernel_set.keep_launcher(tmp_path / "kernels")
    assert kept.read_bytes() == Path(launch.__file__).read_bytes()
    before = kept.stat().st_ino
    kernel_set.keep_launcher(tmp_path / "kernels")
    assert kept.stat().st_ino == before, "nothing to do"
    kept.write_text("# of another release\n")
    kernel_set.keep_launcher(tmp_path / "kernels")
    assert kept.read_bytes() == Path(launch.__file__).read_bytes()
    assert [p.name for p in kept.parent.iterdir()] == ["launch.py"]


async def test_an_environment_from_start_to_kernel(tmp_path: Path) -> None:
    """Built from a half-built one; it imports what a notebook installs later; a kernel starts."""
    source = tmp_path / "source"
    (source / "model").mkdir(parents=True)
    (source / "Dockerfile").write_text("FROM python:3.4\nRUN pip install -r requirements.txt\n")
    (source / "model" / "requirements.txt").write_text("humanize\n")
    half = tmp_path / "data" / "environments" / "key" / "bin"
    half.mkdir(parents=True)
    (half / "python").symlink_to("/nowhere")
    engine = LocalEngine(data_dir=str(tmp_path / "data"))
    assert not await engine.has({"python": str(half / "python")})
    await engine.submit(
        JobSpec("kaos-build-1", "user:ada", Build(laid(tmp_path / "data", source), "key", "tag"))
    )
    log = b"".join([piece async for piece in engine.logs("kaos-build-1")]).decode()
    seen = await engine.observe("kaos-build-1")
    assert seen.phase is Phase.SUCCEEDED, log
    assert "Dockerfile: not run by the local engine: line 2." in log
    assert "3.4 is not on this machine" in log
    assert "Step 4/4" in log
    python = seen.result["python"]
    assert await asyncio.to_thread(installs_beside, python, tmp_path / "packages")
    kernels = tmp_path / "data" / "kernels" / interpreters.own().tag
    assert await asyncio.to_thread(starts_kernel, python, kernels)
    assert not os.access(python, os.W_OK) or os.geteuid() == 0
    await engine.close()


async def test_packages_in_the_bundle_are_built_outside_of_it(tmp_path: Path) -> None:
    """Who builds one writes into its folder; a laid out bundle is shared and must stay as it is."""
    model = tmp_path / "source" / "model"
    for name in ("own", "edited"):
        (model / name / name).mkdir(parents=True)
        (model / name / name / "__init__.py").touch()
        (model / name / "setup.py").write_text(
            f"from setuptools import setup\n\nsetup(name='{name}', packages=['{name}'])\n"
        )
    (model / "requirements.txt").write_text("./own\n-e ./edited\n")
    before = sorted(model.rglob("*"))
    for path in (model, *before):
        path.chmod(0o555 if path.is_dir() else 0o444)
    engine = LocalEngine(data_dir=str(tmp_path / "data"))
    build = Build(laid(tmp_path / "data", tmp_path / "source"), "key", "tag")
    await engine.submit(JobSpec("kaos-build-2", "user:ada", build))
    log = b"".join([piece async for piece in engine.logs("kaos-build-2")]).decode()
    seen = await engine.observe("kaos-build-2")
    assert seen.phase is Phase.SUCCEEDED, log
    assert sorted(model.rglob("*")) == before
    ask = [seen.result["python"], "-c", "import own, edited"]
    await asyncio.to_thread(subprocess.run, ask, check=True)
    await engine.close()
    for path in (model, *before):
        path.chmod(0o755)


def installs_beside(python: str, packages: Path) -> bool:
    minor = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    site = packages / "lib" / minor / "site-packages"
    site.mkdir(parents=True)
    (site / "humanize.py").write_text("mine = True\n")
    ask = [python, "-c", "import humanize; print(getattr(humanize, 'mine', False))"]
    plain = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
    env = {"KAOS_PACKAGES": str(packages)}
    added = subprocess.run(ask, env=env, capture_output=True, text=True, check=True).stdout
    return (plain, added) == ("False\n", "True\n")


def starts_kernel(python: str, kernels: Path) -> bool:
    script = (
        f"import sys; sys.path.append({str(kernels)!r});"
        " import ipykernel, humanize, kaos_hub.schemas; print(humanize.__file__)"
    )
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    return "environments" in done.stdout
