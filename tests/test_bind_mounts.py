"""Folders of the machine in notebooks: what the admin offers, and nothing by a trick."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaos_hub.client import Client
from kaos_hub.engines.local import sandbox
from kaos_hub.errors import Forbidden, InvalidRequest, KaosError, NotFound
from kaos_hub.schemas import AllowedMount, BindMount, Mount, NotebookRequest, parse_request
from kaos_hub.service.db.tables import NotebookRow, now
from kaos_hub.service.notebooks.mounting import Mounts, told
from kaos_hub.workload.notebook.start import lay_links
from tests.engines import ENGINES
from tests.hub import RunningHub, running_hub
from tests.kernels import Kernel

NOTEBOOKS = 54_321
"""As whom notebooks run in these tests."""


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """What an admin has: homes of two users, each their own; data that nobody may change."""
    top = tmp_path / "shared"
    for path in ("home/ada/project", "home/bob/secret", "data/digits"):
        (top / path).mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    if os.geteuid() == 0:
        for user in ("ada", "bob"):
            for path in [top / "home" / user, *(top / "home" / user).iterdir()]:
                os.chown(path, NOTEBOOKS, NOTEBOOKS)
    return top


def mounts(shared: Path, uid: int | None = None, hidden: Path | None = None) -> Mounts:
    offers = [
        AllowedMount(host_path=f"{shared}/home/{{username}}"),
        AllowedMount(host_path=f"{shared}/data", read_only=True),
    ]
    return Mounts(offers, hidden, True, uid)


def find(found: Mounts, path: object, read_only: bool = False, user: str = "ada") -> Mount:
    wanted = BindMount(host_path=str(path), container_path="/mnt/x", read_only=read_only)
    return found.find(user, [wanted])[-1]


def test_what_is_offered_is_mounted_as_it_is(shared: Path) -> None:
    mount = find(mounts(shared), shared / "home/ada")
    assert (mount.source, mount.target) == (str(shared / "home/ada"), "/mnt/x")
    assert (mount.read_only, mount.host) == (False, True)
    assert find(mounts(shared), shared / "home/ada/project").source.endswith("/ada/project")
    assert find(mounts(shared), shared / "data/digits", read_only=True).read_only


@pytest.mark.parametrize("path", ["home/bob", "home", "", "home/bobby", "../etc", "home/adam"])
def test_nothing_else_is(shared: Path, path: str) -> None:
    with pytest.raises(KaosError) as refused:
        find(mounts(shared), shared / path)
    assert isinstance(refused.value, Forbidden | InvalidRequest)


def test_what_is_for_reading_is_not_written_to(shared: Path) -> None:
    with pytest.raises(Forbidden, match="mount it read-only"):
        find(mounts(shared), shared / "data")


def test_links_count_for_what_they_lead_to(shared: Path) -> None:
    (shared / "home/ada/way-out").symlink_to(shared.parent / "etc")
    (shared / "home/ada/to-bob").symlink_to("../bob/secret")
    (shared / "home/ada/loop").symlink_to("loop")
    (shared / "home/ada/own").symlink_to("project")
    for name in ("way-out", "to-bob"):
        with pytest.raises(Forbidden, match="Links count"):
            find(mounts(shared), shared / "home/ada" / name)
    with pytest.raises(KaosError):
        find(mounts(shared), shared / "home/ada/loop")
    assert find(mounts(shared), shared / "home/ada/own").source == str(shared / "home/ada/project")


def test_what_is_not_there_is_told_of_what_is_offered_only(shared: Path) -> None:
    with pytest.raises(NotFound):
        find(mounts(shared), shared / "home/ada/absent")
    with pytest.raises(Forbidden):
        find(mounts(shared), shared / "home/bob/absent")
    for there in ("../bob/secret", "../bob/absent"):
        (shared / "home/ada/peep").unlink(missing_ok=True)
        (shared / "home/ada/peep").symlink_to(there)
        with pytest.raises(Forbidden):
            find(mounts(shared), shared / "home/ada/peep")
    (shared / "home/bob/file").write_text("x")
    with pytest.raises(Forbidden):
        find(mounts(shared), shared / "home/bob/file")
    (shared / "home/ada/file").write_text("x")
    with pytest.raises(InvalidRequest, match="no folder"):
        find(mounts(shared), shared / "home/ada/file")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs folders of another user")
def test_a_way_that_notebooks_could_bend_is_not_taken(shared: Path) -> None:
    """Between our look and the mount a notebook could put a link in the place of a folder."""
    confined = mounts(shared, uid=NOTEBOOKS)
    with pytest.raises(Forbidden, match="Mount that instead"):
        find(confined, shared / "home/ada/project")
    assert find(confined, shared / "home/ada").source == str(shared / "home/ada")
    assert find(confined, shared / "data/digits", read_only=True)
    # nor may one offer be led elsewhere by who writes to another
    (shared / "home/ada/inner").mkdir()
    nested = Mounts(
        [*confined.allowed, AllowedMount(host_path=f"{shared}/home/ada/inner")],
        None,
        True,
        NOTEBOOKS,
    )
    with pytest.raises(Forbidden, match="Mount that instead"):
        find(nested, shared / "home/ada/inner", user="bob")


def test_the_hubs_own_directory_stays_hidden(shared: Path) -> None:
    for hidden in (shared / "home/ada/kaos", shared / "home"):
        hidden.mkdir(exist_ok=True)
        with pytest.raises(Forbidden, match="secrets"):
            find(mounts(shared, hidden=hidden), shared / "home/ada")


def test_a_user_whose_name_is_no_folders_gets_nothing(shared: Path) -> None:
    for user in ("..", ".", "ada/../bob", ""):
        with pytest.raises(Forbidden):
            find(mounts(shared), shared / "home/bob", user=user)
        with pytest.raises(Forbidden):
            find(mounts(shared), shared / "home", user=user)


def test_every_notebook_gets_what_the_admin_says(shared: Path) -> None:
    offers = [AllowedMount(host_path=f"{shared}/home/{{username}}", container_path="/shared")]
    found = Mounts(offers).find("ada", [])
    assert [(m.source, m.target) for m in found] == [(f"{shared}/home/ada", "/shared")]
    own = BindMount(host_path=f"{shared}/home/ada/project", container_path="/shared")
    assert [m.source for m in Mounts(offers).find("ada", [own])] == [f"{shared}/home/ada/project"]
    with pytest.raises(NotFound):
        Mounts(offers).find("eve", [])


def test_folders_of_nodes_are_mounted_just_as_they_are_offered() -> None:
    offers = [
        AllowedMount(host_path="/nfs/{username}", on_nodes=True),
        AllowedMount(host_path="/data"),
    ]
    nodes = Mounts(offers, here=False)
    assert find(nodes, "/nfs/ada").source == "/nfs/ada"
    for path in ("/nfs/ada/below", "/nfs", "/nfs/bob", "/data", "/"):
        with pytest.raises(Forbidden, match="--volume"):
            find(nodes, path)


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/kaos", "/kaos/data", "/kaos/source/x", "/opt/kaos", "/opt", "/opt/program"),
        *("/home", "/home/kaos", "/home/kaos/work", "/proc", "/proc/1", "/sys", "/dev/shm", "/tmp"),
        *("/etc", "/usr/lib", "relative", "", "/a/../kaos", "/mnt/../..", "//kaos", "/./kaos/"),
        *("/a\0b", "/a\nb"),
    ],
)
def test_places_that_would_hide_ours_are_refused(path: str) -> None:
    body = {"bind_mounts": [{"host_path": "/data", "container_path": path}]}
    with pytest.raises(InvalidRequest):
        parse_request(NotebookRequest, body)


@pytest.mark.parametrize(
    "path", ["/scratch", "/shared/home/jimmy", "/mnt/x", "/home/ada", "/kaosx"]
)
def test_other_places_are_fine(path: str) -> None:
    body = {"bind_mounts": [{"host_path": "/data", "container_path": path}]}
    assert parse_request(NotebookRequest, body).bind_mounts


def test_two_mounts_need_two_places() -> None:
    both = [{"host_path": f"/{name}", "container_path": "/x"} for name in "ab"]
    with pytest.raises(InvalidRequest, match="two things"):
        parse_request(NotebookRequest, {"bind_mounts": both})


async def test_a_file_server_that_hangs_holds_up_nobody(shared: Path) -> None:
    row = NotebookRow(id="x", owner="user:ada", name="x", created=now(), options={})
    assert await mounts(shared).of(row) == []


def test_links_in_the_home_lead_there_and_follow_what_is_mounted(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    both = [Mount(source="/a", target="/x/data"), Mount(source="/b", target="/y/data")]
    lay_links(home, told(both))
    assert (home / "mounts/data").readlink() == Path("/x/data")
    assert (home / "mounts/data-2").readlink() == Path("/y/data")
    (home / "mounts/mine.txt").write_text("kept")
    lay_links(home, told(both[:1]))
    assert sorted(p.name for p in (home / "mounts").iterdir()) == ["data", "mine.txt"]
    lay_links(home, {})
    assert sorted(p.name for p in (home / "mounts").iterdir()) == ["mine.txt"]
    (home / "mounts/mine.txt").unlink()
    lay_links(home, {})
    assert not (home / "mounts").exists()


# --- on a Hub ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=ENGINES)
def hub(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningHub]:
    directory = tmp_path_factory.mktemp(f"mounts-{request.param}")
    for name in ("home", "given"):
        (directory / name).mkdir(mode=0o777)
        (directory / name).chmod(0o777)
    (directory / "given" / "x.csv").write_text("1,2\n")
    config = f"""
