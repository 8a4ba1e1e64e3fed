"""The settings of pip on this machine, as settings of uv.

uv reads its own settings only, but people (and whole companies) tell pip where packages come from.
"""

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path


def uv_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` with uv's variables for whatever pip is told in files or variables.

    What is said to uv itself wins.
    """
    pip = pip_settings(environ)
    said = {
        "UV_DEFAULT_INDEX": pip.get("index-url", "").strip(),
        "UV_INDEX": " ".join(pip.get("extra-index-url", "").split()),
        "UV_FIND_LINKS": ",".join(pip.get("find-links", "").split()),
        "UV_INSECURE_HOST": " ".join(pip.get("trusted-host", "").split()),
        "UV_HTTP_TIMEOUT": pip.get("timeout", pip.get("default-timeout", "")).strip(),
        "SSL_CERT_FILE": os.path.expanduser(pip.get("cert", "").strip()),  # noqa: PTH111
    }
    if said["UV_INDEX"]:
        # To pip all indexes are equal; uv would stop at the first that knows a name.
        said["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {name: value for name, value in said.items() if value} | dict(environ)


def no_index(environ: Mapping[str, str]) -> bool:
    """Return whether pip must ask no index. uv has no variable for that, only ``--no-index``."""
    said = pip_settings(environ).get("no-index", "")
    return said.strip().lower() in ("1", "true", "yes", "on")


def pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings from its files and variables, the later winning."""
    found: dict[str, str] = {}
    for path in _files(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                found |= {_option(name): value for name, value in parser.items(section)}
    variables = {n: v for n, v in environ.items() if n.startswith("PIP_") and v}
    return found | {_option(name[4:]): value for name, value in variables.items()}


def _option(name: str) -> str:
    return name.lower().replace("_", "-")


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    """pip's configuration files, as its documentation lists them."""
    chosen = environ.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return
    for shared in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":"):
        yield Path(shared or "/etc/xdg") / "pip" / "pip.conf"
    yield Path("/etc/pip.conf")
    home = Path(environ.get("HOME") or "/")
    yield home / ".pip" / "pip.conf"
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
    yield Path(sys.prefix) / "pip.conf"
    if chosen:
        yield Path(chosen)
