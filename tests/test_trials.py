"""The program that runs trials, as a real process, against a real server of its protocol."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.models import EndedBy, Lease, TrialEnd
from tests.trial_desk import EMPTY, Desk, Worker, open_desk

PYTHON = f"#!{sys.executable}\n"


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A service."""
    with open_desk() as opened:
        yield opened


@pytest.fixture
def worker(desk: Desk, tmp_path: Path) -> Iterator[Worker]:
    """A worker that is not started yet."""
    made = Worker(tmp_path / "root", desk)
    yield made
    if made.process is not None and made.process.poll() is None:
        # Not killed: it ends what it started.
        made.process.terminate()
        made.process.communicate(timeout=60)


def ours(mark: str) -> list[str]:
    """Command lines of living processes with this in them."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            line = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if mark in line:
            found.append(line)
    return found


# --- many kinds of trials, one after the other in one worker ---

GALLERY = (
    PYTHON
    + r"""
import json, os, signal, socket, stat, subprocess, sys, time
out, kaos_out = sys.argv[1], os.environ["KAOS_OUT"]
params = json.load(open(os.environ["KAOS_PARAMS"]))

def write(path, text=""):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)

def nothing():
    assert not os.path.exists(out) and os.listdir(kaos_out) == []
    assert os.listdir(os.environ["HOME"]) == [] and os.listdir(os.environ["TMPDIR"]) == []

def contract():
    print("hello")
    print("from", os.getcwd(), file=sys.stderr)
    nothing()
    seen = {name: value for name, value in os.environ.items() if name.startswith("KAOS_")}
    files = [os.path.join(a, f) for a, _, fs in os.walk(root + "/pfs/hyper") for f in fs]
    write(out + "/model/weights", "w")
    saw = {"env": seen, "argv": sys.argv, "hyper": files, "ls": os.listdir()}
    write(out + "/seen.json", json.dumps(saw))
    write(kaos_out + "/model/more", "m")
    write(kaos_out + "/model/weights", "the other")
    os.mkdir(out + "/empty")
    os.symlink("model/weights", out + "/link")
    os.symlink(out + "/model", out + "/absolute")
    os.chmod(out + "/model/weights", 0o755)

root = os.environ["KAOS_OUT"][: -len("/kaos/out")]

def changes_everything():
    for name in os.listdir("."):
        os.remove(name) if os.path.isfile(name) else None
    open("helper.py", "w").close()
    os.makedirs(kaos_out + "/" + "/".join("d" * 900))
    os.chdir("/")
    write(os.environ["HOME"] + "/.config/x"); write(os.environ["TMPDIR"] + "/y")
    write(root + "/kaos/left/there"); write(root + "/pfs/left/there")
    locked = os.environ["HOME"] + "/locked/in"
    os.makedirs(locked)
    os.chmod(locked, 0); os.chmod(os.path.dirname(locked), 0)

def crash():
    import helper
    print("working")
    helper.broken()

def crash_caught():
    import logging
    try:
        1 / 0
    except ZeroDivisionError:
        logging.exception("this was expected")
    print("\n".join("line %d" % n for n in range(30)))
    print("no such column: age", file=sys.stderr)
    sys.exit(3)

def group():
    exec("raise ExceptionGroup('several', [ValueError(1), KeyError(2)])")

def aborts():
    print("terminate called: bad alloc", flush=True)
    os.abort()

def killed():
    os.kill(os.getpid(), signal.SIGKILL)

def partial():
    write(out + "/checkpoint", "half")
    write(kaos_out + "/metrics/metrics.json", '{"loss": 3}')
    sys.exit("no more")

def odd_output():
    os.makedirs(out)
    write(out + "/kept", "k")
    os.symlink("/etc/passwd", out + "/passwd"); os.symlink("../../..", out + "/up")
    os.symlink("up/x", out + "/through"); os.symlink("nowhere", out + "/dangling")
    os.chdir(out)
    socket.socket(socket.AF_UNIX).bind("socket")
    os.mkfifo("pipe")
    write(out + "/locked/secret", "s")
    if os.getuid():
        os.chmod(out + "/locked", 0)
    open(b"bad\xff", "w").close(); open("two\nlines", "w").close()
    write(out + "/Case"); write(out + "/case")
    write(root + "/pfs/out/elsewhere", "e")

def output_is_file():
    write(out, "the model")

def output_is_link():
    os.symlink("/etc", out)

