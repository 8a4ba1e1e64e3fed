"""A trial's program of many kinds: its parameter ``do`` says which one it is."""

import re
import sys

PYTHON = f"#!{sys.executable}\n"
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
