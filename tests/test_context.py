"""Contexts: plain files that are laid over a source, followed and edited like the rest."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from kaos_hub.bundles import tree, walk
from kaos_hub.bundles.compose import compose
from kaos_hub.bundles.scan import scan
from kaos_hub.client import Client
from kaos_hub.errors import InvalidBundle, NotFound
from kaos_hub.schemas import BundleVersion
from kaos_hub.service.bundles.versions import Versions
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import NotebookRow, now
from kaos_hub.service.notebooks.trees import Trees
from kaos_hub.service.quota import Ledger
from kaos_hub.stores.file import FileStore
from tests.hub import RunningHub, request, wait_until
from tests.kernels import Kernel
from tests.shell import Shell
from tests.test_versions import ADA, folder, submit

NAMES = st.sampled_from(["a", "b", "model", "x.py"])
TREES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.sampled_from("123"), max_size=6
)


def fits(files: dict[str, str]) -> bool:
    """Whether no path is a file and a folder at once."""
    return not any(other.startswith(f"{path}/") for path in files for other in files)


def scanned(path: Path, files: dict[str, str]) -> tuple[str, dict[str, bytes]]:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    found = scan(folder(path, files))
    return found.root, {digest: b"".join(found.read(digest)) for digest in found.objects}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(below=TREES.filter(fits), above=TREES.filter(fits))
def test_both_together_are_what_a_folder_of_both_would_be(
    tmp_path: Path, below: dict[str, str], above: dict[str, str]
) -> None:
    source, one = scanned(tmp_path / "source", below)
    context, two = scanned(tmp_path / "context", above)
    objects = {tree.EMPTY: tree.HEADER} | one | two
    both = below | above
    if not fits(both):
        with pytest.raises(InvalidBundle, match="rename one of them"):
            compose(source, context, lambda digest: [objects[digest]])
        return
    found = compose(source, context, lambda digest: [objects[digest]])
    root, _ = scanned(tmp_path / "both", both)
    assert found.root == root
    everything = objects | found.nodes
    assert walk.load(root, lambda digest: [everything[digest]]).files == len(both)


@pytest.fixture
def versions(db: Database, tmp_path: Path) -> Versions:
    return Versions(db, FileStore(tmp_path / "store"), Ledger(db, {}), 10**6, 1000)


def row(source: BundleVersion | None, context: BundleVersion | None, ids: list[int]) -> NotebookRow:
    given = iter(ids)
    return NotebookRow(
        id="one", owner=ADA, name="one", created=now(),
        source_id=next(given) if source else None, context_id=next(given) if context else None,
    )  # fmt: skip


async def test_what_is_in_the_way_is_named(
    versions: Versions, db: Database, tmp_path: Path
) -> None:
    code = {"Dockerfile": "FROM x\n", "model/train": "1"}
    source = await submit(versions, ADA, folder(tmp_path / "s", code), "s", "source")
    context = await submit(versions, ADA, folder(tmp_path / "c", {"model": "x"}), "c", "context")
    with pytest.raises(InvalidBundle, match="'model' is a file in the context and a folder"):
        await Trees(db, versions).followed(row(source, context, [1, 2]))


async def test_the_tree_of_both_is_kept_and_found_again(
    versions: Versions, db: Database, tmp_path: Path
) -> None:
    code = {"Dockerfile": "FROM x\n", "model/train": "1"}
    source = await submit(versions, ADA, folder(tmp_path / "s", code), "s", "source")
    extra = {"model/train": "2", "startup-hook.sh": "true"}
    context = await submit(versions, ADA, folder(tmp_path / "c", extra), "c", "context")
    trees = Trees(db, versions)
    notebook = row(source, context, [1, 2])
    both = await trees.followed(notebook)
    assert both is not None
    assert sorted(await versions.files(both)) == ["Dockerfile", "model/train", "startup-hook.sh"]
    assert await trees.all(notebook) == [both, source.digest]
    # nothing is believed of a store that lost it
    path = FileStore(tmp_path / "store").local_path(both)
    assert path is not None
    path.unlink()
    assert await trees.followed(notebook) == both
    assert await versions.has(both)
    assert await trees.followed(row(None, context, [2])) == context.digest
    assert await trees.followed(row(None, None, [])) is None


async def test_a_context_is_nobody_elses(versions: Versions, tmp_path: Path) -> None:
    await submit(versions, ADA, folder(tmp_path / "c", {"x": "1"}), "c", "context")
    from kaos_hub.schemas import BundleKind

    with pytest.raises(NotFound):
        await versions.select("user:bob", BundleKind.CONTEXT, "c")


# --- on a Hub ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shell(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(tmp_path_factory.mktemp("cora"), hub, "cora-with-contexts")
    shell.log_in()
    yield shell
    for each in shell.json("notebook", "list"):
        shell.run("notebook", "delete", "-y", "-n", each["name"])


def read(shell: Shell, name: str, path: str) -> str | None:
    token = shell.run("token").stdout.strip()
    url = shell.json("notebook", "info", "-n", name)["url"]
    answer = request("GET", f"{url}/api/contents/{path}", token)
    return answer.json["content"] if answer.status == 200 else None


def done(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_a_folder_is_enough_and_follows_what_is_deployed_again(
    shell: Shell, tmp_path: Path
) -> None:
    """Named after the folder; its hook runs; a change comes into what runs, an edit stays."""
    hook = "echo greeting > from-hook.txt\n"
    context = folder(tmp_path / "my_dir", {"startup-hook.sh": hook, "notes.md": "one", "a.py": "1"})
    (context / "__pycache__").mkdir()
    (context / "__pycache__" / "rubbish").write_text("x")
    cpu_only = ("--config", "resources.slots=0")
    done(shell.run("notebook", "start", *cpu_only, "--context", str(context)))
    assert read(shell, "my-dir", "work/notes.md") == "one"
    assert read(shell, "my-dir", "work/from-hook.txt") == "greeting\n"
    assert read(shell, "my-dir", "work/__pycache__/rubbish") is None
    info = shell.json("notebook", "info", "-n", "my-dir")
    assert (info["source"], info["context"]["name"]) == (None, "my_dir")

    token = shell.run("token").stdout.strip()
    kernel = Kernel(info["url"], token)
    kernel.run("kept = 1; open('/home/kaos/work/a.py', 'w').write('mine')")
    folder(context, {"notes.md": "two", "a.py": "2", "more/b.py": "3"})
    done(shell.run("notebook", "deploy", "--context", str(context)))
    wait_until(lambda: read(shell, "my-dir", "work/notes.md") == "two", 20, "the update")
    assert read(shell, "my-dir", "work/more/b.py") == "3"
    assert read(shell, "my-dir", "work/a.py") == "mine"
    assert kernel.run("kept") == "1"

    done(shell.run("notebook", "deploy", "-n", "my-dir", "--context", "-"))
    assert shell.json("notebook", "info", "-n", "my-dir")["context"] is None
    done(shell.run("notebook", "stop", "-n", "my-dir"))
    # by its name alone it is started as it was
    done(shell.run("notebook", "start", "-n", "my-dir"))
    assert read(shell, "my-dir", "work/a.py") == "mine"
    done(shell.run("notebook", "stop", "-n", "my-dir"))


def test_start_makes_a_new_notebook_unless_one_is_named(hub: RunningHub, tmp_path: Path) -> None:
    """As often as it is said, whatever there is: with nothing, an option, the same folder."""
    shell = Shell(tmp_path, hub, "newcomer-who-starts")
    shell.log_in()
    (tmp_path / "my_context_dir").mkdir()
    (tmp_path / "my_context_dir" / "startup-hook.sh").write_text("true\n")
    (tmp_path / "config.yaml").write_text("description: test-notebook\nidle_timeout: 30m\n")
    ways = (
        [], [], ["--config", "resources.slots=0"], ["--config-file", "config.yaml"],
        ["--context", "my_context_dir"], ["--context", "my_context_dir"],
        ["--context", "my_context_dir/startup-hook.sh"],
    )  # fmt: skip
    for number, words in enumerate(ways, 1):
        done(shell.run("notebook", "start", *words, "--detach", cwd=tmp_path))
        assert len(shell.json("notebook", "list")) == number, words
    names = {each["name"] for each in shell.json("notebook", "list")}
    assert {"my-context-dir", "my-context-dir-2", "startup-hook"} < names
    shell.run("notebook", "kill", "-y", "-n", "my-context-dir")
    wait_until(
        lambda: shell.json("notebook", "info", "-n", "my-context-dir")["state"] == "STOPPED", 30
    )
    told = shell.run("notebook", "start", "--detach")
    assert "kaos notebook start -n my-context-dir" in told.stderr, "how one that is there starts"
    for each in shell.json("notebook", "list"):
        done(shell.run("notebook", "delete", "-y", "-n", each["name"]))


def test_one_file_is_enough_and_lies_over_a_source(shell: Shell, tmp_path: Path) -> None:
    one = folder(tmp_path, {"analysis.py": "x = 1\n"}) / "analysis.py"
    plan = shell.json("notebook", "deploy", "--context", str(one), "--dry-run")
    assert plan["notebook"]["name"] == "analysis"
    code = {"Dockerfile": "FROM python:3.13-slim\n", "model/requirements.txt": ""}
    source = folder(tmp_path / "based", code)
    done(shell.run("notebook", "deploy", "-s", str(source), "--context", str(one)))
    assert read(shell, "based", "work/analysis.py") == "x = 1\n"
    assert read(shell, "based", "work/Dockerfile") == code["Dockerfile"]
    bad = folder(tmp_path / "bad", {"model": "no folder"})
    refused = shell.run("notebook", "deploy", "-s", str(source), "--context", str(bad))
    assert refused.returncode == 2
    assert "'model' is a file in the context and a folder in the source" in refused.stderr
    assert read(shell, "based", "work/analysis.py") == "x = 1\n"
    archive = Client(shell.hub.url, shell.run("token").stdout.strip())
    assert archive.notebooks.get("based").context.name == "analysis"
    shell.run("notebook", "stop", "-n", "based")
