"""Words of the ancestor's command line, and of others like it: each works, or is answered with
what says the same here."""

from collections.abc import Mapping

import click

_OPTIONS = {
    "--source_bundle": "--source", "--data_bundle": "--data", "--data_manifest": "--manifest",
    "--ind": "--index", "--job_id": "--job", "--page_id": "--page", "--out_dir": "--out",
    "--include_code": "--code", "--include_data": "--data", "--include_model": "--model",
}  # fmt: skip
"""Spellings, and what they are wherever a command has that."""

_OF_A_COMMAND: Mapping[tuple[str, str], str] = {
    ("train provenance", "-m"): "--job",
    ("train provenance", "--model_id"): "--job",
    ("template get", "-n"): "",
    ("template get", "--name"): "",
    ("workspace set", "-n"): "",
    ("workspace set", "--name"): "",
    ("login", "-e"): "",
    ("login", "--endpoint"): "",
}
"""The meaning of a spelling in one command; empty: none, its value is the argument."""

_FILE = "the log goes to standard output, so: kaos {command} … > FILE"
_A_BUILD = "a notebook's build is named by the notebook: kaos notebook build-logs -n NAME"
_BY_NAME = "it is named, not numbered: kaos {command} NAME; the names: kaos {group} list"
_GONE: Mapping[tuple[str, str], str] = {
    ("notebook build-logs", "-j"): _A_BUILD,
    ("notebook build-logs", "--job_id"): _A_BUILD,
    **{
        (command, option): _FILE
        for command in ("notebook build-logs", "notebook logs", "train logs", "train build-logs",
                        "train ingest-logs")
        for option in ("-o", "--out_dir")
    },
    ("train provenance", "--out_dir"): "kaos train provenance -j JOB.N -o FILE",
    ("train get", "--model_id"): "one trial's model: kaos train get -j JOB --trial N, or kaos model"
    " get JOB.N",
    ("template get", "-i"): _BY_NAME,
    ("template get", "--ind"): _BY_NAME,
    ("workspace set", "-i"): _BY_NAME,
    ("workspace set", "--ind"): _BY_NAME,
    ("login", "-t"): "a token does not belong on a command line: kaos login --token-stdin URL",
    ("login", "--token"): "a token does not belong on a command line: kaos login --token-stdin URL",
}  # fmt: skip
"""Advice on what takes the place of an option that is gone."""

COMMANDS = {
    "init": "kaos login URL",
    "build": "kaos up starts everything on this machine; on a cluster it is a chart: helm install",
    "destroy": "Ctrl-C where kaos up was started; kaos notebook delete, kaos train delete",
    "serve": "models are not served by kaos; to fetch one: kaos model get MODEL",
    "experiment": "kaos train list",
    "e": "kaos train list",
    "nb": "kaos notebook list",
    "notebooks": "kaos notebook list",
    "trainings": "kaos train list",
    "models": "kaos model list",
    "workspace create": "groups are made by an admin on the Hub's page; yours: kaos workspace list",
    "workspace info": "kaos workspace current",
    "workspace kill": "groups are removed by an admin on the Hub's page",
    "notebook build": "kaos notebook deploy -s DIR",
    "notebook run": "kaos notebook start",
    "notebook create": "kaos notebook start",
    "notebook restart": "kaos notebook stop -n NAME, then kaos notebook start -n NAME",
    "train start": "kaos train deploy -s DIR -d DIR",
    "train stop": "kaos train kill -j JOB",
}
"""Commands that there are elsewhere, by what follows `kaos`."""


def present(command: str, known: set[str], words: list[str]) -> list[str]:
    """The words of a command line in present spellings.

    Args:
        command: what follows `kaos`, as in ``train info``.
        known: the options that the command has.
        words: what follows that.

    Raises:
        click.UsageError: an option that there is no more; says what to use instead.
    """
    end = words.index("--") if "--" in words else len(words)
    found: list[str] = []
    for word in words[:end]:
        option, equals, value = word.partition("=")
        if not option.startswith("-") or option in known:
            found.append(word)
            continue
        now = _now(command, known, option)
        found += [part for part in (now + equals + value if now else value,) if part]
    return found + words[end:]


def _now(command: str, known: set[str], option: str) -> str:
    if (command, option) in _OF_A_COMMAND:
        return _OF_A_COMMAND[command, option]
    if (command, option) in _GONE:
        todo = _GONE[command, option].format(command=command, group=command.partition(" ")[0])
        raise click.UsageError(f"There is no {option} any more: {todo}")
    hyphens = "--" + option[2:].replace("_", "-") if option.startswith("--") else option
    for other in (_OPTIONS.get(option), hyphens):
        if other in known:
            return other
    return option
