"""The parts that all kaos spawners share: admission, choices, state, progress and release.

A spawner for another engine fills in three steps, :meth:`KaosSpawnerMixin.launch`,
:meth:`~KaosSpawnerMixin.look` and :meth:`~KaosSpawnerMixin.halt`, and overrides nothing else.
"""

import asyncio
import contextlib
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.spawner import Spawner
from jupyterhub.utils import maybe_future, url_path_join
from sqlalchemy.orm import object_session
from tornado import web
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from traitlets import Float, Unicode, default

from kaos_hub.errors import EngineUnavailable, KaosError, NotBuilt, Unavailable
from kaos_hub.hub.spawners.admission import Admission, FormOptions
from kaos_hub.hub.spawners.certified import CHANGED, Certified
from kaos_hub.hub.spawners.choices import request_of
from kaos_hub.hub.spawners.form import options_from_form, render_form
from kaos_hub.hub.spawners.identities import user_identity
from kaos_hub.hub.spawners.leftovers import take_back, take_back_later
from kaos_hub.hub.spawners.refusals import IN_A_LINE, Refused
from kaos_hub.installation.addresses import SERVICES
from kaos_hub.schemas import DEFAULT_SERVER, NotebookSpec, ReleaseRequest, Resources
from kaos_hub.util import variables

_LOOK_AGAIN = 0.2
"""Seconds between two looks whether what was started still runs."""


@dataclass(frozen=True)
class Ending:
    """The exit code of a server that ended, and the reason for its end."""

    exit_code: int = 0
    reason: str = ""


class KaosSpawnerMixin(Certified, Spawner):
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
        self.log.addFilter(IN_A_LINE)
        self.spec: NotebookSpec | None = None
        self._forget()

    def _forget(self) -> None:
        self.workload = ""
        self.address = ""
        self._asked = False
        self._identity = ""
        self._halted = False
        self._ending: Ending | None = None
        self._launching: asyncio.Task[str] | None = None
        self._told: list[dict[str, Any]] = []
        self._news = asyncio.Event()

    # --- what an engine's spawner fills in -------------------------------------------------------

    @abstractmethod
    async def launch(self, spec: NotebookSpec) -> str:
        """Start the server and return its URL. Called by :meth:`start`; no need to call super().

        Not cancelled with the start: a stop of the server waits until this is done. If the address
        is known beforehand, set ``self.address`` and :meth:`remember` it: the Hub may die.

        Raises:
            KaosError: it could not be started; the user reads why.
        """

    @abstractmethod
    async def look(self) -> Ending | None:
        """Return how ``self.workload`` ended, or None while it runs.

        Called by :meth:`poll`; be quick.

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
            # The start was cancelled. Nothing is cleaned up here: JupyterHub waits one second for
            # us, then calls stop(), and takes a server for ready that is neither.
            self._halted = True
            raise
        self.tell("Jupyter answers", 90)
        return self.address

    async def _admit(self) -> NotebookSpec:
        self.tell("Asking for admission", 10)
        request = request_of(self)
        # From now on the service may hold something for us, even if its answer never comes.
        self._asked, self._identity = True, request.identity
        try:
            return await self._admission.start(request)
        except KaosError as e:
            self._asked = isinstance(e, Unavailable)
            if not isinstance(e, Unavailable | NotBuilt):
                take_back_later(self, self._options)
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
                    await client.fetch(
                        url, raise_error=False, request_timeout=5, ssl_options=self.context
                    )
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
                # Two more per cent do not matter; and where many start at once, each takes longer.
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
            found = await self.look()
            if found is None and not self.speaks_as(self.address):
                self.log.warning("%s is ended: %s", self._log_name, CHANGED)
                await self.halt(now=False)
                self._ending = Ending(0, CHANGED)
            elif self._ending is None or self._ending.reason != CHANGED:
                self._ending = found
        except EngineUnavailable as e:
            # Not to know is no reason to bury a running notebook.
            self.log.warning("Cannot tell how %s is: %s", self._log_name, e)
            return None
        return None if self._ending is None else self._ending.exit_code

    async def get_url(self) -> str:
        """Return the server's URL, also after a restart of the Hub."""
        return self._whole(self.address or await maybe_future(super().get_url()))

    def _whole(self, address: str) -> str:
        """The server's URL as JupyterHub keeps it, with its path: it warns of any other."""
        path = self.server.base_url if self.server is not None else ""
        return address if urlsplit(address).path.strip("/") else address.rstrip("/") + path

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
            identity=self._identity or user_identity(self.user.orm_user),
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
        """Yield what :meth:`tell` told, from the beginning, for as long as the caller listens."""
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
        """Return what a restarted Hub needs to find the server again."""
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
        patience, context = self.admission_patience, self.context
        return Admission(self.admission_url, self.admission_secret, patience, context)

    def _clamp(self, resources: Resources) -> None:
        """Limit the server to what was admitted, unless the admin's own limits are tighter."""
        self.set_trait("cpu_limit", _least(self.cpu_limit, resources.cpu))
        self.set_trait("mem_limit", _least(self.mem_limit, resources.memory))

    # --- environment and token -------------------------------------------------------------------

    def get_env(self) -> dict[str, str]:
        """JupyterHub's variables and those that the service says."""
        env = {**super().get_env(), **self.certificate_variables()}
        env["KAOS_URL"] = self.service_url
        env["KAOS_NOTEBOOK"] = self.name or DEFAULT_SERVER
        said = self.spec.environment if self.spec else {}
        # What the user sets is for kernels and terminals, and must not meet the server.
        theirs = {name: value for name, value in said.items() if not name.startswith("KAOS_")}
        return variables.apart({**env, **{n: said[n] for n in said if n not in theirs}}, theirs)

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
            options = await self._options()
        except KaosError as e:
            return render_form(None, name, problem=e.message)
        prefix = str(self.hub.base_url).removesuffix("hub/")
        # After a refusal JupyterHub shows the default server's form, whichever server was meant.
        # Only where the request for our own page is still open do we know that it is ours.
        if self.handler is None or self.handler._finished:
            return render_form(options.model_copy(update={"notebook": None}), "", prefix=prefix)
        if options.notebook is None:
            # The Hub has made a server of it already: a form that is only looked at leaves none.
            take_back(self)
        return render_form(options, name, prefix=prefix)

    async def _options(self) -> FormOptions:
        # The Hub keeps moments without their zone, which is UTC.
        since = self.user.created.replace(tzinfo=UTC)
        identity = user_identity(self.user.orm_user)
        return await self._admission.options(self.user.name, identity, self.name, since)

    async def delete_forever(self) -> None:
        """Tell the service that the Hub forgets the server for good."""
        await maybe_future(super().delete_forever())
        if self.name and not getattr(self.user, "kaos_leaving", False):
            identity = user_identity(self.user.orm_user)
            await self._admission.removed(self.user.name, identity, self.name)

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
