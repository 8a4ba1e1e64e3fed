"""Write the generated pages of the reference from the code that they describe.

    python docs/generate.py            write the generated pages of docs/reference/
    python docs/generate.py --check    exit with 1 if one of them is out of date

Nothing here knows a command, setting, route or error by name: what is in the code is in the page.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import generate_sdk
from generate_chart import chart
from generate_cli import cli, commands as commands
from generate_isolation import isolation
from generate_markdown import code, page, table

REFERENCE = Path(__file__).parent / "reference"
_COMPUTED = ("uid",)
"""Settings whose default is computed when their class is made: it would differ by machine."""

# --- configuration -------------------------------------------------------------------------------


def configurables() -> list[tuple[str, type, str]]:
    """The classes that have settings: their names in the file, themselves, what they are."""
    from kaos_hub.deployment.proxy.hub import KaosProxy
    from kaos_hub.engines.docker.engine import DockerEngine
    from kaos_hub.engines.docker.networks.networks import DockerNetworks
    from kaos_hub.engines.kubernetes.engine import KubernetesEngine
    from kaos_hub.engines.local.engine import LocalEngine
    from kaos_hub.hub.spawners.docker import KaosDockerSpawner
    from kaos_hub.hub.spawners.kubernetes.spawner import KaosKubeSpawner
    from kaos_hub.hub.spawners.local import KaosLocalSpawner
    from kaos_hub.hub.spawners.mixin import KaosSpawnerMixin
    from kaos_hub.service.app import KaosService
    from kaos_hub.service.auth.auth import KaosHubAuth

    return [
        ("KaosService", KaosService, "The service: limits, sizes, idle rules, where things lie."),
        ("LocalEngine", LocalEngine, "Builds on the engine `local`."),
        ("DockerEngine", DockerEngine, "Builds and jobs on the engine `docker`."),
        ("DockerNetworks", DockerNetworks, "Who reaches what over the network on `docker`."),
        ("KubernetesEngine", KubernetesEngine, "Builds and jobs on the engine `kubernetes`."),
        ("KaosSpawnerMixin", KaosSpawnerMixin, "All spawners."),
        ("KaosLocalSpawner", KaosLocalSpawner, "Notebooks on the engine `local`."),
        (
            "KaosDockerSpawner",
            KaosDockerSpawner,
            "Notebooks on the engine `docker`. It has all settings of DockerSpawner, too.",
        ),
        (
            "KaosKubeSpawner",
            KaosKubeSpawner,
            "Notebooks on the engine `kubernetes`. It has all settings of KubeSpawner, too.",
        ),
        ("KaosHubAuth", KaosHubAuth, "How the service asks the Hub who somebody is."),
        ("KaosProxy", KaosProxy, "The proxy. It has all settings of ConfigurableHTTPProxy, too."),
    ]


def own_traits(cls: type) -> dict[str, Any]:
    """The settings that a class, or a class of ours that it is made of, brings."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("kaos_hub.") and hasattr(base, "class_own_traits"):
            found |= base.class_own_traits(config=True)
    if cls.__name__ in ("KaosLocalSpawner", "KaosDockerSpawner", "KaosKubeSpawner"):
        mixed = next(b for b in cls.__mro__ if b.__name__ == "KaosSpawnerMixin")
        found = {n: t for n, t in found.items() if n not in mixed.class_own_traits(config=True)}  # type: ignore[attr-defined]
    return found


def config() -> str:
    """The page of the settings."""
    return page(
        "Settings",
        "They stand in `jupyterhub_config.py`, or in a file of your own that is read last:"
        " `kaos up -f FILE`. Hub and service read the same file. Example:",
        "    c.KaosService.limits = {\n"
        '        "default": {"notebooks": 3, "cpu": 4, "memory": "8Gi", "gpu": 0},\n'
        '        "user:ada": {"cpu": 16, "memory": "64Gi"},\n'
        "    }\n"
        '    c.KaosService.idle_timeout = "2h"',
        "A setting with a wrong value keeps the service from starting; its log says which one and"
        " why.",
        *(_settings(name, cls, what) for name, cls, what in configurables()),
    )


def _settings(name: str, cls: type, what: str) -> str:
    parts = [f"## {name}", what]
    for trait_name, trait in own_traits(cls).items():
        parts.append(f"### c.{name}.{trait_name}")
        parts.append(f"{code(_kind(trait))}{_default(cls, trait)}")
        parts += re.split(r"\n\s*\n", _plain(trait.help))
    return "\n\n".join(parts)


