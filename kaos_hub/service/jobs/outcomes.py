"""Reports on jobs: how far they are, and why they ended as they did."""

import asyncio
import re
from collections.abc import Callable

from kaos_hub.engines.base import Cause, Observation, Phase
from kaos_hub.schemas import JobKind
from kaos_hub.service.db.tables import JobRow
from kaos_hub.service.jobs.logs import LogStore

Explain = Callable[[JobRow, list[str]], str]
"""Makes a person's words of a failed build, from its row and log. Blocks."""

ATTEMPTS = 3
"""Number of times a job is tried when the infrastructure, not the user's work, fails."""

TRIES = 6
"""Unforeseen failures to drive a job, within about a minute, after which it is given up."""

_STEP = re.compile(rb"(?:\[(\d+)/(\d+)\] )?S(?:tep|TEP) (\d+)/(\d+) ?:")
_ERROR = "error: "
"""Prefix of the last message of a program of ours that fails."""


async def why(row: JobRow, seen: Observation, logs: LogStore, explain: Explain) -> str:
    """Explain to people why a job failed."""
    if seen.cause is Cause.DEADLINE:
        return f"took longer than the {row.deadline} s allowed, and was ended"
    if seen.cause is Cause.OUT_OF_MEMORY:
        return "ran out of memory; ask for more, or need less"
    lost, times = seen.phase in (Phase.LOST, Phase.ABSENT), f" {ATTEMPTS} times"
    if row.kind == JobKind.TRAIN:
        times = ""
    if lost:
        return f"was lost{times}: {seen.message or 'the machine or engine went away'}"
    if seen.cause.infrastructure:
        return f"failed{times}: {seen.message}"
    if seen.cause in (Cause.STORAGE, Cause.CONFIGURATION):
        return seen.message
    if row.kind == JobKind.BUILD:
        return await asyncio.to_thread(explain, row, await logs.lines(row.id))
    said = [line for line in await logs.lines(row.id) if line.startswith(_ERROR)]
    if said and row.kind in (JobKind.INGEST, JobKind.TRAIN):
        return said[-1].removeprefix(_ERROR)
    return seen.message or f"ended with exit code {seen.exit_code}"


def unforeseen(error: Exception) -> str:
    """The reason of what could not be driven on, for people."""
    return (
        f"something went wrong in the service, {TRIES} times in a row ({type(error).__name__});"
        " its log has more. Try again, and tell the admin if that does not help."
    )


def progress(piece: bytes) -> int | None:
    """Per cent, from "[1/2] STEP 3/4" or "Step 3/4" in what a job has just said."""
    steps = _STEP.findall(piece)
    if not steps:
        return None
    stage, stages, step, last = steps[-1]
    done = (int(step) - 1) / max(int(last), 1)
    return min(99, int(100 * (int(stage or 1) - 1 + done) / max(int(stages or 1), 1)))
