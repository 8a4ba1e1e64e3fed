"""Workloads as containers: their parameters, and what a container's state says of them."""

import contextlib
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kaos_hub.engines.base import Cause, JobSpec, Observation, Phase, Run
from kaos_hub.engines.runtime_image import ROOT as RUNTIME
from kaos_hub.errors import EngineUnavailable
from kaos_hub.schemas import Mount

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.types import LogConfig

LABEL = "kaos_hub.workload"
OWNER = "kaos_hub.owner"
DEADLINE = "kaos_hub.deadline"

_RUN = f"{RUNTIME}/bin/kaos-run"
_NEVER = "0001-01-01"
_KILLED = 128 + 9
_HEARSAY = 1.0
"""Seconds after a container's end within which the Engine hears that it was for want of memory."""


def parameters(spec: JobSpec, work: Run, seen: Iterable[Mount]) -> dict[str, Any]:
    """Arguments of ``client.containers.create`` that depend on what is to be done."""
    from docker.types import DeviceRequest

    resources = spec.resources
    gpus = DeviceRequest(count=resources.gpu, capabilities=[["gpu"]])
    ours = [_RUN, work.module] if work.module else []
    argv = [*ours, *work.command]
    return {
        "image": work.image,
        "name": spec.name,
        # As entrypoint, so that the image's own has no say.
        "entrypoint": argv[:1],
        "command": argv[1:],
        "environment": work.environment,
        "working_dir": work.workdir,
        "mounts": [_mount(mount) for mount in seen],
        "labels": {LABEL: spec.name, OWNER: spec.owner, DEADLINE: str(spec.deadline)},
        "init": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": resources.memory,
        # Equal to the memory: no swap beyond it.
        "memswap_limit": resources.memory,
        "nano_cpus": int(resources.cpu * 1e9) if resources.cpu else None,
        "device_requests": [gpus] if resources.gpu else None,
    }


def _mount(mount: Mount) -> dict[str, Any]:
    from docker.types import Mount as DockerMount

    if mount.source.startswith("/"):
        return DockerMount(mount.target, mount.source, "bind", mount.read_only)
    # Nothing of the image's is copied into a volume.
    return DockerMount(mount.target, mount.source, "volume", mount.read_only, no_copy=True)


def log_config(limit: int) -> "LogConfig":
    """Configure how the Engine keeps a container's output, of which ``limit`` bytes are read.

    As files, so that they can be read again from the start; the reader stops at the limit long
    before the first file is dropped.
    """
    from docker.types import LogConfig

    return LogConfig(type="json-file", config={"max-size": str(2 * limit), "max-file": "3"})


def observation(found: dict[str, Any]) -> Observation:
    """Turn what the Engine tells of a container into the observation of a workload."""
    state = found["State"]
    started, finished = _time(state.get("StartedAt")), _time(state.get("FinishedAt"))
    status, code = state["Status"], int(state.get("ExitCode") or 0)
    if status == "created":
        # One that could not be started stays so, with a code and an error.
        if code or state.get("Error"):
            message = _short(state.get("Error", ""))
            return Observation(Phase.FAILED, Cause.ERROR, message, code, started, finished)
        return Observation(Phase.PENDING)
    if status not in ("exited", "dead", "removing"):
        return Observation(Phase.RUNNING, started=started)
    if state.get("OOMKilled"):
        message = "it used more memory than it may"
        return Observation(Phase.FAILED, Cause.OUT_OF_MEMORY, message, code, started, finished)
    if code == 0:
        return Observation(Phase.SUCCEEDED, exit_code=0, started=started, finished=finished)
    message = f"exit code {code}"
    if code == _KILLED:
        message = "killed (SIGKILL), not by kaos_hub"
    return Observation(Phase.FAILED, Cause.ERROR, message, code, started, finished)


def overdue(found: dict[str, Any], now: datetime) -> float | None:
    """Seconds since its deadline (negative: until then); None if it has none or does not run."""
    deadline = int((found["Config"].get("Labels") or {}).get(DEADLINE) or 0)
    started = _time(found["State"].get("StartedAt"))
    if not deadline or started is None or found["State"]["Status"] != "running":
        return None
    return (now - started).total_seconds() - deadline


def deadline(found: dict[str, Any]) -> int:
    """The deadline of a container, in seconds."""
    return int((found["Config"].get("Labels") or {}).get(DEADLINE) or 0)


def _time(text: str | None) -> datetime | None:
    if not text or text.startswith(_NEVER):
        return None
    # Nanoseconds are more than a datetime holds.
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))


def _short(error: str) -> str:
    """The part for people of a message of several programs, each telling of the next."""
    match = re.search(r'exec: "?(.+?)"?: (.+?)(?:: unknown)?$', error)
    if match:
        return f"cannot start {match[1]}: {match[2]}"
    return error or "it could not be started"


def killed(found: dict[str, Any]) -> bool:
    """Return whether a container ended by SIGKILL and its state does not say why."""
    state = found["State"]
    ended = state["Status"] in ("exited", "dead")
    return ended and state.get("ExitCode") == _KILLED and not state.get("OOMKilled")


# --- what is asked of the Engine; these block ---


def out_of_memory(client: "DockerClient", found: dict[str, Any]) -> bool:
    """Return whether the kernel killed a process of an ended container for want of memory.

    The Engine hears of that and of the end in two ways. Whenever the end comes first, its state
    never tells of the kill, but the Engine's events do, a moment later.
    """
    ended = (_time(found["State"].get("FinishedAt")) or datetime.now(UTC)).timestamp()
    started = (_time(found["State"].get("StartedAt")) or datetime.now(UTC)).timestamp()
    events = client.api.events(
        since=int(started),
        until=math.ceil(ended + _HEARSAY),
        filters={"container": found["Id"], "event": "oom"},
        decode=True,
    )
    return any(True for _ in events)


def start(client: "DockerClient", name: str) -> None:
    """Start a container that was created.

    Raises:
        EngineUnavailable: it does not start, and its state does not tell why.
    """
    import docker.errors

    try:
        client.api.start(name)
    except docker.errors.APIError as e:
        try:
            found: dict[str, Any] = client.api.inspect_container(name)
        except docker.errors.NotFound:
            return
        # No such command, say: the next observation finds that in its state.
        if observation(found).phase is Phase.PENDING:
            raise EngineUnavailable(f"{name} does not start: {e.explanation}") from None


def stop(client: "DockerClient", name: str, grace: int) -> None:
    """SIGTERM, after ``grace`` seconds SIGKILL; nothing if it is gone."""
    import docker.errors

    with contextlib.suppress(docker.errors.NotFound):
        client.api.stop(name, timeout=grace)


def remove(client: "DockerClient", name: str) -> None:
    """Remove a container, running or not; nothing if it is gone."""
    import docker.errors

    try:
        client.api.remove_container(name, v=True, force=True)
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as e:
        # Another process is removing it.
        if e.status_code != 409:
            raise
