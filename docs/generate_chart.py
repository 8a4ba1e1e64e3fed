"""The page of the chart's values, from their schema and defaults."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from generate_markdown import code, page, table

CHART = Path(__file__).parent.parent / "helm/kaos-hub"


def chart() -> str:
    """The page."""
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    defaults = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    sections = [
        "\n\n".join(
            part
            for part in (f"## {name}", one["description"], _rows(name, one, defaults.get(name)))
            if part
        )
        for name, one in schema["properties"].items()
    ]
    return page(
        "Values of the chart",
        "What `helm/kaos-hub` can be told: `helm install … -f values.yaml`, or `--set name=value`."
        " A name or a kind of value that is not here is refused. How to install it:"
        " [Run it on Kubernetes](../howto/kubernetes.md).",
        *sections,
    )


def _rows(name: str, one: dict[str, Any], default: Any) -> str:
    rows = list(_values(name, one, default))
    if rows:
        return table(("value", "default", "what it is"), rows)
    return f"Default: {_shown(default)}" if _shown(default) else ""


def _values(name: str, one: dict[str, Any], default: Any) -> Iterator[tuple[str, str, str]]:
    for key, inner in one.get("properties", {}).items():
        path, value = f"{name}.{key}", (default or {}).get(key)
        text = inner.get("description", "")
        if inner.get("properties") and inner.get("description") != _RESOURCES:
            yield from _values(path, inner, value)
        else:
            if "enum" in inner:
                text += f" One of {', '.join(code(str(v)) for v in inner['enum'])}."
            yield code(path), _shown(value), text


_RESOURCES = "Requests and limits of the container, as in a pod."


def _shown(value: Any) -> str:
    return "" if value in ("", None, [], {}) else code(json.dumps(value))
