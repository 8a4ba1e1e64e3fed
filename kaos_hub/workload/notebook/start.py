"""The process of a notebook: prepare the home, then be its Jupyter server.

``python -m kaos_hub.workload.notebook.start``, on the local engine with the environment of kaos_hub
itself, in a container with the runtime's (there ``python -I``). Everything it needs is in the
environment:

``KAOS_HOME``           the notebook's home; Jupyter shows this directory
``KAOS_SOURCE``         the bundle's tree, read-only; ``<home>/work`` becomes a working copy of it
``KAOS_SOURCE_DIGEST``  its digest; a working copy that follows it already is not even looked at
``KAOS_PYTHON``         local engine: the Python of the kernel; ``KAOS_KERNELS`` what that lacks
``KAOS_PACKAGES``       where the user's own ``pip install`` goes
``KAOS_MOUNT_<n>``      where something is mounted; ``KAOS_MOUNT_<n>_NAME`` is what it is called
``KAOS_PARAMS_TEXT``    parameters of the run that it is on; ``KAOS_PARAMS`` names the file they get
``KAOS_GIT``            repository to clone into ``<home>/work``, and within which bounds; JSON
``KAOS_TLS``            certificate of the notebook, where the parts of the hub speak TLS
``KAOS_HOOK_TIMEOUT``   seconds that ``startup-hook.sh`` may take, 600 if not set

Nothing here keeps a notebook from starting: what goes wrong is told in the notebook's log.
"""

import os
import re
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from kaos_hub.transport.certified import await_certificates
from kaos_hub.util import unused, variables
from kaos_hub.workload.git import cloning
from kaos_hub.workload.notebook import kernels, packages
from kaos_hub.workload.notebook.hook import Hook
from kaos_hub.workload.notebook.working_copy import follow

EXTENSION = "kaos_hub.workload.notebook.extension"
_PATIENCE = 10.0
"""Seconds for which the server waits for a clone, and for the hook; they go on beside it."""


def main() -> None:
    """Prepare and serve; ends with the server."""
    refuse_musl()
    await_certificates()
    home = Path(os.environ.get("KAOS_HOME") or Path.home())
    seed(home, os.environ.get("KAOS_SOURCE"), os.environ.get("KAOS_SOURCE_DIGEST"))
    lay_params(home, os.environ.pop("KAOS_PARAMS_TEXT", None))
    lay_links(home, os.environ)
    if os.environ.get("KAOS_PYTHON"):
        lend_kernel(home)
    repository = os.environ.pop("KAOS_GIT", None)
    clone = cloning.at_start(home, repository)
    if clone is None or clone.wait(_PATIENCE):
        run_hook(home / "work")
    else:
        say("still cloning; the notebook starts meanwhile")
        hook_after(clone, home / "work", variables.users(os.environ))
    serve(home, at_work=bool(repository or os.environ.get("KAOS_SOURCE")))


def refuse_musl() -> None:
    """End at once in an image on musl: it can be no notebook's, and was not inspected before."""
    if os.environ.get("KAOS_IMAGE") and kernels.is_musl():
        say(
            "this image is built on musl (Alpine), where notebooks cannot run. Choose one with"
            " glibc, e.g. python:3.13-slim or debian:trixie-slim."
        )
        sys.exit(1)


def say(text: str) -> None:
    """Tell the notebook's log."""
    print(f"kaos: {text}", flush=True)


