"""The meaning of a pod's status and events, in the words of a user who wants a notebook."""

import contextlib
import json
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from aiohttp import ClientError
from kubernetes_asyncio.client import ApiException

from kaos_hub.errors import EngineUnavailable, KaosError, LimitExceeded, NotFound, Unsupported
from kaos_hub.hub.spawners.kubernetes.pod import FETCH, NOTEBOOK, PREFIX, RUNTIME
from kaos_hub.hub.spawners.mixin import Ending
from kaos_hub.util.quantities import parse_memory, show_memory

Told = dict[str, Any]
"""An object of the cluster's, as it tells it."""

_UNCONFIRMED = 60
"""Seconds after which a pod that should be gone, and is not, is taken for gone with its node."""

_IMAGE = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError")
_NO_SUCH = re.compile(r"not found|manifest unknown|NAME_UNKNOWN|does not exist", re.IGNORECASE)
_NO_ENTRY = re.compile(r"unauthorized|denied|forbidden|authentication|no basic auth", re.IGNORECASE)
_NODE = (
    "FailedMount",
    "FailedMapVolume",
    "FailedAttachVolume",
    "FailedCreatePodSandBox",
    "NetworkNotReady",
)
_GOES_ON = ("Pulling", "Pulled", "Created", "Started", "SuccessfulMountVolume", "Scheduled")


class Kind(StrEnum):
    """Kinds of trouble; how long one waits for each to pass is a setting."""

    ROOM = "room"
    IMAGE = "image"
    CONFIG = "config"
    NODE = "node"
    END = "end"
    """Nothing to wait for."""


@dataclass(frozen=True)
class Trouble:
    """A reason why a pod does not get on."""

    kind: Kind
    error: KaosError
    """The error that the user is told once the start is given up."""


@dataclass(frozen=True)
class Sight:
    """The progress of a pod on its way to be a notebook."""

    message: str
    progress: int
    ready: bool = False
    trouble: Trouble | None = None


def sight(pod: Told | None, events: list[Told]) -> Sight:
    """Return how far a pod that is being started has come.

    Args:
        pod: as the cluster tells it; None if it is gone.
        events: what happened to it, the oldest first.
    """
    if pod is None or "deletionTimestamp" in pod["metadata"]:
        words = "The notebook's pod was deleted by somebody while it started. Start it again."
        return _stuck(Kind.END, KaosError(words), 45)
    ended = ending(pod)
    if ended is not None:
        return _stuck(Kind.END, _failed(pod, ended), 60)
    statuses = pod["status"].get("containerStatuses") or []
    if pod["status"].get("podIP") and statuses and all(s["ready"] for s in statuses):
        return Sight("Started", 68, ready=True)
    if not pod["spec"].get("nodeName"):
        return _unplaced(pod, events)
    return _prepared(pod, events)


def _stuck(kind: Kind, error: KaosError, progress: int, message: str = "") -> Sight:
    return Sight(message or error.message, progress, trouble=Trouble(kind, error))


# --- before it has a node ------------------------------------------------------------------------


def _unplaced(pod: Told, events: list[Told]) -> Sight:
    found = pod["status"].get("conditions") or []
    condition: Told = next((c for c in found if c["type"] == "PodScheduled"), {})
    said = str(condition.get("message") or "")
    if condition.get("status") != "False" or condition.get("reason") != "Unschedulable":
        return Sight("Looking for a machine with room", 42)
    if "persistentvolumeclaim" in said.lower():
        return _without_volume(said)
    problem, advice = _no_room(said, pod)
    said = re.sub(r"\s*preemption:.*", "", said)
    words = f"{problem} ({said.rstrip('. ')})."
    grown = _scaling(events)
    return _stuck(Kind.ROOM, Unsupported(f"{words} {advice}"), 42, f"{words} {grown}")


