"""Clones the repository that a notebook begins with: ``python -m kaos_hub.workload.git.clone``.

A program of its own, since it may take long and much memory. It needs no git. ``KAOS_GIT`` is what
to clone (:class:`~kaos_hub.schemas.CloneOrder` as JSON), ``KAOS_HOME`` the notebook's home; the
service, which has the credentials, is asked with the server's own token. All happens in a folder
beside: what stands in the working directory in the end is a whole clone or none. It ends with 0 if
it has told how it went.
"""

import errno
import os
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path
from types import FrameType
from typing import NoReturn

from dulwich.client import InvalidWants
from dulwich.errors import (
    ApplyDeltaError,
    ChecksumMismatch,
    FileFormatException,
    GitProtocolError,
    ObjectMissing,
    RefFormatError,
    WrongObjectException,
)
from dulwich.index import InvalidPathError
from dulwich.object_store import MaxTreeDepthExceeded
from dulwich.objects import SubmoduleEncountered
from dulwich.pack import PackFileDisappeared, UnresolvedDeltas
from dulwich.refs import SymrefLoop
from dulwich.repo import UnsupportedExtension, UnsupportedVersion

from kaos_hub.schemas import CloneOrder, GitCredentials, parse_repository
from kaos_hub.transport.hosts import Hosts, Later, Wrong
from kaos_hub.util.quantities import duration, plural, show_memory
from kaos_hub.workload.git import record
from kaos_hub.workload.git.cloning import DRAFT
from kaos_hub.workload.git.repository import Made, make
from kaos_hub.workload.git.told import Teller, Unwanted
from kaos_hub.workload.git.wire import LoginWanted, Server
from kaos_hub.workload.ingest.web import Web

_PAUSES = (1.0, 4.0)
"""Seconds before it is tried again."""
_NAMED = 5
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_SENSELESS = (
    ApplyDeltaError, AssertionError, ChecksumMismatch, EOFError, FileFormatException,
    GitProtocolError, InvalidPathError, InvalidWants, KeyError, MaxTreeDepthExceeded, ObjectMissing,
    PackFileDisappeared, RecursionError, RefFormatError, SubmoduleEncountered, SymrefLoop,
    UnresolvedDeltas, UnsupportedExtension, UnsupportedVersion, ValueError, WrongObjectException,
    struct.error, zlib.error,
)  # fmt: skip
"""Errors that dulwich may raise for content that a server sends."""


class TooLong(Exception):
    """A clone that takes longer than it may."""


