"""Bundles for tests of pages: what people see when they look at theirs."""

import struct
import zlib
from pathlib import Path

from kaos_hub.client import Client
from tests.hub import RunningHub


def _picture(side: int = 64) -> bytes:
    """A PNG whose colours run from corner to corner."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    rows = [b"\0" + b"".join(bytes((x * 4, y * 4, 128)) for x in range(side)) for y in range(side)]
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


PNG = _picture()
NASTY = "<script>alert('1')</script> &#39;\"%2F?x=1"
FILES = {
    "read me.md": "# Héllo\n<b>bold</b>\n",
    "table.csv": 'name,value\n"<i>a</i>, b",1\nc,2\n',
    "page.html": "<script>document.title = 'hacked'</script>",
    "image.svg": "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "sub/deep/note.txt": "deep",
    f"{NASTY.replace('/', '∕')}.txt": "nasty",
    "bidi.txt": "a\u202eb\x1b[31mc",
    "empty": "",
}


def lay_out(path: Path) -> Path:
    """A folder with a file of each kind."""
    for name, content in FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content)
    (path / "pixel.png").write_bytes(PNG)
    (path / "liar.png").write_text("<script>alert(1)</script>")
    (path / "blob.bin").write_bytes(bytes(range(256)))
    (path / "latin.txt").write_bytes("café".encode("latin-1"))
    return path


def submit_two(hub: RunningHub, user: str, path: Path) -> None:
    """The data bundle ``my data``, in two versions."""
    lay_out(path)
    kaos = Client(hub.url, hub.token(user))
    kaos.bundles.submit(path, "data", "my data")
    (path / "read me.md").write_text("# Hello\n<b>bold</b>\nmore\n")
    (path / "empty").unlink()
    (path / "run.sh").write_text("#!/bin/sh\n")
    (path / "run.sh").chmod(0o755)
    (path / "to-deep").symlink_to("sub/deep/note.txt")
    kaos.bundles.submit(path, "data", "my data")
