"""The program that clones, against a real server of git repositories."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.schemas import CloneReport, GitState
from kaos_hub.workload.git import cloning, record
from tests.git_server import GitServer, Work, git, git_server
from tests.hub import wait_until
from tests.work_server import Quiet

FILES: dict[str, str | bytes] = {"a.py": "x = 1\n", "deep/b.txt": "b\n", "run.sh": "#!/bin/sh\n"}
HERE = ["127.0.0.1/32"]


@dataclass
class Notebook:
    """A home into which is cloned."""

    server: GitServer
    home: Path
    environ: dict[str, str]

    @property
    def work(self) -> Path:
        return self.home / "work"

    @property
    def folders(self) -> list[str]:
        return sorted(entry.name for entry in self.work.iterdir() if entry.is_dir())

    @property
    def notice(self) -> str:
        file = self.work / record.NOTICE
        return file.read_text() if file.exists() else ""

    def order(self, repository: str, **changes: Any) -> str:
        given = {"networks": HERE, "size": 1 << 30, "deadline": 60, "cloned": False}
        return json.dumps({"repository": repository, **given, **changes})

    def begin(self, repository: str, **changes: Any) -> "subprocess.Popen[str]":
        environ = {**os.environ, **self.environ, "KAOS_GIT": self.order(repository, **changes)}
        return subprocess.Popen(
            [sys.executable, "-I", "-m", "kaos_hub.workload.git.clone"],
            env=environ | {"KAOS_HOME": str(self.home)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def clone(self, repository: str, **changes: Any) -> str:
        """What the notebook's log says of it."""
        process = self.begin(repository, **changes)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert "Traceback" not in said
        assert not list((self.home / ".kaos").glob("clone-*"))
        return said


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with git_server(tmp_path / "server") as running:
        yield running


@pytest.fixture
def lib(server: GitServer) -> Work:
    return server.repository("lib", FILES)


@pytest.fixture
def notebook(server: GitServer, tmp_path: Path) -> Notebook:
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    return Notebook(server, home, {})


