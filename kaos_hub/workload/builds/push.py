"""Push a built image: the last step of a build in a cluster, which alone has a password.

What it reads was left by a step that runs the user's commands, so nothing there is trusted: files
are taken by the digest of their content, links are not followed, and no program of the user's runs.
The layers of base images are taken from their registry. Everything it is told comes from the
environment; the result goes to where Kubernetes looks for a container's last words.

    KAOS_OUT        where the build has left an OCI layout (`layout`) and the C library (`libc`)
    KAOS_IMAGE      where to push
    KAOS_PULL       repository by which the nodes pull it
    KAOS_BASES      JSON: base image → what it was pinned to
    KAOS_WAYS       JSON: mirrors, insecure, ca of registries, and what the admin sets them with
    KAOS_LOGIN      config.json with passwords; may be absent
    KAOS_KEPT       bases that a step before has fetched; may be absent
    KAOS_RESULT     where the result goes
"""

import hashlib
import json
import os
import re
import stat
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kaos_hub.errors import BuildFailed
from kaos_hub.registry.names import OCI_MANIFEST, Reference
from kaos_hub.registry.registries import Registries
from kaos_hub.workload.builds import bases as kept_bases
from kaos_hub.workload.builds.steps import LONGEST, TROUBLE, failed, registries

LIBC = "io.kaos-hub.libc"
"""The annotation of a pushed image that tells its C library."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHUNK = 1 << 20
_LARGEST_JSON = 4 << 20
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"


@dataclass(frozen=True)
class Layer:
    """A layer that a registry already has."""

    descriptor: Mapping[str, Any]
    where: Reference
    kept: Path | None = None
    """The file, if a step before has fetched it."""


class Layout:
    """The output of a build: content by digest, and nothing else is believed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, digest: str) -> IO[bytes]:
        """A file of content, checked.

        Raises:
            BuildFailed: it is not there, or not what it should be.
        """
        if not _DIGEST.fullmatch(digest):
            raise BuildFailed(f"{digest[:100]!r} is no digest")
        file = _plain(self._path / "blobs" / "sha256" / digest.removeprefix("sha256:"))
        seen = hashlib.sha256()
        while piece := file.read(_CHUNK):
            seen.update(piece)
        if f"sha256:{seen.hexdigest()}" != digest:
            raise BuildFailed(f"the layer {digest} was changed after it was built")
        file.seek(0)
        return file

    def json(self, digest: str) -> tuple[dict[str, Any], bytes]:
        """Content as JSON, and as it is."""
        with self.open(digest) as file:
            return _json(file)

    def manifest(self) -> dict[str, Any]:
        """The image's manifest."""
        with _plain(self._path / "index.json") as file:
            index, _ = _json(file)
        return self.json(str(index["manifests"][0]["digest"]))[0]


