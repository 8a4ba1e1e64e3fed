"""The service's pages as they are without JavaScript, and logging a command line in."""

import gzip
import hashlib
import html
import re
import secrets
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest

from kaos_hub.client import login as log_in_command_line
from kaos_hub.errors import NotAuthenticated, NotFound, TooManyRequests
from kaos_hub.schemas import IdlePolicy, LoginPoll, LoginRequest, LoginStarted, Resources
from kaos_hub.service.api import login
from kaos_hub.service.pages.templating import Visitor, ago, show_idle, show_resources, soon, took
from kaos_hub.util.quantities import about, duration
from tests.history import build, notebook, version, write
from tests.hub import Browser, RunningHub, request

NASTY = "<script>alert(1)</script> & \"quotes\" 'too'"


OPTIONS = {
    "environment": {"MODE": "secret-value"},
    "image": "python:3.13-slim",
    "volumes": [{"volume": "results", "path": "/mnt/results", "read_only": True}],
    "bind_mounts": [{"host_path": "/srv/data", "container_path": "/mnt/data"}],
}


@pytest.fixture(scope="module")
def eve(hub: RunningHub) -> Browser:
    """A browser of a user with some notebooks."""
    owner = "user:eve"
    job = build(hub.data, "FAILED", "2026-01-31T12:00:00.000000Z <b>bold</b>\n", owner)
    job.reason = "model/requirements.txt:2: no version humanize==999.9"
    bundles = [version(901, "source", "code", 3, owner), version(902, "data", "digits", 1, owner)]
    write(hub.data, [job, *bundles])
    failed = {"state": "FAILED", "build_job": job.id, "build_state": "FAILED", "source_id": 901}
    rows = [
        notebook("plain", owner=owner, reason="stopped by eve", source_id=901, data_id=902),
        notebook("broken", owner=owner, reason=job.reason, **failed),
        notebook("nasty", owner=owner, display_name=NASTY, reason=NASTY),
        notebook("doomed", owner=owner),
        notebook("opted", owner=owner, pool="fast", source_id=901, options=OPTIONS),
    ]
    write(hub.data, rows)
    return Browser(hub, "eve")


