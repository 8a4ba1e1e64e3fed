"""Reports of a clone: to the notebook's log, to the service, and in a file if it failed."""

import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from kaos_hub.errors import KaosError
from kaos_hub.schemas import (
    Clone,
    CloneLogin,
    CloneQuestion,
    CloneReport,
    GitCredentials,
    GitState,
    Repository,
)
from kaos_hub.transport.workload import Api, Over
from kaos_hub.workload.git.record import NOTICE

_BRIEF, _LONG = 15.0, 300.0
"""Seconds for which the service may be away: while there is more to say, and at the end."""
_UNHEARD = 60.0
"""Seconds for which it is then left alone."""
_PAUSE = 3.0
"""Seconds between two words about the progress."""


class Unwanted(Exception):
    """A clone that the notebook is no longer to have."""


class Teller:
    """Tells of one clone.

    Args:
        home: the notebook's.
        repository: what is cloned.
        environ: variables of the notebook, which say where the service is.
    """

    def __init__(
        self, home: Path, repository: Repository, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._notice = home / "work" / NOTICE
        self._repository = repository
        self.notebook = environ.get("KAOS_NOTEBOOK", "")
        self._url = environ.get("KAOS_URL", "")
        self._token = environ.get("JUPYTERHUB_API_TOKEN", "")
        self._place = f"notebooks/{quote(self.notebook, safe='')}/git"
        self._told = 0.0

    def say(self, text: str) -> None:
        """Tell the notebook's log."""
        for line in text.splitlines():
            print(f"kaos: git: {line}", flush=True)

    def credentials(self) -> GitCredentials | None:
        """Return the login that the user gave for this repository, if it was not handed out before.

        Raises:
            Unwanted: the notebook is to have another repository, or none.
        """
        question = CloneQuestion(repository=str(self._repository))
        api = self._api(_LONG)
        if api is None:
            return None
        try:
            return api.post(f"{self._place}/credentials", question, CloneLogin).credentials
        except Over:
            raise Unwanted from None
        except KaosError as e:
            self.say(f"whether there are credentials cannot be asked: {e.message}")
            return None

    def progress(self, text: str, now: bool = False) -> None:
        """Tell how far it is, if that was not told a moment ago.

        Raises:
            Unwanted: as :meth:`credentials`.
        """
        if not now and time.monotonic() - self._told < _PAUSE:
            return
        self._told = time.monotonic()
        self.say(text)
        self._report(GitState.CLONING, text, _BRIEF)

    def cloned(self, note: str, commit: str, place: Path) -> None:
        """Tell that it is there."""
        with suppress(OSError):
            self._notice.unlink()
        with suppress(Unwanted):
            self._report(GitState.CLONED, note, _LONG, commit, f"work/{place.name}")

    def failed(self, problem: str) -> None:
        """Tell that it is not there, and why."""
        # Words of a server may be part of it.
        problem = "".join(c if c.isprintable() or c == "\n" else "?" for c in problem)
        text = f"{self._repository} was not cloned: {problem}"
        self.say(text)
        with suppress(OSError):
            self._notice.parent.mkdir(exist_ok=True)
            draft = self._notice.with_name(f".{NOTICE}.new")
            draft.write_text(f"{text}\n", "utf-8", errors="replace")
            draft.replace(self._notice)
        with suppress(Unwanted):
            self._report(GitState.FAILED, problem, _LONG)

    def _report(
        self, state: GitState, note: str, patience: float, commit: str = "", place: str = ""
    ) -> None:
        api = self._api(patience)
        if api is None:
            return
        report = CloneReport(
            repository=str(self._repository), state=state, note=note[:1900], commit=commit,
            place=place,
        )  # fmt: skip
        try:
            api.post(self._place, report, Clone)
        except Over:
            raise Unwanted from None
        except KaosError as e:
            # The clone counts, not that the service hears of it.
            self.say(f"the service did not hear that: {e.message}")
            self._told = time.monotonic() + _UNHEARD

    def _api(self, patience: float) -> Api | None:
        known = self._url and self._token and self.notebook
        return Api(self._url, self._token, patience, threading.Event()) if known else None
