"""Notebooks that begin with a git repository, on a live hub and beside it."""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session
from traitlets import TraitError
from traitlets.config import Config

from kaos_hub.client import Client
from kaos_hub.deployment.docker_bridge import bridge
from kaos_hub.errors import InvalidRequest, NotFound, Unsupported
from kaos_hub.schemas import (
    Clone,
    CloneReport,
    GitCredentials,
    GitState,
    IdlePolicy,
    NotebookRequest,
    parse_request,
)
from kaos_hub.service.config.service import ServiceConfig
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import NotebookRow
from kaos_hub.service.notebooks.records import clone_of
from kaos_hub.service.notebooks.repositories import GitRules, Repositories, is_asked
from kaos_hub.service.notebooks.wishes import Offer, Wishes
from kaos_hub.service.quota import Ledger
from kaos_hub.util.notifier import Bell
from tests.engines import ENGINES
from tests.git_server import GitServer, git, git_server
from tests.hub import Browser, RunningHub, request, running_hub, wait_until
from tests.shell import Shell

SECRET = "top-secret-token"
COMMAND = "kaos notebook deploy -n lib --git-credentials"


@pytest.fixture(scope="module", params=ENGINES)
def host(request: pytest.FixtureRequest) -> tuple[str, str]:
    """An engine, and the address of this machine that its notebooks reach."""
    return request.param, bridge() if request.param == "docker" else "127.0.0.1"


