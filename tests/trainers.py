"""A bundle that trains and keeps strictly to the ancestor's contract: nothing of ours in it."""

import json
from pathlib import Path

TRAIN = """\
#!/usr/bin/env python3
import json, os, sys, time

name, = os.listdir("/pfs/data")
rows = sum(1 for f in ("one.csv", "two.csv") for _ in open(f"/pfs/data/{name}/training/{f}"))
params = json.load(open("params.json"))
for folder, _, files in os.walk("/pfs/hyper"):
    for file in files:
        if file.endswith(".json"):
            params.update(json.load(open(os.path.join(folder, file))))
print("params", json.dumps(params, sort_keys=True), flush=True)
time.sleep(params["sleep"])
assert not os.path.exists(sys.argv[1])
os.makedirs(os.path.join(sys.argv[1], "model"))
os.makedirs(os.path.join(sys.argv[1], "metrics"))
with open(os.path.join(sys.argv[1], "model", "model.txt"), "w") as model:
    model.write(f"{rows} {params['degree']}")
with open(os.path.join(sys.argv[1], "metrics", "metrics.json"), "w") as metrics:
    json.dump({"score": rows * params["degree"], "said": "0.5"}, metrics)
"""
GRID = {"degree": [1, 2, 3, 4], "sleep": [1]}


def make_source(folder: Path) -> Path:
    """The source bundle, two folders deep as the ancestor's templates."""
    model = folder / "mnist" / "model"
    model.mkdir(parents=True)
    (folder / "mnist" / "Dockerfile").write_text(
        "FROM python:3.13-slim\nWORKDIR /opt/program\nCOPY . .\nRUN chmod +x train\n"
    )
    (model / "__init__.py").write_text("")
    (model / "params.json").write_text(json.dumps({"degree": 7, "sleep": 0}))
    (model / "train").write_text(TRAIN)
    return folder


def make_data(folder: Path) -> Path:
    """The data bundle: five rows in two files."""
    training = folder / "features" / "training"
    training.mkdir(parents=True)
    (training / "one.csv").write_text("1\n2\n3\n")
    (training / "two.csv").write_text("4\n5\n")
    return folder


def make_params(file: Path) -> Path:
    """Hyperparameters: four trials of a second each."""
    file.write_text(json.dumps(GRID))
    return file
