"""The contract of a store, which keeps the bytes of bundles, addressed by their digest."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import ClassVar, Protocol, Self


class Upload(Protocol):
    """An object on its way into a store."""

    async def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            InvalidRequest: more bytes than announced.
            StorageFull: no space; nothing is kept.
        """

    async def finish(self) -> None:
        """Check the digest and make the object visible, atomically and durably.

        Raises:
            InvalidRequest: the bytes are not what the digest says, or fewer than announced.
        """

    async def abort(self) -> None:
        """Forget it. Safe at any time, also after :meth:`finish`."""


class Store(ABC):
    """A place for bytes. It knows digests, not owners: its callers decide who may read what."""

    name: ClassVar[str]
    private: ClassVar[bool] = False
    """True if reading takes a secret that only the service has.

    Then workloads, and processes that lay trees out for them, fetch from the service."""

    @classmethod
    @abstractmethod
    def from_url(cls, url: str, secrets: Path | None = None) -> Self:
        """Open the store that :attr:`url` names; in the folder ``secrets`` may lie what it takes.

        Raises:
            InvalidRequest: not a URL of such a store.
            Unavailable: the store cannot be opened.
        """

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL by which processes open this store: ``file:///srv/kaos/store``. Has no secret."""

    @abstractmethod
    async def probe(self) -> None:
        """See whether the store can be read and written.

        Raises:
            Unavailable: it cannot; says what is wrong, where, and what to do.
        """

    @abstractmethod
    async def tidy(self) -> int:
        """Remove what unfinished uploads left that were given up a day ago; how many there were.

        Raises:
            Unavailable: it cannot be done now.
        """

    @abstractmethod
    async def upload(self, digest: str, size: int) -> Upload:
        """Begin to take in an object of ``size`` bytes. Taking one in again is harmless."""

    @abstractmethod
    def read(self, digest: str, chunk: int = 1 << 20) -> AsyncIterator[bytes]:
        """The bytes of an object, ``chunk`` bytes at a time.

        Raises:
            NotFound: there is no such object.
        """

    @abstractmethod
    def pieces(self, digest: str, offset: int = 0) -> Iterator[bytes]:
        """The bytes of an object from ``offset`` on, in pieces of the store's choice. Blocks: for
        threads that have no event loop.

        Raises:
            NotFound: there is no such object.
        """

    @abstractmethod
    async def size(self, digest: str) -> int | None:
        """Bytes of an object, or None if it is not there."""

    @abstractmethod
    def local_path(self, digest: str) -> Path | None:
        """Return the object's file, which may be hard-linked; None if the store has no files."""

    @abstractmethod
    async def check(self, digest: str) -> bool:
        """Return whether the object is there and its bytes are what the digest says (fsck)."""
