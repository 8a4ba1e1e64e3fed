"""The provenance of a model, as a picture."""

import json

from kaos_hub.schemas import BundleVersion, Provenance
from kaos_hub.util.quantities import show_memory


def dot(provenance: Provenance) -> str:
    """A provenance as a graph in the language of Graphviz."""
    model = provenance.model
    nodes = [_node("model", "box3d", *_model_words(provenance))]
    edges = ['  trial -> model [label="left"];']
    run = [f"training {model.training}", f"trial {model.trial}", f"by {model.author}"]
    run += [f"{key} = {json.dumps(value)}" for key, value in (model.params or {}).items()]
    nodes.append(_node("trial", "ellipse", *run))
    for kind, version in (
        ("source", provenance.source),
        ("data", provenance.data),
        ("manifest", provenance.manifest),
        ("params", provenance.params),
    ):
        if version is None:
            continue
        nodes.append(_node(kind, "folder", *_bundle_words(kind, version)))
        target = "data" if kind == "manifest" else "trial"
        edges.append(f"  {kind} -> {target};")
    place = [f"environment {provenance.environment}", f"engine {provenance.engine}"]
    if provenance.image:
        place.append(provenance.image)
    place += provenance.packages
    nodes.append(_node("environment", "component", *place))
    edges += ["  source -> environment;", "  environment -> trial;"]
    if provenance.reproduces:
        nodes.append(_node("before", "box3d", f"model {provenance.reproduces}"))
        edges.append('  before -> trial [style=dashed, label="repeated by"];')
    return "\n".join(["digraph provenance {", "  rankdir=LR;", *nodes, *edges, "}", ""])


def _model_words(provenance: Provenance) -> list[str]:
    model = provenance.model
    words = [model.name or f"model {model.id}", model.created.isoformat(timespec="seconds")]
    words += [f"{name} = {value:g}" for name, value in list(model.metrics.items())[:20]]
    return [*words, model.output.digest, show_memory(model.output.size)]


def _bundle_words(kind: str, version: BundleVersion) -> list[str]:
    when = version.created.isoformat(timespec="seconds")
    return [
        f"{kind} {version.name} v{version.version}",
        f"by {version.author}, {when}",
        version.digest,
    ]


def _node(name: str, shape: str, *lines: str) -> str:
    return f"  {name} [shape={shape}, label={_quoted(lines)}];"


def _quoted(lines: tuple[str, ...]) -> str:
    """A label of lines, in which nothing means anything to Graphviz."""
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") for line in lines)
    return '"' + "\\n".join(escaped) + '"'
