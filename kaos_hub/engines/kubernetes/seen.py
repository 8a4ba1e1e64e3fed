"""Observations of workloads, read from the status of their pods."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from kaos_hub.engines.base import Cause, Observation, Phase

PREFIX = "kaos-hub.io"
WORKLOAD = f"{PREFIX}/workload"
VERDICT = f"{PREFIX}/verdict"
"""Annotation: what we did to a pod, which its status does not tell."""
DEADLINE = f"{PREFIX}/deadline"
"""Annotation: seconds that the work may take. That of the pod is shortened to end it."""
FINALIZER = f"{PREFIX}/kept"
"""Keeps a pod visible that was ended before it had a place to run."""

_PULL = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull",
         "RegistryUnavailable", "ImageInspectError")  # fmt: skip
_HOPELESS = ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_CONFIG = ("CreateContainerConfigError", "CreateContainerError")
_STARTING = ("StartError", "ContainerCannotRun", "RunContainerError")
_KILLED = 128 + 9
_LONGEST = 400
_ADVICE = (
    (
        re.compile(r"unauthorized|denied|forbidden|authorization|basic auth", re.IGNORECASE),
        "if it is there, the admin has to look at KubernetesEngine.pull_secrets",
    ),
    (
        re.compile("x509|certificate", re.IGNORECASE),
        "the admin has to have the cluster's nodes trust its registry's CA",
    ),
)
_OURS = {
    "bases": "a base image could not be fetched",
    "fetch": "what it needs could not be fetched",
    "prepare": "it could not be given what it starts with",
    "push": "it could not be pushed",
}
"""Steps that run our own code, and what it means when they fail."""
_OWN_LIMIT = re.compile(r"exceeds the (?:total )?limit|exceeded its local ephemeral storage limit")
_NODE_GONE_AFTER = 60.0
Pod = dict[str, Any]


def observation(pod: Pod, now: datetime | None = None) -> Observation:
    """A pod as a workload."""
    started, finished = _times(pod)
    verdict = pod["metadata"].get("annotations", {}).get(VERDICT)
    if verdict and (over(pod) or not scheduled(pod)):
        said = json.loads(verdict)
        # Without an end: some clusters never tell the end of what was ended before its time.
        return Observation(Phase.FAILED, Cause(said["cause"]), said["message"], None, started)
    phase = pod.get("status", {}).get("phase")
    if phase == "Succeeded":
        return Observation(Phase.SUCCEEDED, Cause.NONE, "", 0, started, finished, _result(pod))
    if phase == "Failed":
        cause, message, code = _why(pod)
        ended = Phase.LOST if cause is Cause.LOST else Phase.FAILED
        finished = None if cause is Cause.DEADLINE else finished
        return Observation(ended, cause, message, code, started, finished)
    if _abandoned(pod, now or datetime.now(UTC)):
        message = "its node does not answer any more"
        return Observation(Phase.LOST, Cause.LOST, message, None, started)
    if started:
        return Observation(Phase.RUNNING, message=waiting(pod), started=started)
    return Observation(Phase.PENDING, message=waiting(pod))


def over(pod: Pod) -> bool:
    """Return whether a pod has ended, for the cluster at least."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def scheduled(pod: Pod) -> bool:
    """Return whether a pod has been given a node."""
    return bool(pod["spec"].get("nodeName"))


def still_running(pod: Pod) -> list[str]:
    """Containers of an ended pod that may not have ended yet.

    Up to Kubernetes 1.21 a pod that has reached its deadline is called failed while its containers
    are still being ended, and its status never tells of their end.
    """
    return [s["name"] for s in statuses(pod) if over(pod) and "running" in s.get("state", {})]


def statuses(pod: Pod) -> list[dict[str, Any]]:
    """The states of all containers, in the order in which they run."""
    status = pod.get("status", {})
    found = {
        s["name"]: s
        for kind in ("initContainerStatuses", "containerStatuses")
        for s in status.get(kind) or ()
    }
    return [found[name] for name in containers(pod) if name in found]


def state(pod: Pod, container: str) -> str:
    """``waiting``, ``running`` or ``terminated``."""
    for status in statuses(pod):
        if status["name"] == container:
            return next(iter(status.get("state") or {}), "waiting")
    return "waiting"


def containers(pod: Pod) -> list[str]:
    """The names of all containers, in the order in which they run."""
    spec = pod["spec"]
    return [c["name"] for c in [*(spec.get("initContainers") or ()), *spec["containers"]]]


def _ends(pod: Pod) -> Iterator[tuple[str, dict[str, Any]]]:
    for status in statuses(pod):
        ended = status.get("state", {}).get("terminated")
        if ended:
            yield status["name"], ended


def _times(pod: Pod) -> tuple[datetime | None, datetime | None]:
    starts, ends = [], []
    for status in statuses(pod):
        state = status.get("state", {})
        ended = state.get("terminated", {})
        starts.append(ended.get("startedAt") or state.get("running", {}).get("startedAt"))
        ends.append(ended.get("finishedAt"))
    started = [datetime.fromisoformat(t) for t in starts if t]
    finished = [datetime.fromisoformat(t) for t in ends if t] if over(pod) else []
    return min(started, default=None), max(finished, default=None)


def _result(pod: Pod) -> dict[str, Any]:
    """The last words of its last container, if they are a result."""
    ends = list(_ends(pod))
    return _told(ends[-1][1].get("message") or "") if ends else {}


# --- why it failed ---