def _without_volume(said: str) -> Sight:
    match = re.search(r'persistentvolumeclaim "([^"]+)" (not found|is being deleted)', said)
    if match and match[2] == "not found":
        words = f"The storage {match[1]} is not there. Tell the administrator."
        return _stuck(Kind.CONFIG, KaosError(words), 42)
    waits = "Waiting for storage: the cluster has not provided the volume yet."
    words = (
        f"The cluster did not provide the notebook's storage ({said.rstrip('. ')})."
        " Try again later; if that does not help, tell the administrator."
    )
    return _stuck(Kind.ROOM, KaosError(words), 42, waits)


def _no_room(said: str, pod: Told) -> tuple[str, str]:
    if "Insufficient" in said or "Too many pods" in said:
        return (
            f"No machine of the cluster has room for {_asked(pod)}",
            "Ask for less (--cpu, --memory, --gpu), or try again when others have stopped theirs.",
        )
    if re.search("node selector|affinity|taint|unschedulable", said):
        return (
            "The cluster has no machine of the kind that is asked for, or none that takes anybody",
            "Choose another size or pool, or tell the administrator.",
        )
    return (
        "The cluster has no machine for the notebook now",
        "Try again later; if that does not help, tell the administrator.",
    )


def _asked(pod: Told) -> str:
    asked = (_notebook(pod).get("resources") or {}).get("requests") or {}
    words = [f"{asked['cpu']} cores"] if "cpu" in asked else []
    if "memory" in asked:
        words.append(f"{show_memory(_bytes(asked['memory']))} of memory")
    words += [f"{n} of {k}" for k, n in asked.items() if "/" in k]
    return " and ".join(words) or "the notebook"


def _scaling(events: list[Told]) -> str:
    for event in reversed(events):
        if event["reason"] == "TriggeredScaleUp":
            return "A machine is being added; this takes some minutes."
        if event["reason"] == "NotTriggerScaleUp":
            return "Waiting; the cluster cannot add a machine for it by itself."
    return "Waiting for room."


# --- on its node ---------------------------------------------------------------------------------


def _prepared(pod: Told, events: list[Told]) -> Sight:
    status = pod["status"]
    for seen in [*(status.get("initContainerStatuses") or []), *_own(status)]:
        state = seen["state"]
        waiting = state.get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        said = str(waiting.get("message") or "")
        if reason in _IMAGE or reason in ("InvalidImageName", "ErrImageNeverPull"):
            return _no_image(pod, seen, reason, said, events)
        if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
            words = f"The notebook's container cannot be made: {_tail(said) or reason}."
            return _stuck(Kind.CONFIG, KaosError(f"{words} Tell the administrator."), 55)
        if "running" in state and seen["name"] != NOTEBOOK:
            return Sight(_BUSY.get(seen["name"], f"Running {seen['name']}"), 58)
    return _events_tell(events)


_BUSY = {
    FETCH: "Fetching the bundles into the pod",
    RUNTIME: "Laying out what makes it a notebook",
}


def _events_tell(events: list[Told]) -> Sight:
    """Return what a node is doing, which only events show."""
    pulling = None
    trouble = None
    for event in events:
        if event["reason"] == "Pulling":
            pulling = event["message"]
        elif event["reason"] in ("Pulled", "Created", "Started"):
            pulling = None
        if event["reason"] in _GOES_ON:
            trouble = None
        elif event["reason"] in _NODE:
            trouble = event
    if trouble is not None:
        return _node_trouble(trouble)
    if pulling is not None:
        return Sight("Pulling the image; the first time takes longest", 50)
    return Sight("A machine is found and prepares the container", 46)


def _node_trouble(event: Told) -> Sight:
    said = _tail(str(event["message"]))
    match = re.search(r'(secret|configmap)s? "([^"]+)" not found', said)
    if match:
        words = f"The {match[1]} {match[2]}, which the notebook needs, is not there."
        return _stuck(Kind.CONFIG, KaosError(f"{words} Start it again."), 48)
    what = "storage" if "Volume" in event["reason"] or "Mount" in event["reason"] else "network"
    words = f"Its machine cannot give the notebook its {what} ({said})."
    advice = "Start it again; if that does not help, tell the administrator."
    return _stuck(Kind.NODE, KaosError(f"{words} {advice}"), 48, f"{words} Waiting.")


