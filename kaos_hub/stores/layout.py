"""``python -m kaos_hub.stores.layout DIGEST STORE_URL TARGET [--link]``

Lays a tree out of a store, as a process of its own: engines run it detached, so it survives the
process that started it. It may be killed at any moment and simply be run again.

Progress goes to standard output, a line ``40% 12,345,678 of 30,000,000 bytes`` at every per cent.
Ends with 0, or with 1 and one line on standard error.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from kaos_hub.bundles.materialise import materialise
from kaos_hub.bundles.tree import is_digest
from kaos_hub.errors import InvalidRequest, KaosError
from kaos_hub.stores.access import open_store, reader


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        if not is_digest(options.digest):
            raise InvalidRequest(f"{options.digest!r} is no digest")
        read = reader(open_store(options.store))
        materialise(
            options.digest,
            read,
            options.target,
            link=options.link,
            durable=True,
            progress=_printer(),
        )
    except KaosError as error:
        print(f"error: {' '.join(error.message.split())}", file=sys.stderr, flush=True)
        return 1
    print(f"laid out {options.target}", flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kaos_hub.stores.layout", description="Lay a tree out, read-only."
    )
    parser.add_argument("digest", help="digest of the tree: blake3:…")
    parser.add_argument("store", help="URL of the store: file:///…")
    parser.add_argument("target", type=Path, help="the folder to make")
    parser.add_argument(
        "--link",
        action="store_true",
        help="hard-link files to the store's objects; only for folders nobody can write to",
    )
    return parser


def _printer() -> Callable[[int, int], None]:
    shown = -1

    def show(done: int, total: int) -> None:
        nonlocal shown
        percent = done * 100 // total if total else 100
        if percent > shown:
            shown = percent
            print(f"{percent}% {done:,} of {total:,} bytes", flush=True)

    return show


if __name__ == "__main__":
    sys.exit(main())
