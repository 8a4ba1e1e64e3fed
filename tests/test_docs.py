"""The documentation is true: generated pages are current, links lead somewhere, commands parse."""

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from kaos_hub.cli.root import kaos
from tests.documentation import FENCE, PAGES, ROOT, anchors, generator, prose

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def ids(path: Path) -> str:
    """A page's name for pytest."""
    return str(path.relative_to(ROOT))


# --- generated pages ---


@pytest.mark.parametrize("name", ["cli", "config", "rest", "errors", "sdk", "isolation"])
def test_generated_page_is_current(name: str) -> None:
    """What is committed is what the code says now."""
    generate = generator()
    text = (generate.REFERENCE / f"{name}.md").read_text("utf-8")
    assert text == generate.PAGES[name](), "run: python docs/generate.py"


def test_generator_finds_stale_pages(tmp_path: Path) -> None:
    """`--check` complains of a page that is out of date, and writing makes it current."""
    copy = tmp_path / "docs"
    (copy / "reference").mkdir(parents=True)
    script = copy / "generate.py"
    for part in [*(ROOT / "docs").glob("generate*.py"), ROOT / "docs" / "isolation.toml"]:
        shutil.copy(part, copy)
    (tmp_path / "helm").symlink_to(ROOT / "helm")  # of which it reads the chart
    (copy / "reference" / "errors.md").write_text("old\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(script), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    stale = run("--check")
    assert (stale.returncode, "errors.md" in stale.stderr) == (1, True)
    assert (copy / "reference" / "errors.md").read_text() == "old\n"
    assert run().returncode == 0
    assert run("--check").returncode == 0


def test_every_command_setting_and_route_is_documented() -> None:
    """Counted from the code, not from the generator's pages."""
    generate = generator()
    reference = generate.REFERENCE
    cli, config, rest = (reference.joinpath(f"{n}.md").read_text("utf-8") for n in PAGES_MADE)
    for name, _ in generate.commands():
        assert re.search(rf"(?m)^#+ {re.escape(name)}$", cli), name
    for name, cls, _ in generate.configurables():
        assert generate.own_traits(cls), name
        for trait in generate.own_traits(cls).values():
            assert f"### c.{name}.{trait.name}" in config
            assert trait.help.strip(), f"c.{name}.{trait.name} has no help"
    for route in generate.routes():
        assert f"### {route.method} {route.path}\n" in rest


PAGES_MADE = ("cli", "config", "rest")


def test_all_of_the_sdk_is_documented() -> None:
    """Each part of a client, and whatever it gives to work with; nothing without a word."""
    generator()
    import generate_sdk

    from kaos_hub.client import Client

    text = (ROOT / "docs" / "reference" / "sdk.md").read_text("utf-8")
    for part in re.findall(r"(?m)^ {8}(\w+): see", Client.__doc__ or ""):
        assert f"\n## client.{part}\n" in text, part
    for handle in set(re.findall(r"Gives: `(\w+Handle)`", text)):
        assert f"\n## {handle}\n" in text, handle
    for name, thing in generate_sdk.things():
        for method, function in [] if not isinstance(thing, type) else generate_sdk.methods(thing):
            assert f"\n### {name}.{method}\n" in text
            assert (function.__doc__ or "").strip(), f"{name}.{method} says nothing"


def test_no_configurable_is_forgotten() -> None:
    """Every class of ours that brings settings is on the page, itself or through a child."""
    from traitlets.config import Configurable

    def below(cls: type) -> Iterator[type]:
        for child in cls.__subclasses__():
            yield child
            yield from below(child)

    generate = generator()
    listed = {cls for _, cls, _ in generate.configurables()}
    for cls in set(below(Configurable)):
        if cls.__module__.startswith("kaos_hub.") and cls.class_own_traits(config=True):
            assert any(issubclass(known, cls) for known in listed), cls


# --- links ---


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_internal_links_resolve(page: Path) -> None:
    """Files are there, and headings, too."""
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} leads nowhere"
        assert file.is_relative_to(ROOT), f"{target} leaves the repository"
        if anchor:
            assert anchor in anchors(file), f"{target}: no such heading"


def test_every_page_is_linked() -> None:
    """Nothing lies about that nobody finds."""
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in LINK.findall(prose(page))
    }
    for page in (ROOT / "docs").rglob("*.md"):
        assert page in linked, page