def _no_image(pod: Told, seen: Told, reason: str, said: str, events: list[Told]) -> Sight:
    if reason == "ImagePullBackOff":
        # That it was tried is all this tells; why it failed was told when it did.
        failures = [
            e["message"] for e in events if e["reason"] == "Failed" and "pull" in e["message"]
        ]
        said = failures[-1] if failures else said
    kind = Kind.IMAGE
    error: KaosError
    image = seen.get("image") or "its image"
    why = _tail(said) or reason
    if seen["name"] in (FETCH, RUNTIME):
        words = f"The image of the runtime, {image}, cannot be pulled ({why})."
        error = KaosError(f"{words} Tell the administrator.")
    elif reason == "InvalidImageName":
        kind, error = Kind.END, KaosError(f"{image!r} cannot name an image. Deploy again.")
    elif _NO_ENTRY.search(said):
        words = f"The cluster is not let into the registry of image {image} ({why})."
        error = KaosError(f"{words} Tell the administrator.")
    elif _NO_SUCH.search(said):
        error = NotFound(
            f"The image of notebook {_name(pod)} is no longer in its registry. Deploy the notebook"
            f" again; the image is then built anew. ({image})"
        )
    else:
        words = f"The image {image} cannot be pulled ({why})."
        error = KaosError(f"{words} Try again; if that does not help, tell the administrator.")
    return _stuck(kind, error, 52, f"The image cannot be pulled ({why}). Trying again.")


# --- the end -------------------------------------------------------------------------------------


def ending(pod: Told) -> Ending | None:
    """Return how a pod ended, or None while it has not."""
    status, code = pod["status"], 1
    due = pod["metadata"].get("deletionTimestamp")
    if due and (datetime.now(UTC) - datetime.fromisoformat(due)).total_seconds() > _UNCONFIRMED:
        return Ending(1, "its machine does not answer any more")
    if status["phase"] not in ("Succeeded", "Failed"):
        return None
    end: Told = {}
    for seen in [*(status.get("initContainerStatuses") or []), *_own(status)]:
        found = seen["state"].get("terminated")
        if found and (seen["name"] == NOTEBOOK or found["exitCode"]):
            end, code = found | {"name": seen["name"]}, int(found["exitCode"])
            break
    return Ending(code if end else 1, _why(pod, end))


def over(pod: Told) -> bool:
    """Return whether a pod is being deleted and runs nothing any more."""
    status = pod["status"]
    seen = [*(status.get("initContainerStatuses") or []), *_own(status)]
    return "deletionTimestamp" in pod["metadata"] and not any("running" in s["state"] for s in seen)


def _why(pod: Told, end: Told) -> str:
    said = str(pod["status"].get("reason") or "")
    if said == "Evicted":
        told = _tail(str(pod["status"].get("message") or "")).rstrip(".")
        return f"it was put off its machine, which ran short: {told}"
    if said in ("Preempting", "NodeShutdown", "Shutdown", "Terminated", "NodeLost", "NodeAffinity"):
        told = _tail(str(pod["status"].get("message") or said)).rstrip(".")
        return f"its machine was taken away: {told}"
    reason, code = str(end.get("reason") or ""), int(end.get("exitCode") or 0)
    if reason == "OOMKilled":
        return f"it used more memory than it had ({show_memory(_memory(pod))})"
    if end.get("name") in _WHAT_FAILED:
        lines = str(end.get("message") or f"exit code {code}").strip().splitlines()
        return f"{_WHAT_FAILED[end['name']]}: {' '.join(lines[-3:])}"
    if reason in ("StartError", "ContainerCannotRun"):
        return f"its container could not be started: {_tail(str(end.get('message') or ''))}"
    if reason == "ContainerStatusUnknown":
        return "its machine lost it"
    if code > 128 and code - 128 in set(signal.Signals):
        return f"it was killed ({signal.Signals(code - 128).name}), not by kaos_hub"
    return f"it ended with exit code {code}" if code or not end else "it ended by itself"