def many_files():
    for n in range(50):
        os.makedirs("%s/%d" % (out, n))
        for m in range(1000):
            if m % 10 == 0:
                write("%s/%d/%d" % (out, n, m), "%d.%d" % (n, m))
            else:
                os.link("%s/%d/0" % (out, n), "%s/%d/%d" % (out, n, m))

def big_file():
    os.makedirs(out)
    with open(out + "/big", "wb") as file:
        file.truncate(1 << 30)
        file.write(b"begin")

def metrics_of_files():
    write(out + "/metrics/metrics_a.json", json.dumps(
        {"loss": 0.5, "accuracy": "0.75", "n": 3, "report": {"precision": 1}, "list": [1],
         "text": "good", "yes": True, "none": None, "nan": float("nan"), "huge": 10**400}))
    write(kaos_out + "/metrics/my_metrics.json", json.dumps({"loss": 7, "other": "1e3"}))
    write(out + "/metrics/metrics_broken.json", "{")
    write(out + "/metrics/metrics_list.json", "[1]")
    write(out + "/metrics/notes.json", '{"not": 1}')
    from kaos_hub import log
    log(loss=99, live=1)

def metrics_live():
    from kaos_hub import log
    import kaos_hub
    for step in range(5):
        log({"val/loss": 1 / (step + 1)}, step=step, loss="%d.5" % step)
    log(loss=float("nan"), bad=object())
    log(**{"m%d" % n: n for n in range(200)})
    with open(os.environ["KAOS_METRICS"], "a") as file:
        file.write('{"shell": 4, "step": 9}\nnonsense\n{"half": ')

def metrics_flood():
    began = time.monotonic()
    pipe = os.open(os.environ["KAOS_METRICS"], os.O_WRONLY)
    line = b'{"values": {"loss": %d}, "step": %d}\n'
    for n in range(0, 400000, 50):
        os.write(pipe, b"".join(line % (m, m) for m in range(n, n + 50)))
    print("took", time.monotonic() - began)

def removes_its_pipe():
    os.remove(os.environ["KAOS_METRICS"])
    from kaos_hub import log
    log(loss=1)

def leaves_children():
    command = ["sh", "-c", "trap '' TERM HUP; sleep 1000; : left in " + root]
    subprocess.Popen(command, start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            subprocess.Popen(command)
            time.sleep(1000)
        os._exit(0)
    os.wait()

def tees():
    tee = subprocess.Popen(["sh", "-c", "sleep 0.2; cat"], stdin=subprocess.PIPE)
    tee.stdin.write(b"last words\n")

def prints_much():
    block = b"x" * 99 + b"\n"
    for _ in range(1024):
        os.write(1, block * 10486)
    raise ValueError("after a gigabyte")

def prints_bars():
    for n in range(1000):
        sys.stdout.write("\r%d%%" % n)
    sys.stdout.write("\nfin\xe9 \x00".encode("latin-1").decode("latin-1"))
    sys.stdout.flush()
    os.write(1, b"\xff\xfe raw")

def reads_ours():
    worker = os.getppid()
    tried = 0
    for name in ("environ", "mem", "maps"):
        try:
            open("/proc/%d/%s" % (worker, name), "rb").read(10)
        except OSError:
            tried += 1
    assert tried == 3 or os.getuid() == 0, tried
    secret = "-".join(["a", "ticket"])
    assert secret not in json.dumps(dict(os.environ))
    for above, _, files in os.walk(root + "/kaos"):
        for name in files:
            path = os.path.join(above, name)
            if os.path.isfile(path):
                with open(path, errors="replace") as file:
                    assert secret not in file.read(), name

globals()[params["do"]]()
"""
)
HELPER = """
def broken():
    numbers = []
    return numbers[3]
"""
DOINGS = re.findall(r"^def (\w+)\(\):", GALLERY, re.MULTILINE)


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
        said = worker.finish(timeout=200)
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
    assert files == {"kept": b"k", "dangling": "nowhere", "Case": b"", **rest}
    skipped = "\n".join(end.output.skipped)  # type: ignore[union-attr]
    for said in (
        "'passwd' is a link to the absolute path '/etc/passwd'",
        "'up' is a link to '../../..', which is outside",
        "'through' is a link to 'up/x', which is outside", "'socket' is a socket",
        "'pipe' is a named pipe", r"'bad\udcff' has a name", r"'two\nlines' has a control",
        "'case' and 'Case' are one name", "'elsewhere' lies beside the output directory",
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


def wait_until(condition: Callable[[], bool], timeout: float = 20) -> None:
    """Wait for something to be so."""
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


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
