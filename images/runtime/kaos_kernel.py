#!/opt/kaos/bin/python -I
"""The default kernel: the Python of the image, or the runtime's own where that cannot be used."""

import sys

from kaos_hub.workload.notebook.kernels import run

run(sys.argv[1:])
