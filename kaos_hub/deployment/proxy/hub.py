"""The Hub's side of the proxy: JupyterHub's own class, less its ways to hurt bystanders."""

import asyncio
from pathlib import Path
from typing import Any, ClassVar

from aiohttp import ClientError
from jupyterhub.httpclient import fetch
from jupyterhub.proxy import ConfigurableHTTPProxy
from tornado.ioloop import PeriodicCallback
from traitlets import Float, Unicode, default

from kaos_hub.deployment.proxy import program
from kaos_hub.errors import KaosError
from kaos_hub.installation.certificates import Certificates
from kaos_hub.installation.datadir import DataDir, Held


class KaosProxy(ConfigurableHTTPProxy):
    """configurable-http-proxy, installed when first needed.

    Before it ends the proxy that a killed Hub left behind it makes sure of two things: that this
    Hub alone uses the data directory (else it would end the proxy of a running one), and that the
    number in the pid file still is that proxy's.

    A proxy that the Hub does not start (``should_start = False``) may come later than this Hub, and
    has forgotten all routes when it comes back: it is waited for, and looked after.
    """

    data_dir = Unicode(config=True, help="The kaos data directory, of which there is one Hub.")

    look_interval = Float(
        2,
        config=True,
        help="Seconds between looks at a proxy that the Hub did not start: one that was restarted"
        " has no routes, and nobody reaches anything until the Hub tells it again.",
    )

    _met = False
    _looking: PeriodicCallback | None = None

    _held: ClassVar[dict[str, Held]] = {}

    @default("command")
    def _installed_command(self) -> list[str]:
        return program.command()

    async def start(self) -> None:
        """Start the proxy; ends the Hub, with one line that says why, if that cannot be."""
        try:
            self._be_alone()
            self.command  # noqa: B018  installs it, if it has to be
        except KaosError as e:
            self.log.critical("%s", e.message)
            self.app.exit(1)
        await super().start()

    def _be_alone(self) -> None:
        if self.data_dir in self._held:
            return
        self._held[self.data_dir] = DataDir(self.data_dir).hold("hub.lock")

    def _check_previous_process(self) -> None:
        program.end_leftover(Path(self.pid_file))

    def _get_ssl_options(self) -> list[str]:
        """Return JupyterHub's options, but with narrower authorities for the proxy to trust.

        Only the Hub tells it routes, and behind it what calls itself a service is one.
        """
        options: list[str] = super()._get_ssl_options()
        certificates = Certificates(Path(self.app.internal_certs_location))
        options[options.index("--api-ssl-ca") + 1] = str(certificates.hub)
        options[options.index("--client-ssl-ca") + 1] = str(certificates.behind_proxy)
        return options

    # --- a proxy that the Hub does not start -----------------------------------------------------

    async def get_all_routes(self, *args: Any, **kwargs: Any) -> Any:
        """All routes. The first question waits for a proxy that is just starting."""
        if not self.should_start and not self._met:
            await self._meet()
        return await super().get_all_routes(*args, **kwargs)

    async def _meet(self) -> None:
        told = ""
        while True:
            try:
                await self._routes_now()
                break
            except (ClientError, OSError, TimeoutError) as e:
                problem = str(e) or type(e).__name__
            if problem != told:
                self.log.warning("Waiting for the proxy at %s: %s", self.api_url, problem)
                told = problem
            await asyncio.sleep(0.5)
        self._met = True
        self._looking = PeriodicCallback(self._look, 1000 * self.look_interval)
        self._looking.start()

    async def _routes_now(self) -> dict[str, Any]:
        """The proxy's routes as it calls them. Unlike JupyterHub's own, asks once."""
        headers = {"Authorization": f"token {self.auth_token}"}
        async with asyncio.timeout(5):
            answer = await fetch(f"{self.api_url}/api/routes", headers=headers)
            return dict(await answer.json())

    async def _look(self) -> None:
        """Give a proxy that has no routes all of them."""
        try:
            known = await self._routes_now()
        except (ClientError, OSError, TimeoutError):
            return  # it is away; when it is back it knows nothing
        root = self._routespec_to_chp_path(self.app.hub.routespec)
        # While the Hub starts it makes the routes itself.
        if root not in known and self.app._start_future.done():
            self.log.warning("The proxy has no routes; telling it all of them")
            await self.check_routes(self.app.users, self.app._service_map)
