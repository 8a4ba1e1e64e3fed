"""What one user, or one address, may ask of the service (causes 12 and 16 of the review)."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest

from kaos_hub.client import Client
from kaos_hub.errors import NotFound, TooManyRequests, TooSlow
from kaos_hub.schemas import LoginRequest
from kaos_hub.service.api.login import Logins
from kaos_hub.service.web.traffic import Allowed, Pace, Traffic, of_address, of_user
from tests.attacks.test_service_bodies import service_of
from tests.attacks.victims import Victim
from tests.hub import Browser, RunningHub, request, running_hub
from tests.test_service_streams import events_of
from tests.troubled import Trouble, serving

_CONFIG = """
c.KaosService.request_rate = 4
c.KaosService.request_burst = 20
c.KaosService.max_streams = 3
c.KaosService.max_uploads = 2
c.KaosService.trusted_proxies = ["203.0.113.0/24"]
"""


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub that allows little."""
    with running_hub(tmp_path_factory.mktemp("narrow"), config=_CONFIG) as running:
        yield running


def test_too_many_are_refused_and_others_are_not(narrow: RunningHub) -> None:
    """Attack of cause 16: as many requests as one likes."""
    mallory, bob = narrow.token("mallory"), narrow.token("bob")
    statuses: list[int] = []
    for _ in range(60):
        answer = request("GET", narrow.api + "/notebooks", mallory)
        statuses.append(answer.status)
        if answer.status == 429:
            assert answer.json["code"] == "too_many_requests"
            assert 1 <= int(answer.headers["Retry-After"]) <= 5
            assert answer.json["details"]["retry_after"] == int(answer.headers["Retry-After"])
            assert request("GET", narrow.api + "/notebooks", bob).status == 200
            break
    assert statuses[-1] == 429 and len(statuses) > 15


def test_both_services_and_pages_count_together(narrow: RunningHub) -> None:
    """Attack of cause 16: the same through the other door."""
    browser = Browser(narrow, "carol")
    token = narrow.token("carol")
    for _ in range(60):
        if request("GET", narrow.train + "/api/v1/trainings", token).status == 429:
            break
    page = browser.get(f"{narrow.kaos}/")
    assert page.status == 429 and "Too many requests" in page.text
    assert page.headers["Retry-After"]


def test_the_client_waits_as_told(narrow: RunningHub) -> None:
    """What a program asks for is only slowed down."""
    kaos = Client(narrow.url, narrow.token("dave"))
    began = time.monotonic()
    for _ in range(40):
        kaos.notebooks.list()
    assert time.monotonic() - began > 2


def test_strangers_count_by_address(narrow: RunningHub) -> None:
    """Attack of cause 16 without a login: it costs users of the same address nothing."""
    bob = narrow.token("bobby")
    statuses = {request("GET", narrow.api + "/notebooks", "nonsense").status for _ in range(60)}
    assert statuses <= {401, 403, 429} and 429 in statuses
    assert request("GET", narrow.api + "/notebooks", bob).status == 200


def test_streams_of_a_user_are_bounded(narrow: RunningHub) -> None:
    """Attack of cause 16: 500 streams of one user made others wait for seconds."""
    mallory, bob = narrow.token("malin"), narrow.token("berta")
    streams = [events_of(narrow, "/notebooks/events", mallory) for _ in range(3)]
    assert [next(stream) for stream in streams] == ["HTTP/1.1 200 OK"] * 3
    refused = events_of(narrow, "/notebooks/events", mallory)
    assert next(refused).startswith("HTTP/1.1 429 ")
    other = events_of(narrow, "/notebooks/events", bob)
    assert next(other) == "HTTP/1.1 200 OK"
    streams[0].close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        again = events_of(narrow, "/notebooks/events", mallory)
        if next(again) == "HTTP/1.1 200 OK":
            return
        time.sleep(0.5)
    raise AssertionError("a place that was let go of is taken")


def test_as_many_streams_as_are_allowed_cost_others_nothing(hub: RunningHub) -> None:
    """Attack of cause 16: streams to which one event fans out."""
    mallory, bob = hub.token("mallory"), hub.token("bob")
    streams = [events_of(hub, "/notebooks/events", mallory) for _ in range(64)]
    for stream in streams:
        assert next(stream) == "HTTP/1.1 200 OK"
    with Victim(hub, bob) as victim, ThreadPoolExecutor(4) as pool:
        body = {"name": "loud"}
        for _ in range(5):
            assert hub.ask("POST", "/notebooks", mallory, body).status < 300
            list(pool.map(next, streams))
            assert hub.ask("DELETE", "/notebooks/loud?wait=60", mallory).json["done"]
    victim.check()
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]


class ServiceWithoutTime(Trouble):
    """Refuses the first requests, and says when it has time."""

    left: ClassVar[int] = 2
    sent: ClassVar[list[bytes]] = []

    def trouble(self) -> None:
        self.sent.append(self.body)
        if ServiceWithoutTime.left:
            ServiceWithoutTime.left -= 1
            body = b'{"code": "too_many_requests", "message": "x", "details": {"retry_after": 0.2}}'
            self.answer(429, body, **{"Retry-After": "1"})
        else:
            self.answer(200, b"[]")

    do_POST = Trouble.do_GET


