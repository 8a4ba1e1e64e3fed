"""Files of ``--config-file`` and pairs of ``--config``: YAML → what a deploy is asked for.

Only the structure of YAML is used, and that scalars can be null; what a text means is for the
options to say, as on the command line. So ``memory: 512`` is refused there as it is here.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from kaos_hub.errors import InvalidRequest, KaosError
from kaos_hub.schemas.config import SAME, NotebookConfig, config_keys, plain

if TYPE_CHECKING:
    from yaml import Node

_LARGEST = 1 << 20
"""Bytes of a file; more is not what was meant."""
_MOST = 10_000
"""Values in it. Aliases could make one line into any number."""
_PATHS = ("source", "data", "context")
_OTHER_NAMES = {"env": "environment"}


class Lines(dict[str, str]):
    """The place of each key, for messages: ``config.yaml line 3``."""

    def of(self, key: str, otherwise: str) -> str:
        """Return the place of a key, or of what it is part of."""
        while key and key not in self:
            key = key.rpartition(".")[0]
        return self.get(key, otherwise)


def read_config(path: Path) -> dict[str, Any]:
    """Return what a file says, by the names that options have.

    Paths in it are meant from where the file lies.

    Raises:
        InvalidRequest: names the file, the line and what is wrong there.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as e:
        raise InvalidRequest(f"{path} cannot be read: {e.strerror}") from None
    if len(content) > _LARGEST:
        raise InvalidRequest(f"{path} has more than {_LARGEST >> 20} MiB: is it the right file?")
    lines = Lines()
    value = _plain(_compose(content, str(path)), "", str(path), lines)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{path} line 1: there must be keys, as in `description: test`")
    found = _checked(value, str(path), lines)
    for role in _PATHS:
        beside = path.parent / Path(str(found.get(role, ""))).expanduser()
        if role in found and beside.exists():
            found[role] = str(beside)
    return found


def read_pairs(pairs: Iterable[str]) -> dict[str, Any]:
    """Return what pairs ``key=value`` say, by the names that options have.

    Of equal keys the last counts.

    Raises:
        InvalidRequest: names the pair and what is wrong with it.
    """
    value: dict[str, Any] = {}
    lines = Lines()
    for pair in pairs:
        key, equals, text = pair.partition("=")
        where = f"--config {key}"
        if not equals or not all(key.split(".")):
            raise InvalidRequest(f"{where}: say KEY=VALUE, as in --config resources.slots=0")
        given = _plain(_compose(text.encode(), where), key, where, lines)
        *above, last = _named(key).split(".")
        place = value
        for name in above:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise InvalidRequest(f"{where}: {name} was given another value before")
        place[last] = given
        lines[_named(key)] = where
    return _checked(value, "--config", lines)


def _compose(content: bytes, where: str) -> "Node | None":
    import yaml

    try:
        return yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark
        place = f"{where} line {mark.line + 1}" if mark else where
        raise InvalidRequest(f"{place}: this is no YAML: {e.problem or e.context}") from None
    except (yaml.YAMLError, UnicodeError) as e:
        raise InvalidRequest(f"{where}: this is no YAML: {str(e).splitlines()[0]}") from None
    except RecursionError:
        raise InvalidRequest(f"{where}: this is nested too deeply") from None


def _plain(node: "Node | None", key: str, where: str, lines: Lines) -> Any:
    """A node as dicts, lists and texts."""
    import yaml

    left = _MOST

    def convert(node: "Node | None", key: str, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > 20:
            raise InvalidRequest(f"{where}: this is too much for a configuration")
        if isinstance(node, yaml.ScalarNode):
            return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)
        if isinstance(node, yaml.SequenceNode):
            return [convert(each, f"{key}.{i}", depth + 1) for i, each in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return {
                name: convert(value, below, depth + 1) for name, value, below in pairs(node, key)
            }
        return None

    def pairs(node: "yaml.MappingNode", key: str) -> Iterable[tuple[str, "Node", str]]:
        seen: set[str] = set()
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise InvalidRequest(f"{where} line {name.start_mark.line + 1}: a key is a text")
            text = str(name.value) if key else _named(str(name.value))
            below = f"{key}.{text}" if key else text
            place = f"{where} line {name.start_mark.line + 1}"
            if text in seen:
                raise InvalidRequest(f"{place}: {below} stands here for the second time")
            seen.add(text)
            lines.setdefault(below, place)
            yield text, value, below

    return convert(node, key, 0)


def _named(key: str) -> str:
    """A key as the model has it: options are written with hyphens."""
    first, dot, rest = key.partition(".")
    first = first.replace("-", "_")
    return _OTHER_NAMES.get(first, first) + dot + rest


def _checked(value: Mapping[str, Any], where: str, lines: Lines) -> dict[str, Any]:
    """Check one key after the other, so that each mistake is told with its place."""
    found: dict[str, Any] = {}
    for key, given in _leaves(value):
        place = lines.of(key, where)
        if key not in config_keys():
            raise InvalidRequest(f"{place}: there is no key {key!r}{_nearest(key)}")
        if given is None:
            continue
        said = plain(_one(key, given, place))
        twice = [name for name in said if name in found]
        if twice:
            same = [k for k, name in SAME.items() if name in twice]
            raise InvalidRequest(f"{place}: {' and '.join([*same, *twice])} are the same; say one")
        found |= said
    return found


def _leaves(value: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for key, given in value.items():
        if key == "resources" and isinstance(given, dict):
            yield from ((f"resources.{name}", each) for name, each in given.items())
        elif key != "resources" or given is not None:
            yield key, given


def _one(key: str, given: Any, place: str) -> NotebookConfig:
    if key == "environment" and isinstance(given, list):
        given = _variables(given, place)
    nested, dot, name = key.partition(".")
    value = {nested: {name: given}} if dot else {key: given}
    try:
        return NotebookConfig.model_validate(value, extra="forbid")
    except KaosError as e:
        raise type(e)(f"{place}: {key}: {e.message.removeprefix(f'{key}: ')}") from None
    except ValidationError as e:
        # Of variables the value must not be repeated.
        first = e.errors(include_url=False, include_input=False)[0]
        below = ".".join(map(str, first["loc"]))
        raise InvalidRequest(f"{place}: {below}: {first['msg']}") from None


def _variables(given: list[Any], place: str) -> dict[str, str]:
    found = {}
    for each in given:
        name, equals, value = str(each).partition("=")
        if isinstance(each, dict | list) or not equals:
            raise InvalidRequest(f"{place}: environment: say NAME=VALUE, or make it a map")
        found[name] = value
    return found


def _nearest(key: str) -> str:
    keys = config_keys()
    same = [k for k in keys if k.startswith(f"{key}.") or k.endswith(f".{key.rpartition('.')[2]}")]
    near = same or get_close_matches(key, keys, 1, 0.5)
    near = near or get_close_matches(key.rpartition(".")[2], keys, 1, 0.5)
    return f"; is {near[0]!r} meant?" if near else f"; there are {', '.join(keys)}"
