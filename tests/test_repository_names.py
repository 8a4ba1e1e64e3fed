"""How a repository is named: what is understood, and that no password ever is."""

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, strategies as st

from kaos_hub.cli.notebook.git import credentials
from kaos_hub.errors import InvalidRequest, KaosError
from kaos_hub.schemas import GitCredentials, NotebookRequest, Repository, parse_repository
from kaos_hub.schemas.base import parse_request


@pytest.mark.parametrize(
    ("text", "url", "ref", "name"),
    [
        ("https://h.org/a/b.git", "https://h.org/a/b.git", None, "b"),
        ("https://h.org/a/b.git@main", "https://h.org/a/b.git", "main", "b"),
        ("https://h.org/a/b@v1.2", "https://h.org/a/b", "v1.2", "b"),
        ("https://h.org:8443/a/b@feature/x", "https://h.org:8443/a/b", "feature/x", "b"),
        ("https://h.org/@team/b@main", "https://h.org/@team/b", "main", "b"),
        ("https://h.org/a@b/c.git@main", "https://h.org/a@b/c.git", "main", "c"),
        ("https://h.org/b.git@user/me@work", "https://h.org/b.git", "user/me@work", "b"),
        ("https://h.org/b.git/@main", "https://h.org/b.git", "main", "b"),
        (" HTTP://H.Org/B/ ", "http://h.org/B", None, "B"),
        ("http://[::1]:80/b", "http://[::1]:80/b", None, "b"),
        ("https://h.org/x/.git", "https://h.org/x/.git", None, "repository"),
    ],
)
def test_what_is_understood(text: str, url: str, ref: str | None, name: str) -> None:
    found = parse_repository(text)
    assert (found.url, found.ref, found.name) == (url, ref, name)
    assert parse_repository(str(found)) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://ada:top-secret@h.org/a.git", "--git-credentials"),
        ("https://top-secret@h.org/a.git@main", "--git-credentials"),
        ("https://h.org/a.git?token=top-secret", "no '\\?'"),
        ("https://h.org/a.git#top-secret", "no '#'"),
        ("git@h.org:a/b.git", "https://h.org/a/b.git meant"),
        ("a/b", "say URL"),
        ("https://h.org", "names no repository"),
        ("https:///a", "names no host"),
        ("https://h.org:99999/a", "names no host"),
        ("https://h.org/a/../b", "names no repository"),
        ("https://h.org/a.git@", "no branch"),
        ("https://h.org/a.git@-x", "no branch"),
        ("https://h.org/a.git@a..b", "no branch"),
        ("https://h.org/a.git@a b", "no branch"),
        ("https://h.org/a\n.git", "say URL"),
    ],
)
def test_what_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as refused:
        parse_request(NotebookRequest, {"git": text})
    assert "top-secret" not in refused.value.message


_TEXT = st.text(alphabet="ab:/@.?#[]%\\-1 ", max_size=30)


@given(_TEXT)
@example("a:1/b@h.org/x")
def test_no_login_is_ever_part_of_what_is_kept(rest: str) -> None:
    try:
        found = parse_repository(f"https://{rest}")
    except KaosError:
        return
    parts = urlsplit(found.url)
    assert (parts.username, parts.password, parts.query, parts.fragment) == (None, None, "", "")
    assert parse_repository(str(found)) == found


def test_the_name_of_a_folder_is_one() -> None:
    for url in ("https://h/..git", "https://h/.", "https://h/" + "x" * 300):
        name = Repository(url=url).name
        assert name not in (".", "..", ".git")
        assert 0 < len(name) <= 100


def test_credentials_show_no_password() -> None:
    found = parse_request(NotebookRequest, {"git_credentials": {"password": "top-secret"}})
    assert found.git_credentials == GitCredentials(username="git", password="top-secret")
    assert "top-secret" not in repr(found)
    for wrong in (
        {"password": ""},
        {"password": "top-secret\n"},
        {"username": "a:b"},
        "top-secret",
    ):
        with pytest.raises(InvalidRequest) as refused:
            parse_request(NotebookRequest, {"git_credentials": wrong})
        assert "top-secret" not in refused.value.message


def test_credentials_come_from_where_no_command_line_shows_them(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "top:se:cret")
    assert credentials("env:MY_TOKEN") == {"username": "top", "password": "se:cret"}
    file = tmp_path / "token"
    file.write_text("ghp_1\n")
    assert credentials(str(file)) == {"password": "ghp_1"}
    file.write_text("one\ntwo\n")
    for wrong in ("env:NO_SUCH", "ghp_top_secret", str(file), str(tmp_path), "ask"):
        with pytest.raises(InvalidRequest, match="git-credentials") as refused:
            credentials(wrong)
        assert "top_secret" not in refused.value.message
