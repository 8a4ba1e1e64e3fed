"""What was sent on the way to starting a notebook, so that the form has it chosen.

The Hub's form cannot be told by its address: whatever stands there is refused. So it is kept here,
for as long as somebody fills in a form; what is forgotten, by a restart too, can still be chosen.
"""

from datetime import datetime, timedelta

from kaos_hub.models import BundleKind
from kaos_hub.tables import now

_LONG = timedelta(minutes=30)
_MOST = 2000
"""Kept at most, of all users together."""


class Handed:
    """Remembers, for a while, which bundle of a kind was sent for which notebook."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, BundleKind], tuple[datetime, str]] = {}

    def note(self, owner: str, notebook: str, kind: BundleKind, bundle: str) -> None:
        """Remember a bundle, as ``name@v3``, in place of the one before."""
        key = (owner, notebook, kind)
        self._kept.pop(key, None)
        while len(self._kept) >= _MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = now(), bundle

    def of(self, owner: str, notebook: str, started: datetime | None) -> dict[str, str]:
        """By kind, what was sent for a notebook and is not used yet.

        Args:
            owner: whose it is.
            notebook: its name.
            started: when it was made or started last, if it was.
        """
        since = max(now() - _LONG, started or datetime.min.replace(tzinfo=now().tzinfo))
        mine = {kind: self._kept.get((owner, notebook, kind)) for kind in BundleKind}
        return {kind.value: sent[1] for kind, sent in mine.items() if sent and sent[0] > since}
