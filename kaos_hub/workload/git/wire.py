"""Requests of a clone to the server of its repository: every step is judged, and counted."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

import urllib3
from dulwich.client import AbstractHttpGitClient
from urllib3.exceptions import HTTPError

from kaos_hub.schemas import GitCredentials, Repository
from kaos_hub.transport.hosts import Later, Wrong
from kaos_hub.util.quantities import show_memory
from kaos_hub.workload.ingest.web import PASSING, Web, said, status_words

_GIT = "application/x-git-"


class LoginWanted(Exception):
    """A refusal by a server that shows this repository only to some.

    Args:
        refused: whether it was given a login.
        moved: to which address the request was led, if to another.
        hidden: whether it says that there is none; most say so of private ones.
    """

    def __init__(self, refused: bool, moved: str = "", hidden: bool = False) -> None:
        super().__init__()
        self.refused, self.moved, self.hidden = refused, moved, hidden


class Server(AbstractHttpGitClient):
    """The server of a repository.

    Args:
        repository: which one.
        web: judges where connections may go.
        credentials: what it may want; they go to no other server.
        size: bytes that may come.
        heard: told how many bytes have come.
    """

    def __init__(
        self,
        repository: Repository,
        web: Web,
        credentials: GitCredentials | None,
        size: int,
        heard: Callable[[int], object],
    ) -> None:
        super().__init__(repository.url)
        self._web, self._size, self._heard = web, size, heard
        first = urlsplit(repository.url)
        self._origin = (first.scheme, first.netloc)
        self._login: dict[str, str] = {}
        if credentials is not None:
            basic = f"{credentials.username}:{credentials.password}"
            self._login = {"Authorization": urllib3.make_headers(basic_auth=basic)["authorization"]}
        self._bytes = 0

    def _http_request(
        self,
        url: str,
        headers: dict[str, str] | None = None,
        data: bytes | Iterator[bytes] | None = None,
        raise_for_status: bool = True,
    ) -> tuple[Any, Callable[[int], bytes]]:
        def sent(parts: SplitResult) -> Mapping[str, str]:
            ours = (parts.scheme, parts.netloc) == self._origin
            return {
                "User-Agent": "git/2.40 (kaos_hub)",
                "Pragma": "no-cache",
                **(headers or {}),
                **(self._login if ours else {}),
            }

        body = data if data is None or isinstance(data, bytes) else b"".join(data)
        answer, last = self._web.ask(url, sent, body)
        kind = answer.headers.get("Content-Type") or ""
        try:
            self._check(answer.status, kind, url, last)
        except BaseException:
            answer.close()
            raise
        # What dulwich wants to know of an answer.
        answer.content_type = kind  # type: ignore[attr-defined]
        answer.redirect_location = last if last != url else ""  # type: ignore[attr-defined]
        return answer, self._reader(answer)

    def _check(self, status: int, kind: str, url: str, last: str) -> None:
        moved = "" if _place(last) == _place(url) else _place(last)
        if status in (401, 403, 404, 410):
            raise LoginWanted(bool(self._login), moved, hidden=status in (404, 410))
        if status in PASSING:
            raise Later(f"answers with {status_words(status)}")
        if status != 200:
            raise Wrong(f"answers with {status_words(status)}")
        if not kind.startswith(_GIT):
            # Old servers are nothing but files; a page to log in at looks the same.
            raise Wrong(f"answers, but not as a server of git ({kind[:60] or 'no type'})")

    def _reader(self, answer: urllib3.BaseHTTPResponse) -> Callable[[int], bytes]:
        def read(count: int) -> bytes:
            try:
                piece = answer.read(count)
            except (HTTPError, OSError) as e:
                raise Later(said(e)) from None
            self._bytes += len(piece)
            if self._bytes > self._size:
                raise Wrong(
                    f"sends more than {show_memory(self._size)}, which is the most that may be"
                    " cloned here (git_size)"
                )
            self._heard(self._bytes)
            return piece

        return read


def _place(url: str) -> str:
    """Scheme and host of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
