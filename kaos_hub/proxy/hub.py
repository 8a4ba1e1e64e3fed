"""The Hub's side of the proxy: JupyterHub's own class, less its ways to hurt bystanders."""

from pathlib import Path
from typing import ClassVar

from jupyterhub.proxy import ConfigurableHTTPProxy
from traitlets import Unicode, default

from kaos_hub import proxy
from kaos_hub.datadir import DataDir, Held
from kaos_hub.errors import KaosError


class KaosProxy(ConfigurableHTTPProxy):
    """configurable-http-proxy, installed when first needed.

    Before it ends the proxy that a killed Hub left behind it makes sure of two things: that this
    Hub alone uses the data directory (else it would end the proxy of a running one), and that the
    number in the pid file still is that proxy's.
    """

    data_dir = Unicode(config=True, help="The kaos data directory, of which there is one Hub.")

    _held: ClassVar[dict[str, Held]] = {}

    @default("command")
    def _installed_command(self) -> list[str]:
        return proxy.command()

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
        proxy.end_leftover(Path(self.pid_file))
