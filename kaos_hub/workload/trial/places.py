"""The places where a trial finds and leaves things, made anew for each."""

import contextlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import kaos_hub
from kaos_hub.schemas import Lease
from kaos_hub.workload.trial import folders as folders
from kaos_hub.workload.trial.settings import Settings

_LENT = '''"""In place of kaos_hub, where none is installed: log() and nothing else."""


def _real():
    import os, sys

    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path, me = sys.path[:], sys.modules.pop(__name__, None)
    sys.path[:] = [p for p in path if os.path.abspath(p or os.curdir) != here]
    try:
        import importlib.util

        spec = importlib.util.find_spec(__name__)
        if spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            sys.modules[__name__] = module
            spec.loader.exec_module(module)
            # installed already when trials could not tell anything
            if hasattr(module, "log"):
                return True
    except Exception:
        pass
    finally:
        sys.path[:] = path
    if me is not None:
        sys.modules[__name__] = me
    return False


if not _real():
    from kaos_live import log
'''


@dataclass(frozen=True)
class Place:
    """One trial's."""

    out: Path
    """Its argument, a path at which there is nothing yet."""
    environment: dict[str, str]


class TrialFolders:
    """Folders of a worker.

    Args:
        settings: what it was told.

    Raises:
        OSError: they cannot be made.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kaos, self._pfs = (Path(f"{settings.root}/{name}") for name in ("kaos", "pfs"))
        self.code = settings.code
        self.private = self._kaos / ".worker"
        self.kaos_out = self._kaos / "out"
        self.pfs_out = self._pfs / "out"
        self._hyper = self._pfs / "hyper"
        self._params = self._kaos / "params.json"
        self._metrics = self.private / "metrics"
        self.scratch = [
            self.kaos_out, self._kaos / "home", self._kaos / "tmp", self.pfs_out, self._hyper,
        ]  # fmt: skip
        self._kaos.mkdir(parents=True, exist_ok=True)
        self._pfs.mkdir(parents=True, exist_ok=True)
        folders.fresh(self.private)
        self._lend(self.private / "python")
        # What is there now are mounts, and no trial's.
        self._mounted = {top: _names(top) for top in (self._kaos, self._pfs)}
        mine = [*self.scratch, self._params]
        for path in mine:
            self._mounted[path.parent].add(path.name)
        self._environment = self._common()
        self._copied: folders.Signature = {}
        self.metrics = -1
        """Descriptor of the pipe that metrics come through."""

    def _lend(self, python: Path) -> None:
        (python / "kaos_hub").mkdir(parents=True)
        (python / "kaos_hub" / "__init__.py").write_text(_LENT)
        lent = Path(kaos_hub.__file__).with_name("live.py").read_text()
        (python / "kaos_live.py").write_text(lent)

    def _common(self) -> dict[str, str]:
        found = dict(self._settings.environment)
        paths = [*filter(None, [found.get("PYTHONPATH")]), str(self.private / "python")]
        found |= {
            "PYTHONPATH": os.pathsep.join(paths),
            "PWD": str(self.code),
            "HOME": str(self._kaos / "home"),
            "TMPDIR": str(self._kaos / "tmp"),
            "KAOS_OUT": str(self.kaos_out),
            "KAOS_PARAMS": str(self._params),
            "KAOS_METRICS": str(self._metrics),
        }
        if self._settings.data:
            found["KAOS_DATA"] = self._settings.data
        return found

    def prepare(self, lease: Lease) -> Place:
        """Make everything ready for a trial.

        Raises:
            OSError: that cannot be done.
        """
        self._sweep()
        for folder in self.scratch:
            folders.fresh(folder)
        text = json.dumps(lease.params or {})
        _write(self._params, text)
        if lease.params is not None:
            hyper = self._hyper / str(lease.trial)
            hyper.mkdir()
            (hyper / "params.json").write_text(text)
        self._pipe()
        self._lay_code()
        environment = {**self._environment, "KAOS_TRIAL": str(lease.trial)}
        return Place(self.pfs_out / secrets.token_hex(8), environment)

    def _sweep(self) -> None:
        """Remove what a trial left where nothing of its own belongs."""
        for top, known in self._mounted.items():
            for name in _names(top) - known:
                folders.remove(top / name)
        self.private.mkdir(exist_ok=True)
        for name in _names(self.private) - {self._metrics.name, "python"}:
            folders.remove(self.private / name)

    def _pipe(self) -> None:
        """Make a pipe for metrics, unless it is there: a file of them could fill the disk."""
        try:
            there = self._metrics.lstat()
            mine = os.fstat(self.metrics) if self.metrics >= 0 else None
            if mine is not None and os.path.samestat(there, mine):
                return
            folders.remove(self._metrics)
        except FileNotFoundError:
            pass
        if self.metrics >= 0:
            os.close(self.metrics)
        os.mkfifo(self._metrics, 0o600)
        # For both ways: so it never reads as closed, and programs open it to write without a wait.
        self.metrics = os.open(self._metrics, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def _lay_code(self) -> None:
        """Copy the code, unless the last copy is untouched."""
        if self._settings.context is None:
            return
        if self._copied and folders.signature(self.code) == self._copied:
            return
        self.code.parent.mkdir(parents=True, exist_ok=True)
        self._copied = folders.copy(self._settings.context, self.code)
        train = self.code / "train"
        if train.is_file() and not train.is_symlink():
            train.chmod(0o755)
            self._copied = folders.signature(self.code)

    def beside(self, known: set[str]) -> list[str]:
        """Names of what lies in the folder of outputs, without the known ones."""
        with contextlib.suppress(OSError):
            return sorted(_names(self.pfs_out) - known)
        return []

    def written(self) -> list[Path]:
        """All that a trial may have written to."""
        code = [self.code] if self._settings.context is not None else []
        found = [*self.scratch, self.private, *code]
        for top, known in self._mounted.items():
            found += [top / name for name in _names(top) - known]
        return found


def _write(path: Path, text: str) -> None:
    folders.remove(path)
    path.write_text(text)


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder))  # noqa: PTH208
