"""The command line: parse, call the :mod:`kaos_hub.client`, print.

Nothing heavy is imported before a command runs: ``kaos --help`` needs click alone.
"""

__all__ = ["main"]


def main() -> None:
    """Run ``kaos`` with the arguments of this process."""
    from kaos_hub.cli.root import kaos

    kaos(prog_name="kaos")
