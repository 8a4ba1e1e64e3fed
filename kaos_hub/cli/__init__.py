"""The command line: parse, call the :mod:`kaos_hub.client`, print.

Nothing heavy is imported before a command runs: ``kaos --help`` needs click alone.
"""

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run ``kaos`` with the arguments of this process."""
    if os.environ.get("_KAOS_COMPLETE", "").endswith("_complete"):
        # A shell asks what it may offer. Nothing may appear in the line that the user types.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - as long as this process lives
    from kaos_hub.cli.root import kaos
    from kaos_hub.cli.terminal.output import adapt_streams

    adapt_streams()
    kaos(prog_name="kaos")
