"""What a deploy may say of a notebook reaches it, or is refused with what there is."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import pytest_asyncio
from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.cli.notebook.deploy import deploy as deploy_command
from kaos_hub.cli.notebook.options import read, variables
from kaos_hub.engines.local.engine import LocalEngine
from kaos_hub.errors import InvalidRequest, InvalidResources, KaosError, Unsupported
from kaos_hub.hub.spawners.admission import FormOptions
from kaos_hub.hub.spawners.form import ONCE, options_from_form, render_form
from kaos_hub.schemas import (
    AllowedMount,
    IdlePolicy,
    Image,
    Info,
    Limits,
    Notebook,
    NotebookRequest,
    NotebookSpec,
    Pool,
    Size,
    Usage,
    parse_request,
)
from kaos_hub.service.builds.image_catalog import Images
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import NotebookRow
from kaos_hub.service.notebooks.admission import Inside, admit
from kaos_hub.service.notebooks.mounting import Mounts
from kaos_hub.service.notebooks.records import as_model, options_of
from kaos_hub.service.notebooks.wishes import Offer, Wishes
from kaos_hub.service.quota import Ledger
from tests.posting import Form

IMAGES = [Image(name="science", description="with pandas", image="registry:5000/science:1")]
OFFERED = [AllowedMount(host_path="/data/scratch", read_only=True, on_nodes=True)]
POOLS = {"gpus": Pool(node_selector={"kind": "gpu"})}
SIZES = [Size(name="small", cpu=1, memory="1Gi"), Size(name="big", gpu=2, pool="gpus")]


@dataclass
class Desk:
    """Takes requests as the service does, and says as what the notebook would start."""

    db: Database
    engine: LocalEngine
    directory: Path
    offer: Offer

    async def ask(self, request: dict[str, Any], name: str = "one") -> NotebookSpec:
        """The specification that a request leads to, as REST takes it."""
        wish = parse_request(NotebookRequest, request)
        ledger = Ledger(self.db, {})
        wishes = Wishes(ledger, SIZES, "small", IdlePolicy(), 2, self.offer)
        inside = Inside("http://x", self.directory, POOLS)

        def write(session: Session) -> NotebookSpec:
            row, _ = wishes.apply(session, "user:ada", wish, name)
            session.add(row)
            session.flush()
            wishes.claim(session, row)
            seen = Mounts(OFFERED, here=False).find("ada", options_of(row).bind_mounts)
            return admit(session, row, ledger, {}, self.engine, inside, None, seen)

        return await self.db.run(write)

    async def shown(self, name: str = "one") -> Notebook:
        """The notebook as lists show it."""

        def look(session: Session) -> Notebook:
            row = session.scalars(select(NotebookRow).where(NotebookRow.name == name)).one()
            return as_model(session, row, "http://hub")

        return await self.db.run(look)


@pytest_asyncio.fixture
async def desk(db: Database, tmp_path: Path) -> AsyncIterator[Desk]:
    engine = LocalEngine(data_dir=str(tmp_path))
    yield Desk(db, engine, tmp_path, Offer("kubernetes", POOLS, images=Images(IMAGES)))
    await engine.close()


def typed(*words: str) -> dict[str, Any]:
    """What the command line makes of options, as it goes over the wire."""
    with deploy_command.make_context("deploy", list(words)) as context:
        assert isinstance(context, click.Context)
        request = parse_request(NotebookRequest, read(context.params).fields)
        return request.model_dump(mode="json", exclude_defaults=True)


def chosen(said: dict[str, str]) -> dict[str, Any]:
    """What the Hub asks for when the form is filled in. All other fields are sent as they stand."""
    info = Info(
        version="1", engine="kubernetes", sizes=SIZES, default_size="small", pools=list(POOLS),
        images=IMAGES, gpu=True, idle=IdlePolicy(), max_file_size=1, max_files=1,
    )  # fmt: skip
    mounts = [each.host_path for each in OFFERED]
    offered = FormOptions(info=info, limits=Limits(), usage=Usage(), mounts=mounts)
    form = Form(render_form(offered, "one"))
    found = options_from_form(form.filled(said))
    return {key: value for key, value in found.items() if key not in ONCE}


WISHES = {
    "display_name",
    "resources",
    "pool",
    "idle",
    "environment",
    "bind_mounts",
    "volumes",
    "image",
    "git",
}
"""What a notebook shows of its wish."""


@dataclass(frozen=True)
class Option:
    """The same wish in five ways."""

    words: list[str]
    pairs: list[str]
    file: str
    form: dict[str, str]
    body: dict[str, Any]


EVERY_OPTION = {
    "nothing": Option([], [], "", {}, {}),
    "gpus": Option(
        ["--gpu", "2"], ["resources.slots=2"], "resources:\n  slots: 2\n", {"gpu": "2"}, {"gpu": 2}
    ),
    "no gpu": Option(
        ["--size", "big", "--gpu", "0"], ["size=big", "resources.slots=0"],
        "size: big\nresources: {slots: 0}", {"size": "big", "gpu": "0"}, {"size": "big", "gpu": 0},
    ),
    "a pool": Option(
        ["--pool", "gpus"], ["resources.resource_pool=gpus"], "resources: {resource_pool: gpus}",
        {"pool": "gpus"}, {"pool": "gpus"},
    ),
    "a description": Option(
        ["--description", "test-notebook"], ["description=test-notebook"],
        "description: test-notebook", {"display_name": "test-notebook"},
        {"display_name": "test-notebook"},
    ),
    "when it is idle": Option(
        ["--idle-timeout", "30m"], ["idle_timeout=30m"], "idle_timeout: 30m",
        {"idle_timeout": "30m"}, {"idle_timeout": 1800},
    ),
    "what is idle": Option(
        ["--idle-type", "activity"], ["notebook_idle_type=activity"],
        "notebook_idle_type: activity", {"idle_type": "activity"}, {"idle_type": "activity"},
    ),
    "a size": Option(
        ["--size", "big"], ["size=big"], "size: big", {"size": "big"}, {"size": "big"}
    ),
    "cores": Option(["--cpu", "500m"], ["cpu=500m"], "cpu: 0.5", {"cpu": "0.5"}, {"cpu": 0.5}),
    "memory": Option(
        ["--memory", "2Gi"], ["memory=2Gi"], "memory: 2Gi", {"memory": "2Gi"}, {"memory": 2**31}
    ),
    "variables": Option(
        ["-e", "A=1", "--env", "B=x=y"], ["environment.A=1", "env.B=x=y"],
        "environment:\n  A: 1\n  B: x=y\n", {"environment": "A=1\r\nB=x=y\r\n"},
        {"environment": {"A": "1", "B": "x=y"}},
    ),
    "a folder of the machine": Option(
        ["--bind-mount", "/data/scratch:/scratch:ro"],
        ["bind_mounts=[{host_path: /data/scratch, container_path: /scratch, read_only: true}]"],
        "bind_mounts:\n  - host_path: /data//scratch/\n    container_path: /scratch\n"
        "    read_only: true\n",
        {"bind_mounts": "/data/scratch:/scratch:ro"},
        {"bind_mounts": [
            {"host_path": "/data/scratch", "container_path": "/scratch", "read_only": True}
        ]},
    ),
    "a volume": Option(
        ["--volume", "scratch:/scratch"], ["volumes=[{volume: scratch, path: /scratch}]"],
        "volumes: [{volume: scratch, path: /scratch}]", {"volumes": "scratch:/scratch"},
        {"volumes": [{"volume": "scratch", "path": "/scratch"}]},
    ),
    "an image": Option(
        ["--image", "science"], ["image=science"], "image: science",
        {"image": "science"}, {"image": "science"},
    ),
    "a repository": Option(
        ["--git", "https://host.example:8443/a/b.git@feature/x"],
        ["git=https://host.example:8443/a/b.git@feature/x"],
        "git: HTTPS://host.example:8443/a/b.git/@feature/x\n",
        {"git": "https://host.example:8443/a/b.git@feature/x"},
        {"git": "https://host.example:8443/a/b.git@feature/x"},
    ),
    "a list of variables": Option(
        ["-e", "A=1"], ["environment=[A=1]"], "environment:\n  - A=1\n", {"environment": "A=1"},
        {"environment": {"A": "1"}},
    ),
}  # fmt: skip
"""What seeds 002 and 003 let a user choose, and what else a deploy may say."""


@pytest.mark.parametrize("option", EVERY_OPTION.values(), ids=EVERY_OPTION)
async def test_every_way_to_say_it_leads_to_the_same_notebook(
    desk: Desk, tmp_path: Path, option: Option
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(option.file)
    pairs = [word for pair in option.pairs for word in ("--config", pair)]
    ways = {
        "rest": option.body,
        "words": typed(*option.words),
        "pairs": typed(*pairs),
        "file": typed("--config-file", str(file)),
        "form": chosen(option.form),
    }
    seen = []
    for name, request in ways.items():
        spec = await desk.ask(request, name)
        shown = await desk.shown(name)
        own = {f"KAOS_{what}": "" for what in ("NOTEBOOK", "PACKAGES")}
        apart = spec.model_copy(
            update={
                "notebook": "", "workload": "", "labels": {}, "environment": spec.environment | own,
                "mounts": [
                    m if m.host else m.model_copy(update={"source": ""}) for m in spec.mounts
                ],
            }
        )  # fmt: skip
        wish = shown.model_dump(include=WISHES)
        seen.append((apart, wish))
    assert all(each == seen[0] for each in seen)
    if option.body:
        plain = await desk.ask({}, "plain")
        before = (await desk.shown("plain")).model_dump(include=set(seen[0][1]))
        changed = plain.environment.keys() != spec.environment.keys() or before != seen[0][1]
        assert changed, "it says nothing"


async def test_variables_reach_the_notebook_and_are_shown_by_name_only(desk: Desk) -> None:
    spec = await desk.ask(typed("-e", "COLOUR=blue green", "-e", "KEY=s3cret"))
    assert (spec.environment["COLOUR"], spec.environment["KEY"]) == ("blue green", "s3cret")
    shown = await desk.shown()
    assert shown.environment == ["COLOUR", "KEY"]
    assert "s3cret" not in shown.model_dump_json()


async def test_variables_stay_until_they_are_taken_away(desk: Desk) -> None:
    await desk.ask({"environment": {"ONE": "1", "TWO": "2"}})
    spec = await desk.ask({"environment": {"TWO": "", "THREE": "3"}})
    assert {k: v for k, v in spec.environment.items() if k in ("ONE", "TWO", "THREE")} == {
        "ONE": "1",
        "THREE": "3",
    }


async def test_what_we_say_of_a_notebook_stays_true(desk: Desk) -> None:
    """Not even by a name that slipped through could a user change whom the notebook reports to."""
    spec = await desk.ask({})
    for name in spec.environment:
        with pytest.raises(InvalidRequest, match=name):
            await desk.ask({"environment": {name: "mine"}})


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "HOME", "LD_PRELOAD", "PYTHONHOME", "JUPYTERHUB_API_TOKEN", "KAOS_URL", "JPY_X"),
        *("1A", "A-B", "", "A B", "A\n", "kaos_url", "jupyterhub_user"),
    ],
)
async def test_variables_that_would_break_the_server_are_refused(desk: Desk, name: str) -> None:
    with pytest.raises(InvalidRequest, match="environment") as refused:
        await desk.ask({"environment": {name: "top-secret"}})
    assert "top-secret" not in refused.value.message


@pytest.mark.parametrize("value", ["a\0b", "x" * 40_000, {"deep": "top-secret"}, None])
async def test_values_that_no_variable_can_have_are_refused(desk: Desk, value: object) -> None:
    with pytest.raises(InvalidRequest, match="environment") as refused:
        await desk.ask({"environment": {"A": value}})
    assert "top-secret" not in refused.value.message


def test_a_variable_may_come_from_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a secret need not stand on a command line."""
    monkeypatch.setenv("MY_KEY", "a=b")
    assert variables(["MY_KEY", "B=", "C=x=y"]) == {"MY_KEY": "a=b", "B": "", "C": "x=y"}
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(InvalidRequest, match="-e MY_KEY=VALUE"):
        variables(["MY_KEY"])


