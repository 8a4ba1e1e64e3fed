#!/opt/kaos/bin/python -I
"""Run the program of the runtime that this file is called as, whatever the image sets.

An image may set LD_LIBRARY_PATH, JUPYTER_CONFIG_DIR or OPENSSL_CONF for its own programs. Some are
read when a process begins, so they are put aside, and the program is executed anew. It hands them
to what it starts for the user; see kaos_hub/util/variables.py. What users run by hand, `kaos` and
`jupyter`, keeps what they set, but for what our Python would not survive.

``kaos-run MODULE …`` is for modules of kaos_hub that work beside the user's programs.
"""

import os
import sys

from kaos_hub.util import variables

ROOT = "/opt/kaos"
name = os.path.basename(sys.argv[0])  # noqa: PTH119
if name in ("kaos", "jupyter"):
    for variable in [v for v in os.environ if v.startswith("LD_")]:
        os.environ[variables.PREFIX + variable] = os.environ.pop(variable)
else:
    variables.put_aside(os.environ)

# last on the path: what the image has comes first
path = [p for p in os.environ.get("PATH", os.defpath).split(":") if p != ROOT + "/exec"]
os.environ["PATH"] = ":".join([*path, ROOT + "/exec"])

# an image with next to nothing in it, or one that keeps its /tmp to root
home = os.environ.get("HOME")
temporary = ("/tmp", "/var/tmp")  # noqa: S108
if home and "TMPDIR" not in os.environ and not any(os.access(d, os.W_OK) for d in temporary):
    os.environ["TMPDIR"] = home + "/.kaos/tmp"
    os.makedirs(os.environ["TMPDIR"], exist_ok=True)  # noqa: PTH103

modules = {"kaos-notebook": ["-m", "kaos_hub.workload.notebook.start"], "kaos-run": ["-u", "-m"]}
command = modules.get(name, [f"{ROOT}/libexec/{name}"])
os.execv(f"{ROOT}/bin/python", [f"{ROOT}/bin/python", "-I", *command, *sys.argv[1:]])  # noqa: S606
