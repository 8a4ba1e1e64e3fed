"""Write down what is in the images: a bill of materials (CycloneDX, JSON) of each.

    python images/sbom.py [--registry REGISTRY] [--out FOLDER] [NAME...]

Read from the image's files, without running anything in it: Python packages, Debian packages,
packages of node. The same image makes the same file, byte for byte.
"""

import argparse
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from datetime import datetime
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath
from typing import IO, Any
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from make import NAMES, reference, run
from packageurl import PackageURL

from kaos_hub.errors import KaosError

OUT = Path(__file__).resolve().parent.parent / "build/sbom"
_LARGEST = 1 << 24
"""Bytes beyond which no file is a description of a package."""


def components(archive: tarfile.TarFile) -> Iterator[Component]:
    """The packages in a file system."""
    for member in archive:
        path = PurePosixPath(member.name)
        file = archive.extractfile(member) if member.isfile() else None
        if file is None or member.size > _LARGEST:
            continue
        if path.name == "METADATA" and path.parent.suffix == ".dist-info":
            yield _python(file)
        elif path.name == "package.json" and path.parent.parent.name == "node_modules":
            yield from _node(file)
        elif str(path) == "var/lib/dpkg/status":
            yield from _debian(file)


def _component(kind: str, name: str, version: str, space: str | None = None) -> Component:
    url = PackageURL(kind, space, name, version)
    return Component(
        type=ComponentType.LIBRARY, name=name, version=version, purl=url, bom_ref=str(url)
    )


def _python(file: IO[bytes]) -> Component:
    about = HeaderParser().parsestr(file.read().decode("utf-8", "replace"))
    return _component("pypi", about["Name"].lower().replace("_", "-"), about["Version"])


def _node(file: IO[bytes]) -> Iterator[Component]:
    about = json.load(file)
    if about.get("name") and about.get("version"):
        space, _, name = about["name"].rpartition("/")
        yield _component("npm", name, about["version"], space or None)


def _debian(file: IO[bytes]) -> Iterator[Component]:
    for entry in file.read().decode("utf-8", "replace").split("\n\n"):
        about = HeaderParser().parsestr(entry)
        if about["Status"] == "install ok installed":
            yield _component("deb", about["Package"], about["Version"], "debian")


def bill(image: str) -> str:
    """The bill of materials of an image that the Docker Engine has.

    Raises:
        KaosError: it has none of that name.
    """
    about: dict[str, Any] = json.loads(run("docker", "image", "inspect", image))[0]
    # an image without a command gives no container unless one is named
    container = run("docker", "create", image, "/nothing").strip()
    try:
        with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
            assert export.stdout is not None
            with tarfile.open(fileobj=export.stdout, mode="r|") as archive:
                found = {str(c.purl): c for c in components(archive)}
    finally:
        run("docker", "rm", container)
    bom = Bom(components=found.values())
    bom.serial_number = uuid5(NAMESPACE_URL, about["Id"])
    bom.metadata.timestamp = datetime.fromisoformat(about["Created"])
    name, _, tag = image.rpartition("/")[2].partition(":")
    whole = Component(type=ComponentType.CONTAINER, name=name, version=tag, bom_ref=about["Id"])
    bom.metadata.component = whole
    bom.register_dependency(whole, bom.components)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def main() -> int:
    """Write them, and say what is in them."""
    parser = argparse.ArgumentParser(description="Bills of materials of the images.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="all that are there without any")
    parser.add_argument("--registry", default="", help="in front of kaos-hub/<name>")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder they are written to")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        there = run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}").split()
        for name in given.names or [n for n in NAMES if reference(n, given.registry) in there]:
            text = bill(reference(name, given.registry))
            (given.out / f"{name}.cdx.json").write_text(text, "utf-8")
            print(f"{name}:", text.count('"purl":'), "packages")
    except KaosError as e:
        print(f"images: {e.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
