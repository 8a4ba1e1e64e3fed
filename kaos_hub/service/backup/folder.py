"""The folder that a backup is, and what it says of itself."""

import contextlib
import gzip
import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from pydantic import BaseModel, ConfigDict, ValidationError

from kaos_hub.errors import InvalidRequest, KaosError
from kaos_hub.service.backup import rows
from kaos_hub.stores.file import FileStore

FORMAT = 1
HUB, SECRETS = "jupyterhub.sqlite", "secrets"
"""The names of the Hub's database and of the folder of secrets among the files."""
_MANIFEST = "kaos-backup.json"

Said = Callable[[str], None]
"""Is told how far it is."""


class Manifest(BaseModel):
    """The description of a backup."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    version: str
    """Of kaos_hub."""
    made: datetime
    revision: str
    """Of the tables."""
    rows: str
    more: str
    files: str
    """Names of the three files."""
    digests: dict[str, str]
    """SHA-256 of each of them."""
    counts: dict[str, int]
    """Rows of each table."""
    last: dict[str, int]
    """The last number given in each table."""
    bundles: bool
    """True if objects were copied."""
    objects: int
    bytes: int
    lacking: list[str]
    """Objects that the store itself did not have, or had damaged."""


class Backup:
    """A folder with a backup, or for one.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def logs(self) -> Path:
        """Logs of jobs, notebooks and trials."""
        return self.path / "logs"

    def store(self) -> FileStore:
        """Its objects."""
        return FileStore(self.path / "store")

    def manifest(self) -> Manifest:
        """Return the backup's description of itself.

        Raises:
            InvalidRequest: there is no backup, or none that this version can read.
        """
        path = self.path / _MANIFEST
        try:
            said: Any = json.loads(path.read_text())
            if said.get("format") != FORMAT:
                raise InvalidRequest(
                    f"{self.path} is a backup of format {said.get('format')}; this version of"
                    f" kaos_hub reads format {FORMAT}."
                )
            return Manifest.model_validate(said)
        except FileNotFoundError:
            raise InvalidRequest(
                f"There is no backup in {self.path}: it has no {_MANIFEST}, which is written last."
            ) from None
        except (ValueError, AttributeError, ValidationError):
            raise InvalidRequest(f"{path} is damaged: it describes no backup.") from None

    def write_manifest(self, manifest: Manifest) -> None:
        """Make it a backup; what an earlier one alone had goes."""
        draft = self.path / f".{_MANIFEST}"
        with draft.open("w") as file:
            file.write(manifest.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path / _MANIFEST)
        for kind in ("rows-*.gz", "more-*.gz", "files-*.tar"):
            for path in self.path.glob(kind):
                if path.name not in manifest.digests:
                    path.unlink()

    # --- its three files ---

    def writing(self, name: str) -> TextIO:
        """Write one of them."""
        return gzip.open(self.path / name, "wt", compresslevel=3, encoding="utf-8", newline="\n")

    def digest(self, name: str) -> str:
        """The SHA-256 of one of them."""
        with (self.path / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def check_files(self, manifest: Manifest) -> None:
        """Check that all are as they were written.

        Raises:
            InvalidRequest: one is not; says which.
        """
        for name, digest in manifest.digests.items():
            try:
                found = self.digest(name)
            except OSError as e:
                raise InvalidRequest(f"The backup is damaged: {e.filename}: {e.strerror}") from None
            if found != digest:
                raise InvalidRequest(
                    f"The backup is damaged: {self.path / name} is not what was written. Was it"
                    " copied to its end?"
                )

    def rows(self, manifest: Manifest) -> Iterator[rows.Row]:
        """All rows."""
        with self._reading(manifest.rows) as file:
            yield from rows.read(file)

    @contextlib.contextmanager
    def files(self, manifest: Manifest) -> Iterator[tarfile.TarFile]:
        """The Hub's database and the secrets, as far as they were there."""
        with tarfile.open(self.path / manifest.files) as file:
            yield file

    def objects(self, manifest: Manifest) -> Iterator[tuple[str, int]]:
        """All objects that the rows need, with their sizes; some more than once."""
        for table, said in self.rows(manifest):
            if table == "holdings":
                yield said["digest"], said["size"]
        with self._reading(manifest.more) as file:
            yield from (tuple(json.loads(line)) for line in file)

    def _reading(self, name: str) -> TextIO:
        return gzip.open(self.path / name, "rt", encoding="utf-8")


def prepare(path: Path) -> Backup:
    """Make a folder for a backup, which no other user may read.

    Raises:
        KaosError: it cannot be made, or holds something else.
    """
    backup = Backup(path)
    try:
        path.mkdir(0o700, parents=True, exist_ok=True)
        if any(path.iterdir()) and not (path / "store").is_dir() and not any(path.glob("rows-*")):
            raise KaosError(f"{path} holds something else than a backup. Name an empty folder.")
        path.chmod(0o700)
    except OSError as e:
        raise KaosError(f"{path} cannot hold a backup: {e.strerror}") from None
    return backup
