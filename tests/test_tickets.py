"""Tickets: ours are believed, all else is refused alike."""

import base64
import json
import time

import pytest
from hypothesis import given, strategies as st

from kaos_hub.errors import InvalidRequest, NotAuthenticated
from kaos_hub.transport.tickets import MAX_DIGESTS, Ticket, Tickets, for_upload

ONE, TWO = f"blake3:{1:064x}", f"blake3:{2:064x}"
OURS = Tickets("a" * 64)


def test_a_ticket_says_what_it_was_made_for() -> None:
    ticket = OURS.issue("kaos-build-1", [ONE, TWO, ONE], 60)
    assert OURS.check(ticket) == Ticket("kaos-build-1", (ONE, TWO))
    assert Tickets("a" * 64).check(ticket).workload == "kaos-build-1"


def test_it_may_be_for_no_tree_at_all() -> None:
    assert OURS.check(OURS.issue("kaos-train-1", [], 60)) == Ticket("kaos-train-1", ())


def test_it_fits_into_a_header_and_needs_no_quoting() -> None:
    digests = [f"blake3:{n:064x}" for n in range(MAX_DIGESTS)]
    ticket = OURS.issue("kaos-notebook-" + "f" * 32 + "-1", digests, 60)
    assert len(ticket) < 8000
    assert set(ticket) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=.")
    assert OURS.check(ticket).digests == tuple(digests)


def refused(ticket: str) -> None:
    with pytest.raises(NotAuthenticated) as refusal:
        OURS.check(ticket)
    assert refusal.value.message == "The ticket is not valid."


def test_one_with_another_key_is_refused() -> None:
    refused(Tickets("b" * 64).issue("kaos-build-1", [ONE], 60))
    with pytest.raises(ValueError):
        Tickets("")


def test_an_expired_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = OURS.issue("kaos-build-1", [ONE], 60)
    present = time.time()
    monkeypatch.setattr(time, "time", lambda: present + 59)
    assert OURS.check(ticket)
    monkeypatch.setattr(time, "time", lambda: present + 61)
    refused(ticket)


def test_a_forged_one_is_refused() -> None:
    version, payload, signature = OURS.issue("kaos-build-1", [ONE], 60).split(".")
    said = json.loads(base64.urlsafe_b64decode(payload)) | {"digests": [TWO]}
    forged = base64.urlsafe_b64encode(json.dumps(said).encode()).decode()
    refused(f"{version}.{forged}.{signature}")
    refused(f"kaos2.{payload}.{signature}")
    refused(f"{version}.{payload}.{signature.upper()}")
    refused(f"{version}.{payload}=.{signature}")
    refused(f"{version}.{payload}.{signature}.")


def test_no_part_of_one_is_enough() -> None:
    ticket = OURS.issue("kaos-build-1", [ONE], 60)
    for length in range(len(ticket)):
        refused(ticket[:length])


@pytest.mark.parametrize(
    "ticket",
    ["", ".", "..", "kaos1", "kaos1..", "kaos1.e30=.", "Grüße", "\udc80", "a\0b", "x" * 10**6],
)
def test_nonsense_is_refused(ticket: str) -> None:
    refused(ticket)


@given(st.text())
def test_any_text_is_refused(text: str) -> None:
    refused(text)
    refused(f"kaos1.{text}.{text}")


@pytest.mark.parametrize(
    "digests", [["blake3:1"], [ONE, "../" + ONE], [f"blake3:{n:064x}" for n in range(65)]]
)
def test_what_can_be_no_ticket_is_not_made(digests: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        OURS.issue("kaos-build-1", digests, 60)
    with pytest.raises(InvalidRequest):
        OURS.issue("", [ONE], 60)


def test_one_for_uploads_is_another_kind() -> None:
    """Neither can be used as, or made into, the other; both expire."""
    upload, fetch = OURS.issue_upload("ada", 60), OURS.issue("kaos-build-1", [ONE], 60)
    assert OURS.check_upload(upload) == "ada"
    assert for_upload(upload) and not for_upload(fetch)
    refused(upload)
    for wrong in (
        fetch, OURS.issue_upload("ada", -1), Tickets("b" * 64).issue_upload("ada", 60),
        f"kaosup1.{fetch.partition('.')[2]}", upload[:-1],
    ):  # fmt: skip
        with pytest.raises(NotAuthenticated):
            OURS.check_upload(wrong)
    refused(f"kaos1.{upload.partition('.')[2]}")
