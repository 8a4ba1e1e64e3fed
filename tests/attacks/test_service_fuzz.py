"""Both services against their own descriptions, as two users at once, with a bound on time.

Twenty seconds of it; ``KAOS_FUZZ_SECONDS=300`` makes it five minutes.
"""

import os
from pathlib import Path

import pytest

from tests.attacks.fuzz_rest import CONFIG, SEED, all_of_it
from tests.hub import RunningHub, request, running_hub

_SECONDS = float(os.environ.get("KAOS_FUZZ_SECONDS") or 20)
_SLOW = 1.0 if os.environ.get("KAOS_FUZZ_SECONDS") else 3.0
"""Seconds of an answer. In CI three more kinds of tests run at the same time."""


@pytest.mark.timeout(_SECONDS + 300)
def test_nothing_is_an_inner_error(tmp_path: Path) -> None:
    """Attack of cause 15 and others: 500s, 503s, answers that are not described, slow ones."""
    with running_hub(tmp_path / "hub", config=CONFIG) as hub:
        assert all_of_it(hub, _SECONDS, SEED, _SLOW) == ""


def test_all_that_is_answered_is_described(hub: RunningHub) -> None:
    """What a request without any fault may be answered, too: 429 with the time to wait."""
    for service in (hub.kaos, hub.train):
        document = request("GET", f"{service}/api/v1/openapi.json").json
        for methods in document["paths"].values():
            for operation in methods.values():
                assert "Retry-After" in operation["responses"]["429"]["headers"]
