"""Ask whether anything in the images is known to be vulnerable.

    python images/scan.py [--from FOLDER]

Reads the bills of materials that `images/sbom.py` wrote, and asks OSV (https://osv.dev), the
database of Python, node and Debian alike; ``OSV_URL`` names another of its kind. Exit code 1:
something of Python's or node's is. What Debian knows of its own packages and has not mended is only
counted. If the database does not answer that is said, and is no failure: nothing is known then.
"""

import argparse
import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sbom import OUT

URL = "https://api.osv.dev"
_AT_ONCE = 500
"""Packages in a question; the database takes up to 1000."""


def packages(folder: Path) -> dict[str, set[str]]:
    """Package (as a purl) → the images that have it."""
    found: dict[str, set[str]] = {}
    for path in sorted(folder.glob("*.cdx.json")):
        image = path.name.removesuffix(".cdx.json")
        for component in json.loads(path.read_text("utf-8"))["components"]:
            found.setdefault(component["purl"], set()).add(image)
    return found


def known(purls: list[str], url: str) -> Iterator[tuple[str, list[str]]]:
    """Package → what is known against it, for those of which something is.

    Raises:
        OSError: the database does not answer.
    """
    for first in range(0, len(purls), _AT_ONCE):
        asked = purls[first : first + _AT_ONCE]
        queries: list[Any] = [{"package": {"purl": purl}} for purl in asked]
        question = urllib.request.Request(  # noqa: S310  the admin's own
            f"{url}/v1/querybatch",
            data=json.dumps({"queries": queries}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(question, timeout=60) as answer:  # noqa: S310
            results = json.load(answer)["results"]
        for purl, result in zip(asked, results, strict=True):
            if vulnerabilities := result.get("vulns"):
                yield purl, sorted(v["id"] for v in vulnerabilities)


def main() -> int:
    """Ask, and say what is known."""
    parser = argparse.ArgumentParser(description="Known vulnerabilities of the images.")
    parser.add_argument("--from", dest="folder", type=Path, default=OUT, help="the bills' folder")
    folder, url = parser.parse_args().folder, os.environ.get("OSV_URL") or URL
    having = packages(folder)
    if not having:
        print(f"images: no bills of materials in {folder}: make images", file=sys.stderr)
        return 1
    try:
        found = dict(known(sorted(having), url.rstrip("/")))
    except OSError as e:
        print(
            f"NOT SCANNED: {url} does not answer ({e}); nothing is known of {len(having)} packages."
        )
        return 0
    ours = {purl: ids for purl, ids in found.items() if not purl.startswith("pkg:deb/")}
    for purl, ids in ours.items():
        print(f"{purl} (in {', '.join(sorted(having[purl]))}): {', '.join(ids)}")
    print(
        f"{len(having)} packages; vulnerable: {len(ours)}, and {len(found) - len(ours)} of Debian's"
    )
    return int(bool(ours))


if __name__ == "__main__":
    sys.exit(main())
