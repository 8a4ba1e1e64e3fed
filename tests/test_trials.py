"""The program that runs trials, as a real process, against a real server of its protocol."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.schemas import EndedBy, Lease, TrialEnd
from tests.trial_desk import EMPTY, Desk, Worker, desk, open_desk, ours, worker
from tests.trial_gallery import DOINGS, GALLERY, HELPER, PYTHON

__all__ = ["desk", "worker"]  # fixtures

# --- many kinds of trials, one after the other in one worker ---


class Gallery:
    """One worker's trials, and how they ended."""

    def __init__(self, desk: Desk, said: str) -> None:
        self.desk, self.said = desk, said

    def end(self, do: str) -> TrialEnd:
        return self.desk.ends[DOINGS.index(do) + 1]

    def files(self, do: str) -> dict[str, Any]:
        return self.desk.files(self.end(do))

    def text(self, do: str) -> str:
        return self.desk.text(DOINGS.index(do) + 1)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """One worker that ran all of these trials."""
    with open_desk() as desk:
        worker = Worker(tmp_path_factory.mktemp("gallery") / "root", desk)
        worker.environment = {"KAOS_LOG_LIMIT": str(1 << 20)}
        worker.train(GALLERY, mode=0o644)
        (worker.code / "helper.py").write_text(HELPER)
        (worker.root / "kaos/data").mkdir()
        for number, do in enumerate(DOINGS, start=1):
            lease = Lease(trial=number, attempt=1, params={"do": do}, deadline=60)
            desk.waiting.append(lease)
        worker.start()
        try:
            said = worker.finish(timeout=200)
        finally:
            worker.end()
        assert set(desk.ends) == set(range(1, len(DOINGS) + 1))
        assert ours(f"left in {worker.root}") == []
        print(said)
        yield Gallery(desk, said)


@pytest.mark.parametrize(
    "do", ["nothing", "metrics_flood", "many_files", "leaves_children", "reads_ours", "tees"]
)
def test_succeeds(gallery: Gallery, do: str) -> None:
    end = gallery.end(do)
    assert (end.by, end.exit_code, end.reason) == (EndedBy.ITSELF, 0, "")
    assert end.output is not None
    assert not end.output.partial
    assert end.finished >= end.started


def test_what_a_trial_sees_and_leaves(gallery: Gallery) -> None:
    files = gallery.files("contract")
    seen = json.loads(files.pop("seen.json"))
    root = seen["env"]["KAOS_OUT"].removesuffix("/kaos/out")
    number = DOINGS.index("contract") + 1
    assert seen["env"].keys() == {
        "KAOS_OUT", "KAOS_DATA", "KAOS_PARAMS", "KAOS_TRAINING", "KAOS_TRIAL", "KAOS_METRICS",
    }  # fmt: skip
    assert seen["env"]["KAOS_DATA"] == f"{root}/kaos/data"
    assert seen["env"]["KAOS_TRIAL"] == str(number)
    assert seen["hyper"] == [f"{root}/pfs/hyper/{number}/params.json"]
    assert seen["argv"][0] == "./train"
    assert re.fullmatch(re.escape(root) + "/pfs/out/[0-9a-f]{16}", seen["argv"][1])
    assert set(seen["ls"]) >= {"train", "helper.py"}
    assert files == {
        "absolute": "model", "empty": None, "link": "model/weights",
        "model": None, "model/more": b"m", "model/weights": b"w",
    }  # fmt: skip
    assert gallery.text("contract") == f"hello\nfrom {root}/opt/program\n"
    assert gallery.end("contract").output.skipped == []  # type: ignore[union-attr]


def test_what_a_trial_did_to_its_places_ends_with_it(gallery: Gallery) -> None:
    assert gallery.end("changes_everything").exit_code == 0
    # ... and the next one found its code, which says where it died:
    end = gallery.end("crash")
    assert (end.by, end.exit_code) == (EndedBy.ITSELF, 1)
    assert end.reason == "helper.py line 4: IndexError: list index out of range"
    assert "Traceback" in gallery.text("crash")


