"""Forms of other sites, and of our own pages whose login is old."""

import re

from tests.hub import Browser, RunningHub

OURS = {"Sec-Fetch-Site": "same-origin"}
FORM = {"name": "kept <name>", "back": "list", "password": "s3cret", "_xsrf": "of-yesterday"}


def test_a_form_with_an_old_token_is_kept_and_does_nothing(hub: RunningHub) -> None:
    """Losing what was filled in because another tab logged in again: faults 14."""
    ruth = Browser(hub, "ruth")
    address = f"{hub.kaos}/notebooks/nothing/start"
    page = ruth.post(address, FORM, OURS)
    assert page.status == 403 and "Nothing was done yet" in page.text
    assert 'value="kept &lt;name&gt;"' in page.text and 'name="back" value="list"' in page.text
    assert "s3cret" not in page.text and 'type="password"' in page.text
    token = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
    assert token and token[1] not in ("", "of-yesterday")
    again = ruth.post(address, {**FORM, "_xsrf": token[1]}, OURS)
    assert again.status == 404, "it came to where it was meant to"


def test_a_form_after_the_login_ended_is_kept(hub: RunningHub) -> None:
    """The same for a session that is over: the page leads to the login."""
    nobody = Browser(hub)
    page = nobody.post(f"{hub.kaos}/notebooks/nothing/start", FORM, OURS)
    assert page.status == 401 and "Your login has ended" in page.text
    assert 'target="_blank"' in page.text and "kept &lt;name&gt;" in page.text


def test_what_another_site_sends_is_not_offered_again(hub: RunningHub) -> None:
    """Cause 6: a form of another site, sent with a user's cookies, is refused and not repeated."""
    ruth = Browser(hub, "ruth")
    address = f"{hub.kaos}/notebooks/nothing/delete"
    elsewhere = (
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {},
        {"Origin": "https://evil.example"}, {"Referer": "https://evil.example/"},
    )  # fmt: skip
    for headers in elsewhere:
        page = ruth.post(address, FORM, headers)
        assert page.status == 403, headers
        assert "kept" not in page.text and "Send again" not in page.text, headers


def test_letting_a_command_line_in_is_never_offered_again(hub: RunningHub) -> None:
    """Cause 12: who sees that page twice presses Allow without a look."""
    ruth = Browser(hub, "ruth")
    page = ruth.post(f"{hub.kaos}/login", {"code": "AAAA-AAAA", "answer": "allow"}, OURS)
    assert page.status == 403 and "Send again" not in page.text
