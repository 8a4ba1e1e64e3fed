"""Pools: a size names one, the notebook's specification says what that means."""

from pathlib import Path

from sqlalchemy.orm import Session

from kaos_hub.engines.local.engine import LocalEngine
from kaos_hub.schemas import IdlePolicy, NotebookRequest, NotebookSpec, NotebookState, Pool, Size
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import NotebookRow
from kaos_hub.service.notebooks.admission import Inside, admit, release
from kaos_hub.service.notebooks.wishes import Wishes
from kaos_hub.service.quota import Ledger

GPUS = Pool(node_selector={"kind": "gpu"}, gpu_resource="amd.com/gpu")


async def test_a_size_brings_its_pool(db: Database, tmp_path: Path) -> None:
    ledger = Ledger(db, {})
    sizes = [Size(name="small", cpu=1, memory="1Gi"), Size(name="gpu", gpu=1, pool="gpus")]
    wishes = Wishes(ledger, sizes, "small", IdlePolicy(), gpus=1)
    engine = LocalEngine(data_dir=str(tmp_path))
    inside = Inside("http://x", tmp_path, {"gpus": GPUS})

    def deploy(session: Session, size: str | None) -> tuple[NotebookRow, NotebookSpec]:
        row, _ = wishes.apply(session, "user:ada", NotebookRequest(size=size), "one")
        session.add(row)
        session.flush()
        return row, admit(session, row, ledger, {}, engine, inside)

    row, spec = await db.run(lambda session: deploy(session, None))
    assert spec.pool is None
    row, spec = await db.run(lambda session: deploy(session, "gpu"))
    assert spec.pool == GPUS
    assert (row.pool, row.held_pool) == ("gpus", "gpus")
    row, spec = await db.run(lambda session: deploy(session, None))
    assert spec.pool == GPUS, "what is not given stays"

    def end(session: Session) -> NotebookRow:
        row = session.get_one(NotebookRow, id_of_one)
        release(session, row, NotebookState.STOPPED, "")
        return row

    id_of_one = row.id
    assert (await db.run(end)).held_pool is None
    await engine.close()