def test_a_clone_is_one_that_git_works_with(
    notebook: Notebook, server: GitServer, lib: Work
) -> None:
    (lib.folder / "run.sh").chmod(0o755)
    (lib.folder / "link").symlink_to("a.py")
    commit = lib.commit({"a.py": "x = 2\n"})
    said = notebook.clone(server.of("lib"))
    clone = notebook.work / "lib"
    assert f"commit {commit[:12]}, 4 files, on branch main" in said
    assert git(clone, "status", "--porcelain", "--branch") == "## main...origin/main"
    assert (clone / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (clone / "link").readlink() == Path("a.py")
    assert git(clone, "rev-list", "--count", "HEAD") == "1", "only the last commit"
    lib.commit({"new.txt": "new"})
    git(clone, "pull", "-q")
    assert (clone / "new.txt").read_text() == "new"
    git(clone, "fetch", "-q", "--unshallow")
    assert git(clone, "rev-list", "--count", "HEAD") == "3"
    (clone / "mine.txt").write_text("mine")
    git(clone, "add", "-A")
    git(clone, "commit", "-q", "-m", "mine")
    git(lib.bare, "config", "http.receivepack", "true")
    git(clone, "push", "-q")
    assert git(lib.bare, "rev-parse", "main") == git(clone, "rev-parse", "HEAD")


def test_branches_tags_and_commits(notebook: Notebook, server: GitServer, lib: Work) -> None:
    first = git(lib.folder, "rev-parse", "HEAD")
    git(lib.folder, "tag", "light")
    git(lib.folder, "tag", "-a", "v1", "-m", "one")
    lib.commit({"a.py": "x = 2\n"})
    side = lib.commit({"side.py": "y\n"}, "feature/x")
    wanted = {"feature/x": side, "v1": first, "light": first, first: first}
    for ref, commit in wanted.items():
        notebook.clone(f"{server.of('lib')}@{ref}")
        found = record.find(notebook.work, f"{server.of('lib')}@{ref}")
        assert found is not None
        assert found.commit == commit == git(found.place, "rev-parse", "HEAD")
        assert git(found.place, "status", "--porcelain") == ""
    assert notebook.folders == ["lib", f"lib-{first[:7]}", "lib-light", "lib-v1"]
    assert git(notebook.work / "lib", "branch", "--show-current") == "feature/x"


def test_servers_that_know_no_better_give_the_history(
    notebook: Notebook, server: GitServer, lib: Work
) -> None:
    server.old = True
    first = git(lib.folder, "rev-parse", "HEAD")
    lib.commit({"a.py": "x = 2\n"})
    assert "--unshallow" not in notebook.clone(server.of("lib"))
    assert git(notebook.work / "lib", "rev-list", "--count", "HEAD") == "2"
    notebook.clone(f"{server.of('lib')}@{first}")
    assert git(notebook.work / f"lib-{first[:7]}", "rev-parse", "HEAD") == first


def test_nothing_is_cloned_twice_and_no_edit_is_lost(
    notebook: Notebook, server: GitServer, lib: Work
) -> None:
    notebook.clone(server.of("lib"))
    (notebook.work / "lib" / "a.py").write_text("mine\n")
    asked = len(server.asked)
    notebook.clone(server.of("lib"))
    (notebook.work / "lib").rename(notebook.work / "renamed")
    notebook.clone(server.of("lib"))
    assert len(server.asked) == asked
    assert notebook.folders == ["renamed"]
    assert (notebook.work / "renamed" / "a.py").read_text() == "mine\n"


@pytest.mark.parametrize("what", ["folder", "file", "link", "nothing in it"])
def test_what_stands_in_its_place_stays(
    notebook: Notebook, server: GitServer, lib: Work, what: str
) -> None:
    place = notebook.work / "lib"
    if what == "file":
        place.write_text("mine")
    elif what == "link":
        place.symlink_to(notebook.home)
    else:
        place.mkdir()
        if what == "folder":
            (place / "mine.txt").write_text("mine")
    said = notebook.clone(server.of("lib"))
    found = record.find(notebook.work, server.of("lib"))
    assert found is not None
    assert (found.place == place) == (what == "nothing in it")
    assert (found.place / "a.py").read_text() == "x = 1\n"
    if what != "nothing in it":
        assert "untouched" in said
        assert place.is_symlink() if what == "link" else place.exists()
    if what == "folder":
        assert (place / "mine.txt").read_text() == "mine"


def test_private_addresses_are_refused_also_after_a_redirect(
    notebook: Notebook, server: GitServer, lib: Work
) -> None:
    assert "not a public address" in notebook.clone(server.of("lib"), networks=[])
    assert "git_networks" in notebook.notice
    by_name = f"http://localhost:{server.port}/lib.git"
    assert "not a public address" in notebook.clone(by_name, networks=["10.0.0.0/8"])
    assert server.asked == []
    server.moved = {"/old/": f"http://127.0.0.2:{server.port}/", "/lib.git": "http://[::1]/x"}
    for path in ("old/lib.git", "lib.git"):
        said = notebook.clone(f"{server.url}/{path}")
        assert "it was redirected, and" in said
        assert "not a public address" in said
    assert notebook.folders == []


def test_a_redirect_is_followed(notebook: Notebook, server: GitServer, lib: Work) -> None:
    server.moved = {"/old/": f"{server.url}/"}
    notebook.clone(f"{server.url}/old/lib.git")
    assert notebook.folders == ["lib"]
    assert notebook.notice == ""


def test_schemes_that_are_not_allowed(notebook: Notebook, server: GitServer, lib: Work) -> None:
    assert "may not be fetched" in notebook.clone(server.of("lib"), schemes=["https"])
    assert server.asked == []


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("nosuch", "has no branch, tag or commit 'nosuch'; there are main, v1"),
        ("mian", "is 'main' meant?"),
        ("0123abc", "all 40 digits are needed"),
        ("0" * 39 + "1", "has no commit"),
    ],
)
def test_a_ref_that_is_not_there(
    notebook: Notebook, server: GitServer, lib: Work, ref: str, said: str
) -> None:
    git(lib.folder, "tag", "-a", "v1", "-m", "one")
    lib.push()
    assert said in notebook.clone(f"{server.of('lib')}@{ref}")
    assert said in notebook.notice
    assert notebook.folders == []


def test_failures_are_told_and_leave_nothing(
    notebook: Notebook, server: GitServer, lib: Work
) -> None:
    assert "has no such repository" in notebook.clone(server.of("nosuch"))
    server.status = 418
    assert "418" in notebook.clone(server.of("lib"))
    server.status = 200
    assert "not as a server of git" in notebook.clone(server.of("lib"))
    server.status = None
    assert "no host called" in notebook.clone("http://nosuch.invalid/a.git")
    assert notebook.folders == []
    assert "nosuch.invalid/a.git was not cloned" in notebook.notice
    notebook.clone(server.of("lib"))
    assert notebook.notice == "", "the last word is that it worked"


def test_trouble_that_passes_is_waited_for(
    notebook: Notebook, server: GitServer, lib: Work
) -> None:
    server.status, server.well_after = 503, 1
    assert "503" in notebook.clone(server.of("lib"))
    assert notebook.folders == ["lib"]


def test_an_empty_repository(notebook: Notebook, server: GitServer) -> None:
    server.repository("void", {})
    assert "~/work/void: empty" in notebook.clone(server.of("void"))
    assert git(notebook.work / "void", "remote", "get-url", "origin") == server.of("void")


