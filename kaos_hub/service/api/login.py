"""Login of a command line: it asks, a person confirms in a browser, it fetches the token.

In the spirit of RFC 8628. The command line keeps a secret, the *verifier*, and sends only its
SHA-256, the *challenge*: the page's address or code is not enough to fetch the token. The
token is the access token of the person's browser session with this service; the Hub ends both
together when the person logs out there. Tokens stand in no URL and in no log.
"""

import hashlib
import hmac
import math
import secrets
import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from urllib.parse import urlsplit

from kaos_hub.deployment.default_url import login_path
from kaos_hub.errors import Forbidden, NotAuthenticated, NotFound, TooManyRequests
from kaos_hub.installation.addresses import SERVICES
from kaos_hub.schemas import LoginAnswer, LoginPoll, LoginRequest, LoginStarted
from kaos_hub.service.api.routes import Call, Route
from kaos_hub.service.auth.auth import Right
from kaos_hub.service.web.traffic import of_address
from kaos_hub.util.quantities import plural

LIFETIME = 600
"""Seconds for which a login waits for its confirmation."""

_MOST = 5000
"""Logins that wait at once: a megabyte or two."""

_MOST_OF_ONE = 100
"""Logins from one address that wait at once."""

_BODY = 16 << 10
"""Bytes of a body of a request without a login."""

_RATE, _PERIOD = 60, 60.0
"""Logins that may begin from one address in so many seconds. A classroom has one address."""

_ADDRESSES = 10_000
"""Addresses whose rate is remembered."""

# Letters only, without vowels: no words come out, and none looks like a digit (RFC 8628, 6.1).
_ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"


@dataclass
class Pending:
    """A login that waits, or was just decided."""

    challenge: str
    user_code: str
    client: str
    remote_ip: str
    expires: float
    denied: bool = False
    token: str | None = None


class Logins:
    """The logins that wait. They are in memory only: after a restart people begin again.

    Args:
        hub_leads: the Hub's first page leads each user to the page of a service they may use.
    """

    def __init__(self, hub_leads: bool = False) -> None:
        self.hub_leads = hub_leads
        self._by_code: OrderedDict[str, Pending] = OrderedDict()
        self._by_challenge: dict[str, Pending] = {}
        self._begun: OrderedDict[str, deque[float]] = OrderedDict()
        self._from: Counter[str] = Counter()

    def begin(self, request: LoginRequest, remote_ip: str) -> Pending:
        """Begin a login and return it.

        Where too many wait, the oldest is dropped: of those from the same address, if that has too
        many, else of those from the address with the most. So a stranger who begins thousands ends
        only their own.

        Raises:
            TooManyRequests: too many were begun from this address just now.
        """
        self._forget_expired()
        self._limit_rate(remote_ip)
        self._make_room(remote_ip)
        self._drop(self._by_challenge.get(request.challenge))
        expires = time.monotonic() + LIFETIME
        code = self._new_code()
        pending = Pending(request.challenge, code, request.client, remote_ip, expires)
        self._by_code[code] = self._by_challenge[request.challenge] = pending
        self._from[of_address(remote_ip)] += 1
        return pending

    def by_code(self, user_code: str) -> Pending:
        """Return the login that waits under this code.

        Raises:
            NotFound: there is none, or it was decided or has expired.
        """
        self._forget_expired()
        pending = self._by_code.get(user_code.strip().upper())
        if pending is None or pending.denied or pending.token is not None:
            raise NotFound("This login is over, or was never asked for. Run `kaos login` again.")
        return pending

    def collect(self, verifier: str) -> str | None:
        """Return the token that belongs to the verifier, or None before a person has confirmed.

        The token is given once.

        Raises:
            NotAuthenticated: denied, expired, or never begun.
        """
        self._forget_expired()
        challenge = hashlib.sha256(verifier.encode()).hexdigest()
        pending = self._by_challenge.get(challenge)
        if pending is None or not hmac.compare_digest(pending.challenge, challenge):
            raise NotAuthenticated("This login has expired. Run `kaos login` again.")
        if pending.denied:
            self._drop(pending)
            raise NotAuthenticated(
                "The login was denied in the browser. If that was a mistake, run `kaos login`"
                " again."
            )
        if pending.token is not None:
            self._drop(pending)
        return pending.token

    def _new_code(self) -> str:
        while True:
            letters = "".join(secrets.choice(_ALPHABET) for _ in range(8))
            code = f"{letters[:4]}-{letters[4:]}"
            if code not in self._by_code:
                return code

    def _make_room(self, remote_ip: str) -> None:
        where = of_address(remote_ip)
        if self._from[where] >= _MOST_OF_ONE:
            self._drop(next(p for p in self._by_code.values() if of_address(p.remote_ip) == where))
        if len(self._by_code) >= _MOST:
            # Of the addresses with the most logins: where each has one, the oldest.
            most = max(self._from.values())
            self._drop(
                next(
                    p for p in self._by_code.values() if self._from[of_address(p.remote_ip)] == most
                )
            )

    def _limit_rate(self, remote_ip: str) -> None:
        now = time.monotonic()
        where = of_address(remote_ip)
        begun = self._begun.setdefault(where, deque(maxlen=_RATE))
        self._begun.move_to_end(where)
        if len(self._begun) > _ADDRESSES:
            self._begun.popitem(last=False)
        if len(begun) == _RATE and now - begun[0] < _PERIOD:
            wait = math.ceil(begun[0] + _PERIOD - now)
            raise TooManyRequests(
                f"Too many logins from your address. Try again in {plural(wait, 'second')}.",
                retry_after=wait,
            )
        begun.append(now)

    def _forget_expired(self) -> None:
        now = time.monotonic()
        # In order of beginning, and all live equally long: the oldest expire first.
        while self._by_code:
            pending = next(iter(self._by_code.values()))
            if pending.expires > now:
                return
            self._drop(pending)

    def _drop(self, pending: Pending | None) -> None:
        if pending is not None and self._by_code.pop(pending.user_code, None) is not None:
            self._by_challenge.pop(pending.challenge, None)
            where = of_address(pending.remote_ip)
            self._from[where] -= 1
            if not self._from[where]:
                del self._from[where]