c.KaosService.bind_mounts = [
    {{"host_path": "{directory}/home", "container_path": "/shared"}},
    {{"host_path": "{directory}/given", "read_only": True}},
]
"""
    with running_hub(directory, engine=request.param, config=config) as running:
        yield running


def test_work_in_a_mounted_folder_outlives_the_notebook(hub: RunningHub) -> None:
    """The story of seed 003: one notebook saves, it is deleted, another goes on."""
    directory = hub.data.parent
    token = hub.token("jimmy")
    kaos = Client(hub.url, token)
    scratch = BindMount(host_path=f"{directory}/given", container_path="/scratch", read_only=True)
    first = kaos.notebooks.deploy(name="first", bind_mounts=[scratch]).wait()
    kernel = Kernel(first.url, token)
    kernel.run("import os; mounts = os.environ['KAOS_HOME'] + '/mounts'")
    kernel.run("p = open(mounts + '/shared/notes.txt', 'w').write('saved')")
    assert kernel.run("open(mounts + '/scratch/x.csv').read()") == "'1,2\\n'"
    if hub.engine != "local" or sandbox.available():
        assert kernel.run("open('/scratch/x.csv').read()") == "'1,2\\n'"
        with pytest.raises(AssertionError, match=r"Read-only|Permission"):
            kernel.run("open('/scratch/x.csv', 'w')")
    assert (directory / "home" / "notes.txt").read_text() == "saved"
    kaos.notebooks.delete("first")
    second = kaos.notebooks.deploy(name="second").wait()
    assert (
        Kernel(second.url, token).run(
            "import os; open(os.environ['KAOS_HOME'] + '/mounts/shared/notes.txt').read()"
        )
        == "'saved'"
    )
    with pytest.raises(Forbidden, match="offered"):
        other = BindMount(host_path="/", container_path="/host")
        kaos.notebooks.deploy(name="second", bind_mounts=[other])
    kaos.notebooks.delete("second")