def _kind(trait: Any) -> str:
    if type(trait).__name__ == "Union":
        return " or ".join(type(t).__name__ for t in trait.trait_types)
    return str(type(trait).__name__)


def _plain(help: str) -> str:
    """The help of a setting, its variables shown as code."""
    text = re.sub(r"(?m)^ +", "", help.strip())
    return re.sub(r"(?<!`)\$[A-Z_]+", lambda match: code(match[0]), text)


def _default(cls: type, trait: Any) -> str:
    """The default, unless it is computed on each machine or the help tells it in words."""
    computed = any(trait.name in vars(c).get("_trait_default_generators", {}) for c in cls.__mro__)
    if computed or trait.name in _COMPUTED or "Default:" in trait.help:
        return ""
    value = trait.default() if type(trait).__name__ in ("List", "Dict") else trait.default_value
    return f", default {code(repr(value))}" if value != "" else ""


# --- REST ----------------------------------------------------------------------------------------


KAOS, TRAIN = "/services/kaos/api/v1", "/services/kaos-train/api/v1"


def routes() -> list[Any]:
    """All routes of the API: of the service `kaos`, then those that `kaos-train` has besides."""
    from kaos_hub.service.api.login import Logins
    from kaos_hub.service.api.table import all_routes, training_routes

    table = all_routes(Logins(), KAOS)
    known = {(route.method, route.path) for route in table}
    more = training_routes(Logins(), TRAIN)
    return table + [route for route in more if (route.method, route.path) not in known]


def _training_groups() -> str:
    """The first words of paths that only the service `kaos-train` has."""
    from kaos_hub.service.api.models import ROUTES as MODELS
    from kaos_hub.service.api.trainings import ROUTES as TRAININGS

    groups = dict.fromkeys(route.path.split("/")[1] for route in [*TRAININGS, *MODELS])
    *most, last = (f"/{group}" for group in groups)
    return f"{', '.join(most)} and {last}"


def rest() -> str:
    """The page of the REST API."""
    from kaos_hub.service.api.openapi import openapi

    document = openapi(routes(), KAOS)
    groups: dict[str, list[Any]] = {}
    for route in routes():
        groups.setdefault(route.path.split("/")[1], []).append(route)
    parts = [
        f"Paths are below `{KAOS}` of the Hub; those of {_training_groups()} below `{TRAIN}`, where"
        " all others but /notebooks are, too: so who may only train needs nothing else. The same,"
        " for programs: `GET /openapi.json` of either (OpenAPI 3.1).",
        "Bundles, trainings and models belong to a user or to a group of the Hub's. The header"
        " `X-Kaos-Owner: group:vision` (percent-encoded where it is not ASCII; or the parameter"
        " `owner` of the query) says that those of a group are meant; you must be in it. Without it"
        " yours are meant. Notebooks are always yours.",
        "Send a Hub token: `Authorization: token …` or `Authorization: Bearer …`; `kaos token`"
        " prints yours. A browser's session does as well; what changes something then needs the"
        " page's XSRF token (header `X-XSRFToken`). Bodies are JSON unless said otherwise. Unknown"
        " fields are refused.",
        "An error has the shape of [ErrorBody](#model-errorbody); its codes are those of the"
        " [errors](errors.md). Streams of events follow the EventSource standard: `Last-Event-ID`"
        " goes on where a broken stream ended.",
        '    curl -H "Authorization: token $(kaos token)" http://127.0.0.1:8000/services/kaos/api/v1/whoami',
    ]
    for group, members in groups.items():
        parts.append(f"## /{group}")
        parts += [_route(route) for route in members]
    schemas = document["components"]["schemas"]
    parts.append("## Models")
    parts += [_model(name, schemas[name]) for name in sorted(schemas)]
    return page("REST API", *parts)


def _route(route: Any) -> str:
    from kaos_hub.service.api.openapi import _RIGHTS

    lines = [f"### {route.method} {route.path}", f"{route.summary} {_RIGHTS[route.right]}".strip()]
    facts = []
    if route.query is not None:
        facts.append(f"- query: {_fields_inline(route.query)}")
    if route.body is not None:
        facts.append(f"- body: {_link(route.body.__name__)}")
    elif route.reader:
        facts.append("- body: `application/octet-stream`, a stream")
    facts.append(f"- answer: {route.status}, {_answer(route)}")
    if route.errors:
        facts.append(f"- errors: {', '.join(code(e.code) for e in route.errors)}")
    return "\n\n".join([*lines, "\n".join(facts)])


