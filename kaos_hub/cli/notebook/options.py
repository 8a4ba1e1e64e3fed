"""The options of ``kaos notebook deploy``, and how they become a request."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from kaos_hub.cli import completion
from kaos_hub.cli.notebook.git import ASK, credentials
from kaos_hub.errors import InvalidRequest

_IDLE_TYPES = ["kernels_or_terminals", "kernel_connections", "activity"]
_BUNDLES = ("source", "data", "context")
_PLACED = {
    "bind_mounts": ("host_path", "container_path", "HOST"),
    "volumes": ("volume", "path", "NAME"),
}
_FLAGS = ("detach", "no_browser", "dry_run", "yes")
AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def deploy_options(function: AnyFunction) -> AnyFunction:
    """Give a command all that a notebook can be deployed with, but its name."""
    for option in reversed(
        [
            click.option("-s", "--source", "source_bundle", metavar="DIR",
                         shell_complete=completion.sources,
                         help="Source bundle: a folder with a Dockerfile; or NAME@v2."),
            click.option("-d", "--data", "data_bundle", metavar="DIR",
                         shell_complete=completion.data,
                         help="Data bundle: any folder; or NAME@v2."),
            click.option("--context", "context_bundle", metavar="PATH",
                         shell_complete=completion.contexts,
                         help="File or folder, laid over the source; or NAME@v2; - is none again."),
            click.option("--run", metavar="JOB[.N]", shell_complete=completion.trainings,
                         help="A trial's source, data, params and model: from `kaos train list`."),
            click.option("--description", help="Free text that says what it is for."),
            click.option("-e", "--env", "environment", metavar="NAME=VALUE", multiple=True,
                         shell_complete=completion.variables,
                         help="A variable; NAME alone takes it from here, NAME= takes it away."),
            click.option("--image", metavar="NAME", shell_complete=completion.images,
                         help="A ready-made environment that the Hub offers; - is none again."),
            click.option("--git", metavar="URL[@REF]",
                         help="A repository, cloned into its folder once; - is none again."),
            click.option("--git-credentials", metavar="[env:NAME|FILE]", is_flag=False,
                         flag_value=ASK,
                         help="For a private one: asks for them, or where they are."),
            click.option("--size", help="One of the sizes the Hub offers.",
                         shell_complete=completion.sizes),
            click.option("--cpu", help="Cores: 0.5, 2 or 500m."),
            click.option("--memory", help="Bytes with a suffix: 512Mi, 2G."),
            click.option("--gpu", help="Whole devices; 0 is a notebook without any."),
            click.option("--pool", help="Nodes of the cluster to run on; - is any again.",
                         shell_complete=completion.pools),
            click.option("--idle-timeout", help="Stop it when idle for so long: 30m, 2h, never."),
            click.option("--idle-type", type=click.Choice(_IDLE_TYPES),
                         help="What keeps it from being idle."),
            click.option("--bind-mount", "bind_mounts", metavar="HOST:PLACE[:ro]", multiple=True,
                         shell_complete=completion.folders,
                         help="A folder of the machine, seen at PLACE; - is none again."),
            click.option("--volume", "volumes", metavar="NAME:PLACE[:ro]", multiple=True,
                         shell_complete=completion.volumes,
                         help="A volume, seen at PLACE; made if there is none; - is none again."),
            click.option("--config-file", metavar="FILE", type=click.Path(path_type=Path),
                         help="YAML with what the options say, too; they win over it."),
            click.option("--config", metavar="KEY=VALUE", multiple=True,
                         help="A key of such a file, dotted: resources.slots=2; wins over it."),
            click.option("--pull", is_flag=True, help="Look the base image up again."),
            click.option("--dry-run", is_flag=True, help="Say what would happen, do nothing."),
            click.option("-y", "--yes", is_flag=True, help="Restart a running notebook unasked."),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


@dataclass(frozen=True)
class Wanted:
    """The wishes of a person, before a folder is read or the service is asked."""

    fields: dict[str, Any] = field(default_factory=dict)
    """Of a request, as they were given; all but bundles and the run."""
    bundles: dict[str, str] = field(default_factory=dict)
    """``source``, ``data``, ``context``: folders, or what was submitted before."""
    run: str | None = None
    detach: bool = False
    no_browser: bool = False
    dry_run: bool = False
    yes: bool = False


def read(options: Mapping[str, Any]) -> Wanted:
    """Return what the options of a command ask for.

    Raises:
        InvalidRequest: one cannot be understood.
    """
    given = _layered(said(options))
    bundles = {role: given.pop(role) for role in _BUNDLES if role in given}
    run = given.pop("run", None)
    if run is not None and ("source" in bundles or "data" in bundles):
        raise click.UsageError("--run brings its own source and data; leave out -s and -d.")
    flags = {flag: bool(given.pop(flag, False)) for flag in _FLAGS}
    if "description" in given:
        given["display_name"] = given.pop("description")
    return Wanted(given, bundles, run, **flags)


def _layered(given: dict[str, Any]) -> dict[str, Any]:
    """Options over pairs over the file; variables of all of them together."""
    file, pairs = given.pop("config_file", None), given.pop("config", ())
    layers: list[dict[str, Any]] = []
    if file is not None or pairs:
        # It needs pydantic, which takes its time to be imported.
        from kaos_hub.formats.config_file import read_config, read_pairs

        layers = [read_config(file) if file is not None else {}, read_pairs(pairs)]
    if "environment" in given:
        given["environment"] = variables(given["environment"])
    if "git_credentials" in given:
        given["git_credentials"] = credentials(given["git_credentials"])
    for option, fields in _PLACED.items():
        if option in given:
            given[option] = _placed(option, given[option], fields)
    found: dict[str, Any] = {}
    for layer in [*layers, given]:
        environment = found.get("environment", {}) | layer.get("environment", {})
        found |= layer | ({"environment": environment} if environment else {})
    return found


def said(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given at all, by their names."""
    return {
        name.removesuffix("_bundle"): value
        for name, value in options.items()
        if value not in (None, (), False)
    }


def _placed(
    option: str, texts: Iterable[str], fields: tuple[str, str, str]
) -> list[dict[str, Any]]:
    """Mounts from ``WHAT:PLACE`` or ``WHAT:PLACE:ro``."""
    what, place, said_as = fields
    found = []
    for text in texts:
        if text == "-":
            continue
        first, colon, inside = text.partition(":")
        inside, _, how = inside.partition(":")
        if not (colon and first and inside) or how not in ("", "ro", "rw"):
            name = option.removesuffix("s").replace("_", "-")
            raise InvalidRequest(f"--{name} {text}: say {said_as}:PLACE, or {said_as}:PLACE:ro")
        found.append({what: first, place: inside, "read_only": how == "ro"})
    return found


def variables(texts: Iterable[str]) -> dict[str, str]:
    """Variables from ``NAME=VALUE``, or ``NAME`` for one that is set here.

    Raises:
        InvalidRequest: one has no value; values are never repeated, for they may be secrets.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            here = os.environ.get(name)
            if here is None:
                raise InvalidRequest(
                    f"environment: {name!r} is not set here; give it a value: -e {name}=VALUE"
                )
            value = here
        found[name] = value
    return found
