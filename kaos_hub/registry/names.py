"""Names of images and registries, and the ways to reach registries."""

import base64
import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kaos_hub.errors import NotFound

DOCKER_HUB = "docker.io"
_DOCKER_HUB_OTHERS = ("index.docker.io", "registry-1.docker.io")
INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MANIFESTS = (OCI_MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")
# The grammar of github.com/distribution/reference. A registry is told from a first folder by its
# dot, its port or its capitals.
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REFERENCE = re.compile(
    rf"(?P<name>(?:(?:{_HOST}(?:\.{_HOST})*(?::[0-9]+)?|\[[a-fA-F0-9:]+\](?::[0-9]+)?)/)?"
    rf"{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
_ID = re.compile(r"[0-9a-f]{64}")
_LONGEST_NAME = 255


@dataclass(frozen=True)
class Reference:
    """A reference of an image, in full: what ``python:3.13-slim`` stands for."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read a reference as container engines do.

        Raises:
            NotFound: it is none.
        """
        match = _REFERENCE.fullmatch(text)
        if match is None or len(match["name"]) > _LONGEST_NAME or _ID.fullmatch(match["name"]):
            raise NotFound(
                f"{text[:300]!r} is no reference of an image; they are written as in"
                " python:3.13-slim or registry.example.org/team/image:1"
            )
        first, slash, rest = match["name"].partition("/")
        if slash and (set(first) & set(".:") or first == "localhost" or first != first.lower()):
            registry, repository = first, rest
        else:
            registry, repository = DOCKER_HUB, match["name"]
        if registry in (DOCKER_HUB, *_DOCKER_HUB_OTHERS):
            registry = DOCKER_HUB
            repository = repository if "/" in repository else f"library/{repository}"
        digest = match["digest"] or ""
        return cls(registry, repository, match["tag"] or ("" if digest else "latest"), digest)

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def what(self) -> str:
        """Digest, else tag: what to ask the registry for."""
        return self.digest or self.tag

    def __str__(self) -> str:
        return (
            self.name
            + (f":{self.tag}" if self.tag else "")
            + (f"@{self.digest}" if self.digest else "")
        )

    def pinned(self, digest: str) -> str:
        """The repository with a digest: a reference that never changes its meaning."""
        return f"{self.name}@{digest}"


@dataclass(frozen=True)
class Manifest:
    """A manifest as the registry gave it."""

    digest: str
    media_type: str
    body: bytes
    where: Reference
    """The repository that really gave it, which may be a mirror's."""

    @property
    def json(self) -> dict[str, Any]:
        """Its content."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def is_index(self) -> bool:
        """Return whether it only lists manifests, one for each platform."""
        return self.media_type in INDEXES


@dataclass(frozen=True)
class Ways:
    """The ways to reach registries.

    Args:
        mirrors: registry → what is asked before it, ``host:port`` or ``host:port/prefix``.
        insecure: registries that are spoken to without TLS, or whose certificate isn't checked.
        ca: file with certificates to trust beside the system's.
        logins: registry → user and password.
        login_setting, ca_setting: what the admin sets them with, for messages.
    """

    mirrors: Mapping[str, str] = field(default_factory=dict)
    insecure: Sequence[str] = ()
    ca: str = ""
    logins: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    login_setting: str = "KubernetesEngine.registry_login"
    ca_setting: str = "KubernetesEngine.registry_ca"


def logins(config: Path) -> dict[str, tuple[str, str]]:
    """Users and passwords from a ``config.json`` as ``docker login`` writes it."""
    found: dict[str, tuple[str, str]] = {}
    try:
        entries = json.loads(config.read_bytes()).get("auths", {})
    except (OSError, ValueError, AttributeError):
        return found
    for server, entry in entries.items():
        user, password = entry.get("username", ""), entry.get("password", "")
        with contextlib.suppress(ValueError):
            text = base64.b64decode(entry.get("auth", "")).decode()
            user, password = text.split(":", 1) if ":" in text else (user, password)
        host = urlsplit(server if "//" in server else f"//{server}").netloc
        found[DOCKER_HUB if host.endswith(f".{DOCKER_HUB}") else host] = (user, password)
    return found
