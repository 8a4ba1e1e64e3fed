"""What a check says."""

from dataclasses import dataclass

GOOD, WEAK, BAD = "good", "weak", "bad"


@dataclass(frozen=True)
class Finding:
    """What a check saw. ``state`` is good, weak (works, but less than it could) or bad."""

    name: str
    state: str
    text: str
    advice: str = ""