def _plain(path: Path) -> IO[bytes]:
    """A file that is one: no link (to what only this step sees), no pipe, no device."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    except OSError as e:
        raise BuildFailed(f"the build left no {path.name}: {e.strerror}") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise BuildFailed(f"the build left no {path.name}")
    return file


def _json(file: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    body = file.read(_LARGEST_JSON + 1)
    if len(body) > _LARGEST_JSON:
        raise BuildFailed("the image's configuration is too large")
    found = json.loads(body)
    if not isinstance(found, dict):
        raise BuildFailed("the build left something that is no image")
    return found, body


def push(
    out: Path, target: Reference, bases: Mapping[str, str], registries: Registries,
    kept: Path | None = None,
) -> None:  # fmt: skip
    """Bring the image into the registry: what it lacks of layers, then the manifest.

    Args:
        out: what the build left.
        target: where to.
        bases: base image → what it was pinned to.
        registries: how they are reached.
        kept: where the step that has a login for bases left them.

    Raises:
        BuildFailed: what the build left is no image.
        EngineUnavailable: the registry doesn't answer or refuses.
    """
    layout = Layout(out / "layout")
    manifest = layout.manifest()
    config, body = layout.json(str(manifest["config"]["digest"]))
    known = _known(bases, registries, str(config.get("architecture", "amd64")), kept)
    layers = []
    for diff, layer in zip(config["rootfs"]["diff_ids"], manifest["layers"], strict=True):
        if diff in known:
            layers.append(_bring(known[diff], target, registries))
        else:
            layers.append(_send(layout, layer, target, registries))
    described = _put(body, target, registries)
    final = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": _OCI_CONFIG, **described},
        "layers": layers,
        "annotations": {LIBC: _libc(out)},
    }
    registries.put_manifest(target, json.dumps(final, separators=(",", ":")).encode())


def _libc(out: Path) -> str:
    with _plain(out / "libc") as file:
        return "musl" if file.read(10).strip() == b"musl" else "glibc"


def _known(
    bases: Mapping[str, str], registries: Registries, architecture: str, kept: Path | None
) -> dict[str, Layer]:
    """The layers of the base images, by the digest of what is in them."""
    found: dict[str, Layer] = {}
    for pinned in bases.values():
        if pinned == "scratch":
            continue
        here = kept_bases.read(kept, pinned) if kept else None
        if here is not None:
            manifest, config = here
        else:
            listed = registries.manifest(Reference.parse(pinned))
            manifest = registries.image(listed, architecture)
            config = registries.json_blob(manifest.where, manifest.json["config"]["digest"])
        for diff, descriptor in zip(
            config["rootfs"]["diff_ids"], manifest.json["layers"], strict=True
        ):
            file = None
            if kept and here is not None:
                name = str(descriptor["digest"]).removeprefix("sha256:")
                file = kept_bases.folder(kept, pinned) / name
            found[diff] = Layer(descriptor, manifest.where, file)
    return found


def _bring(layer: Layer, target: Reference, registries: Registries) -> dict[str, Any]:
    """See to it that a layer of a base image is in the repository, too."""
    digest, size = str(layer.descriptor["digest"]), int(layer.descriptor["size"])
    kind = str(layer.descriptor["mediaType"])
    described = {
        "mediaType": _OCI_LAYER if kind == _DOCKER_LAYER else kind,
        "digest": digest,
        "size": size,
    }
    if registries.has_blob(target, digest):
        return described
    here = layer.where.registry == target.registry
    if here and registries.mount(target, digest, layer.where.repository):
        return described
    print(f"Copying layer {digest[:19]} from {layer.where.name}", flush=True)
    if layer.kept is not None:
        with layer.kept.open("rb") as have:
            registries.upload(target, digest, have, size)
        return described
    with tempfile.TemporaryFile() as file:
        for piece in registries.blob(layer.where, digest):
            file.write(piece)
        file.seek(0)
        registries.upload(target, digest, file, size)
    return described


def _send(
    layout: Layout, layer: Mapping[str, Any], target: Reference, registries: Registries
) -> dict[str, Any]:
    """See to it that a layer of the build is in the repository."""
    digest = str(layer["digest"])
    with layout.open(digest) as file:
        size = os.fstat(file.fileno()).st_size
        if not registries.has_blob(target, digest):
            print(f"Pushing layer {digest[:19]}, {size} bytes", flush=True)
            registries.upload(target, digest, file, size)
    return {"mediaType": str(layer["mediaType"]), "digest": digest, "size": size}


def _put(body: bytes, target: Reference, registries: Registries) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    if not registries.has_blob(target, digest):
        with tempfile.TemporaryFile() as file:
            file.write(body)
            file.seek(0)
            registries.upload(target, digest, file, len(body))
    return {"digest": digest, "size": len(body)}


def describe(target: Reference, pull: str, registries: Registries) -> dict[str, Any]:
    """Return what the service must know of a pushed image: reference, C library, directory, PATH.

    Raises:
        NotFound: it is not there.
    """
    manifest = registries.manifest(target)
    config = registries.json_blob(manifest.where, manifest.json["config"]["digest"])
    settings = config.get("config") or {}
    variables = dict(v.partition("=")[::2] for v in settings.get("Env") or [])
    path = str(variables.get("PATH", ""))
    return {
        "image": f"{pull}@{manifest.digest}",
        "libc": (manifest.json.get("annotations") or {}).get(LIBC, "glibc"),
        "workdir": str(settings.get("WorkingDir") or "/")[:LONGEST],
        "path": path if len(path) <= LONGEST else "",
    }


def main() -> int:
    """Push as the environment says; what is there already is only described."""
    said = os.environ
    target = Reference.parse(said["KAOS_IMAGE"])
    kept = Path(said["KAOS_KEPT"]) if "KAOS_KEPT" in said else None
    try:
        asked = registries()
        if "KAOS_OUT" in said:
            bases = json.loads(said.get("KAOS_BASES") or "{}")
            push(Path(said["KAOS_OUT"]), target, bases, asked, kept)
        found = describe(target, said["KAOS_PULL"], asked)
    except TROUBLE as e:
        return failed(e)
    print(f"Built {found['image']}", flush=True)
    Path(said["KAOS_RESULT"]).write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
