"""The rules of the code: small folders, files and functions, plain words, listed imports.

``structure.toml`` lists what breaks a rule still. The list may only become shorter: an entry that
is no longer needed, or a number that is larger than what there is, fails as well.
"""

import ast
import collections
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.documentation import ROOT

PACKAGE = ROOT / "kaos_hub"
SOURCES = sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)
ALLOWED: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "tests/structure.toml").read_text())

MOST_MODULES, MOST_LINES, LONGEST = 18, 400, 60
FAMILY = 3
"""Modules of a folder with one prefix that ask for a folder of their own."""

_QUESTION = re.compile(r"(What|Who|Whether|How|Whoever|Whose|Where|When|Why)\b")
_PERSONS = re.compile(r"\b(whoever|nobody|somebody|anybody|everybody|he|him|his)\b", re.IGNORECASE)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def name_of(path: Path) -> str:
    """Return a path as the list of exceptions has it."""
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(path.read_text("utf-8"))


def folders() -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder of the package with the names of its modules."""
    for folder in sorted({path.parent for path in SOURCES}):
        yield folder, [p.stem for p in SOURCES if p.parent == folder and p.stem != "__init__"]


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring, those of attributes included."""
    for node in ast.walk(tree_of(path)):
        body = getattr(node, "body", None)
        for part in body if isinstance(body, list) else []:
            value = part.value if isinstance(part, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield part.lineno, value.value


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each comment."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def compare(rule: str, found: dict[str, int]) -> None:
    """Hold what was found against the list of exceptions.

    Args:
        rule: the section of ``structure.toml``.
        found: what breaks the rule, with its number.
    """
    known = ALLOWED.get(rule, {})
    new = {k: v for k, v in found.items() if k not in known or v > known[k]}
    assert not new, f"{rule}: new exceptions, which there may not be"
    old = {k: v for k, v in known.items() if k not in found or v > found[k]}
    assert not old, f"{rule}: better than tests/structure.toml says; shorten it"


def test_folders_are_small() -> None:
    """No folder has more modules than a reader takes in at once."""
    compare("modules", {name_of(f): len(m) for f, m in folders() if len(m) > MOST_MODULES})


def test_prefixes_are_folders() -> None:
    """No family of modules that a prefix holds together: that is a folder."""
    found: dict[str, int] = {}
    for folder, modules in folders():
        if folder.name == "versions":  # of the database: numbered, as Alembic has them
            continue
        families = collections.Counter(m.split("_")[0] for m in modules if "_" in m[1:])
        families.update(m for m in modules if m in families)
        found |= {f"{name_of(folder)}/{p}_": n for p, n in families.items() if n >= FAMILY}
    compare("families", found)


def test_packages_define_nothing() -> None:
    """A package's ``__init__`` names what its modules define."""
    found = {
        name_of(path): sum(isinstance(node, _DEFINITIONS) for node in tree_of(path).body)
        for path in SOURCES
        if path.name == "__init__.py"
    }
    compare("definitions", {path: number for path, number in found.items() if number})


def test_class_names_are_unique() -> None:
    """A name of a class means one thing within a folder of the root."""
    found: collections.Counter[str] = collections.Counter()
    for path in SOURCES:
        room = path.relative_to(PACKAGE).parts
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and len(room) > 1:
                found[f"{room[0]}: {node.name}"] += 1
    compare("classes", {name: number for name, number in found.items() if number > 1})


def test_files_and_functions_are_short() -> None:
    """Files and functions fit into a reader's head. Migrations are written once, from the top."""
    lines = {name_of(p): p.read_text("utf-8").count("\n") for p in SOURCES}
    compare("files", {path: number for path, number in lines.items() if number > MOST_LINES})
    functions: dict[str, int] = {}
    for path in SOURCES:
        if "migrations" in path.parts:
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONGEST:
                    functions[f"{name_of(path)}:{node.name}"] = length
    compare("functions", functions)


@pytest.mark.parametrize("room", sorted({p.relative_to(PACKAGE).parts[0] for p in SOURCES}))
def test_docstrings_are_plain(room: str) -> None:
    """Docstrings begin with a verb or a noun; they and comments name actors, not persons."""
    found = []
    for path in SOURCES:
        if path.relative_to(PACKAGE).parts[0] != room:
            continue
        for line, text in docstrings(path):
            if _QUESTION.match(text.strip()):
                found.append(f"{name_of(path)}:{line}: {text.strip().splitlines()[0]}")
        for line, text in (*docstrings(path), *comments(path)):
            found += [f"{name_of(path)}:{line}: {m[0]}" for m in _PERSONS.finditer(text)]
    assert not found


def test_what_runs_in_a_container_imports_only_what_is_entered() -> None:
    """A new package is foreign to workloads until it is entered here."""
    entered = set(ALLOWED["workload"]["imports"])
    found: set[str] = set()
    for path in SOURCES:
        if path.relative_to(PACKAGE).parts[0] != "workload":
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kaos_hub"):
                rooms = (node.module or "").split(".")[1:2] or [a.name for a in node.names]
                found |= set(rooms)
    assert found <= entered
