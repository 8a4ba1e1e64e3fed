"""``kaos train …``: not in this version, but it knows a notebook bundle when it sees one."""

import shlex
from pathlib import Path

import click

from kaos_hub.cli.base import Group
from kaos_hub.errors import InvalidBundle, Unsupported


@click.group(cls=Group)
def train() -> None:
    """Trainings are not in this version yet. Notebooks are: kaos notebook --help"""


@train.command(
    context_settings={
        "help_option_names": ["--help"],
        "ignore_unknown_options": True,
        "allow_extra_args": True,
    }
)
@click.option("-s", "--source", type=click.Path(path_type=Path), help="A source bundle.")
@click.option("-d", "--data", type=click.Path(path_type=Path), help="A data bundle.")
def deploy(source: Path | None, data: Path | None) -> None:
    """Deploy a training. Not in this version yet; a notebook bundle gets the right command."""
    if source is not None and _is_notebook(source):
        words = ["kaos", "notebook", "deploy", "-s", str(source)]
        words += ["-d", str(data)] if data else []
        raise InvalidBundle(
            f"{source} is a notebook bundle: it has no model/train, so there is nothing to train."
            f" Deploy it as a notebook:\n\n    {shlex.join(words)}\n"
        )
    raise Unsupported(
        "this version of kaos deploys notebooks; trainings come in a later one. To work on the same"
        " folders in a notebook: kaos notebook deploy -s DIR -d DIR"
    )


def _is_notebook(source: Path) -> bool:
    from kaos_hub.bundles.source import find_source_root

    return not (find_source_root(source) / "model" / "train").exists()