def routes(logins: Logins, service: str) -> list[Route]:
    """Return the routes that a command line uses.

    The page is in :mod:`kaos_hub.service.pages.base`.

    Args:
        logins: the logins that wait.
        service: the Hub's service that was asked.
    """

    async def begin(call: Call) -> LoginStarted:
        request: LoginRequest = call.body
        pending = logins.begin(request, call.remote_ip)
        hub, code = _hub_url(call), pending.user_code
        first, second = (
            f"{hub}/services/{name}/login?code={code}"
            for name in sorted(SERVICES, key=lambda name: name != service)
        )
        # It is not known yet which user will open it: the Hub's page decides, if it can.
        url, other = (
            (f"{hub}/hub/{login_path(code)}", None) if logins.hub_leads else (first, second)
        )
        return LoginStarted(url=url, other_url=other, user_code=code, expires_in=LIFETIME)

    async def poll(call: Call) -> LoginAnswer:
        request: LoginPoll = call.body
        return LoginAnswer(token=logins.collect(request.verifier))

    return [
        Route(
            "POST",
            "/login",
            begin,
            "A command line asks to be let in. A person opens the url and compares the code.",
            right=Right.ANYONE,
            body=LoginRequest,
            answer=LoginStarted,
            limit=_BODY,
        ),
        Route(
            "POST",
            "/login/token",
            poll,
            "The token, once a person has confirmed; null until then. It is given once.",
            right=Right.ANYONE,
            body=LoginPoll,
            limit=_BODY,
            answer=LoginAnswer,
            errors=(NotAuthenticated,),
        ),
    ]


def _hub_url(call: Call) -> str:
    """Return the Hub's URL for the caller's browser: through the same tunnel, if there is one."""
    host = urlsplit(call.origin).hostname
    if host in ("localhost", "127.0.0.1", "::1"):
        return call.origin + urlsplit(call.core.public_url).path
    return call.core.public_url


def decide(pending: Pending, token: str | None) -> None:
    """Let the command line in with this token, or deny it if the token is None.

    Raises:
        Forbidden: it was decided already.
    """
    if pending.denied or pending.token is not None:
        raise Forbidden(
            "This login was decided already. If it is to be decided anew, run `kaos login` again."
        )
    pending.token = token
    pending.denied = token is None
