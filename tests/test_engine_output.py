"""Lines of a log, whatever is printed and however it arrives."""

import re
from pathlib import Path

from hypothesis import given, settings, strategies as st

from kaos_hub.engines.docker.logs import stamped
from kaos_hub.util.log_lines import LINE, CappedLog, Stamper

LINE_PATTERN = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [^\n\0]*\n")


def printed(*pieces: bytes, seconds: float = 0.0) -> list[str]:
    """The texts of the lines that result when the pieces arrive, ``seconds`` apart."""
    stamper = Stamper()
    out = b"".join(stamper.feed(p, 1000 + i * seconds) for i, p in enumerate(pieces))
    out += stamper.finish(2000)
    return [line.partition(" ")[2] for line in out.decode().splitlines()]


def test_a_stamp_is_utc_with_microseconds() -> None:
    assert Stamper().feed(b"hello\n", 1769860800.123456) == b"2026-01-31T12:00:00.123456Z hello\n"


def test_lines_are_whole_however_they_arrive() -> None:
    assert printed(b"on", b"e\ntw", b"o\n", b"\n", b"rest") == ["one", "two", "", "rest"]


def test_a_character_cut_by_a_read_stays_whole() -> None:
    both = "grün\n".encode()
    assert printed(both[:3], both[3:]) == ["grün"]


def test_long_lines_break_between_characters() -> None:
    lines = printed("ü".encode() * LINE)
    assert "".join(lines) == "ü" * LINE
    assert all(len(line.encode()) <= LINE for line in lines)


def test_progress_keeps_its_last_state() -> None:
    assert printed(b"1%\r2%\r3%\ndone\n") == ["1%", "3%", "done"]
    assert printed(b"1%\r2%\r3%\r\ndone\n") == ["1%", "3%", "done"]


def test_slow_progress_is_seen_on_its_way() -> None:
    assert printed(b"1%\r", b"2%\r", b"3%\n", seconds=2) == ["1%", "2%", "3%"]


def test_lines_of_windows() -> None:
    assert printed(b"one\r\n\r\ntwo\r\n", seconds=2) == ["one", "", "two"]


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_become_clean_lines(pieces: list[bytes]) -> None:
    stamper = Stamper(limit=16)
    out = b"".join(stamper.feed(p, 5.0) for p in pieces) + stamper.finish(6.0)
    assert LINE_PATTERN.sub(b"", out) == b""
    out.decode()


@settings(max_examples=50)
@given(st.binary(max_size=80).filter(lambda b: b"\r" not in b), st.integers(0, 80))
def test_how_it_arrives_makes_no_difference(data: bytes, cut: int) -> None:
    whole = Stamper(limit=16)
    parts = Stamper(limit=16)
    assert whole.feed(data, 1.0) + whole.finish(1.0) == (
        parts.feed(data[:cut], 1.0) + parts.feed(data[cut:], 1.0) + parts.finish(1.0)
    )


def test_a_full_log_says_so_and_takes_no_more(tmp_path: Path) -> None:
    log = CappedLog(tmp_path / "log", 10)
    for _ in range(3):
        log.write(b"1234\n", 0.0)
    text = (tmp_path / "log").read_text()
    assert text.startswith("1234\n1234\n1970-01-01T00:00:00.000000Z The log ends here")
    assert text.count("\n") == 3


def test_a_full_disk_ends_the_log_only(small_disk: Path) -> None:
    log = CappedLog(small_disk / "log", 1 << 30)
    for _ in range(40):
        log.write(b"x" * 99_999 + b"\n", 0.0)
    assert (small_disk / "log").stat().st_size <= 2 << 20


def frames(*messages: bytes) -> list[bytes]:
    return [b"2026-01-31T12:00:00.123456789Z " + m for m in messages]


def test_a_containers_lines_are_the_same_each_time() -> None:
    given = frames(b"one\n", b"1%\r2%\r3%\n", b"part of a long line", b"\xff\n", b"\n")
    lines = list(stamped(given, 10_000))
    assert lines == list(stamped(given, 10_000))
    texts = [line.decode().partition(" ")[2] for line in lines]
    assert texts == ["one\n", "3%\n", "part of a long line\n", "\ufffd\n", "\n"]
    assert lines[0].startswith(b"2026-01-31T12:00:00.123456Z ")


def test_a_containers_log_is_capped() -> None:
    lines = list(stamped(frames(*[b"text\n"] * 100), 100))
    assert len(lines) == 4
    assert b"reached its limit" in lines[-1]
