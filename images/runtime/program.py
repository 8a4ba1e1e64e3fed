#!/opt/kaos/bin/python -I
"""Run the program of the runtime that this file is called as, whatever libraries the image sets.

An image may set LD_LIBRARY_PATH or LD_PRELOAD for its own programs. The loader reads them when a
process begins, so they are put aside, and the program is executed anew. The Jupyter server puts
them back for what it starts (kernels, terminals); see kaos_hub/inside/variables.py. PYTHONPATH and
PYTHONHOME may stay: -I ignores them.
"""

import os
import sys

ROOT = "/opt/kaos"
name = os.path.basename(sys.argv[0])  # noqa: PTH119
for variable in ("LD_AUDIT", "LD_LIBRARY_PATH", "LD_PRELOAD"):
    if variable in os.environ:
        os.environ["KAOS_USER_" + variable] = os.environ.pop(variable)

# last on the path: what the image has comes first
path = [p for p in os.environ.get("PATH", os.defpath).split(":") if p != ROOT + "/exec"]
os.environ["PATH"] = ":".join([*path, ROOT + "/exec"])

# an image with next to nothing in it, or one that keeps its /tmp to root
home = os.environ.get("HOME")
temporary = ("/tmp", "/var/tmp")  # noqa: S108
if home and "TMPDIR" not in os.environ and not any(os.access(d, os.W_OK) for d in temporary):
    os.environ["TMPDIR"] = home + "/.kaos/tmp"
    os.makedirs(os.environ["TMPDIR"], exist_ok=True)  # noqa: PTH103

notebook = ["-m", "kaos_hub.inside.start"]
command = notebook if name == "kaos-notebook" else [f"{ROOT}/libexec/{name}"]
os.execv(f"{ROOT}/bin/python", [f"{ROOT}/bin/python", "-I", *command, *sys.argv[1:]])  # noqa: S606