def test_it_says_what_is_not_fetched(notebook: Notebook, server: GitServer, lib: Work) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 9\n"
    other = server.repository("other", {"o": "o"})
    git(lib.folder, "submodule", "--quiet", "add", str(other.bare), "vendor/other")
    lib.commit({"big.bin": pointer, ".gitattributes": "*.bin filter=lfs\n"})
    said = notebook.clone(server.of("lib"))
    assert "submodules are not fetched: vendor/other" in said
    assert "git LFS are not fetched: big.bin" in said
    assert (notebook.work / "lib" / "big.bin").read_text() == pointer


# --- bounds ---


def test_a_repository_that_is_too_large(notebook: Notebook, server: GitServer, lib: Work) -> None:
    lib.commit({"noise": os.urandom(3 << 20)})
    assert "sends more than 1Mi" in notebook.clone(server.of("lib"), size=1 << 20)
    assert notebook.folders == []


def test_files_without_end(notebook: Notebook, server: GitServer, lib: Work) -> None:
    """A small repository whose trees name one another: 10^7 files of 100 KB."""
    blob = lib.folder / "blob"
    blob.write_bytes(b"0" * 100_000)
    found = f"100644 blob {git(lib.folder, 'hash-object', '-w', 'blob')}\tf"
    for _ in range(7):
        lines = "".join(f"{found[: found.index(chr(9))]}\t{n}\n" for n in range(10))
        made = subprocess.run(
            ["git", "mktree"], input=lines, cwd=lib.folder, capture_output=True, text=True
        )
        found = f"040000 tree {made.stdout.strip()}\tt"
    tree = found.split()[2]
    commit = git(lib.folder, "commit-tree", tree, "-p", "HEAD", "-m", "bomb")
    git(lib.folder, "update-ref", "refs/heads/main", commit)
    lib.push()
    assert "files of more than 4Mi" in notebook.clone(server.of("lib"), size=4 << 20)
    assert notebook.folders == []


def raw_tree(lib: Work, *entries: tuple[str, str, str]) -> str:
    """A tree as git itself would never make it: mode, name and object of each entry."""
    content = b"".join(
        f"{mode} {name}".encode() + b"\0" + bytes.fromhex(sha) for mode, name, sha in entries
    )
    made = subprocess.run(
        ["git", "hash-object", "-w", "-t", "tree", "--literally", "--stdin"],
        cwd=lib.folder, input=content, capture_output=True, check=True,
    )  # fmt: skip
    return made.stdout.decode().strip()


@pytest.mark.parametrize("name", [".git", "..", ".", "a link"])
def test_hostile_paths_write_nothing_elsewhere(
    notebook: Notebook, server: GitServer, lib: Work, tmp_path: Path, name: str
) -> None:
    (lib.folder / "target").write_text(str(tmp_path))
    link = git(lib.folder, "hash-object", "-w", "target")
    blob = git(lib.folder, "hash-object", "-w", "a.py")
    inner = raw_tree(lib, ("100644", "stolen", blob))
    root = raw_tree(lib, ("40000", name, inner))
    if name == "a link":
        root = raw_tree(lib, ("120000", "a", link), ("40000", "a", inner))
    commit = git(lib.folder, "commit-tree", root, "-p", "HEAD", "-m", "evil")
    git(lib.folder, "update-ref", "refs/heads/main", commit)
    lib.push()
    said = notebook.clone(server.of("lib"))
    elsewhere = [p for p in tmp_path.rglob("stolen") if not p.is_relative_to(notebook.work / "lib")]
    assert elsewhere == []
    if name != "a link":
        assert "no sound repository" in said
        assert notebook.folders == []


def test_it_may_not_take_for_ever(notebook: Notebook, server: GitServer, lib: Work) -> None:
    server.gate.clear()
    assert "took longer than 1 s" in notebook.clone(server.of("lib"), deadline=1)


def test_a_full_disk(small_disk: Path, server: GitServer, lib: Work) -> None:
    lib.commit({"noise": os.urandom(3 << 20)})
    (small_disk / "work").mkdir()
    full = Notebook(server, small_disk, {})
    assert "no room" in full.clone(server.of("lib"))
    assert full.folders == []


def test_one_that_is_killed_leaves_nothing_that_looks_whole(
    notebook: Notebook, server: GitServer, lib: Work
) -> None:
    server.gate.clear()
    process = notebook.begin(server.of("lib"))
    wait_until(lambda: server.asked, what="the first question")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert notebook.folders == []
    assert list((notebook.home / ".kaos").glob("clone-*"))
    cloning.at_start(notebook.home, None)
    assert not list((notebook.home / ".kaos").glob("clone-*"))