def test_all_that_is_sent_is_sent_again() -> None:
    """Also what is streamed, from its beginning."""
    for body in (b"whole", lambda: iter([b"in ", b"pieces"])):
        ServiceWithoutTime.left = 2
        with serving(ServiceWithoutTime) as transport:
            if callable(body):
                assert transport.upload("/api/v1/objects", body, 9) == []
                assert ServiceWithoutTime.sent[-3:] == [b"in pieces"] * 3
            else:
                assert transport.json("POST", "/api/v1/x", {"a": 1}) == []


# --- logins ---


def begin(logins: Logins, address: str) -> str:
    challenge = hashlib.sha256(secrets.token_bytes(16)).hexdigest()
    return logins.begin(LoginRequest(challenge=challenge, client="x"), address).user_code


def test_logins_cannot_be_shut_by_a_stranger() -> None:
    """Attack of cause 12: 500 requests without a login kept everybody out for ten minutes."""
    logins = Logins()
    mine = begin(logins, "192.0.2.1")
    for number in range(8000):
        begin(logins, f"198.51.{number % 250}.{number % 7}")
    assert logins.by_code(mine).user_code == mine
    assert begin(logins, "192.0.2.2")


def test_one_address_ends_its_own_logins_only() -> None:
    """Attack of cause 12, by one who is patient."""
    logins = Logins()
    mine = begin(logins, "192.0.2.1")
    first = begin(logins, "2001:db8::1")
    with pytest.raises(TooManyRequests) as error:
        for number in range(200):
            begin(logins, f"2001:db8::{number:x}")
    assert 1 <= error.value.details["retry_after"] <= 60
    logins._begun.clear()
    for number in range(90):
        logins._begun.clear()
        begin(logins, f"2001:db8::{number:x}")
    with pytest.raises(NotFound):
        logins.by_code(first)
    assert logins.by_code(mine)


@pytest.mark.parametrize(
    "forged",
    [
        {"X-Real-IP": "6.6.6.6"},
        {"X-Forwarded-For": "6.6.6.6"},
        {"X-Forwarded-For": "6.6.6.6, 203.0.113.7"},
        {"X-Real-IP": "6.6.6.6", "X-Forwarded-For": "6.6.6.6,6.6.6.6"},
        {"X-Scheme": "https", "X-Forwarded-For": "nonsense"},
        {"Forwarded": "for=6.6.6.6"},
    ],
)
def test_the_page_of_a_login_shows_a_true_address(hub: RunningHub, forged: dict[str, str]) -> None:
    """Attack of cause 12: the one thing that a person can check was the attacker's choice."""
    challenge = hashlib.sha256(secrets.token_bytes(16)).hexdigest()
    started = request(
        "POST", f"{hub.api}/login", None, {"challenge": challenge, "client": "x"}, forged
    ).json
    page = Browser(hub, "ivan").get(f"{hub.kaos}/login?code={started['user_code']}")
    assert "127.0.0.1" in page.text and "6.6.6.6" not in page.text, page.text[-1500:]


def test_a_proxy_that_is_trusted_is_believed(narrow: RunningHub) -> None:
    """The list ends with proxies; the last address that is none counts."""
    challenge = hashlib.sha256(secrets.token_bytes(16)).hexdigest()
    headers = {"X-Forwarded-For": "6.6.6.6, 192.0.2.7, 203.0.113.9"}
    url = f"{service_of(narrow)}/services/kaos/api/v1/login"
    started = request("POST", url, None, {"challenge": challenge, "client": "x"}, headers).json
    page = Browser(narrow, "erin").get(f"{narrow.kaos}/login?code={started['user_code']}")
    assert "192.0.2.7" in page.text


# --- the parts alone ---


def test_what_is_open_is_never_forgotten() -> None:
    """Addresses without end do not fill the memory, nor make anybody's bounds void."""
    traffic = Traffic(Allowed(streams=1), Pace())
    traffic.begin("streams", of_user("ada"))
    for number in range(30_000):
        traffic.spend(of_address(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"))
    assert len(traffic._known) <= 10_001
    with pytest.raises(TooManyRequests):
        traffic.begin("streams", of_user("ada"))
    traffic.end("streams", of_user("ada"))
    traffic.begin("streams", of_user("ada"))


class SlowBody:
    """Brings some bytes each time that it is looked at; None: it is not its turn."""

    def __init__(self, *brings: int | None) -> None:
        self.brings = list(brings)
        self.ended: TooSlow | None = None
        self.over = asyncio.Event()

    def arrived(self) -> int | None:
        if not self.brings:
            self.over.set()
            return None
        return self.brings.pop(0)

    def end_slow(self, error: TooSlow) -> None:
        self.ended = error
        self.over.set()


async def test_slow_is_what_is_slow_for_a_whole_period() -> None:
    traffic = Traffic(Allowed(), Pace(least=100, period=0.2))
    bodies = {
        "nothing": (SlowBody(*[0] * 20), True),
        "a byte": (SlowBody(*[1] * 20), True),
        "fast": (SlowBody(*[1000] * 20), False),
        "ours": (SlowBody(*[None] * 20), False),
        "then slow": (SlowBody(*[1000] * 10, *[0] * 20), True),
    }
    for body, _ in bodies.values():
        traffic.watch(body)
    for name, (body, slow) in bodies.items():
        async with asyncio.timeout(10):
            await body.over.wait()
        assert (body.ended is not None) == slow, name
        traffic.forget(body)
