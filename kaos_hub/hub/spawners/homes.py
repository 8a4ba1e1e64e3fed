"""Homes that are folders of this machine."""

import os
from pathlib import Path

from kaos_hub.errors import EngineUnavailable
from kaos_hub.schemas import NotebookSpec


def make_home(spec: NotebookSpec) -> None:
    """Make the directories that a notebook may write to, if they are not there yet.

    Raises:
        EngineUnavailable: they cannot be made.
    """
    # What is the admin's is neither made nor given away. A volume may be made to be read only.
    own = [m for m in spec.mounts if m.volume or not (m.read_only or m.host)]
    for path in [Path(m.source) for m in own]:
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            if spec.uid is not None and os.geteuid() == 0 and path.stat().st_uid == 0:
                os.chown(path, spec.uid, spec.uid)
        except OSError as e:
            raise EngineUnavailable(f"Cannot make {path}: {e.strerror or e}") from None
