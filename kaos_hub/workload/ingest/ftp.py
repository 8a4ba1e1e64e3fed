"""Files by FTP, for admins who allow it. An answer looks like one of HTTP."""

import ftplib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NoReturn
from urllib.parse import SplitResult, unquote

from kaos_hub.transport.hosts import Later, Wrong

_TIMEOUT = 60.0


class FtpAnswer:
    """A file that is being transferred, from ``Range`` on."""

    def __init__(self, client: ftplib.FTP, path: str, start: int) -> None:
        self._client = client
        self.headers: dict[str, str] = {}
        size: int | None = None
        with suppress(ftplib.error_perm):  # not every server knows sizes
            size = client.size(path)
        try:
            self._data, _ = client.ntransfercmd(f"RETR {path}", start or None)
        except (ftplib.error_perm, ftplib.error_reply):
            if not start:
                raise
            # It cannot begin in the middle.
            start = 0
            self._data, _ = client.ntransfercmd(f"RETR {path}")
        self.status = 206 if start else 200
        if size is not None:
            self.headers["Content-Length"] = str(size - start)
            self.headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"

    def stream(self, amount: int, decode_content: bool = False) -> Iterator[bytes]:
        """The content, piece by piece.

        Raises:
            Later: the connection broke.
        """
        try:
            while piece := self._data.recv(amount):
                yield piece
            self._data.close()
            self._client.voidresp()
        except ftplib.all_errors as e:
            raise Later(_said(e)) from None

    def close(self) -> None:
        """Hang up."""
        self._data.close()
        self._client.close()


def ask(parts: SplitResult, addresses: list[str], headers: Mapping[str, str]) -> FtpAnswer:
    """Ask for a file.

    Args:
        parts: its URL.
        addresses: of the host; the connection for the data goes to the same, whatever it says.
        headers: may hold a ``Range``.

    Raises:
        Wrong: it is refused.
        Later: it did not work now.
    """
    path = unquote(parts.path.lstrip("/"))
    login = (unquote(parts.username or "anonymous"), unquote(parts.password or "kaos-hub"))
    if not path or not (path + "".join(login)).isprintable():
        raise Wrong("its URL names no file")
    start = int(headers.get("Range", "bytes=0-")[6:-1])
    client = _connect(addresses, parts.port or ftplib.FTP_PORT)
    try:
        client.login(*login)
        client.voidcmd("TYPE I")
        return FtpAnswer(client, path, start)
    except ftplib.all_errors as e:
        client.close()
        _refuse(e)


def _connect(addresses: list[str], port: int) -> ftplib.FTP:
    problem = ""
    for address in addresses:
        client = ftplib.FTP(timeout=_TIMEOUT)  # noqa: S321
        try:
            client.connect(address, port)
            return client
        except ftplib.all_errors as e:
            client.close()
            problem = _said(e)
    raise Later(f"it cannot be reached: {problem}")


def _refuse(e: Exception) -> NoReturn:
    if isinstance(e, ftplib.error_perm):
        raise Wrong(f"answered with {_said(e)}") from None
    raise Later(_said(e)) from None


def _said(e: Exception) -> str:
    if isinstance(e, TimeoutError):
        return f"it was silent for {_TIMEOUT:.0f} s"
    if isinstance(e, OSError):
        return e.strerror or str(e)
    return " ".join(str(e).split())[:200] or "the connection was cut"
