"""The SDK's way to what a notebook's own server does with its files: saving and attaching."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from kaos_hub.errors import NotFound, Unavailable, from_body
from kaos_hub.schemas import (
    AttachRequest,
    BundleKind,
    Errand,
    ErrandState,
    Model,
    SaveRequest,
    parse_request,
)
from kaos_hub.transport.http import Transport, parse, quoted

if TYPE_CHECKING:
    from kaos_hub.client.notebooks import Bundle

OnNews = Callable[[Errand], object]
"""Called with the errand whenever there is news of it."""

_WAIT = 20
"""Seconds that the service waits for news before it answers."""
_AWAY = 60.0
"""Seconds for which the service may be away: a restart takes a few."""


class _Errands:
    """Asks for errands and waits for their ends.

    Args:
        transport: to the service.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def save(
        self, name: str, request: SaveRequest, timeout: float | None, on_news: OnNews | None
    ) -> Errand:
        """Have a notebook saved; see :meth:`.Notebooks.save`."""
        return self._do(name, "save", request, timeout, on_news)

    def attach(
        self, name: str, request: AttachRequest, timeout: float | None, on_news: OnNews | None
    ) -> Errand:
        """Have data attached to a notebook; see :meth:`.Notebooks.attach`."""
        return self._do(name, "attach", request, timeout, on_news)

    def _do(
        self, name: str, verb: str, request: Model, timeout: float | None, on_news: OnNews | None
    ) -> Errand:
        deadline = None if timeout is None else time.monotonic() + timeout
        asked = self._ask(name, verb, request)
        away: float | None = None
        seen = None
        while not asked.state.ended:
            if on_news and asked != seen:
                on_news(asked)
            seen = asked
            if deadline is not None and time.monotonic() > deadline:
                raise Unavailable(f"to {verb} notebook {name} takes longer than {timeout:g} s")
            try:
                asked = self._look(name, asked.id)
                away = None
            except NotFound:
                # The service was restarted and knows of nothing. What has arrived is not sent
                # again, so to ask once more costs little.
                asked = self._ask(name, verb, request)
            except Unavailable:
                away = away or time.monotonic()
                if time.monotonic() - away > _AWAY:
                    raise
                time.sleep(1)
        if asked.state is ErrandState.FAILED:
            body = {"code": asked.code, "message": asked.note, "details": {"notebook": name}}
            raise from_body(500, body)
        return asked

    def _ask(self, name: str, verb: str, request: Model) -> Errand:
        path = "/api/v1" + quoted("notebooks", name, verb)
        body = request.model_dump(mode="json", exclude_defaults=True)
        return parse(Errand, self._transport.json("POST", path, body))

    def _look(self, name: str, errand: str) -> Errand:
        path = "/api/v1" + quoted("notebooks", name, "errands", errand)
        return parse(Errand, self._transport.json("GET", path, query={"wait": _WAIT}))


class Files(ABC):
    """The part of :class:`~kaos_hub.client.notebooks.Notebooks` that is about the files of one."""

    _transport: Transport

    @abstractmethod
    def _reference(self, bundle: "Bundle | None", kind: BundleKind) -> str | None:
        """A bundle as requests name it; a folder is submitted."""

    def save(
        self,
        name: str,
        bundle: str | None = None,
        *,
        requirements: bool = False,
        dry_run: bool = False,
        timeout: float | None = None,
        on_news: OnNews | None = None,
    ) -> Errand:
        """Make the working copy of a running notebook the next version of a source bundle.

        Args:
            name: the notebook.
            bundle: name of the bundle; without it, that of the notebook's source, or the notebook's
                own.
            requirements: first add what was pip-installed to ``model/requirements.txt``.
            dry_run: only say what would be saved.
            timeout: seconds to wait at most.
            on_news: called with how it stands.

        Returns:
            What was done: ``version`` is what was saved, ``contents`` tells what was left out.

        Raises:
            Conflict: the notebook does not run.
            InvalidBundle: its working copy cannot be a source bundle; names the file.
        """
        request = parse_request(
            SaveRequest, {"bundle": bundle, "requirements": requirements, "dry_run": dry_run}
        )
        return _Errands(self._transport).save(name, request, timeout, on_news)

    def attach(
        self,
        name: str,
        data: "Bundle",
        *,
        timeout: float | None = None,
        on_news: OnNews | None = None,
    ) -> Errand:
        """Bring data into a running notebook; from its next start on they are its data.

        Args:
            name: the notebook.
            data: any folder, or a submitted bundle.
            timeout: seconds to wait at most.
            on_news: called with how it stands.

        Returns:
            What was done: ``place`` is the folder with the data, below the home.

        Raises:
            Conflict: the notebook does not run.
        """
        reference = self._reference(data, BundleKind.DATA)
        request = parse_request(AttachRequest, {"data": reference})
        return _Errands(self._transport).attach(name, request, timeout, on_news)
