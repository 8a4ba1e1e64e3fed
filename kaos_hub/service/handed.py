"""Bundles sent on the way to starting a notebook, so that the form has them chosen.

The Hub's form cannot be told by its address: it refuses whatever stands there. So the bundles are
remembered here, for as long as a user may take to fill in a form. A bundle that is forgotten, also
by a restart, can still be chosen in the form.
"""

from datetime import datetime, timedelta

from kaos_hub.schemas import BundleKind
from kaos_hub.service.db.tables import now

_LONG = timedelta(minutes=30)
_MOST = 2000
"""The number of bundles remembered, of all users together."""


class Handed:
    """A short-lived memory of the bundle of each kind that was sent for a notebook."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, BundleKind], tuple[datetime, str]] = {}

    def note(self, owner: str, notebook: str, kind: BundleKind, bundle: str) -> None:
        """Remember a bundle, as ``name@v3``, in place of the one before."""
        key = (owner, notebook, kind)
        self._kept.pop(key, None)
        while len(self._kept) >= _MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = now(), bundle

    def forget(self, owner: str, notebook: str) -> None:
        """Forget what was sent for a notebook that is begun anew."""
        for kind in BundleKind:
            self._kept.pop((owner, notebook, kind), None)

    def of(self, owner: str, notebook: str, started: datetime | None) -> dict[str, str]:
        """Return, by kind, the bundles that were sent for a notebook and are not used yet.

        Args:
            owner: the notebook's owner.
            notebook: its name.
            started: the time at which it was made or started last, if it was.
        """
        since = max(now() - _LONG, started or datetime.min.replace(tzinfo=now().tzinfo))
        mine = {kind: self._kept.get((owner, notebook, kind)) for kind in BundleKind}
        return {kind.value: sent[1] for kind, sent in mine.items() if sent and sent[0] > since}
