"""What an engine is asked to do, as the database keeps it, and what is needed for that."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kaos_hub.engines import runtime_image
from kaos_hub.engines.base import Build, Materialise, Run, Work, from_json, to_json
from kaos_hub.schemas import JobKind, Mount, Pool

DIGEST = f"blake3:{1:064x}"
WORKER = Run(
    (),
    image="i@sha256:1",
    environment={"KAOS_DATA": "/kaos/data"},
    mounts=(
        Mount(source="data/x", target="/kaos/data", digest=DIGEST),
        Mount(source="trees/1", target="/pfs/data/digits", volume="kaos-trees"),
    ),
    module="kaos_hub.workload.trial.trials",
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


IMPORT = """
import importlib, pathlib, sys
sys.path.insert(0, sys.argv[1])
here = pathlib.Path(sys.argv[1])
programs = sorted((here / "kaos_hub" / "workload").rglob("*.py"))
assert len(programs) > 50, programs
for path in programs:
    # That one is run by the user's Python, alone.
    if path.stem not in ("__init__", "launch"):
        importlib.import_module(".".join(path.relative_to(here).with_suffix("").parts))
# An installation to work on finds what is missing there in the checkout.
elsewhere = [name for name, module in sys.modules.items() if name.partition(".")[0] == "kaos_hub"
             and not module.__file__.startswith(sys.argv[1])]
assert not elsewhere, elsewhere
"""


def test_the_runtime_holds_all_that_our_programs_import(tmp_path: Path) -> None:
    for name, content in runtime_image.current().files:
        if name.startswith("package/"):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    command = [sys.executable, "-c", IMPORT, str(tmp_path / "package")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
