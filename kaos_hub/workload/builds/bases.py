"""Fetch base images that want a login: a step before the build, which itself must have none.

Only our own code runs here, on nothing but what registries give, and what it leaves the build can
read but not write. Bases that want no login are left to the build. Everything it is told comes from
the environment:

    KAOS_BASES      JSON: base image → what it was pinned to
    KAOS_WAYS       JSON: mirrors, insecure, ca of registries, and what the admin sets them with
    KAOS_LOGIN      config.json with passwords
    KAOS_KEPT       where they go: a folder for each, called as its digest, in the format `dir`
    KAOS_RESULT     where the last words go
"""

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from kaos_hub.registry.names import Manifest, Reference
from kaos_hub.registry.registries import Registries
from kaos_hub.workload.builds.steps import TROUBLE, failed, registries

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def folder(kept: Path, pinned: str) -> Path:
    """Return the folder in which a base is kept."""
    return kept / Reference.parse(pinned).digest.removeprefix("sha256:")


def keep(pinned: str, kept: Path, asked: Registries) -> None:
    """Fetch an image.

    Raises:
        NotFound: it is not there, or not for machines like this.
        EngineUnavailable: its registry does not answer, or does not let us in.
    """
    machine = platform.machine()
    listed = asked.manifest(Reference.parse(pinned))
    manifest = asked.image(listed, _ARCHITECTURES.get(machine, machine))
    target = folder(kept, pinned)
    target.mkdir(exist_ok=True)
    (target / "version").write_text("Directory Transport Version: 1.1\n")
    for blob in [manifest.json["config"], *manifest.json["layers"]]:
        with (target / str(blob["digest"]).removeprefix("sha256:")).open("wb") as file:
            for piece in asked.blob(manifest.where, blob["digest"]):
                file.write(piece)
    # Last: what has one is whole.
    (target / "manifest.json").write_bytes(manifest.body)


def read(kept: Path, pinned: str) -> tuple[Manifest, dict[str, Any]] | None:
    """Manifest and configuration of a base that was fetched; None if it was not."""
    place = folder(kept, pinned)
    try:
        body = (place / "manifest.json").read_bytes()
    except FileNotFoundError:
        return None
    manifest = Manifest("", "", body, Reference.parse(pinned))
    config = str(manifest.json["config"]["digest"]).removeprefix("sha256:")
    return manifest, json.loads((place / config).read_bytes())


def main() -> int:
    """Fetch as the environment says."""
    said = os.environ
    try:
        asked = registries()
        for name, pinned in json.loads(said["KAOS_BASES"]).items():
            if pinned != "scratch" and asked.has_login(Reference.parse(pinned)):
                print(f"Fetching {name} ({pinned})", flush=True)
                keep(pinned, Path(said["KAOS_KEPT"]), asked)
    except TROUBLE as e:
        return failed(e)
    return 0


if __name__ == "__main__":
    sys.exit(main())
