"""Build an environment without containers: run as ``python -m`` under a supervisor.

Makes a virtual environment with what ``requirements.txt`` asks for. It lies where it will be used,
since virtual environments hold their own path; ``kaos.json`` in it, written last, says it is whole.
"""

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import uv

from kaos_hub.engines.local import interpreters, kernel_set, pip_settings
from kaos_hub.engines.local.interpreters import Interpreter
from kaos_hub.errors import Unsupported
from kaos_hub.formats.dockerfile import final_base, instructions

MARK = "kaos.json"
_PINNED = re.compile(r"[A-Za-z0-9._-]+==[^\s;@]+")
_PROJECT = ("pyproject.toml", "setup.py")
_NOT_RUN = ("RUN", "COPY", "ADD", "ENV", "USER", "SHELL", "WORKDIR")
_PACKAGES = '''\
"""Lets a notebook's own `pip install` (into KAOS_PACKAGES) be seen, before what lies here."""

import os
import site
import sys

root = os.environ.get("KAOS_PACKAGES")
if root:
    here = os.path.dirname(os.path.abspath(__file__))
    added = os.path.join(root, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")
    if added not in sys.path and os.path.isdir(added):
        before = list(sys.path)
        site.addsitedir(added)
        new = [p for p in sys.path if p not in before]
        place = before.index(here) if here in before else len(before)
        sys.path[:] = before[:place] + new + before[place:]
'''


class BuildError(Exception):
    """The build ends here; the text is for the user."""


