"""The one directory in which everything of a kaos_hub on one machine lies.

::

    <data>/                 mode 0700
      kaos.sqlite           the service's database
      jupyterhub.sqlite     the Hub's
      store/                bytes of bundles, by digest
      trees/<hex>/          bundles laid out, read-only
      environments/<key>/   what the local engine built
      workloads/<name>/     supervised processes
      scratch/<name>/       what workloads write to while they are there
      uploads/              archives from browsers, until they are unpacked and stored
      homes/<notebook id>/  what users keep
      volumes/<id>/         what they keep beyond one notebook
      networks/<name>       when a Docker network was last asked for
      logs/                 <id>.log of jobs and notebooks, hub.log
      secrets/<name>        mode 0600, made when first asked for; elsewhere with KAOS_SECRETS_DIR
      networks.json         how Docker networks were set at the last start
      builder.json          what builds images on a Docker Engine, as settled at the last start
      engine                where work runs, as the Hub was told when it last started
      authenticator         how the Hub lets people in
      domains               below which address each user has a domain; empty: users share one
      internal-ssl/         certificates with which the parts of the hub know each other
      address.json          where people come in, as the Hub that runs was told
      ports.json            ports once chosen, so that notebooks find the Hub again
      lock, hub.lock        held while the service, the Hub run
      up.lock, up.ready     held while `kaos up` runs; made when all of it answers

Knows nothing of what is in them. Needs only the standard library.
"""

import contextlib
import fcntl
import json
import os
import pwd
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from kaos_hub.errors import Conflict, InvalidName, KaosError
from kaos_hub.installation.ports import free_port, is_free

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def _default_path() -> Path:
    if given := os.environ.get("KAOS_DATA_DIR"):
        return Path(given)
    shared = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(shared) / "kaos_hub"


def _secret() -> str:
    return secrets.token_hex(32)


def _password() -> str:
    """160 bits that one can read aloud and type: eight groups of four."""
    letters = "abcdefghijkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(4)) for _ in range(8))


