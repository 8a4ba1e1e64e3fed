"""One request of one user holds nobody else up (causes 3 and 11 of the review)."""

import io
import time
import zipfile

import pytest

from tests.attacks.victims import Victim
from tests.hub import Browser, RunningHub, request


@pytest.fixture(scope="module")
def bob(hub: RunningHub) -> str:
    return hub.token("bob")


@pytest.fixture(scope="module")
def mallory(hub: RunningHub) -> str:
    return hub.token("mallory")


def sift(hub: RunningHub, token: str, paths: list[str], ignore: str) -> int:
    body = {"kind": "data", "paths": paths, "ignores": {".kaosignore": ignore}}
    return request("POST", hub.api + "/bundles/sift", token, body, timeout=120).status


@pytest.mark.parametrize(
    ("paths", "ignore"),
    [
        (["a" * 40], "*a*a*a*a*a*a*a*a*ab"),
        (["a" * 40], "a*?*a*?*a*?*a*?*ab"),
        (["a/" * 20 + "a"], "**/a/**/a/**/a/**/a/**/a/b"),
        (["a" * 40 + "/x"], "**/*a*a*a*a*a*a*a*b/y"),
        (["/".join(["a" * 199] * 5)] * 20, ("*a" * 90 + "b\n") * 20),
    ],
)
def test_a_pattern_holds_nobody_up(
    hub: RunningHub, bob: str, mallory: str, paths: list[str], ignore: str
) -> None:
    """Attack of cause 3: 122 bytes that kept the service busy for 12 seconds."""
    began = time.monotonic()
    with Victim(hub, bob) as victim:
        assert sift(hub, mallory, paths, ignore) == 200
    assert time.monotonic() - began < 5
    victim.check()


def test_many_patterns_on_many_paths_hold_nobody_up(
    hub: RunningHub, bob: str, mallory: str
) -> None:
    """Attack of cause 3: 20,000 paths and 50 lines, which hung the service until it was killed."""
    paths = [f"{n:05}" + "a" * 195 for n in range(20_000)]
    with Victim(hub, bob) as victim:
        assert sift(hub, mallory, paths, "*a*a*a*a*a*a*a*a*ab\n" * 50) in (200, 400)
    victim.check()


def test_patterns_without_end_are_given_up(hub: RunningHub, bob: str, mallory: str) -> None:
    """Attack of cause 3, grown: what takes minutes also in linear time ends, and says why."""
    paths = [f"{n:05}" + "a" * 195 for n in range(40_000)]
    body = {"kind": "data", "paths": paths, "ignores": {".kaosignore": "*a*a*a*ab\n" * 9000}}
    with Victim(hub, bob) as victim:
        answer = request("POST", hub.api + "/bundles/sift", mallory, body, timeout=120)
    assert answer.status == 400 and "too much time" in answer.json["message"]
    victim.check()


def test_an_archive_with_such_patterns_holds_nobody_up(hub: RunningHub, bob: str) -> None:
    """Attack of cause 3: the same in a zip of 297 bytes, through the form."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(".kaosignore", "*a*a*a*a*a*a*a*a*ab\n")
        archive.writestr("a" * 40, "")
    browser = Browser(hub, "mallory")
    url = f"{hub.kaos}/bundles/upload"
    browser.get(url)
    mark = "kaos-mark"
    fields = {"_xsrf": browser.xsrf(), "kind": "data", "name": "slow"}
    text = "".join(
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    text += f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n'
    form = text.encode() + file.getvalue() + f"\r\n--{mark}--\r\n".encode()
    with Victim(hub, bob) as victim:
        answer = browser.send(url, form, f"multipart/form-data; boundary={mark}")
    assert answer.status == 200, answer.text[:500]
    victim.check()