class CloneRun:
    """One clone.

    Args:
        home: the notebook's.
        order: what to clone.
    """

    def __init__(self, home: Path, order: CloneOrder) -> None:
        self._home, self._order = home, order
        self._repository = parse_repository(order.repository)
        self._teller = Teller(home, self._repository)

    def run(self) -> None:
        """Clone it, unless it is there; tell how that went."""
        there = record.find(self._home / "work", self._order.repository)
        if there is not None:
            self._teller.cloned("it was there", there.commit, there.place)
            return
        problem = self._problem()
        signal.alarm(0)
        if problem:
            self._teller.failed(problem)

    def _problem(self) -> str:
        """Clone it; why that failed, or nothing."""
        try:
            self._teller.progress(f"cloning {self._repository}", now=True)
            signal.alarm(max(1, self._order.deadline))
            self._clone(self._teller.credentials())
        except Unwanted:
            self._teller.say(f"{self._repository} is not wanted any more")
        except TooLong:
            limit = duration(self._order.deadline)
            return f"it took longer than {limit}, the most it may (git_deadline)"
        except LoginWanted as e:
            return self._about_login(e)
        except (Wrong, Later) as e:
            return self._sentence(str(e)) + self._again()
        except OSError as e:
            return _about_files(e) + self._again()
        except MemoryError:
            return "it needs more memory than the notebook has: deploy with --memory"
        except _SENSELESS as e:
            what = f"{type(e).__name__}: {e}".splitlines()[0][:300]
            host = self._repository.host
            return f"what {host} sent is no sound repository ({what})" + self._again()
        return ""

    def _clone(self, credentials: GitCredentials | None) -> None:
        if credentials is not None and self._repository.scheme == "http":
            self._teller.say("the login goes to the server as plain text: use https:// if it can")
        private = self._home / ".kaos"
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=DRAFT, dir=private, ignore_cleanup_errors=True
        ) as temporary:
            folder, made = self._try(Path(temporary), credentials)
            signal.alarm(0)
            record.note(folder, self._order.repository, made.commit)
            ref = self._repository.ref or ""
            more = ref if ref and ref != made.commit else made.commit[:7] or "empty"
            place = record.settle(self._home, folder, self._repository.name, more)
        self._tell(made, place)

    def _try(self, temporary: Path, credentials: GitCredentials | None) -> tuple[Path, Made]:
        """Try until it works, or there is no sense in that."""
        order = self._order
        hosts = Hosts(order.networks, "git_networks")
        web = Web(hosts, order.schemes, 1, threading.Event())
        for pause in (*_PAUSES, None):
            folder = temporary / "clone"
            folder.mkdir(mode=0o755)
            server = Server(self._repository, web, credentials, order.size, self._heard)
            try:
                tell = self._teller.progress
                return folder, make(folder, self._repository, server, order.size, tell)
            except Later as e:
                if pause is None:
                    raise
                self._teller.progress(f"{self._sentence(str(e))}; trying again", now=True)
            shutil.rmtree(folder)
            time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _heard(self, count: int) -> None:
        if count > 1 << 16:
            self._teller.progress(f"{show_memory(count)} received")

    def _tell(self, made: Made, place: Path) -> None:
        say = self._teller.say
        on = f"branch {made.branch}" if made.branch else "no branch"
        files = plural(made.files, "file")
        what = f"commit {made.commit[:12]}, {files}, on {on}" if made.commit else "empty"
        say(f"cloned {self._repository} into ~/work/{place.name}: {what}")
        if made.commit and not made.whole:
            say("only its last commit is there; for the history: git fetch --unshallow")
        notes = []
        if place.name != self._repository.name:
            notes.append(f"beside ~/work/{self._repository.name}, which was there and is untouched")
        if made.submodules:
            notes.append(f"submodules are not fetched: {_listed(made.submodules)}")
        if made.pointers:
            notes.append(f"files kept with git LFS are not fetched: {_listed(made.pointers)}")
        for each in notes:
            say(each)
        self._teller.cloned("; ".join(notes), made.commit, place)

    def _sentence(self, problem: str) -> str:
        """A problem that begins with a verb or a host."""
        host = self._repository.host
        verbs = ("answer", "send", "has ")
        return f"{host} {problem}" if problem.startswith(verbs) else problem

    def _again(self) -> str:
        return f"\nTo try again: kaos notebook deploy -n {self._name} --git {self._repository}"

    @property
    def _name(self) -> str:
        return self._teller.notebook or "NAME"

    def _about_login(self, e: LoginWanted) -> str:
        host = self._repository.host
        give = f"kaos notebook deploy -n {self._name} --git-credentials"
        if e.moved:
            return (
                f"{host} leads to {e.moved}, which wants a login, and no login goes anywhere but to"
                f" the host that was named. Name that one: kaos notebook deploy -n {self._name}"
                f" --git {e.moved}/… --git-credentials"
            )
        if e.hidden:
            to_whom = "to whom that login belongs" if e.refused else "without a login"
            return (
                f"{host} has no such repository, or does not show it {to_whom}. Is the address"
                f" right? If so, give it a login that may read it: {give}"
            )
        if e.refused:
            return f"{host} refuses the login. Give it another: {give}"
        return f"{host} wants a login (one that was given is used once and not kept): {give}"


def _about_files(e: OSError) -> str:
    if e.errno in _NO_ROOM:
        return "there is no room for it on the notebook's disk"
    where = f"{os.fsdecode(e.filename)}: " if isinstance(e.filename, str | bytes) else ""
    return f"it cannot be written: {where}{e.strerror or e}"


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _end(signum: int, frame: FrameType | None) -> NoReturn:
    raise TooLong


def _unforeseen(kind: type[BaseException], e: BaseException, _: object) -> None:
    """Print an error in one line: a traceback is of no use to users.

    The notebook's server, which began this program, tells that it ended.
    """
    print(f"kaos: git: {kind.__name__}: {e}", flush=True)


def main() -> int:
    """Clone as the environment says."""
    sys.excepthook = _unforeseen
    order = CloneOrder.model_validate_json(os.environ["KAOS_GIT"])
    signal.signal(signal.SIGALRM, _end)
    # What ends the notebook's server ends this, and what is half done goes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    CloneRun(Path(os.environ["KAOS_HOME"]), order).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
