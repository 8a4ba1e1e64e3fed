"""Server-sent events: encoding, resuming, keepalives, and that sources are let go of."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from kaos_hub.errors import NotFound
from kaos_hub.service.api.base import _encoded
from kaos_hub.service.jobs.logs import LogStore
from kaos_hub.service.web import sse


class Source:
    """An iterator that notes whether it was closed."""

    def __init__(self, *items: object, pause: float = 0) -> None:
        self._items, self._pause = list(items), pause
        self.closed = False

    def __aiter__(self) -> "Source":
        return self

    async def __anext__(self) -> object:
        await asyncio.sleep(self._pause)
        if not self._items:
            raise StopAsyncIteration
        return self._items.pop(0)

    async def aclose(self) -> None:
        self.closed = True


def fields(raw: bytes) -> list[tuple[str, str]]:
    """What a browser reads of one event."""
    lines = raw.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(k, v.removeprefix(" ")) for k, _, v in (line.partition(":") for line in lines if line)]


@settings(max_examples=50)
@given(st.text())
def test_no_text_can_forge_fields(text: str) -> None:
    read = fields(sse.Message("log", text, 7).encode())
    assert read[:2] == [("id", "7"), ("event", "log")]
    assert {name for name, _ in read[2:]} == {"data"}
    assert "\n".join(v for _, v in read[2:]) == text.replace("\r\n", "\n").replace("\r", " ")


@settings(max_examples=50)
@given(st.binary(max_size=200).map(lambda b: b.replace(b"\r", b"")), st.data())
def test_a_log_can_be_resumed_after_any_message(log: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=5)))
    pieces = [log[a:b] for a, b in zip([0, *cuts], [*cuts, len(log)], strict=True)]

    async def read(offset: int) -> list[sse.Message]:
        async def source() -> AsyncIterator[tuple[int, bytes]]:
            at = 0
            for piece in pieces:
                at += len(piece)
                if at > offset:
                    yield at, piece[max(0, len(piece) - (at - offset)) :]

        return [m async for m in sse.lines_of_log(source())]

    messages = asyncio.run(read(0))
    assert messages[-1].event == "end"
    ids = [m.id for m in messages[:-1]]
    assert ids == sorted(ids)  # type: ignore[type-var]
    for number, message in enumerate(messages[:-1]):
        assert message.id is not None
        assert log[: message.id].endswith(b"\n") or message.id == len(log)
        rest = asyncio.run(read(message.id))
        text = "\n".join(m.data for m in messages[number + 1 : -1])
        assert "\n".join(m.data for m in rest[:-1]) == text


async def test_silence_is_filled_and_loses_nothing() -> None:
    source = Source("a", "b", pause=0.06)
    seen = [item async for item in sse.with_keepalive(source, pause=0.02)]  # type: ignore[type-var]
    assert [item for item in seen if item is not None] == ["a", "b"]
    assert seen.count(None) >= 2
    assert source.closed


async def test_leaving_early_closes_the_source() -> None:
    source = Source(*"abc", pause=0.01)
    stream = sse.with_keepalive(source)  # type: ignore[type-var]
    assert await anext(stream) == "a"
    await stream.aclose()  # type: ignore[attr-defined]
    assert source.closed


async def test_leaving_while_it_waits_closes_the_source() -> None:
    source = Source("never", pause=60)
    stream = sse.with_keepalive(source)  # type: ignore[type-var]
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await stream.aclose()  # type: ignore[attr-defined]
    assert source.closed


async def test_an_error_in_a_stream_is_its_last_event() -> None:
    async def broken() -> AsyncIterator[sse.Message]:
        yield sse.Message("notebook", "{}", 1)
        raise NotFound("it was deleted")

    async def may_listen() -> None:
        """Everybody."""

    pieces = [piece async for piece in _encoded(broken(), may_listen)]
    assert len(pieces) == 2
    assert b"event: error" in pieces[1] and b"it was deleted" in pieces[1]


async def test_who_may_listen_no_more_hears_no_more() -> None:
    asked = 0

    async def ticking() -> AsyncIterator[sse.Message]:
        while True:
            yield sse.Message("training", "{}")

    async def put_out() -> None:
        nonlocal asked
        asked += 1
        if asked > 3:
            raise NotFound("You are not in a group called 'vision'.")

    pieces = [piece async for piece in _encoded(ticking(), put_out)]
    assert len(pieces) == 4
    assert b"event: error" in pieces[3] and b"vision" in pieces[3]


async def test_the_end_of_a_log_says_where_it_begins(tmp_path: Path) -> None:
    logs = LogStore(tmp_path)
    logs.append("x", b"".join(b"line %d\n" % n for n in range(100_000)))
    whole = (tmp_path / "x.log").read_bytes()
    for size in (1, 20, 1000, len(whole), 10 * len(whole)):
        found = [m async for m in sse.lines_of_log(logs.read("x", -size), tell_start=True)]
        if size == 1:
            assert [message.event for message in found] == ["end"]
            continue
        start = int(found[0].data)
        assert found[0].event == "from" and (not start or whole[start - 1 : start] == b"\n")
        text = "".join(m.data + "\n" for m in found if m.event == "log")
        assert text.encode() == whole[start:] and len(text) <= max(size, 1)
    assert [m.event async for m in sse.lines_of_log(logs.read("y", -5), tell_start=True)] == ["end"]


@pytest.mark.parametrize("offset", [6, 2**45, 2**63 - 1, 2**63, 10**30])
async def test_behind_the_end_there_is_nothing(tmp_path: Path, offset: int) -> None:
    """Found by fuzzing: no file system can seek that far, and the answer was an inner error."""
    logs = LogStore(tmp_path)
    logs.append("x", b"hello\n")
    assert [piece async for piece in logs.read("x", offset)] == []
