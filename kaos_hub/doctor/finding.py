"""The result of a check."""

from dataclasses import dataclass

GOOD, WEAK, BAD = "good", "weak", "bad"


@dataclass(frozen=True)
class Finding:
    """The result of a check. ``state`` is good, weak (works, but less than it could) or bad."""

    name: str
    state: str
    text: str
    advice: str = ""