@pytest.mark.parametrize(
    ("do", "by", "code", "reason"),
    [
        ("crash_caught", EndedBy.ITSELF, 3, "exit code 3: no such column: age"),
        ("group", EndedBy.ITSELF, 1, r"train line \d+: ExceptionGroup: several \(2 sub-exc.*"),
        ("aborts", EndedBy.SIGNAL, None, "killed by SIGABRT: terminate called: bad alloc"),
        ("killed", EndedBy.SIGNAL, None, "killed by SIGKILL, not by kaos_hub.*"),
        ("partial", EndedBy.ITSELF, 1, "exit code 1: no more"),
        ("prints_much", EndedBy.ITSELF, 1, r"train line \d+: ValueError: after a gigabyte"),
    ],
)
def test_why_it_failed(
    gallery: Gallery, do: str, by: EndedBy, code: int | None, reason: str
) -> None:
    end = gallery.end(do)
    assert (end.by, end.exit_code) == (by, code)
    assert re.fullmatch(reason, end.reason), end.reason
    assert end.output is not None
    assert end.output.partial


def test_a_crash_keeps_what_there_was(gallery: Gallery) -> None:
    assert gallery.files("partial")["checkpoint"] == b"half"
    assert gallery.end("partial").metrics == {"loss": 3.0}
    assert gallery.end("nothing").output.digest == EMPTY  # type: ignore[union-attr]


def test_what_cannot_be_kept_is_said(gallery: Gallery) -> None:
    end = gallery.end("odd_output")
    assert end.exit_code == 0, end
    files = gallery.files("odd_output")
    unreadable = {} if os.getuid() == 0 else {"locked": None}
    rest = {"locked": None, "locked/secret": b"s"} if os.getuid() == 0 else unreadable
    assert files == {"kept": b"k", "dangling": "nowhere", "Case": b"", "case": b"", **rest}
    skipped = "\n".join(end.output.skipped)  # type: ignore[union-attr]
    for said in (
        "'passwd' is a link to the absolute path '/etc/passwd'",
        "'up' is a link to '../../..', which is outside",
        "'through' is a link to 'up/x', which is outside", "'socket' is a socket",
        "'pipe' is a named pipe", r"'bad\udcff' has a name", r"'two\nlines' has a control",
        "'elsewhere' lies beside the output directory",
    ):  # fmt: skip
        assert said in skipped, skipped


def test_output_of_other_shapes(gallery: Gallery) -> None:
    assert gallery.files("output_is_file") == {"output": b"the model"}
    assert gallery.files("output_is_link") == {}
    output = gallery.end("many_files").output
    assert output is not None
    assert output.files == 50_000
    assert gallery.files("many_files")["7/990"] == b"7.990"
    assert gallery.files("big_file") == {"big": str(1 << 30)}


def test_metrics(gallery: Gallery) -> None:
    assert gallery.end("metrics_of_files").metrics == {
        "loss": 0.5, "accuracy": 0.75, "n": 3.0, "other": 1000.0, "live": 1.0,
    }  # fmt: skip
    live = gallery.end("metrics_live")
    assert live.metrics.pop("shell") == 4.0
    assert live.metrics.pop("loss") == 4.5
    assert live.metrics.pop("val/loss") == 0.2
    assert live.metrics == {f"m{n}": float(n) for n in range(200)}
    points = gallery.desk.points[live.trial]
    assert [(p.step, p.values["val/loss"]) for p in points[:5]] == [
        (float(n), 1 / (n + 1)) for n in range(5)
    ]
    assert "metric 'loss' is 'nan', which is not kept" in gallery.text("metrics_live")
    assert "bad is no number" in gallery.text("metrics_live")