def test_whoever_begins_it_tells_of_one_that_is_killed(
    notebook: Notebook, server: GitServer, lib: Work
) -> None:
    server.gate.clear()
    order = notebook.order(server.of("lib"))
    begun = cloning.at_start(notebook.home, order)
    assert begun is not None
    assert cloning.begin(notebook.home, server.of("lib"), order) is begun, "one at a time"
    wait_until(lambda: server.asked, what="the first question")
    for child in Path(f"/proc/self/task/{begun.thread.native_id}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    assert begun.wait(30)
    assert "was ended by signal 9" in notebook.notice


# --- logins, and what the service hears ---


class Service:
    """What the notebook's service is told, and the login it has."""

    def __init__(self) -> None:
        self.login: dict[str, str] | None = None
        self.told: list[CloneReport] = []
        self.wanted = True
        """Whether the notebook is to have this repository."""
        self.port = 0

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if not self.wanted:
            return 404, {"code": "not_found", "message": "not any more"}
        if path.endswith("/git/credentials"):
            login, self.login = self.login, None
            return 200, {"credentials": login}
        self.told.append(CloneReport.model_validate_json(body))
        return 200, {"url": "http://x/y"}


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, said = service.answer(self.path, body)
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler


@pytest.fixture
def service(notebook: Notebook) -> Iterator[Service]:
    found = Service()
    with Quiet(("127.0.0.1", 0), _handler(found)) as web:
        found.port = web.server_address[1]
        threading.Thread(target=web.serve_forever, args=[0.05], daemon=True).start()
        notebook.environ = {
            "KAOS_URL": f"http://127.0.0.1:{found.port}", "KAOS_NOTEBOOK": "one",
            "JUPYTERHUB_API_TOKEN": "t",
        }  # fmt: skip
        yield found
        web.shutdown()


LOGIN = {"username": "git", "password": "top-secret"}


def test_a_private_repository(
    notebook: Notebook, server: GitServer, lib: Work, service: Service
) -> None:
    server.login = ("git", "top-secret")
    command = "kaos notebook deploy -n one --git-credentials"
    assert "wants a login" in notebook.clone(server.of("lib"))
    assert command in notebook.notice
    service.login = {"username": "git", "password": "wrong"}
    said = notebook.clone(server.of("lib"))
    assert "refuses the login" in said
    assert command in said
    service.login = LOGIN
    said += notebook.clone(server.of("lib"))
    assert notebook.folders == ["lib"]
    assert [one.state for one in service.told[-2:]] == [GitState.CLONING, GitState.CLONED]
    assert service.told[-1].place == "work/lib"
    secrets = (b"top-secret", base64.b64encode(b"git:top-secret"))
    left = [f.read_bytes() for f in notebook.home.rglob("*") if f.is_file()]
    told = [one.model_dump_json().encode() for one in service.told]
    assert not [text for text in (*left, *told, said.encode()) for one in secrets if one in text]


def test_a_login_that_was_used_is_wanted_again(
    notebook: Notebook, server: GitServer, lib: Work, service: Service
) -> None:
    server.login, service.login = ("git", "top-secret"), LOGIN
    server.gate.clear()
    process = notebook.begin(server.of("lib"))
    wait_until(lambda: server.asked, what="the first question")
    process.terminate()
    process.wait()
    server.gate.set()
    assert "is used once and not kept" in notebook.clone(server.of("lib"))
    assert service.told[-1].state is GitState.FAILED


def test_a_login_goes_to_no_other_host(
    notebook: Notebook, server: GitServer, lib: Work, service: Service, tmp_path: Path
) -> None:
    service.login = LOGIN
    with git_server(tmp_path / "other") as other:
        other.repository("lib", FILES)
        other.login = ("git", "top-secret")
        server.moved = {"/lib.git": other.of("lib")}
        said = notebook.clone(server.of("lib"))
        assert f"leads to {other.url}, which wants a login" in said
        assert other.logins
        assert set(other.logins) == {None}
    assert server.logins[0] is not None


def test_what_is_hidden_may_be_private(
    notebook: Notebook, server: GitServer, service: Service
) -> None:
    assert "does not show it without a login" in notebook.clone(server.of("nosuch"))
    service.login = LOGIN
    assert "to whom that login belongs" in notebook.clone(server.of("nosuch"))


def test_what_nobody_wants_any_more_is_not_cloned(
    notebook: Notebook, server: GitServer, lib: Work, service: Service
) -> None:
    service.wanted = False
    assert "not wanted any more" in notebook.clone(server.of("lib"))
    assert (notebook.folders, server.asked, notebook.notice) == ([], [], "")


def test_a_service_that_is_away_keeps_nothing_from_being_cloned(
    notebook: Notebook, server: GitServer, lib: Work
) -> None:
    notebook.environ = {"KAOS_URL": "", "KAOS_NOTEBOOK": "one", "JUPYTERHUB_API_TOKEN": "t"}
    notebook.clone(server.of("lib"))
    assert notebook.folders == ["lib"]
