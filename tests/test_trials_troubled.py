"""Trials that are ended from outside, and a service on bad days."""

import time
from pathlib import Path

import pytest

from kaos_hub.schemas import EndedBy, Lease
from tests.trial_desk import Desk, Worker, desk, ours, wait_until, worker
from tests.trial_gallery import PYTHON

__all__ = ["desk", "worker"]  # fixtures

# --- ended from outside ---

STUBBORN = """#!/bin/sh
trap 'echo asked' TERM
mkdir "$1"; echo half > "$1/checkpoint"
touch "$KAOS_OUT/begun"
while :; do sleep 0.05; done
"""


def test_a_deadline_and_a_trial_that_ignores_it(worker: Worker, desk: Desk) -> None:
    """Asked first, killed after ten seconds, and what it left is kept as partial."""
    worker.train(STUBBORN)
    began = time.monotonic()
    end = worker.run(deadline=1)
    assert 11 <= time.monotonic() - began < 20
    assert (end.by, end.reason) == (EndedBy.DEADLINE, "its deadline of 1 s passed")
    assert "asked\n" in desk.text()
    assert desk.files(end)["checkpoint"] == b"half\n"
    assert end.output is not None
    assert end.output.partial


def test_cancelled_and_the_next_one_runs(worker: Worker, desk: Desk) -> None:
    worker.train('#!/bin/sh\n[ "$KAOS_TRIAL" = 2 ] || { echo waits; exec sleep 1000; }\n')
    desk.waiting += [Lease(trial=n, attempt=1, params=None, deadline=60) for n in (1, 2)]
    worker.start()
    wait_until(lambda: desk.text() == "waits\n")
    desk.cancel = True
    worker.finish()
    assert (desk.ends[1].by, desk.ends[1].reason) == (EndedBy.CANCELLED, "cancelled")
    assert (desk.ends[2].by, desk.ends[2].exit_code) == (EndedBy.ITSELF, 0)


@pytest.mark.parametrize("where", ["$1", "$HOME", "$KAOS_OUT/..", "$PWD"])
def test_too_much_on_the_disk(worker: Worker, desk: Desk, where: str) -> None:
    """Wherever it writes: ended; kept is only what fits."""
    worker.environment = {"KAOS_STORAGE": str(10 << 20)}
    worker.train(
        f"""#!/bin/sh
trap '' TERM
mkdir "$1"; echo small > "$1/small"
while :; do dd if=/dev/zero bs=1M count=4 status=none >> "{where}/much"; sleep 0.05; done
"""
    )
    end = worker.run()
    assert end.by is EndedBy.STORAGE
    assert end.reason.startswith("it wrote more than the 10Mi that a trial may")
    if where == "$1":
        assert end.output is None
        assert "its output could not be kept: 'much' has" in end.reason
    else:
        assert desk.files(end) == {"small": b"small\n"}


def test_a_full_disk(desk: Desk, small_disk: Path) -> None:
    """A trial fills it, and fails for that; the next one has room."""
    worker = Worker(small_disk / "root", desk)
    worker.train(
        """#!/bin/sh
mkdir "$1"; echo "$KAOS_TRIAL" > "$1/small"
[ "$KAOS_TRIAL" = 2 ] && exit
echo begins
for n in 1 2 3; do yes > "$KAOS_OUT/../$n" 2>> "$HOME/errors" || yes | head -c 100000; done
echo 1 > "$1/no-room" || { echo "error: no room"; exit 4; }
"""
    )
    end = worker.run(None, None)
    assert (end.by, end.exit_code, end.reason) == (EndedBy.ITSELF, 4, "exit code 4: error: no room")
    assert desk.text(1).startswith("begins\n")
    assert desk.files(end).items() >= {"small": b"1\n"}.items()
    assert (desk.ends[2].exit_code, desk.files(desk.ends[2])) == (0, {"small": b"2\n"})


