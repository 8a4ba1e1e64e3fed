"""Tickets: what lets a workload fetch its own trees, and nothing else.

A ticket names a workload and the digests of the trees that it may fetch, and is signed with a key
that only the service holds: ``kaos1.<base64url of JSON>.<hex of HMAC-SHA256>``. So none has to be
kept. It holds no right of a user's. The code that checks one must also ask whether its workload is
still alive, since a ticket is worth nothing once its workload is over.

Another kind lets a page of the Hub's send a user's folders, and nothing else: there the service's
own cookies cannot be read. It names the user: ``kaosup1.…``.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kaos_hub.bundles.tree import is_digest
from kaos_hub.errors import InvalidRequest, NotAuthenticated

MAX_DIGESTS = 64
"""Trees of one ticket. It travels in a header, of which servers take some kilobytes."""

_VERSION = "kaos1"
_UPLOAD = "kaosup1"
_LONGEST = 16 << 10
_REFUSED = "The ticket is not valid."


@dataclass(frozen=True)
class Ticket:
    """The content of a valid ticket."""

    workload: str
    """The workload that it was made for."""
    digests: tuple[str, ...]
    """The trees that may be fetched with it."""


class Tickets:
    """Makes and checks tickets.

    Args:
        key: the secret that signs them; see :meth:`kaos_hub.installation.datadir.DataDir.secret`.
    """

    def __init__(self, key: str) -> None:
        if not key:
            raise ValueError("tickets need a key")
        self._key = key.encode()

    def issue(self, workload: str, digests: Iterable[str], seconds: int) -> str:
        """Make a ticket.

        Args:
            workload: which workload may use it.
            digests: the trees that it may fetch, at most :data:`MAX_DIGESTS`; a worker that only
                asks the service for work needs none.
            seconds: until when it is valid at most; the workload's deadline and a little more.

        Raises:
            InvalidRequest: too many digests, or one that is none.
        """
        trees = list(dict.fromkeys(digests))
        if not workload or len(trees) > MAX_DIGESTS or not all(map(is_digest, trees)):
            raise InvalidRequest(
                f"a ticket is for one workload and at most {MAX_DIGESTS} digests of trees"
            )
        said = {"workload": workload, "digests": trees, "until": int(time.time()) + seconds}
        return self._seal(_VERSION, said)

    def issue_upload(self, user: str, seconds: int) -> str:
        """Make a ticket with which bundles can be sent.

        Args:
            user: whose they become.
            seconds: until when it is valid.
        """
        said = {"user": user, "until": int(time.time()) + seconds}
        return self._seal(_UPLOAD, said)

    def check_upload(self, ticket: str) -> str:
        """The user whose bundles can be sent with a ticket.

        Raises:
            NotAuthenticated: it is none, or has expired; never says which.
        """
        return str(self._open(_UPLOAD, ticket)["user"])

    def check(self, ticket: str) -> Ticket:
        """Return what a ticket says, if it is one of ours and has not expired.

        Raises:
            NotAuthenticated: it is not; never says why.
        """
        said = self._open(_VERSION, ticket)
        return Ticket(said["workload"], tuple(said["digests"]))

    def _seal(self, version: str, said: dict[str, Any]) -> str:
        payload = base64.urlsafe_b64encode(json.dumps(said).encode()).decode()
        return f"{version}.{payload}.{self._sign(version, payload)}"

    def _open(self, expected: str, ticket: str) -> dict[str, Any]:
        if len(ticket) > _LONGEST or not ticket.isascii():
            raise NotAuthenticated(_REFUSED)
        # Nothing in it is read before its signature was found right.
        version, _, rest = ticket.partition(".")
        payload, _, signature = rest.partition(".")
        right = hmac.compare_digest(signature, self._sign(expected, payload))
        if version != expected or not right:
            raise NotAuthenticated(_REFUSED)
        said: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload))
        if said["until"] <= time.time():
            raise NotAuthenticated(_REFUSED)
        return said

    def _sign(self, version: str, payload: str) -> str:
        # Of one kind none can be made into the other.
        text = f"{version}.{payload}".encode()
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()


def for_upload(ticket: str) -> bool:
    """Return whether it looks like a ticket for uploads."""
    return ticket.startswith(f"{_UPLOAD}.")