# --- what stands in code ---


def _typed(page: Path) -> Iterator[list[str]]:
    """Every `kaos …` that a reader may type."""
    text = page.read_text("utf-8")
    for language, block in FENCE.findall(text):
        for line in block.splitlines():
            if language == "console" and line.startswith("$ "):
                yield from _kaos(line.removeprefix("$ "))
            elif language == "sh":
                yield from _kaos(line)
    for line in re.findall(r"(?m)^ {4}(kaos .*)$", prose(page)):
        yield from _kaos(line)
    for inline in re.findall(r"`([^`\n]+)`", prose(page)):
        yield from _kaos(inline)


def _kaos(line: str) -> Iterator[list[str]]:
    line = re.split(" [<>] |#", line)[0].strip()
    line = re.sub(r"^((!|[A-Z_]+=\S+ )+)", "", line)
    if line.startswith("kaos ") and not re.search(r"[…\[<]", line):
        yield shlex.split(line)[1:]


def _parse(words: list[str]) -> None:
    """Parse as the command line would; run nothing."""
    command: click.Command = kaos
    context: click.Context | None = None
    name: str | None = "kaos"
    while True:
        context = command.make_context(name, words, parent=context)
        if not isinstance(command, click.Group):
            return
        words = [*context._protected_args, *context.args]
        if not words:
            return
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_command_lines_parse(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What we tell people to type, the command line understands."""
    monkeypatch.chdir(tmp_path)
    for words in _typed(page):
        for option, value in pairwise(words):
            if option in ("-f", "--config") and not value.startswith(("-", "/")):
                Path(value).touch()
        try:
            _parse(words)
        except (click.exceptions.Exit, click.MissingParameter):
            continue  # --help; or the mere mention of a command
        except click.UsageError as e:
            pytest.fail(f"kaos {shlex.join(words)}: {e.format_message()}")


def test_command_lines_are_found() -> None:
    """The search for them does not silently find nothing."""
    found = [words for page in PAGES for words in _typed(page)]
    assert ["notebook", "stop", "-n", "example"] in found
    assert ["up", "--engine", "docker", "-f", "hub.py"] in found
    assert len(found) > 60


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_python_compiles(page: Path) -> None:
    """Snippets are Python, and what they import from us is there."""
    for language, block in FENCE.findall(page.read_text("utf-8")):
        if language != "python":
            continue
        compile(block, str(page), "exec")
        for line in re.findall(r"(?m)^from kaos_hub.*$", block):
            exec(compile(line, str(page), "exec"), {})


def test_settings_in_snippets_exist() -> None:
    """`c.KaosService.limits` and the like are settings."""
    generate = generator()
    known = {
        f"{name}.{trait}"
        for name, cls, _ in generate.configurables()
        for trait in generate.own_traits(cls)
    }
    for page in PAGES:
        for setting in re.findall(r"\bc\.(Kaos\w+\.\w+|\w+Engine\.\w+)", page.read_text("utf-8")):
            assert setting in known, f"{ids(page)}: c.{setting}"


# --- ARCHITECTURE.md ---


def test_architecture_shows_the_layers_and_the_tree() -> None:
    """The layers are those that are checked; every folder has its line."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["importlinter:contract:layers"]["layers"].strip() in text
    for path in (ROOT / "kaos_hub").iterdir():
        if path.suffix == ".py" and path.stem != "__init__":
            assert f"  {path.name} " in text, path.name
        elif (path / "__init__.py").exists():
            assert f"  {path.name}/ " in text, path.name


def test_architecture_knows_every_library_and_its_pin() -> None:
    """No library without a reason."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    for line in (setup["options"]["install_requires"] + extras["hub"]).split():
        name, pin = re.fullmatch(r"([\w-]+)(.*)", line).groups()  # type: ignore[union-attr]
        assert f"| {name} | {pin} |" in text, line
    for line in "".join(extras[name] for name in ("postgresql", "test", "lint", "docs")).split():
        assert re.match(r"[\w-]+", line)[0] in text, line  # type: ignore[index]


def test_picture_is_small() -> None:
    """A README that loads at once."""
    assert (ROOT / "docs/images/notebooks.png").stat().st_size < 200_000
