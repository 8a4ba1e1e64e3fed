"""Variables for ``kaos-build`` (``images/builder``), in a pod as in a container of Docker's."""

from collections.abc import Mapping
from urllib.parse import urlsplit

BUILDER_UID = 1001
"""Builds run as another user than notebooks: their limit of processes counts by user."""
OUTPUT_LIMIT = 4 << 20
"""Bytes of output; the rest is dropped."""
_MIB = 1 << 20


def environment(
    context: str,
    bases: Mapping[str, str],
    storage: int,
    build_args: Mapping[str, str],
    pip_index_url: str,
    certificates: str = "",
    cache: str = "",
) -> dict[str, str]:
    """Variables of the builder that do not depend on the engine.

    Args:
        context: folder of the bundle that is the build context.
        bases: base image → what it is pinned to, in the engine's words.
        storage: bytes that a build may fill, and the largest size of the cache.
        build_args: build arguments of every build.
        pip_index_url: the index that pip uses in builds; empty: pip's own.
        certificates: file with certificates to trust beside the system's.
        cache: folder of the owner's cache; empty: there is none.
    """
    size = str(storage // _MIB)
    found = {
        "KAOS_CONTEXT": context,
        "KAOS_OUT": "/out",
        "KAOS_STORAGE": "/storage",
        "KAOS_BASES": lines(bases, " "),
        "KAOS_BUILD_ARGS": lines(build_args, "="),
        "KAOS_PIP": pip_conf(pip_index_url, bool(certificates)),
        "KAOS_OUTPUT_LIMIT": str(OUTPUT_LIMIT),
        "KAOS_FILE_LIMIT": size,
    }
    if certificates:
        found["KAOS_CA"] = certificates
    if cache:
        found |= {"KAOS_CACHE": cache, "KAOS_CACHE_LIMIT": size}
    return found


def pip_conf(index: str, certificates: bool) -> str:
    """The configuration of pip in builds; empty if it is left alone."""
    found = [f"index-url = {index}"] if index else []
    if urlsplit(index).scheme == "http":
        # Else pip would ignore it; who names such an index means it.
        found.append(f"trusted-host = {urlsplit(index).netloc.rpartition('@')[2]}")
    found += ["cert = /etc/xdg/pip/ca.crt"] if certificates else []
    return "\n".join(["[global]", *found, ""]) if found else ""


def lines(values: Mapping[str, str], between: str) -> str:
    """Names and values as lines."""
    return "\n".join(f"{name}{between}{value}" for name, value in values.items())
