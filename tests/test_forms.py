"""Forms with a file: taken piece by piece, whatever the pieces."""

from pathlib import Path

import pytest
from hypothesis import given, settings, strategies

from kaos_hub.errors import InvalidRequest, TooLarge
from kaos_hub.service.pages.forms import Form, FormReader

MARK = "----kaosABC"
TYPE = f"multipart/form-data; boundary={MARK}"


def form(*fields: tuple[str, bytes], file: tuple[str, bytes] | None = None) -> bytes:
    """As a browser sends it."""
    parts = [
        f'--{MARK}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value
        for name, value in fields
    ]
    if file:
        head = f'--{MARK}\r\nContent-Disposition: form-data; name="archive"; filename="{file[0]}"'
        parts.append(f"{head}\r\nContent-Type: x/y\r\n\r\n".encode() + file[1])
    return b"".join(part + b"\r\n" for part in parts) + f"--{MARK}--\r\n".encode()


class Desk:
    """Where a form is handed in."""

    def __init__(self, path: Path, limit: int = 1 << 20) -> None:
        self.path, self.seen = path, list[dict[str, str]]()
        self.reader = FormReader(TYPE, path, limit, self.check)

    async def check(self, form: Form) -> None:
        assert not self.path.exists()
        self.seen.append(dict(form.fields))

    async def take(self, body: bytes, step: int = 1 << 20) -> Form:
        for start in range(0, len(body), step):
            await self.reader.feed(body[start : start + step])
        return await self.reader.finish()


@settings(max_examples=40, deadline=None)
@given(
    content=strategies.binary(max_size=300).map(lambda b: b.replace(b"X", b"\r\n--" + b"----")),
    step=strategies.integers(1, 90),
)
async def test_any_content_in_any_pieces(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, step: int
) -> None:
    path = tmp_path_factory.mktemp("form") / "file"
    desk = Desk(path)
    body = form(("_xsrf", b"t"), ("kind", b""), file=("my d\u00e4ta.zip", content))
    taken = await desk.take(body, step)
    assert path.read_bytes() == content and taken.size == len(content)
    assert taken.fields == {"_xsrf": "t", "kind": ""} and taken.file == "my d\u00e4ta.zip"
    assert desk.seen == [taken.fields], "looked at once, before the file"


async def test_no_file_at_all_is_looked_at_too(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "file")
    taken = await desk.take(form(("a", b"1")))
    assert (taken.fields, taken.file, desk.seen) == ({"a": "1"}, "", [{"a": "1"}])


async def test_paths_are_no_names(tmp_path: Path) -> None:
    taken = await Desk(tmp_path / "file").take(form(file=("C:\\my\\..\\data.zip", b"1")))
    assert taken.file == "data.zip"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (form(file=("a", b"1"))[:-9], "ends too early"),
        (b"", "ends too early"),
        (form(file=("a" * 20_000, b"1")), "cannot be read"),
        (f"--{MARK}\r\nno: name\r\n\r\n\r\n--{MARK}--".encode(), "cannot be read"),
        (f"--{MARK}xx".encode(), "cannot be read"),
        (form(*((str(i), b"") for i in range(60))), "cannot be read"),
        (form(file=("a", b"1"))[:-len(MARK) - 6] + form(file=("b", b"2")), "one archive at a time"),
    ],
)  # fmt: skip
async def test_what_is_no_form_is_refused(tmp_path: Path, body: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        await Desk(tmp_path / "file").take(body)


async def test_nothing_is_held_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="'a' is too long"):
        await Desk(tmp_path / "file").take(form(("a", b"x" * 100_000)))
    with pytest.raises(TooLarge, match="room for"):
        await Desk(tmp_path / "file2", 10).take(form(file=("a", b"x" * 11)))


@pytest.mark.parametrize("kind", ["", "text/plain", "multipart/form-data", "application/json"])
def test_other_types_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InvalidRequest, match="multipart/form-data"):
        FormReader(kind, tmp_path / "x", 1, Desk(tmp_path / "y").check)
