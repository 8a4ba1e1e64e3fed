"""Talking to a Kubernetes API server, in plain dictionaries. Everything here blocks."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kaos_hub.errors import Conflict, EngineUnavailable, NotFound, Unsupported

Object = dict[str, Any]

_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_TIMEOUT = (10, 60)
_FOLLOW = 24 * 3600
_MERGE = "application/merge-patch+json"


class Gone(Exception):
    """The API server no longer knows what has happened since: look at everything again."""


@contextmanager
def answering() -> Iterator[None]:
    """Turn what goes wrong into our errors.

    Raises:
        EngineUnavailable: no answer, or one that may be another soon; says what to look at.
        NotFound, Conflict, Unsupported: what the API server says.
    """
    from kubernetes.client import ApiException
    from kubernetes.config import ConfigException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as e:
        raise _refusal(e) from None
    except ConfigException as e:
        raise EngineUnavailable(
            f"No Kubernetes cluster is known here ({e}). In a pod the service needs a service"
            " account; elsewhere KUBECONFIG says which cluster to use."
        ) from None
    except (HTTPError, OSError) as e:
        raise EngineUnavailable(f"The Kubernetes API does not answer: {_core(e)}") from None


def _refusal(error: Any) -> Exception:
    status = int(error.status or 0)
    try:
        message = str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        message = str(error.reason or error.body or "no reason given")
    if status == 0:
        reason = message.splitlines()[-1]
        return EngineUnavailable(f"The Kubernetes API does not answer: {reason}")
    if status == 404:
        return NotFound(message)
    if status == 409:
        return Conflict(message)
    if status == 410:
        return Gone(message)
    if status == 403 and "exceeded quota" in message:
        return EngineUnavailable(f"The cluster's quota is used up: {message}")
    if status in (401, 403):
        return EngineUnavailable(
            f"The cluster does not let the service do this: {message}. An admin sees what is"
            " missing with: kaos doctor --engine kubernetes"
        )
    if status in (400, 422):
        return Unsupported(f"The cluster refuses it: {message}")
    return EngineUnavailable(f"The Kubernetes API failed ({status}): {message}")


def _core(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return _core(reason) if isinstance(reason, BaseException) else str(error)


class Api:
    """One namespace. Threads may share it.

    Args:
        namespace: where everything is.
        connections: how many may be open at once without being thrown away after use.
    """

    def __init__(self, namespace: str, connections: int = 32) -> None:
        from kubernetes import client, config

        self.namespace = namespace
        with answering():
            settings = client.Configuration()
            settings.connection_pool_maxsize = connections
            settings.retries = False
            if _TOKEN.exists() and os.environ.get("KUBERNETES_SERVICE_HOST"):
                config.load_incluster_config(client_configuration=settings)
            else:
                # Its own default is what the variable said when the module was imported.
                place = os.environ.get("KUBECONFIG")
                config.load_kube_config(place, client_configuration=settings)
        self._client = client.ApiClient(settings)
        self._core = client.CoreV1Api(self._client)
        self._version = client.VersionApi(self._client)

    def close(self) -> None:
        """Close connections."""
        self._client.rest_client.pool_manager.clear()
        self._client.close()

    def version(self) -> str:
        """The cluster's version, like ``v1.30.2``."""
        return str(self._ask(self._version.get_code)["gitVersion"])

    def _ask(self, question: Callable[..., Any], *arguments: Any, **more: Any) -> Object:
        with answering():
            answer = question(*arguments, _preload_content=False, _request_timeout=_TIMEOUT, **more)
            found: Object = json.loads(answer.data)
            return found

    # --- pods ---

    def pod(self, name: str) -> Object | None:
        """A pod; None if there is none."""
        try:
            return self._ask(self._core.read_namespaced_pod, name, self.namespace)
        except NotFound:
            return None

    def create_pod(self, body: Object) -> Object:
        """Make a pod. :class:`Conflict` if there is one of that name."""
        return self._ask(self._core.create_namespaced_pod, self.namespace, body)

    def patch_pod(self, name: str, body: Object) -> Object | None:
        """Change a pod (a merge patch); None if there is none."""
        try:
            # A dictionary would be sent as a strategic patch by some versions of the client.
            return self._ask(self._core.patch_namespaced_pod, name, self.namespace, body,
                             _content_type=_MERGE)  # fmt: skip
        except NotFound:
            return None

    def delete_pod(
        self, name: str, grace: int, uid: str | None = None, version: str | None = None
    ) -> bool:
        """Have a pod ended and removed, within ``grace`` seconds; nothing if it is gone.

        Args:
            uid: not another one of that name.
            version: only as long as nothing of it has changed.

        Returns:
            Whether there was such a pod.
        """
        given = {"uid": uid, "resourceVersion": version}
        only = {what: value for what, value in given.items() if value}
        body: Object = {"gracePeriodSeconds": grace} | ({"preconditions": only} if only else {})
        try:
            self._ask(self._core.delete_namespaced_pod, name, self.namespace, body=body)
        except (NotFound, Conflict):
            return False
        return True

    def pods(self, selector: str) -> Object:
        """All pods with those labels, as a list with its version."""
        return self._ask(self._core.list_namespaced_pod, self.namespace, label_selector=selector)

    def watch_pods(self, selector: str, version: str, seconds: int) -> Any:
        """The stream of what happens to pods after ``version``, for so many seconds."""
        with answering():
            return self._core.list_namespaced_pod(
                self.namespace, label_selector=selector, watch=True, resource_version=version,
                timeout_seconds=seconds, allow_watch_bookmarks=True, _preload_content=False,
                _request_timeout=(10, seconds + 30),
            )  # fmt: skip

    def log(self, name: str, container: str, follow: bool) -> Any:
        """The stream of a container's output, each line with its time."""
        with answering():
            return self._core.read_namespaced_pod_log(
                name, self.namespace, container=container, follow=follow, timestamps=True,
                _preload_content=False, _request_timeout=(10, _FOLLOW if follow else 60),
            )  # fmt: skip

    def outlast(self, name: str, container: str) -> None:
        """Wait for a container's end, with which its output ends."""
        with answering():
            stream = self._core.read_namespaced_pod_log(
                name, self.namespace, container=container, follow=True, tail_lines=1,
                _preload_content=False, _request_timeout=(10, 60),
            )  # fmt: skip
            for _ in stream.stream(1 << 16):
                pass

    # --- what else there is ---

    def create_secret(self, body: Object) -> None:
        """Make a secret. :class:`Conflict` if there is one of that name."""
        self._ask(self._core.create_namespaced_secret, self.namespace, body)

    def delete_secret(self, name: str) -> None:
        """Remove a secret; nothing if it is gone."""
        try:
            self._ask(self._core.delete_namespaced_secret, name, self.namespace)
        except NotFound:
            return

    def claim(self, name: str) -> Object | None:
        """A persistent volume claim; None if there is none."""
        try:
            return self._ask(
                self._core.read_namespaced_persistent_volume_claim, name, self.namespace
            )
        except NotFound:
            return None

    def create_claim(self, body: Object) -> None:
        """Make a claim. :class:`Conflict` if there is one of that name."""
        self._ask(self._core.create_namespaced_persistent_volume_claim, self.namespace, body)

    def delete_claim(self, name: str) -> None:
        """Remove a claim and what it holds; nothing if it is gone."""
        try:
            self._ask(self._core.delete_namespaced_persistent_volume_claim, name, self.namespace)
        except NotFound:
            return
