"""Requests that the schemas allow, and that they do not, against both services (schemathesis).

    python -m tests.attacks.fuzz_rest [--seconds 300] [--slow 1] [--seed N]

Starts a hub of its own and asks it as two users at once, who have things and trouble each other.
Ends with 1 if there was an inner error, an answer in place of the service's, one that is not
described, or one that took longer than a second and is no stream (on a machine that has more to do
than it has cores for: as much longer). The seed is printed: with the same one the same requests are
made.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed as seeded, settings

from kaos_hub.client import Client
from tests.attacks.fuzz_hooks import allowed
from tests.hub import ROOT, RunningHub, running_hub

CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance")
SEED = 127826409104717595553404381169542392911
SERVICES, USERS = ("kaos", "kaos-train"), ("carol", "dave")
STREAMS = "events$|log$|metrics$"
"""Paths whose answers may last as long as somebody listens: they are asked apart."""
CONFIG = """
c.KaosService.request_rate = 0
"""
_PER_STREAM = 20
"""Requests for each stream."""


def furnish(hub: RunningHub, user: str) -> dict[str, list[str]]:
    """Give a user bundles, a notebook and a training; returns what there is by kind of name."""
    kaos = Client(hub.url, hub.token(user))
    folder = hub.directory / "fuzz" / user
    files = {
        "proj/Dockerfile": "FROM python:3.11-slim\nCOPY model /app\n",
        "proj/model/train": "#!/usr/bin/env python\nprint(1)\n",
        "numbers/a/b.csv": "x,y\n1,2\n",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "proj/model/train").chmod(0o755)
    kaos.bundles.submit(folder / "proj", "source")
    kaos.bundles.submit(folder / "numbers", "data")
    token = hub.token(user)
    assert hub.ask("POST", "/notebooks", token, {"name": "proj"}).status == 202
    made = hub.ask_train("POST", "/trainings", token, {"source": "proj"})
    assert made.status < 300, made.text
    ids = [made.json["id"]] if "id" in made.json else [made.json["training"]["id"]]
    return {"name": ["proj", "numbers"], "version": ["1"], "number": ["1"], "id": ids}


def fuzz(
    hub: RunningHub, service: str, user: str, there: dict[str, list[str]], seconds: float,
    seed: int, slow: float,
) -> str:  # fmt: skip
    """Ask one service as one user; what was wrong, and nothing if all was right.

    Args:
        hub: with both services.
        service: ``kaos`` or ``kaos-train``.
        user: who asks.
        there: what there is by name of path parameter.
        seconds: how long.
        seed: makes the same requests again.
        slow: seconds that an answer may take on an idle machine.
    """
    base = f"{hub.url}/services/{service}/api/v1"
    told = {
        "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.attacks.fuzz_hooks",
        "KAOS_FUZZ_SLOW": f"{slow:g}", "KAOS_FUZZ_NAMES": json.dumps(there),
    }  # fmt: skip
    ran = subprocess.run(
        [
            Path(sys.executable).parent / "schemathesis", "run", f"{base}/openapi.json",
            "--url", base, "--header", f"Authorization: token {hub.token(user)}",
            "--checks", ",".join((*CHECKS, "answers_soon")), "--request-timeout", "60",
            "--seed", str(seed), "--max-time", f"{seconds:g}",
            "--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--no-shrink",
            "--exclude-path-regex", STREAMS, "--suppress-health-check", "all", "--no-color",
        ],
        capture_output=True, text=True, cwd=hub.directory, timeout=seconds + 240,
        env=os.environ | told,
    )  # fmt: skip
    said = ran.stdout[ran.stdout.find("= FAILURES") :] if "= FAILURES" in ran.stdout else ran.stdout
    if ran.returncode == 0 and " passed" in ran.stdout:
        return ""
    return said[-40_000:] + ran.stderr[-2000:]


def fuzz_streams(
    hub: RunningHub, service: str, user: str, there: dict[str, list[str]], seed: int, slow: float
) -> list[str]:
    """Begin streams of one service as one user; what was wrong. Arguments as of :func:`fuzz`."""
    base = f"{hub.url}/services/{service}/api/v1"
    head = {"Authorization": f"token {hub.token(user)}"}
    schema = schemathesis.openapi.from_url(f"{base}/openapi.json")
    wrong: list[str] = []
    for found in schema.include(path_regex=STREAMS).get_all_operations():

        @seeded(seed)
        @settings(
            max_examples=_PER_STREAM, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=found.ok().as_strategy())
        def ask(case: Any) -> None:
            for name in case.path_parameters or {}:
                case.path_parameters[name] = there.get(name, ["1"])[0]
            asked = case.as_transport_kwargs(base_url=base, headers=head)
            began, status = time.monotonic(), 0
            with (
                contextlib.suppress(requests.Timeout),
                requests.request(**asked, stream=True, timeout=30) as answer,
            ):
                status = answer.status_code
            took = time.monotonic() - began
            if not status or status >= 500 or took > allowed(slow):
                wrong.append(f"{case.as_curl_command()}: {status}, {took:.2f} s")

        ask()
    return wrong


def all_of_it(hub: RunningHub, seconds: float, seed: int, slow: float) -> str:
    """Ask both services as two users at once; what was wrong, and nothing if all was right."""
    there = {user: furnish(hub, user) for user in USERS}
    problems = []
    with ThreadPoolExecutor(len(USERS)) as pool:
        for service in SERVICES:
            asked = {
                user: pool.submit(
                    fuzz, hub, service, user, there[user], seconds / len(SERVICES), seed, slow
                )
                for user in USERS
            }
            problems += [f"{service} as {user}: {a.result()}" for user, a in asked.items()
                         if a.result()]  # fmt: skip
            problems += fuzz_streams(hub, service, USERS[0], there[USERS[0]], seed, slow)
    if "Incident" in hub.log.read_text():
        problems.append(hub.tail(200))
    return "\n".join(problems)


def main() -> int:
    """Both services, as two users."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300, help="for all of it")
    parser.add_argument("--slow", type=float, default=1.0, help="seconds of the longest answer")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory() as directory,
        running_hub(Path(directory) / "hub", config=CONFIG) as hub,
    ):
        problems = all_of_it(hub, given.seconds, given.seed, given.slow)
    print(problems or "nothing wrong")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