def _why(pod: Pod) -> tuple[Cause, str, int | None]:
    status = pod["status"]
    reason, message = status.get("reason") or "", (status.get("message") or "").strip()
    if reason == "DeadlineExceeded":
        seconds = pod["metadata"].get("annotations", {}).get(DEADLINE)
        seconds = seconds or pod["spec"].get("activeDeadlineSeconds")
        return Cause.DEADLINE, f"its deadline of {seconds} s passed", None
    if reason == "Evicted":
        if _OWN_LIMIT.search(message):
            return Cause.STORAGE, f"it used more disk than it may: {message}", None
        return Cause.EVICTED, f"it had to leave its node: {message}", None
    ends = [(name, end) for name, end in _ends(pod) if end.get("exitCode")]
    for name, end in ends:
        if end.get("reason") == "OOMKilled":
            return (
                Cause.OUT_OF_MEMORY,
                _of(name, "it used more memory than it may"),
                end["exitCode"],
            )
    if pod["metadata"].get("deletionTimestamp"):
        return Cause.LOST, "its pod was killed and removed, not by kaos_hub", None
    if not ends or ends[0][1].get("reason") == "ContainerStatusUnknown" or reason:
        return (
            Cause.LOST,
            f"its node gave it up: {message or reason or 'it does not say why'}",
            None,
        )
    return _exit(*ends[0])


def _exit(name: str, end: dict[str, Any]) -> tuple[Cause, str, int]:
    code, said = int(end["exitCode"]), (end.get("message") or "").strip()
    if end.get("reason") in _STARTING:
        return Cause.ERROR, _short(said), code
    if name in _OURS:
        # What only the admin can change would fail again.
        cause = Cause.CONFIGURATION if _told(said).get("setting") else Cause.TRANSFER
        return cause, f"{_OURS[name]}: {_last_words(said) or f'exit code {code}'}", code
    if code == _KILLED:
        return Cause.ERROR, "killed (SIGKILL), not by kaos_hub", code
    return Cause.ERROR, f"exit code {code}", code


def _last_words(said: str) -> str:
    message = _told(said).get("message")
    return str(message) if message else said.splitlines()[-1][:500] if said else ""


def _told(said: str) -> dict[str, Any]:
    try:
        found = json.loads(said or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _of(container: str, text: str) -> str:
    return f"{text} (step {container})" if container not in ("main", "notebook") else text


def _short(error: str) -> str:
    """The part for people of a message of several programs, each telling of the next."""
    match = re.search(r'exec: "?(.+?)"?: (.+?)(?:: unknown)?$', error)
    if match:
        return f"cannot start {match[1]}: {match[2]}"
    return error[:500] or "it could not be started"


def _abandoned(pod: Pod, now: datetime) -> bool:
    """Return whether a pod should long be gone, but its node doesn't say so."""
    deleted = pod["metadata"].get("deletionTimestamp")
    if pod.get("status", {}).get("reason") == "NodeLost":
        return True
    # The time of deletion has its grace in it.
    return bool(deleted) and (now - datetime.fromisoformat(deleted)).total_seconds() > (
        _NODE_GONE_AFTER
    )


# --- what it waits for ---


def waiting(pod: Pod) -> str:
    """Describe what a pod waits for, for people; empty if it doesn't wait."""
    if pod["metadata"].get("deletionTimestamp"):
        return "it is being removed"
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"no node has room for it: {condition.get('message', '')}".rstrip(": ")
    for status in statuses(pod):
        wait = status.get("state", {}).get("waiting") or {}
        reason, message = wait.get("reason") or "", wait.get("message") or ""
        if reason in _PULL:
            why = _why_no_image(message) or reason
            return f"the image {status.get('image', '')} cannot be pulled: {why}"
        if reason in _CONFIG:
            return f"it cannot be made as it should be: {message or reason}"
    return ""


def _why_no_image(said: str) -> str:
    """The node's words, without who passed them on; what to do, if only the admin can."""
    said = re.sub(r"^.*?rpc error: code = \w+ desc = ", "", " ".join(said.split()))
    said = said if len(said) <= _LONGEST else f"… {said[-_LONGEST:]}"
    advice = next((then for words, then in _ADVICE if words.search(said)), "")
    return f"{said}: {advice}" if advice else said


def recall(pod: Pod, told: dict[str, str]) -> None:
    """Let a pod say why its image cannot be pulled also between two tries, when it does not.

    Args:
        pod: what is seen of it now.
        told: what pods have said of that, by uid; kept up to date.
    """
    uid = pod["metadata"]["uid"]
    for status in statuses(pod):
        wait = status.get("state", {}).get("waiting") or {}
        if wait.get("reason") == "ErrImagePull" and wait.get("message"):
            told[uid] = wait["message"]
        elif wait.get("reason") == "ImagePullBackOff" and uid in told:
            wait["message"] = told[uid]
    if over(pod):
        told.pop(uid, None)


def stuck(pod: Pod, patience: float, now: datetime) -> tuple[Cause, str] | None:
    """Return the cause and reason why a pod will never start, once there is no hope left.

    Args:
        pod: one that has a node.
        patience: seconds after which what Kubernetes tries again and again counts as hopeless.
        now: the time.
    """
    since = pod.get("status", {}).get("startTime")
    if over(pod) or since is None:
        return None
    late = (now - datetime.fromisoformat(since)).total_seconds() >= patience
    for status in statuses(pod):
        reason = (status.get("state", {}).get("waiting") or {}).get("reason") or ""
        if reason == "InvalidImageName" or (late and reason in _HOPELESS):
            return Cause.MISSING_IMAGE, waiting(pod)
        if late and reason in _CONFIG:
            return Cause.CONFIGURATION, waiting(pod)
    return None
