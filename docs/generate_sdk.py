"""The page of the SDK, from the classes that people use. Called by generate.py."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

_SECTION = re.compile(r"(Args|Returns|Raises|Attributes):")


def things() -> list[tuple[str, Any]]:
    """Classes and functions of the SDK, by what one writes to get at them."""
    from kaos_hub import client, live
    from kaos_hub.client.bundles import Bundles
    from kaos_hub.client.models import ModelHandle, Models, Workspaces
    from kaos_hub.client.notebook_handle import NotebookHandle
    from kaos_hub.client.notebooks import Notebooks
    from kaos_hub.client.training_handle import TrainingHandle
    from kaos_hub.client.trainings import Trainings
    from kaos_hub.client.volumes import Volumes

    return [
        ("Client", client.Client),
        ("client.notebooks", Notebooks),
        ("NotebookHandle", NotebookHandle),
        ("client.trainings", Trainings),
        ("TrainingHandle", TrainingHandle),
        ("client.models", Models),
        ("ModelHandle", ModelHandle),
        ("client.bundles", Bundles),
        ("client.volumes", Volumes),
        ("client.workspaces", Workspaces),
        ("kaos_hub.log", live.log),
        ("kaos_hub.client.login", client.login),
        ("kaos_hub.client.login_with_token", client.login_with_token),
    ]


def parts(known: set[str]) -> Iterator[str]:
    """The page's paragraphs.

    Args:
        known: models with a heading of their own in the page of the REST API.
    """
    for name, thing in things():
        yield f"## {name}"
        if not inspect.isclass(thing):
            yield from _function(name, thing, known)
            continue
        if name == "Client":  # all others are had from it, or from their methods
            yield from _call(name, thing.__init__)
        yield from _text(thing.__doc__ or "")
        for method, function in methods(thing):
            yield f"### {name}.{method}"
            yield from _function(f"{name}.{method}", function, known)


def methods(cls: type) -> list[tuple[str, Any]]:
    """What one may call or read, as it stands in the source."""
    found: dict[str, Any] = {}
    for base in (base for base in cls.__mro__ if base.__module__.startswith("kaos_hub.")):
        for name, value in vars(base).items():
            if inspect.isfunction(value) or isinstance(value, property):
                found.setdefault(name, value)
    return [(name, value) for name, value in found.items() if not name.startswith("_")]


def _function(name: str, function: Any, known: set[str]) -> Iterator[str]:
    if isinstance(function, property):
        function = function.fget
    else:
        yield from _call(name, function)
    yield from _text(function.__doc__ or "")
    returned = function.__annotations__.get("return")
    if returned not in (None, "None", "object"):
        yield f"Gives: {_linked(_annotation(returned), known)}"


def _call(name: str, function: Callable[..., Any]) -> Iterator[str]:
    words: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not any(w.startswith("*") for w in words):
            words.append("*")  # from here on only by name
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        default = parameter.default
        given = repr(default)
        if callable(default):
            named = default.__name__.isidentifier()
            given = f"{default.__module__}.{default.__name__}" if named else "…"
        known = "" if default is parameter.empty else f"={given}"
        words.append(f"{stars.get(parameter.kind, '')}{parameter.name}{known}")
    yield f"```text\n{name}({', '.join(words)})\n```"


def _annotation(value: Any) -> str:
    text = value if isinstance(value, str) else inspect.formatannotation(value)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z])", "", text.strip("'\""))


def _linked(text: str, known: set[str]) -> str:
    """An annotation, with links to what the page of the REST API tells of."""
    for word in set(re.findall(r"\w+", text)) & known:
        return f"`{text}`, see [{word}](rest.md#model-{word.lower()})"
    return f"`{text}`"


def _text(docstring: str) -> Iterator[str]:
    """A docstring as Markdown: prose, and a list for each of its sections."""
    prose: list[str] = []
    lines = iter(inspect.cleandoc(docstring).split("\n"))
    for line in lines:
        match = _SECTION.fullmatch(line)
        if match is None:
            prose.append(line)
            continue
        yield from _prose(prose)
        prose = []
        yield from _section(match[1], lines)
    yield from _prose(prose)


def _prose(lines: list[str]) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
        if paragraph.strip() and not paragraph.lstrip().startswith(">>>"):
            yield _plain(" ".join(paragraph.split()))


def _section(name: str, lines: Iterator[str]) -> Iterator[str]:
    entries: list[str] = []
    for line in lines:
        if not line.strip():
            break
        if re.match(r" {4}\S", line) or not entries:
            entries.append(line.strip())
        else:
            entries[-1] += f" {line.strip()}"
    if name == "Returns":
        yield _plain(f"Returns: {' '.join(entries)}")
        return
    rows = []
    for entry in entries:
        word, _, what = entry.partition(":")
        rows.append(f"- `{word.strip()}`: {_plain(what.strip())}")
    if name != "Args":
        yield f"{name}:"
    yield "\n".join(rows)


def _plain(text: str) -> str:
    """Markdown from what docstrings are written in."""
    # Of what lies in a module, its name; of a method, also its class's.
    text = re.sub(r":\w+:`~?(?:(?:[a-z_]+\.)+(?=[A-Z])|kaos_hub\.errors\.)?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")