def words(page: str) -> str:
    """What a person reads of a page."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)))


# --- pages ---


def test_a_stranger_is_sent_to_the_hub(hub: RunningHub) -> None:
    page = Browser(hub).get(hub.kaos + "/notebooks/plain")
    assert "username" in page.text and "plain" not in words(page.text)


def test_the_list_shows_all_at_a_glance(hub: RunningHub, eve: Browser) -> None:
    page = eve.get(hub.kaos + "/")
    text = words(page.text)
    for expected in ("plain", "STOPPED", "stopped by eve", "code v3", "digits v1", "1 core · 2Gi"):
        assert expected in text
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"


def test_a_notebook_says_what_it_starts_with(hub: RunningHub, eve: Browser) -> None:
    page = eve.get(hub.kaos + "/notebooks/opted")
    text = words(page.text)
    for said in (
        "Image python:3.13-slim", "pool fast", "Variables MODE",
        "results at /mnt/results , only to be read", "/srv/data at /mnt/data",
    ):  # fmt: skip
        assert said in text, text
    assert "secret-value" not in page.text
    assert 'href="/services/kaos/bundles/source/code/3">code</a>' in page.text


def test_nothing_a_user_named_becomes_markup(hub: RunningHub, eve: Browser) -> None:
    for path in ("/", "/notebooks/nasty", "/notebooks/nasty/confirm/delete"):
        page = eve.get(hub.kaos + path).text
        assert "<script>alert" not in page
    assert NASTY in words(page) or NASTY in words(eve.get(hub.kaos + "/notebooks/nasty").text)


def test_whoever_has_nothing_is_told_the_first_step(hub: RunningHub) -> None:
    page = Browser(hub, "newcomer").get(hub.kaos + "/")
    assert f"kaos login {hub.url}" in page.text
    assert "kaos notebook deploy -s" in page.text
    assert 'action="/services/kaos/new"' in page.text


def test_a_new_notebook_begins_in_the_hubs_form(hub: RunningHub) -> None:
    browser = Browser(hub, "starter")
    write(hub.data, [notebook("taken", owner="user:starter")])
    for asked, name in (("?name=fresh", "fresh"), ("?name=default", "default"), ("", "[a-z-]+")):
        form = words(browser.get(f"{hub.kaos}/new{asked}").text)
        assert re.search(f"Start notebook {name} You have 0", form)
    assert "<h1>taken" in browser.get(f"{hub.kaos}/new?name=taken").text
    wrong = browser.get(f"{hub.kaos}/new?name=No%20Way")
    assert wrong.status == 400 and "lower-case letters" in words(wrong.text)


def test_a_failed_build_is_explained_with_its_log_at_hand(hub: RunningHub, eve: Browser) -> None:
    page = eve.get(hub.kaos + "/notebooks/broken")
    assert "model/requirements.txt:2: no version humanize==999.9" in words(page.text)
    log = re.search(r'href="([^"]*build-log)"', page.text)
    assert log is not None
    assert eve.get(hub.url + log[1]).text.endswith("<b>bold</b>\n")
    assert eve.get(hub.url + log[1]).headers["Content-Type"].startswith("text/plain")


def test_what_is_not_there_is_said_on_a_page(hub: RunningHub, eve: Browser) -> None:
    for path in ("/notebooks/nothing", "/nowhere", "/notebooks/plain/confirm/paint"):
        page = eve.get(hub.kaos + path)
        assert page.status == 404
        assert "Your notebooks" in words(page.text)
    stranger = Browser(hub, "newcomer").get(hub.kaos + "/notebooks/plain")
    assert stranger.status == 404 and "'plain'" in words(stranger.text)


def test_forms_need_the_pages_token(hub: RunningHub, eve: Browser) -> None:
    page = eve.post(hub.kaos + "/notebooks/doomed/delete", {})
    assert page.status == 403 and "Reload the page" in words(page.text)
    page = eve.post(hub.kaos + "/notebooks/doomed/delete", {"_xsrf": "wrong"})
    assert page.status == 403
    assert eve.get(hub.kaos + "/notebooks/doomed").status == 200


def test_deleting_asks_first_and_works_without_scripts(hub: RunningHub, eve: Browser) -> None:
    page = eve.get(hub.kaos + "/notebooks/doomed/confirm/delete")
    assert "home directory with all files in it is deleted for good" in words(page.text)
    page = eve.post(hub.kaos + "/notebooks/doomed/delete", {"_xsrf": eve.xsrf()})
    assert page.status == 200 and "Notebooks" in words(page.text)
    assert "Notebook doomed was deleted." in words(page.text)
    assert 'data-notebook="doomed"' not in page.text


def test_the_hubs_own_menu_leads_here(hub: RunningHub, eve: Browser) -> None:
    menu = eve.get(hub.kaos + "/").text.split("</nav>")[0]
    assert 'href="/services/kaos/">Notebooks</a>' in menu
    assert 'href="/services/kaos/home">Home</a>' in menu and "/hub/logout" in menu
    assert "Services" not in menu


def test_static_files_are_public_and_kept(hub: RunningHub, eve: Browser) -> None:
    """For good under the address that pages have for them; the plain one is asked for anew."""
    found = re.findall(r'"(/services/kaos/static/[^"]+)"', eve.get(hub.kaos + "/").text)
    assert found
    for path in found:
        answer = request("GET", hub.url + path)
        assert answer.status == 200
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "immutable" in answer.headers["Cache-Control"], path
        plain = re.sub(r"/static/[0-9a-f]{12}/", "/static/", path)
        other = path.replace(path.split("/")[4], "0" * 12)
        for each in (plain, other):
            assert request("GET", hub.url + each).headers["Cache-Control"] == "no-cache"
    assert request("GET", hub.kaos + "/static/%2e%2e%2flogin.py").status in (403, 404)


def test_answers_are_compressed_where_that_tells_nothing(hub: RunningHub, eve: Browser) -> None:
    """A page holds a secret beside what a link can put into it: for a request from elsewhere it is
    sent as it is. Streams of events are never held back."""
    own = {"Accept-Encoding": "gzip", "Sec-Fetch-Site": "same-origin"}
    script = re.search(r'"(/services/kaos/static/[^"]+\.js)"', eve.get(hub.kaos + "/").text)
    assert script
    static = request("GET", hub.url + script[1], headers={"Accept-Encoding": "gzip"})
    assert static.headers["Content-Encoding"] == "gzip"
    assert len(gzip.decompress(static.body)) > 2 * len(static.body)
    token = hub.token("eve")
    for site, encoding in (("same-origin", "gzip"), ("none", "gzip"), ("cross-site", None)):
        head = own | {"Sec-Fetch-Site": site}
        answer = request("GET", hub.kaos + "/?search=xsrf", token, headers=head)
        assert answer.headers["Content-Encoding"] == encoding, site
    plain = request("GET", hub.kaos + "/", token, headers={"Accept-Encoding": "gzip"})
    assert plain.headers["Content-Encoding"] is None
    asked = urllib.request.Request(
        f"{hub.api}/notebooks/events", headers=own | {"Authorization": f"token {token}"}
    )
    with urllib.request.urlopen(asked, timeout=30) as stream:
        assert stream.headers["Content-Encoding"] is None


def test_a_name_cannot_leave_the_hubs_script() -> None:
    escaped = Visitor('a";</script><script>alert(1)//').json_escaped_name
    assert "</script>" not in escaped and '";' not in escaped.replace('\\"', "")


@pytest.mark.parametrize(
    ("seconds", "exact", "roughly"),
    [
        (0, "0 s", "0 s"), (59, "59 s", "59 s"), (90, "1 min 30 s", "1 min"),
        (3600, "1 h", "1 h"), (5400, "1 h 30 min", "1 h 30 min"), (7190, "1 h 59 min", "2 h"),
        (479 * 60, "7 h 59 min", "8 h"), (28_800, "8 h", "8 h"), (86_400, "1 d", "24 h"),
        (200_000, "2 d 7 h", "2 d"), (604_800, "7 d", "7 d"),
    ],
)  # fmt: skip
def test_lengths_of_time_are_said_in_one_way(seconds: float, exact: str, roughly: str) -> None:
    assert (duration(seconds), about(seconds)) == (exact, roughly)


def test_a_policy_is_said_exactly() -> None:
    policy = IdlePolicy(timeout=5400)
    assert show_idle(policy) == "stops after 1 h 30 min without a kernel or terminal"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (60, "1 min"), (125, "2 min 5 s"), (7200, "2 h"), (11_400, "3 h 10 min")],
)
def test_how_long_a_stage_took(seconds: float, said: str) -> None:
    assert took(seconds) == said


def test_ages_and_what_is_near() -> None:
    now = datetime.now(UTC)
    assert ago(now) == "just now"
    assert ago(now - timedelta(hours=2)) == "2 hours ago"
    assert ago(now - timedelta(minutes=1)) == "1 minute ago"
    assert soon(now + timedelta(minutes=5)) and not soon(now + timedelta(hours=8))


def test_resources_are_said_shortly() -> None:
    assert show_resources(Resources()) == "no limit"
    assert show_resources(Resources(cpu=2, memory="1Gi", gpu=2)) == "2 cores · 1Gi · 2 GPUs"


# --- logging a command line in ---


def begin(hub: RunningHub, client: str = "laptop") -> tuple[LoginStarted, str]:
    """What the command line does first; and the secret it keeps."""
    verifier = secrets.token_urlsafe(32)
    challenge = hashlib.sha256(verifier.encode()).hexdigest()
    answer = hub.ask("POST", "/login", None, {"challenge": challenge, "client": client})
    assert answer.status == 200, answer.text
    return LoginStarted.model_validate(answer.json), verifier


def poll(hub: RunningHub, verifier: str) -> tuple[int, str | None]:
    answer = hub.ask("POST", "/login/token", None, {"verifier": verifier})
    return answer.status, answer.json.get("token")


def answer_page(hub: RunningHub, browser: Browser, started: LoginStarted, answer: str) -> str:
    form = {"_xsrf": browser.xsrf(), "code": started.user_code, "answer": answer}
    return words(browser.post(hub.kaos + "/login", form).text)


def test_a_person_lets_a_command_line_in(hub: RunningHub, eve: Browser) -> None:
    started, verifier = begin(hub, "<b>laptop</b>")
    assert poll(hub, verifier) == (200, None)
    page = eve.get(started.url)
    assert started.user_code in page.text and "<b>laptop</b>" not in page.text
    assert "<b>laptop</b>" in words(page.text).replace("< b >", "<b>")
    assert "is logged in" in answer_page(hub, eve, started, "allow")
    status, token = poll(hub, verifier)
    assert status == 200
    assert hub.ask("GET", "/whoami", token).json["user"] == "eve"
    assert poll(hub, verifier)[0] == 401, "a token is handed out once"
    assert token is not None and token not in hub.log.read_text()


def test_a_tunnel_leads_back_through_itself(hub: RunningHub) -> None:
    body = {"challenge": secrets.token_hex(32), "client": "laptop"}
    for host, expected in (
        ("localhost:9000", "http://localhost:9000/hub/?kaos-login="),
        ("evil.example", f"{hub.url}/hub/?kaos-login="),
    ):
        answer = request("POST", hub.api + "/login", None, body, {"Host": host})
        assert answer.json["url"].startswith(expected)


def test_a_denied_command_line_hears_so(hub: RunningHub, eve: Browser) -> None:
    started, verifier = begin(hub)
    assert "was not let in" in answer_page(hub, eve, started, "deny")
    assert poll(hub, verifier)[0] == 401
    assert eve.get(started.url).status == 404


def test_letting_in_needs_the_pages_token(hub: RunningHub, eve: Browser) -> None:
    started, verifier = begin(hub)
    page = eve.post(hub.kaos + "/login", {"code": started.user_code, "answer": "allow"})
    assert page.status == 403
    assert poll(hub, verifier) == (200, None)


def test_a_token_cannot_let_in(hub: RunningHub) -> None:
    started, _ = begin(hub)
    token = hub.token("eve")
    page = f"{hub.kaos}/login?code={started.user_code}"
    assert request("GET", page, token).status == 401


def test_the_command_lines_own_login(
    hub: RunningHub, eve: Browser, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def confirm(url: str) -> None:
        code = re.search(r"kaos-login=([A-Z-]+)", url)
        assert code is not None
        started = LoginStarted(url=url, user_code=code[1], expires_in=600)
        assert "is logged in" in answer_page(hub, eve, started, "allow")

    credentials = log_in_command_line(hub.url, open_browser=confirm)
    assert credentials.user == "eve"


def asked(number: int = 0) -> LoginRequest:
    return LoginRequest(challenge=f"{number:064x}", client="laptop")


def test_logins_that_wait_are_bounded() -> None:
    logins = login.Logins()
    begun = [
        logins.begin(asked(number), f"10.0.{number // 256}.{number % 256}")
        for number in range(login._MOST)
    ]
    last = logins.begin(asked(10_000), "10.9.9.9")
    with pytest.raises(NotFound):
        logins.by_code(begun[0].user_code)
    assert all(logins.by_code(pending.user_code) for pending in (*begun[1:], last))


def test_one_address_cannot_begin_many() -> None:
    logins = login.Logins()
    for number in range(login._RATE):
        logins.begin(asked(number), "10.0.0.1")
    with pytest.raises(TooManyRequests, match="your address"):
        logins.begin(asked(999), "10.0.0.1")
    logins.begin(asked(999), "10.0.0.2")


def test_logins_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    logins = login.Logins()
    verifier = "v" * 30
    challenge = hashlib.sha256(verifier.encode()).hexdigest()
    pending = logins.begin(LoginRequest(challenge=challenge, client="x"), "10.0.0.1")
    assert logins.collect(LoginPoll(verifier=verifier).verifier) is None
    pending.expires -= login.LIFETIME + 1
    with pytest.raises(NotFound):
        logins.by_code(pending.user_code)
    with pytest.raises(NotAuthenticated, match="expired"):
        logins.collect(verifier)
