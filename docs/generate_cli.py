"""The page of the command line, from its commands. Called by generate.py."""

import inspect
import re
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

from generate_markdown import code, page, table


def commands() -> Iterator[tuple[str, Any]]:
    """Every command of ``kaos`` that does something, with its whole name, in the order of help."""
    from kaos_hub.cli.root import kaos

    yield from _walk("kaos", kaos)


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    import click

    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from _walk(f"{name} {child}", found)


def cli() -> str:
    """The page of the command line."""
    return page(
        "Command line",
        "Every command prints its help with `--help`. What a command answers goes to standard"
        " output; progress, remarks and errors go to standard error. Exit codes are those of the"
        " [errors](errors.md).",
        *(_command(name, command) for name, command in commands()),
    )


def _command(name: str, command: Any) -> str:
    import click

    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [f"{'##' if name.count(' ') < 1 else '###'} {name}", f"    {usage}"]
    parts.append(_help(command.help or ""))
    if isinstance(command, click.Group):
        parts.append(_children(name, command, context))
    rows = [record for p in command.params if (record := _parameter(p, context))]
    if rows:
        parts.append(table(("option", "what it does"), rows))
    return "\n\n".join(part for part in parts if part)


def _help(text: str) -> str:
    """A docstring as Markdown: what click keeps as it stands (``\\b``) is shown as code."""
    paragraphs = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            first, *rest = paragraph.removeprefix("\b").strip("\n").split("\n")
            paragraphs += [first, "\n".join(f"    {line}" for line in _dedented(rest))]
        else:
            paragraphs.append(paragraph)
    return "\n\n".join(paragraphs)


def _dedented(lines: list[str]) -> list[str]:
    return dedent("\n".join(lines)).split("\n")


def _children(name: str, group: Any, context: Any) -> str:
    rows = []
    for child in group.list_commands(context):
        command = group.get_command(context, child)
        rows.append(
            (f"[{name} {child}](#{_anchor(f'{name} {child}')})", command.get_short_help_str(200))
        )
    return table(("command", ""), rows)


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _parameter(parameter: Any, context: Any) -> tuple[str, str] | None:
    record = None if getattr(parameter, "hidden", False) else parameter.get_help_record(context)
    # An argument stands in the usage line; without a word about it, it needs no row.
    return (code(record[0]), record[1]) if record and record[1] else None
