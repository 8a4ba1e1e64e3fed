"""The address at which people come in: what is said of it is settled, or refused."""

from typing import Any

import pytest

from kaos_hub.errors import InvalidRequest
from kaos_hub.installation.addresses import path_of
from kaos_hub.installation.public_address import apply, settle

BIND = "http://127.0.0.1:8123"


@pytest.mark.parametrize(
    ("hub", "public", "bind", "local"),
    [
        ({}, "", BIND, BIND),
        ({"base_url": "/"}, "", BIND, BIND),
        ({"base_url": "/a/"}, "", f"{BIND}/a", f"{BIND}/a"),
        ({"base_url": "a/b"}, "", f"{BIND}/a/b", f"{BIND}/a/b"),
        ({"bind_url": "http://:9000/a"}, "", "http://:9000/a", "http://127.0.0.1:9000/a"),
        ({"bind_url": "http://0.0.0.0:9000"}, "", "http://0.0.0.0:9000", "http://127.0.0.1:9000"),
        ({"bind_url": "http://[::1]:9000/"}, "", "http://[::1]:9000", "http://[::1]:9000"),
        ({"port": 9000}, "", "http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ({"ip": "10.0.0.1"}, "", "http://10.0.0.1:8123", "http://10.0.0.1:8123"),
        ({"ip": ""}, "", "http://:8123", BIND),
        ({}, "https://example.org/a/", f"{BIND}/a", f"{BIND}/a"),
        ({"base_url": "/a"}, "https://example.org/a", f"{BIND}/a", f"{BIND}/a"),
        ({"ssl_cert": "x"}, "", BIND, "https://127.0.0.1:8123"),
    ],
)
def test_what_is_said_becomes_one(hub: dict[str, Any], public: str, bind: str, local: str) -> None:
    found = settle(hub, {}, BIND, public)
    assert (found.bind, found.local) == (bind, local)
    assert found.public == (public.rstrip("/") or local)
    apply(hub, found)
    assert hub["bind_url"] == f"{bind}/"
    assert not {"base_url", "ip", "port"} & set(hub)


@pytest.mark.parametrize("name", ["bind_url", "base_url", "ip", "port"])
def test_what_the_command_line_would_undo_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match=name):
        settle({}, {name: "x"}, BIND, "")


@pytest.mark.parametrize(
    "url", ["", "x", "//x", "http://", "https://[", "https://x:y/", "https://a/b#c", "javascript:a"]
)
def test_what_is_no_public_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="KAOS_PUBLIC_URL"):
        path_of(url)
