"""Settings that all engines share."""

import platform
import sys
from abc import ABCMeta, abstractmethod
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from traitlets import Int, Unicode
from traitlets.config import LoggingConfigurable

from kaos_hub.engines.base import Engine, JobSpec, Observation, Run
from kaos_hub.engines.scratch import Pass
from kaos_hub.engines.supervised.process import DEFAULT_CAP
from kaos_hub.installation.certificates import Certificates
from kaos_hub.installation.datadir import DataDir
from kaos_hub.transport.tickets import Tickets

_TICKET_SECONDS = 24 * 3600


class _Meta(type(LoggingConfigurable), ABCMeta):  # type: ignore[misc]
    """A class that is both configurable and abstract."""


class ConfigurableEngine(LoggingConfigurable, Engine, metaclass=_Meta):  # type: ignore[misc]
    """Base of the engines that come with kaos_hub."""

    data_dir = Unicode(
        help="Directory in which everything of this kaos_hub lies. Set by the service."
    ).tag(config=True)

    log_limit = Int(
        DEFAULT_CAP,
        min=1 << 10,
        help="Bytes of output kept of one job. Work goes on when its log is full.",
    ).tag(config=True)

    def observe(self, name: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the state of the workload of that name, see :meth:`Engine.observe`.

        Configurables have a method of the same name, by which traitlets itself adds its handlers to
        an instance; the two are told apart by what they are given.
        """
        if callable(name):
            return LoggingConfigurable.observe(self, name, *args, **kwargs)
        return self._observe(name)

    @abstractmethod
    async def _observe(self, name: str) -> Observation:
        """Return the present state of the workload."""

    @cached_property
    def _data(self) -> DataDir:
        return DataDir(self.data_dir or None)

    @cached_property
    def _tickets(self) -> Tickets:
        return Tickets(self._data.secret("tickets"))

    def _ticket(self, spec: JobSpec, digests: Iterable[str] = ()) -> str:
        """A ticket for a job, for a day longer than it may take: it may have to wait to begin."""
        return self._tickets.issue(spec.name, digests, spec.deadline + _TICKET_SECONDS)

    def _identity(self, spec: JobSpec) -> str:
        """The certificate of a job, for as long as its ticket; empty without TLS."""
        found = Certificates.of_service()
        return found.worker(spec.name, spec.deadline + _TICKET_SECONDS) if found else ""

    def _pass(self, spec: JobSpec, work: Run) -> Pass | None:
        """Return the pass of a job at the service, if it is one that asks there."""
        return Pass(self._ticket(spec), self._identity(spec)) if work.ticket else None

    @property
    def platform(self) -> str:
        """Operating system and architecture."""
        return f"{sys.platform}/{platform.machine()}"
