"""What all kaos spawners share: admission, choices, state, progress and release.

A spawner for another engine fills in three steps, :meth:`KaosSpawnerMixin.launch`,
:meth:`~KaosSpawnerMixin.look` and :meth:`~KaosSpawnerMixin.halt`, and overrides nothing else.
"""

import asyncio
import contextlib
import html
import re
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from jupyterhub.spawner import Spawner, SpawnException
from jupyterhub.utils import maybe_future, url_path_join
from sqlalchemy.orm import object_session
from tornado import web
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from traitlets import Float, Unicode, default

from kaos_hub.addresses import SERVICES
from kaos_hub.errors import EngineUnavailable, KaosError, NotBuilt, Unavailable
from kaos_hub.models import (
    DEFAULT_SERVER,
    NotebookSpec,
    ReleaseRequest,
    Resources,
)
from kaos_hub.spawners.admission import Admission
from kaos_hub.spawners.choices import request_of
from kaos_hub.spawners.form import options_from_form, render_form

_LOOK_AGAIN = 0.2
"""Seconds between two looks whether what was started still runs."""


class Refused(SpawnException):
    """A start that was refused or went wrong in a way that the user should read about.

    JupyterHub shows the message of a SpawnException to REST callers only; its progress stream and
    its page read the two attributes set here.
    """

    def __init__(self, error: KaosError) -> None:
        page = str(error.details.get("page") or "")
        text = error.message if page in error.message else f"{error.message} {page}"
        # What is not built yet goes on at that page: browsers follow, with scripts or without.
        follow = bool(page) and isinstance(error, NotBuilt)
        markup = _linked(text, page, follow)
        super().__init__(text, reason=error.code, message_html=markup, status_code=error.status)
        self.jupyterhub_message = text
        self.jupyterhub_html_message = markup
        if follow:
            self.headers = {"Refresh": f"0; url={page}"}


def _linked(text: str, page: str, follow: bool) -> str:
    """The text as HTML, in which the address of a page of this Hub is a link.

    Our templates look for ``data-follow`` and send people on.
    """
    markup, path = html.escape(text), html.escape(page)
    if not page:
        return markup
    link = rf'<a{" data-follow" if follow else ""} href="{path}">\g<0></a>'
    return re.sub(rf"\S*{re.escape(path)}", link, markup, count=1)


@dataclass(frozen=True)
class Ending:
    """How a server ended."""

    exit_code: int = 0
    reason: str = ""


