"""What an engine is asked to do, as the database keeps it."""

import json

import pytest

from kaos_hub.engines.base import Build, Materialise, Run, Work, from_json, to_json
from kaos_hub.models import JobKind, Mount, Pool

DIGEST = f"blake3:{1:064x}"
WORKER = Run(
    (),
    image="i@sha256:1",
    environment={"KAOS_DATA": "/kaos/data"},
    mounts=(
        Mount(source="data/x", target="/kaos/data", digest=DIGEST),
        Mount(source="trees/1", target="/pfs/data/digits", volume="kaos-trees"),
    ),
    module="kaos_hub.inside.trials",
    scratch=("/kaos", "/pfs"),
    storage=5 << 30,
    ticket=True,
    pool=Pool(node_selector={"gpu": "a100"}, tolerations=[{"key": "gpu", "operator": "Exists"}]),
)


@pytest.mark.parametrize(
    ("kind", "work"),
    [
        (JobKind.BUILD, Build(DIGEST, "key", "tag", bases={"a": "b"})),
        (JobKind.MATERIALISE, Materialise(DIGEST, "file:///store")),
        (JobKind.TRAIN, WORKER),
        (JobKind.INGEST, Run(("sh", "-c", "true"), workdir="/opt/program")),
    ],
)
def test_work_survives_the_database(kind: JobKind, work: Work) -> None:
    assert from_json(kind, json.loads(json.dumps(to_json(work)))) == work
