"""A bucket as obstore reaches it: key, certificates, patience; and its errors in our words."""

import asyncio
import contextlib
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store as Bucket

from kaos_hub.errors import KaosError, NotFound, StorageFull, Unavailable
from kaos_hub.stores.s3.address import Address

if TYPE_CHECKING:
    from obstore.store import S3Credential

KEY_FILES = ("s3-access-key-id", "s3-secret-access-key", "s3-session-token")
_REREAD = timedelta(minutes=5)
"""So old may a key be that was read from a file: who changes the file need not restart anything."""
_STATUS = re.compile(r"status code: (\d{3})\b")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_REASON = re.compile(r"(?:HTTP error|Error performing token request|Client error): (.+)")
_REFUSED = {
    "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
    "AuthorizationHeaderMalformed", "RequestTimeTooSkewed", "Forbidden",
}  # fmt: skip
_FULL = ("QuotaExceeded", "InsufficientStorage", "XMinioStorageFull")
_NO_IDENTITY = ("169.254.169.254", "fd00:ec2::254")
"""Addresses at which machines ask their cloud for a key. Elsewhere there is no answer."""


class KeyFiles:
    """Gives obstore the key that lies in files; see :data:`KEY_FILES`.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.problem: Unavailable | None = None
        """The reason why there was no key when one was last asked for."""

    def there(self) -> bool:
        """Return whether there is a file with a part of a key."""
        return any((self._folder / name).exists() for name in KEY_FILES[:2])

    def __call__(self) -> "S3Credential":
        """The key as it is now.

        Raises:
            Unavailable: a file is missing, empty or unreadable.
        """
        try:
            key, secret = (self._read(name) for name in KEY_FILES[:2])
            token = self._read(KEY_FILES[2]) if (self._folder / KEY_FILES[2]).exists() else None
        except Unavailable as e:
            self.problem = e
            raise
        self.problem = None
        return {
            "access_key_id": key,
            "secret_access_key": secret,
            "token": token,
            "expires_at": datetime.now(UTC) + _REREAD,
        }

    def _read(self, name: str) -> str:
        path = self._folder / name
        try:
            value = path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as e:
            reason = getattr(e, "strerror", None) or "it is not text"
            raise Unavailable(f"The key of the store cannot be read: {path}: {reason}") from None
        if not value:
            raise Unavailable(f"The key of the store cannot be read: {path} is empty")
        return value


class Client:
    """Opens a bucket, and says in plain words what is wrong with it.

    Args:
        address: which bucket.
        secrets: the folder in which a key may lie.
    """

    def __init__(self, address: Address, secrets: Path | None) -> None:
        self.address = address
        files = KeyFiles(secrets) if secrets is not None else None
        self._files = files if files is not None and files.there() else None
        self._secrets = secrets
        self.bucket = self.open()

    @property
    def root(self) -> str:
        """The URL of the bucket itself."""
        at = self.address
        region = at.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        endpoint = at.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3")
        endpoint = endpoint or f"https://s3.{region or 'us-east-1'}.amazonaws.com"
        if at.style == "path":
            return f"{endpoint}/{at.bucket}"
        scheme, _, host = endpoint.partition("://")
        return f"{scheme}://{at.bucket}.{host}"

    def open(self, endpoint: str = "") -> Bucket:
        """The bucket; by another address than its own where ``endpoint`` says so."""
        at = self.address
        config: dict[str, Any] = {
            "virtual_hosted_style_request": bool(endpoint) or at.style == "virtual"
        }
        if endpoint or at.endpoint:
            config["endpoint"] = endpoint or (self.root if at.style == "virtual" else at.endpoint)
        if at.region:
            config["region"] = at.region
        if self._files is not None:
            config["credential_provider"] = self._files
        options: Any = {
            "allow_http": at.endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=5),
            # Between two pieces; the whole of a large file may take its time.
            "read_timeout": timedelta(seconds=60),
            "timeout": timedelta(days=1),
            "user_agent": "kaos-hub",
            **_root_certificate(),
        }
        retry: Any = {"max_retries": 4, "retry_timeout": timedelta(seconds=15)}
        with self.errors():
            return Bucket(at.bucket, client_options=options, retry_config=retry, **config)

    async def has(self, key: str, size: int) -> bool:
        """Return whether an object that could not be written is there after all, in its whole size.

        Some servers refuse one of two that write the same at the same time; and an answer may be
        lost.
        """
        try:
            return (await obstore.head_async(self.bucket, key))["size"] == size
        except (BaseError, OSError):
            return False

    @contextlib.contextmanager
    def errors(self, digest: str = "") -> Iterator[None]:
        """Turn what obstore raises into errors of ours.

        Raises:
            NotFound: there is no such object.
            StorageFull: no space.
            Unavailable: the store cannot be used now; says what and where, and what to do.
        """
        try:
            yield
        except KaosError:
            raise
        except FileNotFoundError as e:
            if digest and "NoSuchBucket" not in str(e):
                raise NotFound(f"there is no object {digest} in the store") from None
            raise self._problem(str(e)) from None
        except (BaseError, ValueError, OSError, asyncio.InvalidStateError) as e:
            raise self._problem(str(e)) from None

    def _problem(self, said: str) -> KaosError:
        """Make an error that says in plain words what is wrong.

        Args:
            said: obstore's message, of which little may be shown.
        """
        at = self.address
        code = _CODE.search(said)
        what = code[1] if code else ""
        answer = _STATUS.search(said)
        status = answer[1] if answer else ""
        if self._files is not None and self._files.problem is not None:
            return self._files.problem
        if what in _FULL or status == "507":
            return StorageFull()
        if what == "NoSuchBucket" or (not what and status == "404"):
            return Unavailable(
                f"There is no bucket {at.bucket!r} on {at.server}. Make it, or name another in the"
                " store's URL (KAOS_STORE, c.KaosService.store)."
            )
        refused = what in _REFUSED or status in ("401", "403")
        no_key = any(place in said for place in _NO_IDENTITY) or "credential" in said.lower()
        if no_key and not refused:
            return Unavailable(
                f"There is no key for the bucket {at.bucket!r} on {at.server}. {self._advice()}"
            )
        if refused:
            return Unavailable(
                f"{at.server} refuses our key for the bucket {at.bucket!r}"
                f" ({what or 'not allowed'}). The key comes from {self._origin()}: is it right, and"
                " may it list, read, write and delete there?"
            )
        reason = _REASON.search(said)
        shown = what or (reason[1] if reason else said.partition("\n")[0])
        return Unavailable(
            f"The store at {at.server}, bucket {at.bucket!r}, does not work now:"
            f" {' '.join(shown.split())[:200]}. Is that address right, and does it answer?"
        )

    def _origin(self) -> str:
        if self._files is not None:
            return f"the files {KEY_FILES[0]} and {KEY_FILES[1]} in {self._secrets}"
        if os.environ.get("AWS_ACCESS_KEY_ID"):
            return "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
        return "the identity of this machine or pod"

    def _advice(self) -> str:
        return (
            f"Put one into the files {KEY_FILES[0]} and {KEY_FILES[1]} in {self._secrets}, or into"
            " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the service an identity that may"
            " use the bucket."
        )


def certificates() -> str | None:
    """The file with what else than the system's certificates is to be trusted, if there is one."""
    return os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or None


def _root_certificate() -> dict[str, bytes]:
    """Return the content of the file of :func:`certificates` as an option of obstore's.

    Raises:
        Unavailable: they cannot be read.
    """
    path = certificates()
    if not path:
        return {}
    try:
        return {"root_certificate": Path(path).read_bytes()}
    except OSError as e:
        raise Unavailable(
            f"The certificates in {path} (AWS_CA_BUNDLE, SSL_CERT_FILE) cannot be read:"
            f" {e.strerror}"
        ) from None