_WHAT_FAILED = {
    FETCH: "its bundles could not be fetched",
    RUNTIME: "what makes it a notebook could not be laid out",
}


def _failed(pod: Told, ended: Ending) -> KaosError:
    """The words for one that ended before it was ready."""
    advice = "Its log says more."
    if "more memory" in ended.reason:
        advice = "Choose a larger size, or ask for more with --memory."
    elif any(ended.reason.startswith(words) for words in _WHAT_FAILED.values()):
        advice = "Start it again; if that does not help, tell the administrator."
    return KaosError(f"The notebook ended while it started: {ended.reason}. {advice}")


# --- what the API server refuses -----------------------------------------------------------------


def refusal(status: int, said: str) -> KaosError:
    """Return the error that says why the cluster did not take the pod or claim.

    Args:
        status: of HTTP.
        said: the server's message.
    """
    quota = re.search(r"exceeded quota: (.*)", said)
    if quota:
        numbers = re.sub(r"(?<==)\d{7,}", lambda n: show_memory(int(n[0])), quota[1]).rstrip(". ")
        return LimitExceeded(
            f"The cluster's quota for notebooks does not allow it ({numbers})."
            " Stop another notebook, or ask for less."
        )
    if status == 403 and re.search(r"(maximum|minimum) .* usage per", said):
        words = said.partition("forbidden: ")[2] or said
        return LimitExceeded(f"The cluster does not allow that much ({words}). Ask for less.")
    if status == 403 and "cannot" in said:
        return KaosError(f"The Hub may not start notebooks on this cluster ({said}).")
    if status == 404:
        return KaosError(f"The cluster has no place for notebooks ({said}).")
    return KaosError(f"The cluster does not take the notebook ({said}). Tell the administrator.")


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn what the API server says, or that it is silent, into words for the notebook's owner."""
    try:
        yield
    except ApiException as e:
        try:
            said = str(json.loads(e.body)["message"])
        except (TypeError, ValueError, KeyError):
            said = f"{e.status} {e.reason}"
        if not e.status or e.status >= 500 or e.status in (401, 429):
            raise EngineUnavailable(f"The cluster does not answer: {said}") from None
        raise refusal(e.status, said) from None
    except (TimeoutError, ClientError, OSError) as e:
        raise EngineUnavailable(f"The cluster does not answer: {e or type(e).__name__}") from None


# --- small things --------------------------------------------------------------------------------


def _own(status: Told) -> list[Told]:
    found = status.get("containerStatuses") or []
    return sorted(found, key=lambda s: s["name"] != NOTEBOOK)


def _notebook(pod: Told) -> Told:
    return next((c for c in pod["spec"]["containers"] if c["name"] == NOTEBOOK), {})


def _name(pod: Told) -> str:
    return str((pod["metadata"].get("labels") or {}).get(f"{PREFIX}/notebook") or "?")


def _memory(pod: Told) -> int | None:
    limits = (_notebook(pod).get("resources") or {}).get("limits") or {}
    return _bytes(limits["memory"]) if "memory" in limits else None


def _bytes(quantity: object) -> int | None:
    try:
        return int(text) if (text := str(quantity)).isdigit() else parse_memory(text)
    except KaosError:
        return None


def _tail(said: str) -> str:
    """The last of several programs' words, each telling of the next; short, on one line."""
    said = " ".join(said.split())
    said = re.sub(r"^.*rpc error: code = \w+ desc = ", "", said)
    return said if len(said) <= 300 else f"… {said[-300:]}"