def seed(home: Path, source: str | None, digest: str | None) -> None:
    """Make the working copy follow the bundle; without a bundle there is just an empty folder."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        if source is None:
            (home / "work").mkdir(exist_ok=True)
            return
        report = follow(home, Path(source), digest)
    except OSError as e:
        say(f"the working copy {home / 'work'} was left as it is: {e}")
        return
    say(f"working copy: {report.summary()}")
    for line in report.lines():
        if not line.startswith("added "):
            say(f"  {line}")


def lay_params(home: Path, text: str | None) -> None:
    """The parameters of the run that the notebook is on, where ``train`` would look for them."""
    if text is None:
        return
    file = home / ".kaos" / "params.json"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", "utf-8")
    except OSError as e:
        say(f"the parameters of its run are not there: {e}")
        return
    os.environ["KAOS_PARAMS"] = str(file)


def lay_links(home: Path, environ: Mapping[str, str]) -> None:
    """Links to what is mounted outside of the home, which Jupyter would not show else."""
    folder = home / "mounts"
    wanted: dict[str, str] = {}
    for name, place in environ.items():
        if re.fullmatch(r"KAOS_MOUNT_\d+", name):
            called = environ.get(f"{name}_NAME") or "mount"
            while called in wanted:
                called += "-2"
            wanted[called] = place
    try:
        # Only links are taken away, and all links in there are ours.
        for entry in folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ():
            if entry.is_symlink():
                entry.unlink()
        if wanted:
            folder.mkdir(exist_ok=True)
        elif folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        for called, place in wanted.items():
            if not os.path.lexists(folder / called):
                (folder / called).symlink_to(place)
    except OSError as e:
        say(f"{folder} has no links to what is mounted: {e}")


def lend_kernel(home: Path) -> None:
    """Have default kernel and terminals run the user's own Python, on the local engine."""
    python = Path(os.environ["KAOS_PYTHON"])
    sets = kernels.kernels_directory(os.environ)
    launcher = sets / "launch.py"
    if not launcher.exists():
        launcher = Path(__file__).with_name("launch.py")
    jupyter = home / ".kaos" / "jupyter"
    try:
        kernels.write_kernelspec(jupyter, python, launcher, sets)
    except OSError as e:
        say(f"the kernel of this notebook could not be described, so kaos_hub's own is used: {e}")
        return
    environ = variables.users(os.environ)
    search = [str(jupyter), *filter(None, [environ.get("JUPYTER_PATH")])]
    path = [str(python.parent), environ.get("PATH") or os.defpath, str(lend_command(home))]
    environ |= {"JUPYTER_PATH": os.pathsep.join(search), "PATH": os.pathsep.join(path)}
    environ |= packages.environment(environ.get("KAOS_PACKAGES"), python, environ)
    variables.give(os.environ, environ)


def lend_command(home: Path) -> Path:
    """Make a directory that holds the command `kaos` and nothing else, on the local engine."""
    directory = home / ".kaos" / "bin"
    text = (
        f"#!{sys.executable} -I\nimport sys\n\nfrom kaos_hub.cli import main\n\nsys.exit(main())\n"
    )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        draft = directory / f".kaos.{os.getpid()}"
        draft.write_text(text)
        draft.chmod(0o755)
        draft.replace(directory / "kaos")
    except OSError as e:
        say(f"the command kaos is not on the PATH: {e}")
    return directory


def hook_after(clone: cloning.Cloning, work: Path, environ: dict[str, str]) -> None:
    """Run the hook once the clone, which it may need, is there or failed."""

    def later() -> None:
        clone.wait()
        run_hook(work, environ)

    threading.Thread(target=later, name="hook-after-clone", daemon=True).start()


def run_hook(work: Path, environ: dict[str, str] | None = None) -> None:
    """Run the bundle's ``startup-hook.sh``, and go on without it when it takes long."""
    environ = variables.users(os.environ) if environ is None else environ
    if not environ.get("KAOS_PYTHON"):
        kernels.prepare(environ)
    try:
        timeout = float(environ.get("KAOS_HOOK_TIMEOUT") or 600)
    except ValueError:
        timeout = 600
    Hook(work, environ, timeout).run(_PATIENCE)


def serve(home: Path, at_work: bool) -> None:
    """Be the Jupyter server of the Hub's user; ``at_work``: Lab opens in ``work``."""
    unused.leave_out()
    os.environ.setdefault("JUPYTERHUB_SINGLEUSER_APP", "jupyter_server")
    # Our labconfig: Lab does not ask each new home about news, nor look for updates of itself.
    os.environ["JUPYTER_CONFIG_PATH"] = str(Path(__file__).parent)
    import_lab()
    from jupyterhub.singleuser import main as singleuser

    sys.argv = ["jupyterhub-singleuser", *options(home, at_work), *sys.argv[1:]]
    os.chdir(home)
    singleuser()


def import_lab() -> None:
    """Import JupyterLab where it finds no node: else it would ask yarn for settings that only
    building Lab needs, which takes a sixth of a server's start."""
    path = os.environ["PATH"]
    os.environ["PATH"] = os.devnull
    try:
        import jupyterlab.labapp  # noqa: F401
    finally:
        os.environ["PATH"] = path


def options(home: Path, at_work: bool) -> list[str]:
    """The server's command line."""
    from kaos_hub.workload.notebook import user_side  # Lab must have been imported before

    found = [
        f"--ServerApp.root_dir={home}",
        f"--ServerApp.jpserver_extensions={EXTENSION}=True",
        f"--ServerApp.default_url=/lab{'/tree/work' if at_work else ''}",
        # Lab's news and its own updates are not the user's to deal with here.
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        # Else its buttons would change the programs that all notebooks run.
        "--LabApp.extension_manager=readonly",
    ]
    if os.geteuid() == 0:
        # Root's own Hub, or a container that maps root to another user.
        found.append("--ServerApp.allow_root=True")
    return [*found, *user_side.options()]


if __name__ == "__main__":
    main()