@pytest.fixture(scope="module")
def server(host: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    with git_server(tmp_path_factory.mktemp("server"), host[1]) as running:
        running.repository("lib", {"a.py": "x = 1\n", "startup.txt": "here\n"})
        yield running


@pytest.fixture(scope="module")
def hub(
    host: tuple[str, str], server: GitServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningHub]:
    config = f"c.KaosService.git_networks = ['{host[1]}/32']\n"
    config += f"c.DockerNetworks.reachable = ['{host[1]}']\n"
    place = tmp_path_factory.mktemp("hub")
    with running_hub(place, engine=host[0], config=config) as running:
        yield running


@pytest.fixture
def ada(hub: RunningHub) -> Iterator[Client]:
    client = Client(hub.url, hub.token("ada"))
    yield client
    for notebook in client.notebooks.list():
        client.notebooks.delete(notebook.name)


@pytest.fixture(autouse=True)
def open_to_all(request: pytest.FixtureRequest) -> None:
    if "server" in request.fixturenames:
        server: GitServer = request.getfixturevalue("server")
        server.login = None
        server.gate.set()


def work(hub: RunningHub) -> Path:
    """The working directory of the one notebook that there is."""
    return next((hub.data / "homes").iterdir()) / "work"


def settled(client: Client, name: str = "lib") -> Clone:
    """The notebook's clone, once it is there or failed."""

    def ended() -> Clone | None:
        found = client.notebooks.get(name).git
        assert found is not None
        return found if found.state in (GitState.CLONED, GitState.FAILED) else None

    found: Clone = wait_until(ended, 30, "the end of the clone")
    return found


def test_a_notebook_begins_with_a_repository(
    hub: RunningHub, server: GitServer, ada: Client, tmp_path: Path
) -> None:
    """From the command line; the hook finds the clone."""
    shell = Shell(tmp_path, hub, "ada")
    shell.log_in()
    hook = tmp_path / "startup-hook.sh"
    hook.write_text("cat lib/startup.txt > found.txt\n")
    given = ("notebook", "deploy", "--git", f"{server.of('lib')}@main", "--context", str(hook))
    done = shell.run(*given, "-n", "lib", "--no-browser")
    assert done.returncode == 0, done.stderr
    clone = settled(ada)
    assert clone.state is GitState.CLONED, clone.note
    assert (clone.place, clone.ref) == ("work/lib", "main")
    folder = work(hub) / "lib"
    assert git_as_owner(folder, "rev-parse", "HEAD") == clone.commit
    wait_until((work(hub) / "found.txt").exists, what="the hook")
    assert (work(hub) / "found.txt").read_text() == "here\n"
    assert any(f"git: cloned {server.of('lib')}@main" in line for line in ada.notebooks.logs("lib"))
    told = shell.run("notebook", "info", "-n", "lib").stdout
    assert "CLONED in ~/work/lib" in told.replace("\n", " ")
    page = request("GET", f"{hub.kaos}/notebooks/lib", shell.run("token").stdout.strip()).text
    assert "~/work/lib" in page
    again_after_a_restart(hub, server, ada)


def git_as_owner(folder: Path, *words: str) -> str:
    """Git minds whose folder it is; on Docker it is the notebook's user's."""
    return git(folder, "-c", f"safe.directory={folder}", *words)


def again_after_a_restart(hub: RunningHub, server: GitServer, ada: Client) -> None:
    (work(hub) / "lib" / "a.py").write_text("mine\n")
    asked = len(server.asked)
    ada.notebooks.stop("lib")
    ada.notebooks.wait("lib")
    ada.notebooks.start("lib")
    notebook = ada.notebooks.wait("lib")
    assert notebook.git is not None
    assert notebook.git.state is GitState.CLONED
    assert (work(hub) / "lib" / "a.py").read_text() == "mine\n"
    assert len(server.asked) == asked


def test_another_ref_comes_beside_while_it_runs(
    hub: RunningHub, server: GitServer, ada: Client
) -> None:
    first = ada.notebooks.deploy(git=server.of("lib"))
    assert first.name == "lib"
    assert f"clone {server.of('lib')}" in first.actions
    started = first.wait().started
    (work(hub) / "lib" / "a.py").write_text("mine\n")
    ada.notebooks.deploy(name="lib", git=f"{server.of('lib')}@main")
    assert settled(ada).place == "work/lib-main"
    assert (work(hub) / "lib-main" / "a.py").read_text() == "x = 1\n"
    assert (work(hub) / "lib" / "a.py").read_text() == "mine\n"
    assert ada.notebooks.get("lib").started == started, "it was not restarted"
    ada.notebooks.deploy(name="lib", git="-")
    assert ada.notebooks.get("lib").git is None
    assert (work(hub) / "lib-main").is_dir()


def test_a_private_repository_is_cloned_once_it_has_a_login(
    hub: RunningHub, server: GitServer, ada: Client, host: tuple[str, str], tmp_path: Path
) -> None:
    """Without one the notebook starts all the same, and says what to do. Nothing keeps it."""
    server.login = ("git", SECRET)
    handle = ada.notebooks.deploy(git=server.of("lib"))
    assert handle.wait().state == "RUNNING"
    failed = settled(ada)
    assert failed.state is GitState.FAILED
    assert COMMAND in failed.note
    assert COMMAND in (work(hub) / "git-clone.failed.txt").read_text()
    page = request("GET", f"{hub.kaos}/notebooks/lib", hub.token("ada")).text
    assert "was not cloned" in page
    assert COMMAND in page
    shell = Shell(tmp_path, hub, "ada")
    shell.log_in()
    again = shell.run("notebook", "deploy", "-n", "lib", "--git", server.of("lib"), "--json")
    assert again.returncode == 1, "what was asked for is not there"
    assert json.loads(again.stdout)["code"] == "failed"
    assert COMMAND in again.stderr
    given = GitCredentials(password=SECRET)
    answer = ada.notebooks.deploy(name="lib", git_credentials=given)
    assert SECRET not in answer.model.model_dump_json()
    clone = settled(ada)
    assert clone.state is GitState.CLONED, clone.note
    assert not (work(hub) / "git-clone.failed.txt").exists()
    assert kept(hub, host[0]) == []


def test_a_person_without_a_terminal_gives_a_login(
    hub: RunningHub, server: GitServer, ada: Client
) -> None:
    """On pages alone, as the spawn form begins it. A password in the address is refused."""
    server.login = ("ada", SECRET)
    asked = hub.hub_api("POST", "/users/ada/servers/lib", {"git": server.of("lib")})
    assert asked.status < 500
    ada.notebooks.wait("lib")
    assert settled(ada).state is GitState.FAILED
    browser = Browser(hub, "ada")
    assert "files#clone" in browser.get(f"{hub.kaos}/notebooks/lib").text
    form = browser.get(f"{hub.kaos}/notebooks/lib/files").text
    assert f'value="{server.of("lib")}"' in form
    sent = {"_xsrf": browser.xsrf(), "git": f"http://ada:{SECRET}@x/lib.git"}
    refused = browser.post(f"{hub.kaos}/notebooks/lib/files/clone", sent)
    assert refused.status == 400
    assert SECRET not in refused.text
    sent |= {"git": server.of("lib"), "username": "ada", "password": SECRET}
    page = browser.post(f"{hub.kaos}/notebooks/lib/files/clone", sent)
    assert page.status == 200
    assert SECRET not in page.text
    assert settled(ada).state is GitState.CLONED


def kept(hub: RunningHub, engine: str) -> list[str]:
    """Where the secret can be read."""
    secrets = [SECRET.encode(), base64.b64encode(f"git:{SECRET}".encode())]
    files = [path for path in hub.directory.rglob("*") if path.is_file()]
    found = [str(f) for f in files if any(one in f.read_bytes() for one in secrets)]
    if engine == "docker":
        all_of_them = subprocess.check_output(["docker", "ps", "-aq"], text=True).split()
        seen = subprocess.run(["docker", "inspect", *all_of_them], capture_output=True).stdout
        found += ["docker inspect"] if secrets[0] in seen else []
    return found


def test_what_is_wrong_is_refused_before_anything_is_stored(
    hub: RunningHub, server: GitServer, ada: Client
) -> None:
    token = hub.token("ada")
    for body in (
        {"name": "lib", "git": f"https://ada:{SECRET}@git.example.org/a.git"},
        {"name": "lib", "git_credentials": {"password": SECRET}},
    ):
        answer = hub.ask("POST", "/notebooks", token, body)
        assert answer.status == 400
        assert SECRET not in answer.text
    options = {"git": "https://h.org/a.git", "git_credentials": {"password": SECRET}}
    asked = hub.hub_api("POST", "/users/ada/servers/lib", options)
    assert asked.status == 400
    assert "not by way of the Hub" in asked.text
    assert ada.notebooks.list() == []
    shown = hub.hub_api("GET", "/users/ada?include_stopped_servers").text
    assert SECRET not in shown


# --- beside a hub ---


URL = "https://git.example.org/a/b.git"
ANYTHING = GitRules()


async def ask(db: Database, rules: GitRules = ANYTHING, **wish: object) -> NotebookRow:
    """What a request makes of the notebook's row."""
    wishes = Wishes(Ledger(db, {}), [], "", IdlePolicy(), 0, Offer(git=rules))
    asked = parse_request(NotebookRequest, wish)

    def write(session: Session) -> NotebookRow:
        row, _ = wishes.apply(session, "user:ada", asked, "one")
        session.add(row)
        session.flush()
        return row

    return await db.run(write)


async def test_it_is_asked_for_once(db: Database) -> None:
    repositories = Repositories(db, Bell())
    assert is_asked(await ask(db, git=URL))
    said = CloneReport(repository=URL, state=GitState.CLONED, place="work/b")
    await repositories.report("user:ada", "one", said)
    row = await ask(db, git=URL)
    assert not is_asked(row)
    assert GitRules().order(row).cloned  # type: ignore[union-attr]
    row = await ask(db)
    assert clone_of(row) == Clone(url=URL, state=GitState.CLONED, place="work/b")
    row = await ask(db, git=f"{URL}@v1")
    assert is_asked(row)
    assert clone_of(row) == Clone(url=URL, ref="v1")
    with pytest.raises(NotFound, match="any more"):
        await repositories.report("user:ada", "one", said)
    failed = CloneReport(repository=f"{URL}@v1", state=GitState.FAILED, note="no")
    await repositories.report("user:ada", "one", failed)
    assert not is_asked(await ask(db)), "a deploy that says nothing of it"
    assert is_asked(await ask(db, git=f"{URL}@v1"))


async def test_a_clone_that_was_cut_off_is_not_shown_as_under_way(db: Database) -> None:
    await ask(db, git=URL)
    report = CloneReport(repository=URL, state=GitState.CLONING, note="5Mi received")
    found = await Repositories(db, Bell()).report("user:ada", "one", report)
    assert found.state is GitState.ASKED
    assert "begins anew" in found.note


async def test_credentials_are_handed_out_once_and_for_their_repository(db: Database) -> None:
    repositories = Repositories(db, Bell())
    row = await ask(db, git=URL, git_credentials={"password": SECRET})
    assert SECRET not in str(row.options) + str(row.clone)
    given = GitCredentials(password=SECRET)
    repositories.keep(row.id, URL, given)
    with pytest.raises(NotFound):
        await repositories.take("user:ada", "one", f"{URL}@v1")
    assert (await repositories.take("user:ada", "one", URL)).credentials == given
    assert (await repositories.take("user:ada", "one", URL)).credentials is None
    repositories.keep(row.id, URL, given)
    await ask(db, git="https://evil.example.org/a/b.git")
    other = await repositories.take("user:ada", "one", "https://evil.example.org/a/b.git")
    assert other.credentials is None


async def test_what_the_admin_allows(db: Database) -> None:
    with pytest.raises(Unsupported, match="but https://"):
        await ask(db, GitRules(schemes=["https"]), git="http://git.example.org/a.git")
    with pytest.raises(Unsupported, match="ssh:// cannot be cloned"):
        await ask(db, git="ssh://git.example.org/a.git")
    with pytest.raises(InvalidRequest, match="no repository"):
        await ask(db, git_credentials={"password": SECRET})


def test_settings() -> None:
    def rules(**given: object) -> GitRules:
        return ServiceConfig(config=Config(ServiceConfig=given)).git_rules()

    assert rules() == GitRules()
    assert rules(manifest_networks=["10.1.0.0/16"]).networks == ("10.1.0.0/16",)
    assert rules(manifest_networks=["10.1.0.0/16"], git_networks=[]).networks == ()
    assert rules(git_size="2Gi", git_deadline="10m") == GitRules(size=2 << 30, deadline=600)
    for wrong in (
        {"git_networks": ["here"]},
        {"git_schemes": ["ssh"]},
        {"git_size": "much"},
        {"git_deadline": "long"},
    ):
        with pytest.raises(TraitError):
            rules(**wrong)
