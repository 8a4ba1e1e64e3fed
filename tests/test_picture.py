"""README's picture can be taken anew whenever the pages change."""

import struct
from pathlib import Path

import pytest

from tests.picture import take


@pytest.mark.browser
def test_the_picture_can_be_taken(tmp_path: Path) -> None:
    """It is as wide as the README has room for, and loads at once."""
    picture = tmp_path / "notebooks.png"
    take(tmp_path / "hub", picture)
    content = picture.read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    assert content.startswith(b"\x89PNG") and width == 1200 and 300 < height < 700
    assert 10_000 < len(content) < 200_000