class EnvironmentBuilder:
    """One build, from nothing to an environment that is whole."""

    def __init__(
        self, source: Path, context: str, target: Path, kernels: Path, packages: Sequence[str] = ()
    ) -> None:
        self._source = source
        self._context = context
        self._target = target
        self._kernels = kernels
        # What lies in a folder or repository has no version to ask for; the source names it.
        self._wanted = [each for each in packages if _PINNED.fullmatch(each)]
        self._environ = pip_settings.uv_environment(os.environ) | {
            "UV_LINK_MODE": "copy",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
        }

    def run(self) -> dict[str, Any]:
        """Build, unless it is there already; what the environment is.

        Raises:
            BuildError: it cannot be built; the log says why.
        """
        with self._alone():
            known = self._known()
            if known:
                print("This environment is there already.")
                return known
            self._clear()
            try:
                return self._build()
            finally:
                if not self._known():
                    self._clear()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Others who build the same wait, and then find it."""
        self._target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._target.with_name(f".{self._target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _known(self) -> dict[str, Any] | None:
        try:
            known: dict[str, Any] = json.loads((self._target / MARK).read_bytes())
        except FileNotFoundError:
            return None
        # one that was moved here with its data directory still points to where it was made
        here = Path(known["python"]).is_relative_to(self._target)
        return known if here else None

    def _clear(self) -> None:
        for directory, _, _ in os.walk(self._target):
            Path(directory).chmod(0o700)
        shutil.rmtree(self._target, ignore_errors=True)

    def _build(self) -> dict[str, Any]:
        interpreter = self._choose()
        python = self._target / "bin" / "python"
        print("Step 2/4 : virtual environment", flush=True)
        self._uv("venv", "--seed", "--python", interpreter.path, "--no-project", str(self._target))
        self._install_requirements(python)
        print("Step 4/4 : kernel packages", flush=True)
        kernel_set.ensure(self._kernels, interpreter, self._into(interpreter))
        self._add_packages_path(interpreter)
        _protect(self._target)
        result = {
            "python": str(python), "version": interpreter.version,
            "packages": self._installed(python),
        }  # fmt: skip
        draft = self._target / f".{MARK}"
        draft.write_text(json.dumps(result))
        draft.replace(self._target / MARK)
        return result

    def _choose(self) -> Interpreter:
        dockerfile = self._source / "Dockerfile"
        image, not_run = read_dockerfile(dockerfile) if dockerfile.exists() else ("", [])
        interpreter = interpreters.find(image)
        print("Step 1/4 : Python", flush=True)
        print(interpreters.note(image, interpreter))
        if not_run:
            lines = ", ".join(map(str, not_run))
            print(
                f"Dockerfile: not run by the local engine: line{'s' * (len(not_run) > 1)} {lines}."
                " Only requirements.txt is installed; the docker engine runs it all.",
                flush=True,
            )
        return interpreter

    def _install_requirements(self, python: Path) -> None:
        context = self._source / self._context
        shown = (Path(self._context) / "requirements.txt").as_posix()
        print(f"Step 3/4 : {shown}", flush=True)
        if not (context / "requirements.txt").is_file():
            print("There is none: nothing to install.", flush=True)
            return
        if any(found for name in _PROJECT for found in context.rglob(name)):
            context = self._writable_source() / self._context
        # From where pip would run in a Dockerfile, for paths in the file.
        install = ("pip", "install", "--python", str(python), "--compile-bytecode")
        asked = ("--requirement", "requirements.txt")
        if not self._wanted:
            self._uv(*install, *asked, cwd=context)
            return
        print(f"With the {len(self._wanted)} versions that were installed before.", flush=True)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as lock:
            lock.write("\n".join(self._wanted))
            lock.flush()
            self._uv(*install, *asked, "--constraint", lock.name, cwd=context)
            # Also what nothing asks for: pip itself, and what another index had beside it.
            self._uv(*install, "--no-deps", "--requirement", lock.name)

    def _installed(self, python: Path) -> list[str]:
        """All that is installed, as ``name==version`` or as where it comes from."""
        command = [uv.find_uv_bin(), "pip", "freeze", "--python", str(python)]
        done = subprocess.run(
            command, env=self._environ, capture_output=True, text=True, check=False
        )
        return sorted(done.stdout.splitlines())

    def _writable_source(self) -> Path:
        """A copy of the bundle: who builds a package writes into its folder, and ours is shared.

        It stays with the environment, for what was installed as editable.
        """
        copy = self._target / "source"
        shutil.copytree(self._source, copy, symlinks=True)
        for directory, _, files in os.walk(copy):
            for path in (Path(directory), *(Path(directory, name) for name in files)):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | 0o200)
        return copy

    def _into(self, interpreter: Interpreter) -> Callable[[Path, list[str]], None]:
        def install(directory: Path, wanted: list[str]) -> None:
            self._uv("pip", "install", "--quiet", "--compile-bytecode",
                     "--python", interpreter.path, "--target", str(directory), *wanted)  # fmt: skip

        return install

    def _uv(self, *arguments: str, cwd: Path | None = None) -> None:
        command = [uv.find_uv_bin(), *arguments]
        if arguments[0] == "pip" and pip_settings.no_index(os.environ):
            command.append("--no-index")
        done = subprocess.run(command, env=self._environ, cwd=cwd, check=False)
        if done.returncode:
            raise BuildError(
                f"uv {' '.join(arguments[:2])} failed with exit code {done.returncode}"
            )

    def _add_packages_path(self, interpreter: Interpreter) -> None:
        site = self._target / "lib" / f"python{interpreter.minor}" / "site-packages"
        (site / "_kaos_packages.py").write_text(_PACKAGES)
        (site / "_kaos_packages.pth").write_text("import _kaos_packages\n")


def _protect(environment: Path) -> None:
    """Make the environment's folders read-only, so that nothing is added to them by accident.

    What a notebook installs goes elsewhere.
    """
    for directory, _, _ in os.walk(environment):
        if Path(directory) != environment:
            Path(directory).chmod(0o555)


def read_dockerfile(path: Path) -> tuple[str, list[int]]:
    """The image that the last stage begins from, and the lines that we do not run."""
    text = path.read_text("utf-8", "replace")
    try:
        image = final_base(text)
    except Unsupported:
        image = ""
    return image, [i.line for i in instructions(text) if i.word in _NOT_RUN]


def _stop(*_: object) -> NoReturn:
    # As an exception, so that what is half built is cleared away.
    sys.exit(1)


def main() -> int:
    """Build as the arguments say, and leave the result where the supervisor looks for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--context", required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--kernels", type=Path, required=True)
    parser.add_argument("--packages", nargs="*", default=[])
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    try:
        result = EnvironmentBuilder(
            given.source, given.context, given.target, given.kernels, given.packages
        ).run()
    except BuildError as e:
        print(e, flush=True)
        return 1
    except OSError as e:
        print(f"The environment cannot be written: {e}", flush=True)
        return 1
    Path(os.environ["KAOS_RESULT"]).write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