async def test_a_description_is_shown(desk: Desk) -> None:
    await desk.ask(typed("--description", "weights, third try"))
    assert (await desk.shown()).display_name == "weights, third try"


async def test_a_pool_is_chosen_and_left(desk: Desk) -> None:
    assert (await desk.ask(typed("--pool", "gpus"))).pool == POOLS["gpus"]
    assert (await desk.shown()).pool == "gpus"
    assert (await desk.ask({})).pool == POOLS["gpus"], "what is not given stays"
    assert (await desk.ask(typed("--pool", "-"))).pool is None
    with pytest.raises(InvalidResources, match="offered: gpus"):
        await desk.ask(typed("--pool", "gpu"))


@pytest.mark.parametrize("engine", ["local", "docker"])
async def test_without_nodes_there_are_no_pools(desk: Desk, engine: str) -> None:
    desk.offer = Offer(engine, POOLS)
    with pytest.raises(Unsupported, match=engine):
        await desk.ask({"pool": "gpus"})


async def test_no_gpu_may_be_asked_for_where_the_size_has_some(desk: Desk) -> None:
    assert (await desk.ask({"size": "big"})).resources.gpu == 2
    assert (await desk.ask(typed("--gpu", "0"))).resources.gpu == 0
    assert (await desk.ask(typed("--size", "big", "--gpu", "0"), "two")).resources.gpu == 0


def test_what_is_wrong_is_an_error_of_ours() -> None:
    with pytest.raises(KaosError, match="cannot name a variable"):
        typed("-e", "=x")
