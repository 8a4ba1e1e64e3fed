"""The default kernel outside of any container: its Python, what that is lent, where pip goes."""

import ast
import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from kaos_hub.util import variables
from kaos_hub.workload.notebook import kernels, launch, packages

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
LAUNCHER = Path(launch.__file__)


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    directory = tmp_path / "sets"
    (directory / f"cp{MINOR.replace('.', '')}").mkdir(parents=True)
    return directory


def program(path: Path, text: str = "exit 1") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def environ(sets: Path, *path: Path) -> dict[str, str]:
    return {"PATH": ":".join(map(str, path)) or "/nowhere", "KAOS_KERNELS": str(sets)}


def run(python: Path | str, code: str, **more: str) -> str:
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, env=os.environ | more, check=True
    )
    return done.stdout.strip()


class TestChoice:
    def test_the_first_python_that_a_set_fits(self, sets: Path, tmp_path: Path) -> None:
        old, new = tmp_path / "old", tmp_path / "new"
        program(old / "python2.7")
        (old / "python").symlink_to("python2.7")
        (new / f"python{MINOR}").parent.mkdir()
        (new / f"python{MINOR}").symlink_to(sys.executable)
        (new / "python3").symlink_to(f"python{MINOR}")
        choice = kernels.choose(environ(sets, old, new))
        assert choice.python == str(new / "python3")
        assert choice.title == "Python 3 (this image)"

    def test_one_that_no_set_fits_is_named(self, sets: Path, tmp_path: Path) -> None:
        program(tmp_path / "bin" / "python3.7")
        (tmp_path / "bin" / "python3").symlink_to("python3.7")
        choice = kernels.choose(environ(sets, tmp_path / "bin"))
        assert choice.python is None
        assert "Python 3.7 of this image is not supported" in choice.title

    def test_none(self, sets: Path) -> None:
        assert kernels.choose(environ(sets)).reason == "this image has no Python"

    def test_a_broken_one(self, sets: Path, tmp_path: Path) -> None:
        program(tmp_path / "bin" / "python")
        choice = kernels.choose(environ(sets, tmp_path / "bin"))
        assert choice.python is None
        assert "no CPython that works" in choice.reason

    def test_one_whose_name_does_not_tell_its_version(self, sets: Path, tmp_path: Path) -> None:
        wrapper = program(tmp_path / "bin" / "python", f'exec {sys.executable} "$@"')
        assert kernels.choose(environ(sets, tmp_path / "bin")).python == str(wrapper)

    def test_what_the_user_installed_is_not_the_image(self, sets: Path, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "python").symlink_to(sys.executable)
        mine = environ(sets, tmp_path / "bin") | {"KAOS_PACKAGES": str(tmp_path)}
        assert kernels.choose(mine).python is None
        del mine["KAOS_PACKAGES"]
        assert kernels.choose(mine).python == str(tmp_path / "bin" / "python")


def test_kernelspec(tmp_path: Path) -> None:
    target = kernels.write_kernelspec(tmp_path, Path("/env/bin/python"), LAUNCHER, tmp_path / "k")
    assert target == tmp_path / "kernels" / "python3"
    spec = json.loads((target / "kernel.json").read_text())
    assert spec["argv"] == ["/env/bin/python", str(LAUNCHER), "-f", "{connection_file}"]
    assert spec["env"] == {"KAOS_KERNELS": str(tmp_path / "k"), "KAOS_PYTHON": "/env/bin/python"}


class TestLauncher:
    def test_it_is_for_python_3_8(self) -> None:
        ast.parse(LAUNCHER.read_text(), feature_version=(3, 8))

    @pytest.mark.parametrize(
        ("have", "operator", "wanted", "met"),
        [
            ("5.0.5", ">=", "5.4", False),
            ("5.4.0", ">=", "5.4", True),
            ("10.1", ">", "9", True),
            ("6.0", "!=", "6", False),
            ("7.0.0", "<", "7", False),
            ("2.0rc1", ">=", "1.9.9", True),
            ("not a version", ">=", "1", False),
            ("1.2", "===", "whatever", True),
        ],
    )
    def test_fits(self, have: str, operator: str, wanted: str, met: bool) -> None:
        assert launch.fits(have, operator, wanted) is met

    def test_too_old_a_package_is_replaced_in_this_process_only(self, tmp_path: Path) -> None:
        (tmp_path / "pluggy.py").write_text("where = 'the set'")
        (tmp_path / "click.py").write_text("where = 'the set'")
        manifest = {
            "kernel": {
                "pluggy": {"version": "999", "modules": ["pluggy"], "needs": [[">=", "999"]]},
                "click": {"version": "1", "modules": ["click"], "needs": [[">=", "1"]]},
            },
            "sdk": {},
        }
        code = f"""
from kaos_hub.workload.notebook import launch
launch.installed = lambda name, real=launch.installed: name != "ipykernel" and real(name) or None
import sys
sys.modules.pop("click", None)
launch.lend({str(tmp_path)!r})
import pluggy, click, os
print(getattr(pluggy, "where", "mine"), "/", getattr(click, "where", "mine"), "/",
      os.environ["KAOS_KERNEL_REPLACED"])
"""
        (tmp_path / "kaos-manifest.json").write_text(json.dumps(manifest))
        said = run(sys.executable, code)
        assert said.startswith("the set / mine / pluggy 999 instead of ")

    def test_whoever_brings_a_kernel_keeps_everything(self, tmp_path: Path) -> None:
        manifest = {"kernel": {"pluggy": {"version": "999", "modules": [], "needs": [[">", "99"]]}}}
        (tmp_path / "kaos-manifest.json").write_text(json.dumps(manifest))
        code = f"""
from kaos_hub.workload.notebook import launch
launch.lend({str(tmp_path)!r})
import os, sys
print("KAOS_KERNEL_REPLACED" in os.environ, sys.path[-1])
"""
        assert run(sys.executable, code) == f"False {tmp_path}"

    def test_a_set_without_a_manifest_is_just_appended(self, tmp_path: Path) -> None:
        code = f"""
from kaos_hub.workload.notebook import launch
launch.lend({str(tmp_path)!r})
import sys
print(sys.path[-1])
"""
        assert run(sys.executable, code) == str(tmp_path)

    def test_installed_packages_come_before_those_of_the_image(self, tmp_path: Path) -> None:
        code = f"""
from kaos_hub.workload.notebook import launch
launch.add_packages({str(tmp_path)!r})
import site, sys
own = {str(tmp_path)!r} + "/lib/python{MINOR}/site-packages"
open(own + "/click.py", "w").write("where = 'here'")
import click
print(click.where, sys.path.index(own) < sys.path.index(site.getsitepackages()[0]))
"""
        assert run(sys.executable, code) == "here True"