class KaosSpawnerMixin(Spawner):
    """Starts what the service admits, as the service says, and tells it when that is gone."""

    admission_url = Unicode(config=True, help="Root of the service's private admission listener.")
    admission_secret = Unicode(config=True, help="The secret that the admission listener expects.")
    admission_patience = Float(
        15,
        config=True,
        help="Seconds to wait for a service that is just restarting before a start is refused.",
    )
    answer_patience = Float(
        108,
        config=True,
        help="Seconds that a notebook may take to answer once it runs, before its start fails.",
    )
    service_url = Unicode(
        config=True,
        help="The service's address as notebooks can reach it; they see it as KAOS_URL.",
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec: NotebookSpec | None = None
        self._forget()

    def _forget(self) -> None:
        self.workload = ""
        self.address = ""
        self._asked = False
        self._halted = False
        self._ending: Ending | None = None
        self._launching: asyncio.Task[str] | None = None
        self._told: list[dict[str, Any]] = []
        self._news = asyncio.Event()

    # --- what an engine's spawner fills in -------------------------------------------------------

    @abstractmethod
    async def launch(self, spec: NotebookSpec) -> str:
        """Start the server and return its URL. Called by :meth:`start`; no need to call super().

        Not cancelled with the start: whoever stops the server waits until this is done. If the
        address is known beforehand, set ``self.address`` and :meth:`remember` it: the Hub may die.

        Raises:
            KaosError: it could not be started; the user reads why.
        """

    @abstractmethod
    async def look(self) -> Ending | None:
        """How ``self.workload`` ended, or None while it runs. Called by :meth:`poll`; be quick.

        Raises:
            EngineUnavailable: the engine does not answer.
        """

    @abstractmethod
    async def halt(self, now: bool) -> None:
        """End ``self.workload`` and all it started; return when it is gone.

        Called by :meth:`stop`.
        """

    # --- JupyterHub's verbs ----------------------------------------------------------------------

    async def start(self) -> str:
        """Ask for admission, then launch what was admitted.

        Raises:
            Refused: the service or the engine says no; the user reads why.
        """
        try:
            self.spec = await self._admit()
            self.workload = self.spec.workload
            self._clamp(self.spec.resources)
            self.remember()
            self.tell("Admitted; starting", 40)
            self._launching = asyncio.ensure_future(self.launch(self.spec))
            # A start that is cancelled must not leave something half launched behind our back.
            self.address = await asyncio.shield(self._launching)
            self.remember()
            self.tell("Started; waiting for Jupyter to answer", 70)
            await self._wait_until_it_answers()
        except KaosError as e:
            raise Refused(e) from None
        except asyncio.CancelledError:
            # Somebody wants it to stop. Nothing is cleaned up here: JupyterHub waits one second for
            # us, then calls stop(), and takes a server for ready that is neither.
            self._halted = True
            raise
        self.tell("Jupyter answers", 90)
        return self.address

    async def _admit(self) -> NotebookSpec:
        self.tell("Asking for admission", 10)
        request = request_of(self)
        # From now on the service may hold something for us, even if its answer never comes.
        self._asked = True
        try:
            return await self._admission.start(request)
        except KaosError as e:
            self._asked = isinstance(e, Unavailable)
            raise

    async def _wait_until_it_answers(self) -> None:
        """Return when the server answers anything; JupyterHub would only look now and then.

        Raises:
            KaosError: it ended instead, or took too long. JupyterHub would notice the first late,
                and say nothing of the second.
        """
        # At most a little less than the time after which JupyterHub cancels us.
        began = looked = time.monotonic()
        until = began + min(self.answer_patience, 0.9 * self.start_timeout)
        url = url_path_join(self.address, self.server.base_url, "api")
        client = AsyncHTTPClient(force_instance=True)
        try:
            while True:
                with contextlib.suppress(OSError, HTTPClientError):
                    await client.fetch(url, raise_error=False, request_timeout=5)
                    return
                now = time.monotonic()
                if now - looked > _LOOK_AGAIN:
                    looked, self._ending = now, await self.look()
                if self._ending is not None:
                    reason = self._ending.reason or f"exit code {self._ending.exit_code}"
                    raise KaosError(
                        f"The notebook ended while it started: {reason}. Its log says more."
                    )
                if now > until:
                    raise KaosError("The notebook does not answer. Its log may say why.")
                # Nobody minds two more per cent; and where many start at once, each takes longer.
                await asyncio.sleep(min(max(0.02, 0.02 * (now - began)), 0.5))
        finally:
            client.close()

    async def stop(self, now: bool = False) -> None:
        """End the server. Called by JupyterHub while :meth:`poll` says that it runs."""
        self._halted = True
        if self._launching is not None:
            with contextlib.suppress(Exception):
                await self._launching
        if self.workload:
            await self.halt(now)

    async def poll(self) -> int | None:
        """None while the server runs or is being launched, else its exit status."""
        if self._launching is not None and not self._launching.done():
            return None
        if not self.workload:
            return None if self._start_pending else 0
        try:
            self._ending = await self.look()
        except EngineUnavailable as e:
            # Not to know is no reason to bury a running notebook.
            self.log.warning("Cannot tell how %s is: %s", self._log_name, e)
            return None
        return None if self._ending is None else self._ending.exit_code

    async def get_url(self) -> str:
        """Where the server answers, also after a restart of the Hub."""
        return self.address or await maybe_future(super().get_url())

    async def run_post_stop_hook(self) -> None:
        """Run the admin's hook, then tell the service that the server is gone.

        JupyterHub comes here after every end: stopped, died, failed or cancelled.
        """
        await maybe_future(super().run_post_stop_hook())
        if not self._asked:
            return
        ending = self._ending or Ending()
        request = ReleaseRequest(
            user=self.user.name,
            server=self.name,
            workload=self.workload,
            exit_code=None if self._halted else ending.exit_code,
            stopped_by_hub=self._halted,
            reason="" if self._halted else ending.reason,
        )
        try:
            await self._admission.release(request)
        except KaosError as e:
            # The service also reconciles with the Hub, so this is late, not lost.
            self.log.warning("Cannot report the end of %s: %s", self._log_name, e)

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """What :meth:`tell` told, from the beginning, for as long as somebody listens."""
        seen = 0
        while True:
            news = self._news
            while seen < len(self._told):
                yield self._told[seen]
                seen += 1
            await news.wait()

    def tell(self, message: str, progress: int) -> None:
        """Tell those who watch the start.

        Args:
            message: for people.
            progress: per cent.
        """
        self._told.append({"message": message, "progress": progress})
        news, self._news = self._news, asyncio.Event()
        news.set()

    # --- state -----------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """What a restarted Hub needs to find the server again."""
        state = dict(super().get_state())
        if self.workload:
            state |= {"workload": self.workload, "address": self.address}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what an earlier Hub started."""
        super().load_state(state)
        self.workload = state.get("workload", "")
        self.address = state.get("address", "")
        self._asked = bool(self.workload)

    def clear_state(self) -> None:
        """Forget the server."""
        super().clear_state()
        self._forget()

    def remember(self) -> None:
        """Save the state now. JupyterHub would only after the launch, and may die before."""
        session = object_session(self.orm_spawner) if self.orm_spawner else None
        if session is not None:
            self.orm_spawner.state = self.get_state()
            session.commit()

    # --- admission -------------------------------------------------------------------------------

    @property
    def _admission(self) -> Admission:
        return Admission(self.admission_url, self.admission_secret, self.admission_patience)

    def _clamp(self, resources: Resources) -> None:
        """What was admitted bounds the server, unless the admin's own limits are tighter."""
        self.set_trait("cpu_limit", _least(self.cpu_limit, resources.cpu))
        self.set_trait("mem_limit", _least(self.mem_limit, resources.memory))

    # --- environment and token -------------------------------------------------------------------

    def get_env(self) -> dict[str, str]:
        """JupyterHub's variables and those that the service says."""
        env = dict(super().get_env())
        env["KAOS_URL"] = self.service_url
        env["KAOS_NOTEBOOK"] = self.name or DEFAULT_SERVER
        return env | (self.spec.environment if self.spec else {})

    @default("server_token_scopes")
    def _token_may_use_the_services(self) -> list[str]:
        # The Hub leaves out what the user has not: who may not train may not from a notebook.
        ours = [f"access:services!service={service}" for service in SERVICES]
        return ["users:activity!user", "access:servers!server", *ours]

    # --- choices ---------------------------------------------------------------------------------

    @default("options_form")
    def _our_form(self) -> Callable[..., Any]:
        return self._render_form

    async def _render_form(self, _spawner: Spawner) -> str:
        name = self.name or DEFAULT_SERVER
        try:
            # The Hub keeps moments without their zone, which is UTC.
            since = self.user.created.replace(tzinfo=UTC)
            options = await self._admission.options(self.user.name, self.name, since)
        except KaosError as e:
            return render_form(None, name, problem=e.message)
        prefix = str(self.hub.base_url).removesuffix("hub/")
        # After a refusal JupyterHub shows the default server's form, whichever server was meant.
        # Only where the request for our own page is still open do we know that it is ours.
        if self.handler is None or self.handler._finished:
            return render_form(options.model_copy(update={"notebook": None}), "", prefix=prefix)
        return render_form(options, name, prefix=prefix)

    @default("options_from_form")
    def _choices_from_form(self) -> Callable[[dict[str, list[Any]]], dict[str, Any]]:
        return options_from_form

    @default("apply_user_options")
    def _choices_are_admitted_not_applied(self) -> Callable[..., None]:
        return lambda spawner, options: None

    def options_from_query(self, query: dict[str, list[str]]) -> dict[str, str]:
        """Refuse: a link from anywhere must not be able to start something.

        Raises:
            HTTPError: always, with 400.
        """
        raise web.HTTPError(400, "A link cannot start a notebook. Choose below and press Start.")


def _least(ours: float | None, admitted: float | None) -> float | None:
    given = [limit for limit in (ours, admitted) if limit]
    return min(given) if given else None