def test_told_to_end(worker: Worker, desk: Desk) -> None:
    """Nobody is told: whoever ended us knows. And nothing stays."""
    worker.train(f"#!/bin/sh\nsetsid sh -c 'sleep 1000; : left in {worker.root}' & sleep 1000\n")
    desk.waiting.append(Lease(trial=1, attempt=1, params=None, deadline=60))
    process = worker.start()
    wait_until(lambda: bool(ours(f"left in {worker.root}") and len(desk.requests) == 1))
    process.terminate()
    assert "told to end" in worker.finish(143)
    assert ours(f"left in {worker.root}") == []
    assert desk.ends == {}


# --- the service on bad days ---


def test_the_service_is_away_and_comes_back(worker: Worker, desk: Desk) -> None:
    """The trial goes on, and all that it said and left arrives, once."""
    worker.train(
        PYTHON
        + """
import os, sys, time
from kaos_hub import log
print("before", flush=True)
for n in range(30):
    print(n)
    log(step=n, loss=n)
    time.sleep(0.1)
os.makedirs(sys.argv[1])
with open(sys.argv[1] + "/weights", "wb") as file:
    file.write(b"w" * 3_000_000)
"""
    )
    desk.waiting.append(Lease(trial=1, attempt=1, params=None, deadline=60))
    worker.start()
    wait_until(lambda: "before" in desk.text())
    desk.go()
    time.sleep(4)
    assert desk.ends == {}
    desk.listen()
    assert "the service cannot be reached" in worker.finish()
    end = desk.ends[1]
    assert (end.by, end.exit_code, end.metrics) == (EndedBy.ITSELF, 0, {"loss": 29.0})
    assert desk.text() == "before\n" + "".join(f"{n}\n" for n in range(30))
    assert sorted(p.step for p in desk.points[1]) == [float(n) for n in range(30)]  # type: ignore[type-var]
    assert desk.files(end) == {"weights": "3000000"}


def test_answers_get_lost(worker: Worker, desk: Desk) -> None:
    """The same lease is given again, an end that is told twice counts once."""
    worker.train('#!/bin/sh\necho "$KAOS_TRIAL"\n')
    desk.lose_answers = 3
    worker.run(None, None)
    assert sorted(desk.ends) == [1, 2]
    assert (desk.text(1), desk.text(2)) == ("1\n", "2\n")
    assert desk.running is None


def test_the_job_is_over(worker: Worker, desk: Desk) -> None:
    """A dead ticket: no use in going on. Another's 404 means nothing."""
    worker.train(f"#!/bin/sh\nsleep 1000 # left in {worker.root}\n")
    desk.waiting.append(Lease(trial=1, attempt=1, params=None, deadline=60))
    worker.start()
    wait_until(lambda: desk.running is not None)
    desk.dead = True
    assert "the job is over" in worker.finish()
    assert ours(str(worker.root)) == []


def test_what_the_service_will_not_keep(worker: Worker, desk: Desk) -> None:
    """A limit of the ledger: the trial failed for want of storage, and the next one runs."""
    worker.train('#!/bin/sh\nmkdir "$1"; echo x > "$1/x"\n')
    desk.full = "That would be 11Gi of the 10Gi that you may store."
    end = worker.run(None, None)
    assert (end.by, end.output) == (EndedBy.STORAGE, None)
    assert end.reason == f"its output could not be kept: {desk.full}"
    assert sorted(desk.ends) == [1, 2]


def test_a_service_that_lost_objects_gets_them_again(worker: Worker, desk: Desk) -> None:
    worker.train("#!/bin/sh\n[ $KAOS_TRIAL = 1 ] || exec sleep 1\n")
    desk.waiting += [Lease(trial=n, attempt=1, params=None, deadline=60) for n in (1, 2)]
    worker.start()
    wait_until(lambda: 1 in desk.ends)
    desk.objects.clear()
    desk.sizes.clear()
    worker.finish()
    assert desk.files(desk.ends[2]) == {}