def wheel(directory: Path, version: str) -> Path:
    """A package `greeting` without any needs."""
    path = directory / f"greeting-{version}-py3-none-any.whl"
    info = f"greeting-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("greeting.py", f"version = {version!r}\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: greeting\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


class TestPackages:
    def test_without_a_directory_pip_is_left_alone(self) -> None:
        assert packages.environment(None, sys.executable, {}) == {}

    def test_an_ordinary_python_has_user_packages(self, tmp_path: Path) -> None:
        program(tmp_path / "bin" / "python3.11")
        found = packages.environment(
            "/home/kaos/.kaos/packages/k", tmp_path / "bin" / "python3.11", {"PATH": "/bin"}
        )
        assert found["PYTHONUSERBASE"] == "/home/kaos/.kaos/packages/k"
        assert found["PATH"] == "/bin:/home/kaos/.kaos/packages/k/bin"
        assert found["XDG_CONFIG_DIRS"] == f"{packages.PIP_SETTINGS}:/etc/xdg"
        assert "PIP_PYTHON" not in found
        assert packages.environment(found["KAOS_PACKAGES"], tmp_path / "x", found) == found

    def test_a_virtual_environment_is_added_to_not_changed(self, tmp_path: Path) -> None:
        below = tmp_path / "below"
        venv.create(below, with_pip=False)
        python = below / "bin" / "python"
        directory = tmp_path / "home" / "packages"
        found = packages.environment(directory, python, {"PATH": "/usr/bin:/bin"})
        assert packages.environment(directory, python, os.environ | found)["PYTHONPATH"] == str(
            directory / "lib" / f"python{MINOR}" / "site-packages"
        )

        def pip(*arguments: str) -> str:
            # a pip from elsewhere: the variables alone decide where it works
            command = [sys.executable, "-m", "pip", *arguments]
            done = subprocess.run(
                command, env=os.environ | found, capture_output=True, text=True, check=True
            )
            return done.stdout

        use = "import greeting; print(greeting.version, greeting.__file__)"
        for version in ("1.0", "2.0"):
            pip("install", "--no-index", str(wheel(tmp_path, version)))
            assert run(python, use, **found).startswith(f"{version} {directory}")
        assert pip("freeze", "--exclude", "pip").split()[0].startswith("greeting")
        assert not list((below / "lib").rglob("greeting*"))
        pip("uninstall", "--yes", "greeting")
        assert not list(directory.rglob("greeting*"))

    def test_a_home_that_cannot_be_written_leaves_pip_alone(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        venv.create(tmp_path / "below", with_pip=False)
        (tmp_path / "file").touch()
        python = tmp_path / "below" / "bin" / "python"
        assert packages.environment(tmp_path / "file" / "x", python, {}) == {}
        assert "pip cannot install into" in capsys.readouterr().err


class TestVariables:
    def test_aside_and_back(self) -> None:
        before = {"LD_LIBRARY_PATH": "/own", "PYTHONPATH": "/mine", "HOME": "/home/kaos"}
        changed = dict(before)
        variables.put_aside(changed)
        assert "LD_LIBRARY_PATH" not in changed
        assert variables.users(changed) == before

    def test_shell(self, tmp_path: Path) -> None:
        program(tmp_path / "sh")
        assert variables.shell({"PATH": str(tmp_path)}) == [str(tmp_path / "sh")]
        program(tmp_path / "zsh")
        chosen = {"PATH": str(tmp_path), "SHELL": str(tmp_path / "zsh")}
        assert variables.shell(chosen) == [str(tmp_path / "zsh")]
        assert variables.shell({"PATH": str(tmp_path), "SHELL": "/usr/sbin/nologin"}) == [
            str(tmp_path / "sh")
        ]
        assert variables.shell({"PATH": str(tmp_path), "SHELL": "/no/such"}) == [
            str(tmp_path / "sh")
        ]