def _answer(route: Any) -> str:
    if route.media:
        json = [_link(route.answer.__name__)] if route.answer else []
        return " or ".join(json + [code(media) for media in route.media])
    if route.answer is None:
        return "JSON"
    inner = getattr(route.answer, "__args__", (route.answer,))[0]
    return _link(inner.__name__) if inner is route.answer else f"list of {_link(inner.__name__)}"


def _fields_inline(model: Any) -> str:
    return "; ".join(
        f"{code(name)} ({field.description})" if field.description else code(name)
        for name, field in model.model_fields.items()
    )


def _link(name: str) -> str:
    return f"[{name}](#model-{name.lower()})"


def _model(name: str, schema: dict[str, Any]) -> str:
    head = f"### Model {name}\n\n{_first_paragraphs(schema.get('description', ''))}".strip()
    if "enum" in schema:
        return f"{head}\n\nOne of {', '.join(code(value) for value in schema['enum'])}."
    needed = set(schema.get("required", ()))
    rows = [
        (code(field) + ("" if field in needed else " *"), _type(part), part.get("description", ""))
        for field, part in schema.get("properties", {}).items()
    ]
    if not rows:
        return head
    note = "\n\n\\* may be left out" if needed < set(schema["properties"]) else ""
    return f"{head}\n\n{table(('field', 'type', ''), rows)}{note}"


def _first_paragraphs(text: str) -> str:
    return re.sub(r"``([^`]*)``", r"`\1`", inspect.cleandoc(text))


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _link(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(_type(part) for part in schema.get("anyOf") or schema["oneOf"])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return {"string": schema.get("format", "string")}.get(kind, kind)


# --- errors --------------------------------------------------------------------------------------


def error_classes() -> list[type]:
    """All errors of the tree, from the root down."""
    from kaos_hub.errors import KaosError

    def below(cls: type) -> Iterator[type]:
        yield cls
        for child in cls.__subclasses__():
            if child.__module__ == "kaos_hub.errors":
                yield from below(child)

    return list(below(KaosError))


def errors() -> str:
    """The page of the errors."""
    rows = []
    for cls in error_classes():
        meaning = " ".join((cls.__doc__ or "").split())
        rows.append(
            (code(cls.code), code(cls.__name__), str(cls.status), str(cls.exit_code), meaning)
        )  # type: ignore[attr-defined]
    return page(
        "Errors",
        "One tree of errors serves SDK, REST and command line. `code` is stable and meant for"
        " programs; the message says what went wrong, where, and what to do, and may change. In the"
        " SDK the class is raised (`from kaos_hub.errors import NotFound`), in REST the answer has"
        ' the status and the body `{"code", "message", "details"}`, and `kaos` prints the'
        " message on standard error and exits with the code of the fourth column; with `--json` it"
        " prints that body on standard output, too.",
        table(("code", "class", "HTTP", "exit", "meaning where nothing more is said"), rows),
        "Other exit codes of `kaos`: 0 it worked, 1 you said no to a question (`declined`) or what"
        " it says cannot be written (`output_failed`), 2 also a wrong option or argument"
        " (`invalid_request`), 130 interrupted by Ctrl-C (`interrupted`), also where that only ends"
        " the waiting and what was followed goes on.",
        "An error of code `internal` is a defect of kaos_hub. Its message has a number; the log of"
        " the service has the same number beside the details.",
    )


# --- SDK -----------------------------------------------------------------------------------------


def sdk() -> str:
    """The page of the SDK; see generate_sdk.py."""
    known = set(re.findall(r"(?m)^### Model (\w+)$", rest()))
    return page(
        "Python",
        "`from kaos_hub import Client`; how to begin with it: [Use kaos from Python]"
        "(../howto/sdk.md). Every method raises a class of [errors](errors.md); what is named here"
        " is what one may want to catch.",
        *generate_sdk.parts(known),
    )


PAGES: dict[str, Callable[[], str]] = {
    "chart": chart,
    "cli": cli,
    "config": config,
    "rest": rest,
    "errors": errors,
    "sdk": sdk,
    "isolation": isolation,
}


def main(argv: Sequence[str]) -> int:
    """Write all pages, or with ``--check`` only compare."""
    stale = []
    for name, make in PAGES.items():
        path, text = REFERENCE / f"{name}.md", make()
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(path)
            if "--check" not in argv:
                path.write_text(text, "utf-8")
    if stale and "--check" in argv:
        print("out of date:", *stale, sep="\n  ", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
