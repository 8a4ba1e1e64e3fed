"""Who the client is: credentials file, environment of a notebook, URLs as people copy them."""

import json
import stat
from pathlib import Path

import pytest

from kaos_hub.client import (
    Client,
    find_credentials,
    forget_credentials,
    load_credentials,
    save_credentials,
)
from kaos_hub.errors import InvalidRequest, NotAuthenticated
from kaos_hub.transport.credentials import credentials_path, hub_base


@pytest.fixture(autouse=True)
def _nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("KAOS_URL", "JUPYTERHUB_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "copied",
    [
        "http://127.0.0.1:8000",
        "127.0.0.1:8000/",
        "http://127.0.0.1:8000/hub/home",
        "http://127.0.0.1:8000/hub",
        "http://127.0.0.1:8000/services/kaos/",
        "http://127.0.0.1:8000/user/ada/example/lab",
        "http://name:password@127.0.0.1:8000/hub/login?next=%2Fhub%2F",
    ],
)
def test_any_url_of_a_hub_will_do(copied: str) -> None:
    """Whatever page's address is copied, the Hub's base comes out, and no password with it."""
    assert hub_base(copied) == "http://127.0.0.1:8000"


def test_a_base_url_is_kept() -> None:
    """A Hub below a prefix stays below it, also where a word of the prefix begins like ours."""
    assert hub_base("https://x.org/hubs/jupyter/hub/home") == "https://x.org/hubs/jupyter"


@pytest.mark.parametrize("wrong", ["", "ftp://x.org", "http://", "file:///etc/passwd"])
def test_what_is_no_url_is_refused(wrong: str) -> None:
    """The error shows what a URL looks like."""
    with pytest.raises(InvalidRequest, match="http://127"):
        hub_base(wrong)


def test_saved_credentials_are_private() -> None:
    """The file and its folder are for the owner alone, whatever the umask."""
    path = save_credentials("http://h:1", "secret", "ada")
    assert path == credentials_path()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert json.loads(path.read_text()) == {
        "current": "http://h:1",
        "hubs": {"http://h:1": {"token": "secret", "user": "ada"}},
    }


def test_the_last_hub_is_current_and_others_are_remembered() -> None:
    """Logging out of the current Hub falls back to another one."""
    save_credentials("http://one", "1", "ada")
    save_credentials("http://two", "2", "ada")
    assert find_credentials().token == "2"
    assert find_credentials("http://one/hub").token == "1"
    forgotten = forget_credentials()
    assert forgotten is not None
    assert forgotten.url == "http://two"
    assert find_credentials().url == "http://one"
    forget_credentials()
    assert load_credentials() is None
    assert forget_credentials() is None


def test_without_login_the_error_says_what_to_do() -> None:
    """Both ways are named: login, and starting everything here."""
    with pytest.raises(NotAuthenticated, match="kaos login") as error:
        Client()
    assert "kaos up" in error.value.message
    with pytest.raises(NotAuthenticated, match="kaos login http://other"):
        Client("http://other")


def test_a_broken_file_is_named() -> None:
    """It is not overwritten silently: it may hold logins to other Hubs."""
    path = save_credentials("http://h:1", "secret")
    path.write_text("{")
    with pytest.raises(InvalidRequest, match=r"credentials\.json"):
        find_credentials()


def test_in_a_notebook_nothing_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The notebook's own address and token win over a file in its home."""
    save_credentials("http://elsewhere", "old")
    monkeypatch.setenv("KAOS_URL", "http://10.0.0.1:8123/services/kaos")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "own")
    found = Client().credentials
    assert (found.url, found.token) == ("http://10.0.0.1:8123", "own")
    assert find_credentials("http://elsewhere").token == "old"