def test_a_flood_of_metrics(gallery: Gallery) -> None:
    end = gallery.end("metrics_flood")
    assert end.metrics == {"loss": 399_999.0}
    points = gallery.desk.points[end.trial]
    beats = [beat for beat in gallery.desk.beats if beat.trial == end.trial]
    assert max(len(beat.points) for beat in beats) <= 1000
    assert points[-1].step == 399_999
    assert 500 < len(points) < 20_000
    gaps = [b.step - a.step for a, b in itertools.pairwise(points)]  # type: ignore[operator]
    assert max(gaps) < 20_000
    assert min(gaps) > 0
    assert (end.finished - end.started).total_seconds() < 15


def test_output_on_the_screen(gallery: Gallery) -> None:
    log = gallery.desk.logs[DOINGS.index("prints_much") + 1]
    assert 1 << 19 < len(log) < (1 << 20) + 200
    assert "its limit of 1,048,576 bytes" in gallery.text("prints_much")
    assert gallery.text("tees") == "last words\n"
    assert gallery.text("prints_bars").splitlines()[-2:] == ["999%", "finé \ufffd\ufffd\ufffd raw"]


def test_the_job_s_own_log_tells_the_trials(gallery: Gallery) -> None:
    assert "kaos: trial 1 begins\nkaos: trial 1 succeeded after" in gallery.said
    assert "failed (exit code 3: no such column: age)" in gallery.said


# --- any program ---


def test_a_bundle_of_the_ancestor(worker: Worker, desk: Desk) -> None:
    """Strictly to its contract: an argument, the only child of /pfs/data, the first JSON there."""
    root = worker.root
    (root / "pfs/data/mnist").mkdir(parents=True)
    (root / "pfs/data/mnist/train.csv").write_text("1,2\n")
    worker.environment = {"KAOS_DATA": "/pfs/data/mnist"}
    worker.train(
        PYTHON
        + f"""
import glob, json, os, sys
data = os.path.join("{root}/pfs/data", os.listdir("{root}/pfs/data")[0])
found = glob.glob("{root}/pfs/hyper/**/*.json", recursive=True)
params = json.load(open(found[0])) if found else None
os.makedirs(sys.argv[1] + "/model"); os.makedirs(sys.argv[1] + "/metrics")
with open(sys.argv[1] + "/model/model.pkl", "w") as file:
    file.write(open(data + "/train.csv").read() + repr(params))
with open(sys.argv[1] + "/metrics/metrics.json", "w") as file:
    json.dump({{"score": "0.9", "report": {{"a": 1}}}}, file)
"""
    )
    worker.run(None, {"degree": 3})
    assert desk.files(desk.ends[1])["model/model.pkl"] == b"1,2\nNone"
    assert desk.files(desk.ends[2])["model/model.pkl"] == b"1,2\n{'degree': 3}"
    assert desk.ends[2].metrics == {"score": 0.9}


@pytest.mark.parametrize("mode", [0o644, 0o755])
@pytest.mark.parametrize(
    "program",
    [
        b'#!/bin/sh\nmkdir "$1"; echo "$0" > "$1/who"\n',
        b"#!/bin/sh\r\nexit 0 #\r\n",
        b'mkdir "$1"\n',
        Path(shutil.which("true") or "/bin/true").read_bytes(),
        PYTHON.encode() + b"import helper",
    ],
)
def test_any_program(worker: Worker, program: bytes, mode: int) -> None:
    """Exec bit or none: in an image, whose directory is used as it is, nobody adds it."""
    worker.environment = {"KAOS_CODE": "/app", "KAOS_CONTEXT": None}
    code = worker.root / "app"
    code.mkdir(parents=True)
    (code / "train").write_bytes(program)
    (code / "train").chmod(mode)
    (code / "helper.py").touch()
    end = worker.run()
    assert (end.by, end.exit_code, end.reason) == (EndedBy.ITSELF, 0, "")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (None, "there is no file called train in .*; that is what a trial runs"),
        (b"#!/opt/nowhere/python -u\n", "train line 1: there is no /opt/nowhere/python here.*"),
        (b"\x7fELF nonsense", "train is a program for another kind of machine"),
    ],
)
def test_what_cannot_be_started(
    worker: Worker, desk: Desk, program: bytes | None, reason: str
) -> None:
    worker.code.joinpath("train.py").touch()
    if program is not None:
        worker.train(program)
    end = worker.run()
    assert re.fullmatch(reason, end.reason), end.reason
    assert (end.by, end.exit_code) == (EndedBy.NOT_STARTED, 127)
    if program is None:
        assert "no file called train" in desk.text()


