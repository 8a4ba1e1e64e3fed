"""A real S3 server of the tests' own: OpenStack Swift, which `make s3-server` installs."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from urllib.request import Request, urlopen

import obstore
from obstore.store import S3Store as Bucket

PYTHON = Path(os.environ.get("KAOS_SWIFT") or Path(__file__).parents[1] / ".swift") / "bin/python"
WHY_NOT = "no S3 server is installed: make s3-server"


def available() -> bool:
    """Whether there is one to start."""
    return PYTHON.exists()


class Server:
    """An S3 server, which can be stopped, and its one user."""

    user, secret = "kaos:tests", token_hex(16)

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="kaos-s3-"))
        said = self._folder / "said"
        self._process = subprocess.Popen(
            [PYTHON, "-P", "-W", "ignore", Path(__file__).with_name("swift_server.py"),
             self._folder / "swift", self.user, self.secret],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said.open("wb"), text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.endpoint = self._process.stdout.readline().strip()
        assert self.endpoint, said.read_text()

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def bucket(self) -> str:
        """Make a bucket; its name."""
        name = f"tests-{token_hex(6)}"
        with urlopen(Request(self._signed("PUT", f"{name}?x-of="), method="PUT")) as answer:
            assert answer.status == 200
        return name

    def url(self, bucket: str, prefix: str = "") -> str:
        """Of a store in a bucket."""
        return f"s3://{bucket}{prefix and '/'}{prefix}?endpoint={self.endpoint}&region=us-east-1"

    def keys(self, bucket: str) -> dict[str, int]:
        """All objects in a bucket, with their sizes."""
        found = obstore.list(self._open(bucket)).collect()
        return {one["path"]: one["size"] for one in found}

    def unfinished(self, bucket: str) -> list[str]:
        """What uploads in parts have begun and neither finished nor taken back, as the server
        tells."""
        with urlopen(self._signed("GET", f"{bucket}?uploads=&x-of=")) as answer:
            text = answer.read().decode()
        return [part.partition("</Key>")[0] for part in text.split("<Key>")[1:]]

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object."""
        obstore.delete(self._open(bucket), key)

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Write an object."""
        obstore.put(self._open(bucket), key, content)

    def key_files(self, folder: Path) -> Path:
        """A folder with the key of the user."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "s3-access-key-id").write_text(f"{self.user}\n")
        (folder / "s3-secret-access-key").write_text(f"{self.secret}\n")
        return folder

    def _open(self, bucket: str, endpoint: str = "", virtual: bool = False) -> Bucket:
        return Bucket(
            bucket,
            endpoint=endpoint or self.endpoint,
            virtual_hosted_style_request=virtual,
            access_key_id=self.user,
            secret_access_key=self.secret,
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def _signed(self, method: str, what: str) -> str:
        bucket = self._open("none", f"{self.endpoint}/{what}", virtual=True)
        return obstore.sign(bucket, method, "x", timedelta(minutes=5))  # type: ignore[call-overload,no-any-return]


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server that runs while you use it."""
    started = Server()
    try:
        yield started
    finally:
        started.stop()