class DataDir:
    """The data directory, made (mode 0700) when it is opened.

    Args:
        path: where; by default ``$KAOS_DATA_DIR``, else ``kaos_hub`` in ``$XDG_DATA_HOME``, else
            ``~/.local/share/kaos_hub``.
        create: make what is missing; False only looks.

    Raises:
        KaosError: it cannot be made or is not ours; says what to do.
    """

    def __init__(self, path: Path | str | None = None, *, create: bool = True) -> None:
        self.path = Path(path or _default_path()).expanduser().absolute()
        if create:
            self._create()

    def __repr__(self) -> str:
        return f"DataDir({str(self.path)!r})"

    def _create(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            # An older, wider mode would show secrets' names and users' homes to others.
            self.path.chmod(0o700)
            for directory in self._directories:
                directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as e:
            raise KaosError(
                f"Cannot use {self.path} as data directory: {e.strerror or e}."
                " Choose another with --data-dir or KAOS_DATA_DIR."
            ) from None

    @property
    def _directories(self) -> tuple[Path, ...]:
        return (
            self.store,
            self.trees,
            self.environments,
            self.workloads,
            self.homes,
            self.volumes,
            self.logs,
            *([] if os.environ.get("KAOS_SECRETS_DIR") else [self.secrets]),
        )

    @property
    def user(self) -> str:
        """The OS user who runs this, as the Hub writes user names (lower-case)."""
        try:
            return pwd.getpwuid(os.getuid()).pw_name.lower()
        except KeyError:  # a container's user without an entry in /etc/passwd
            return f"uid{os.getuid()}"

    @property
    def database(self) -> Path:
        """The service's SQLite file."""
        return self.path / "kaos.sqlite"

    @property
    def hub_database(self) -> Path:
        """The Hub's SQLite file."""
        return self.path / "jupyterhub.sqlite"

    @property
    def domains(self) -> Path:
        """The file that tells below which address users have domains; empty: they share one."""
        return self.path / "domains"

    @property
    def authenticator(self) -> Path:
        """The file in which the Hub's configuration notes the authenticator that lets people in."""
        return self.path / "authenticator"

    @property
    def address(self) -> Path:
        """The file in which the Hub's configuration notes the address that people use, as JSON."""
        return self.path / "address.json"

    @property
    def store(self) -> Path:
        """The directory in which the file store keeps objects."""
        return self.path / "store"

    @property
    def trees(self) -> Path:
        """Laid out bundles, one directory per digest (its hex part)."""
        return self.path / "trees"

    @property
    def environments(self) -> Path:
        """Environments that the local engine built, one directory per key."""
        return self.path / "environments"

    @property
    def workloads(self) -> Path:
        """Supervised processes, one directory per workload."""
        return self.path / "workloads"

    @property
    def scratch(self) -> Path:
        """Files that workloads write, one directory per workload; made when first needed."""
        return self.path / "scratch"

    @property
    def uploads(self) -> Path:
        """Archives on their way into the store; made when first needed."""
        return self.path / "uploads"

    @property
    def volumes(self) -> Path:
        """Named volumes, one folder each."""
        return self.path / "volumes"

    @property
    def networks(self) -> Path:
        """Times at which owners' Docker networks were last asked for; made when first needed."""
        return self.path / "networks"

    @property
    def network_settings(self) -> Path:
        """Settings of owners' Docker networks when the service last started, as JSON."""
        return self.path / "networks.json"

    @property
    def builder(self) -> Path:
        """The builder in force on a Docker Engine, and why, as the Hub's configuration settled."""
        return self.path / "builder.json"

    @property
    def engine(self) -> Path:
        """The Hub's engine, as its configuration notes it: ``local``, ``docker``, …"""
        return self.path / "engine"

    @property
    def homes(self) -> Path:
        """Home directories, one per notebook id."""
        return self.path / "homes"

    @property
    def logs(self) -> Path:
        """Kept logs: ``<id>.log``."""
        return self.path / "logs"

    @property
    def secrets(self) -> Path:
        """Secrets, one file each; read them with :meth:`secret`.

        ``$KAOS_SECRETS_DIR`` names the directory where another system, such as Kubernetes, provides
        them: then they are only read.
        """
        return Path(os.environ.get("KAOS_SECRETS_DIR") or self.path / "secrets")

    @property
    def ports(self) -> Path:
        """Ports by role, as JSON; read them with :meth:`port`."""
        return self.path / "ports.json"

    @property
    def lock(self) -> Path:
        """The file that the service locks while it runs, see :meth:`hold`."""
        return self.path / "lock"

    def secret(self, name: str, make: Callable[[], str] = _secret) -> str:
        """Return the secret of that name: 256 random bits in hexadecimal, made on first use.

        Callers that ask at the same time get the same one.

        Args:
            name: lower-case letters, digits, ``-`` and ``_``.
            make: makes a new one, where hexadecimal will not do.

        Raises:
            InvalidName: the name is none.
            KaosError: the file is empty or cannot be read or written, or is not in
                ``$KAOS_SECRETS_DIR`` though that is set.
        """
        path = self.secrets / _checked(name)
        try:
            if not path.exists():
                self._refuse_to_make(name)
                _write_new(path, make())
            value = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as e:
            raise KaosError(f"Cannot read or write the secret {path}: {e}") from None
        if not value:
            raise KaosError(f"The secret {path} is empty. Delete it; a new one is made.")
        return value

    def _refuse_to_make(self, name: str) -> None:
        """Refuse to make a secret where they are provided: no other process would know it."""
        if os.environ.get("KAOS_SECRETS_DIR"):
            raise KaosError(
                f"The secret {name!r} is not in {self.secrets} (KAOS_SECRETS_DIR). Add it to what"
                " is mounted there; on Kubernetes `helm upgrade` makes what is missing."
            )

    def given(self, name: str) -> str:
        """Return a secret that may be provided (``KAOS_SECRETS_DIR``), and is never made here.

        Returns:
            Empty if it is not provided.

        Raises:
            KaosError: as :meth:`secret`.
        """
        provided = os.environ.get("KAOS_SECRETS_DIR") and self.has_secret(name)
        return self.secret(name) if provided else ""

    def password(self, name: str = "password") -> str:
        """A secret for people, made when first asked for.

        Raises:
            KaosError: as :meth:`secret`.
        """
        return self.secret(name, _password)

    def has_secret(self, name: str) -> bool:
        """Return whether there is a secret of that name."""
        return (self.secrets / _checked(name)).exists()

    def port(self, role: str, host: str = "127.0.0.1", prefer: int | None = None) -> int:
        """The port for ``role``: chosen once among the free ones of ``host``, then remembered.

        Args:
            role: what listens there.
            host: the address it listens on.
            prefer: the one to choose if it is free.

        Raises:
            KaosError: there is no free port, or ``ports.json`` cannot be read.
        """
        with _locked(self.path / ".ports.lock"):
            known = self._read_ports()
            if role not in known:
                taken = set(known.values())
                if prefer is not None and prefer not in taken and is_free(host, prefer):
                    known[role] = prefer
                else:
                    known[role] = free_port(host, taken)
                _replace(self.ports, json.dumps(known, indent=1))
            return known[role]

    def set_port(self, role: str, port: int) -> None:
        """Remember the port that was chosen for ``role``.

        Raises:
            KaosError: ``ports.json`` cannot be read.
        """
        with _locked(self.path / ".ports.lock"):
            _replace(self.ports, json.dumps(self._read_ports() | {role: port}, indent=1))

    def _read_ports(self) -> dict[str, int]:
        try:
            return {str(k): int(v) for k, v in json.loads(self.ports.read_text()).items()}
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError, TypeError):
            raise KaosError(f"{self.ports} is damaged. Delete it; new ports are chosen.") from None

    def hold(self, name: str = "lock") -> "Held":
        """Take the lock ``name`` for as long as the process lives (or until closed).

        Raises:
            Conflict: another process has it; ``details`` has its ``pid``.
        """
        return Held(self.path / name)


_held: set["Held"] = set()


class Held:
    """A lock on a file, held until :meth:`close` or the death of the process.

    Raises:
        Conflict: another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+", encoding="ascii")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            pid = self._file.read().strip()
            self._file.close()
            raise Conflict(
                f"{path.parent} is already in use by process {pid or '?'}. End that, or take"
                " another directory: kaos up --data-dir DIR",
                pid=int(pid or 0),
            ) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()
        _held.add(self)  # it must not end with the last reference to it

    def close(self) -> None:
        """Let go of it."""
        _held.discard(self)
        self._file.close()

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidName(f"{name!r} cannot name a secret")
    return name


def _write_new(path: Path, text: str) -> None:
    """Write a file of mode 0600 unless it is there. No reader ever sees it half written."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    draft.write_text(text)
    draft.replace(path)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
