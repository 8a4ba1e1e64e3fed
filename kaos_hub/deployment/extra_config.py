"""Additions of an admin to ``jupyterhub_config.py``: a file, or a folder of files.

Those of a folder are read in the order of their names. Files ``*.py`` are Python like that file
itself. Files ``*.json`` are data, ``{"Class": {"trait": value}}``: so a chart hands its values on
without writing a line of Python.
"""

import json
from pathlib import Path
from typing import Any

from kaos_hub.errors import KaosError

_ADDED_TO = {("JupyterHub", "services"), ("JupyterHub", "load_roles")}
"""Lists that hold something of ours already, which must not be lost."""


def files_of(path: Path) -> list[Path]:
    """The file, or the files of the folder.

    Raises:
        KaosError: there is no such thing.
    """
    if not path.is_dir():
        if not path.exists():
            raise KaosError(f"KAOS_EXTRA_CONFIG names {path}, which is not there.")
        return [path]
    return sorted(p for p in path.iterdir() if p.suffix in (".json", ".py"))


def add_json(config: Any, path: Path) -> None:
    """Add the settings of a JSON file to a configuration of traitlets.

    Raises:
        KaosError: it is not JSON, or not of that form; says where.
    """
    try:
        sections = json.loads(path.read_bytes())
    except (OSError, ValueError) as e:
        raise KaosError(f"Cannot read settings from {path}: {e}") from None
    if not isinstance(sections, dict) or not all(isinstance(s, dict) for s in sections.values()):
        raise KaosError(f'{path} is not of the form {{"Class": {{"trait": value}}}}')
    for section, settings in sections.items():
        for trait, value in settings.items():
            if (section, trait) in _ADDED_TO:
                config[section][trait].extend(value)
            else:
                config[section][trait] = value


def database_url(given: str, file: Path) -> str:
    """The URL of the Hub's database: the given one, with our driver, else an SQLite file."""
    if not given:
        return f"sqlite:///{file}"
    return given.replace("postgresql://", "postgresql+psycopg://", 1)