# --- kaos_hub.log ---


def test_an_installed_kaos_hub_wins(worker: Worker, desk: Desk, tmp_path: Path) -> None:
    """The stand-in steps back, but for one too old to know `log`."""
    worker.train(
        # not the one of these tests, which has kaos_hub
        f"""#!{Path(sys.executable).resolve()}
import os, sys
sys.path.append("{tmp_path}/" + os.environ["KAOS_TRIAL"])  # as packages of a site: after others
import kaos_hub
kaos_hub.log(x=1)
from kaos_hub import log
print(getattr(kaos_hub, "__version__", "lent"))
"""
    )
    for number, text in (
        (2, "__version__ = '0'\n"),
        (3, "__version__ = '9'\ndef log(**values): print('new', values)\n"),
    ):
        (tmp_path / f"{number}/kaos_hub").mkdir(parents=True)
        (tmp_path / f"{number}/kaos_hub/__init__.py").write_text(text)
    worker.environment = {"PYTHONPATH": "/nowhere"}
    worker.run(None, None, None)
    assert [desk.text(n) for n in (1, 2, 3)] == ["lent\n", "lent\n", "new {'x': 1}\n9\n"]
    assert [desk.ends[n].metrics for n in (1, 2, 3)] == [{"x": 1.0}, {"x": 1.0}, {}]


def test_log_outside_of_a_trial(tmp_path: Path) -> None:
    """It does nothing, and imports next to nothing."""
    code = (
        "import sys; from kaos_hub import log; log(loss=1, step=2); log({'a b': '3'});"
        "print(sorted(m for m in sys.modules if m.startswith(('kaos_hub', 'pydantic'))))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"KAOS_METRICS": str(tmp_path / "nowhere" / "metrics")},
    ).stdout  # fmt: skip
    assert said == "['kaos_hub', 'kaos_hub.live']\n"
    metrics = tmp_path / "metrics"
    subprocess.run([sys.executable, "-c", code], check=True, env={"KAOS_METRICS": str(metrics)})
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [(line["values"], line.get("step")) for line in lines] == [
        ({"loss": 1.0}, 2.0),
        ({"a b": 3.0}, None),
    ]


def test_the_ticket_is_gone_before_anything_runs(worker: Worker, desk: Desk) -> None:
    worker.train('#!/bin/sh\n! [ -e "$KAOS_OUT/../ticket" ]\n')
    assert worker.run().exit_code == 0
    assert desk.requests[0] == "lease"


def test_a_worker_that_is_told_nonsense(worker: Worker) -> None:
    worker.environment = {"KAOS_WORK_URL": "nowhere"}
    worker.start()
    assert "error: KAOS_WORK_URL is 'nowhere'" in worker.finish(1)


@pytest.mark.parametrize("place", ["/pfs/data/mnist", "/kaos/params.json", "/pfs"])
def test_without_a_sandbox_a_missing_path_is_explained(
    worker: Worker, desk: Desk, place: str
) -> None:
    worker.train(PYTHON + f"open('{place}/x')\n")
    end = worker.run()
    assert f"'{place}/x'" in end.reason
    assert "no paths /pfs/… and /kaos/… on this hub" in end.reason
    assert "install bubblewrap" in end.reason
    assert "kaos: there are no paths /pfs/…" in desk.text()


def test_other_paths_are_not_explained(worker: Worker, desk: Desk) -> None:
    worker.train(PYTHON + "import os; open(os.environ['KAOS_DATA'] + '/x')\n")
    worker.environment = {"KAOS_DATA": "/kaos/data"}
    assert "no paths" not in worker.run().reason
