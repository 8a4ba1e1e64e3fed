"""Trainings with the real worker on the local engine, over both databases."""

from pathlib import Path

from kaos_hub.database import Database
from kaos_hub.models import BundleKind
from tests.train_world import ADA, world

TRAIN = """#!/bin/sh
echo "hello $KAOS_TRIAL"
cat "$KAOS_PARAMS"
mkdir -p "$1/metrics" "$1/model"
cat "$KAOS_DATA/x.txt" > "$1/model/weights"
echo "{\\"score\\": $KAOS_TRIAL}" > "$1/metrics/metrics.json"
"""


async def test_a_whole_run(db: Database, tmp_path: Path) -> None:
    async with world(db, tmp_path) as w:
        await w.source(TRAIN)
        await w.files(BundleKind.DATA, "numbers", x_txt="1 2 3")
        await w.params({"a": [1, 2], "b": ["x", "y"]})
        asked = await w.request(
            source="code",
            data="numbers",
            params="grid",
            slots=2,
            goal={"metric": "score", "direction": "max"},
        )
        print(asked)
        done = await w.until(asked.id)
        print(done)
        for t in await w.trainings.trials(ADA, asked.id):
            print(t)
            print(await w.text(asked.id, t.number))
        assert done.state == "SUCCEEDED"
