"""The SDK's notebooks."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaos_hub.client.errands import Files
from kaos_hub.client.transport import Transport, parse, quoted
from kaos_hub.errors import BuildFailed, KaosError, Unavailable
from kaos_hub.models import (
    NOTHING,
    BindMount,
    BundleKind,
    BundleVersion,
    DeployAnswer,
    Event,
    GitCredentials,
    IdleType,
    Notebook,
    NotebookRequest,
    NotebookState,
    VolumeMount,
    parse_repository,
    parse_request,
)

if TYPE_CHECKING:
    from kaos_hub.client.bundles import Bundles

Bundle = str | os.PathLike[str] | BundleVersion
"""A folder to submit, a version, or a reference: digest, ``name`` or ``name@v2``."""


def notebook_name_from(path: Path) -> str | None:
    """A notebook's name from the folder it comes from; None where nothing of the name is usable.

    Args:
        path: the folder, e.g. ``My_Model (v2)``, which gives ``my-model-v2``.
    """
    words = re.sub(r"[^a-z0-9]+", "-", path.resolve().name.lower())
    name = words.lstrip("-0123456789")[:30].strip("-")
    return name or None


def folder_in(bundle: Bundle) -> Path | None:
    """The folder that a bundle argument means, or None if it refers to a submitted bundle.

    A string is one if it holds a slash or names something that is there.
    """
    if isinstance(bundle, BundleVersion):
        return None
    if isinstance(bundle, str) and os.sep not in bundle and not Path(bundle).expanduser().exists():
        return None
    return Path(bundle).expanduser()


class NotebookHandle:
    """A notebook one has deployed.

    Attributes:
        model: the notebook as last seen.
        actions: what the deploy did, or would do.
    """

    def __init__(self, notebooks: "Notebooks", model: Notebook, actions: list[str]) -> None:
        self._notebooks = notebooks
        self.model = model
        self.actions = actions

    def __repr__(self) -> str:
        return f"<notebook {self.name}: {self.model.state}, {self.url}>"

    @property
    def name(self) -> str:
        """The notebook's name."""
        return self.model.name

    @property
    def url(self) -> str:
        """Where the notebook answers once it runs."""
        return self.model.url

    def wait(
        self, timeout: float | None = None, on_event: Callable[[Event], object] | None = None
    ) -> Notebook:
        """Wait until it runs; see :meth:`Notebooks.wait`."""
        self.model = self._notebooks.wait(self.name, timeout, on_event)
        return self.model

    def logs(self, follow: bool = False) -> Iterator[str]:
        """The lines of its Host log."""
        return self._notebooks.logs(self.name, follow)

    def build_logs(self, follow: bool = False) -> Iterator[str]:
        """The lines of its Build log."""
        return self._notebooks.build_logs(self.name, follow)


class Notebooks(Files):
    """Notebooks of the asking user. Every method raises a :class:`~kaos_hub.errors.KaosError`
    subclass: ``NotFound`` for a name that is not there, ``Unavailable`` for a service that does not
    answer, else what the service says."""

    def __init__(self, transport: Transport, bundles: "Bundles") -> None:
        self._transport = transport
        self.bundles = bundles
        """The asking user's: notebooks are never a workspace's."""

    def deploy(
        self,
        source: Bundle | None = None,
        data: Bundle | None = None,
        name: str | None = None,
        *,
        context: Bundle | None = None,
        run: str | None = None,
        size: str | None = None,
        cpu: float | str | None = None,
        memory: int | str | None = None,
        gpu: int | None = None,
        pool: str | None = None,
        idle_timeout: int | str | None = None,
        idle_type: IdleType | str | None = None,
        display_name: str | None = None,
        environment: Mapping[str, str] | None = None,
        bind_mounts: "Sequence[BindMount] | None" = None,
        volumes: "Sequence[VolumeMount] | None" = None,
        image: str | None = None,
        git: str | None = None,
        git_credentials: GitCredentials | None = None,
        pull: bool = False,
        restart: bool = False,
        dry_run: bool = False,
    ) -> NotebookHandle:
        """Deploy a notebook, or deploy it again. Returns at once; ``.wait()`` waits for it.

        Args:
            source: folder with a Dockerfile, or a submitted bundle.
            data: any folder, or a submitted bundle.
            name: without it, the source folder's name; the same folder is the same notebook.
            context: any file or folder, whose files are laid over the source's; or a submitted
                bundle; ``"-"`` is none again.
            run: id of a model: the notebook gets its source, data and params, and itself.
            size: one of the sizes that ``client.info()`` lists.
            cpu: cores, e.g. ``0.5`` or ``"500m"``.
            memory: bytes, or a quantity such as ``"1.5Gi"``.
            gpu: whole devices; 0 is none, whatever the size has.
            pool: nodes of the cluster to run on; ``"-"`` is any again.
            idle_timeout: seconds, or a duration such as ``"30m"``; 0 or ``"never"`` is never.
            idle_type: what besides use keeps it from being idle.
            display_name: free text that says what it is for.
            environment: variables; those not named stay, one with an empty value is taken away.
            bind_mounts: folders of the machine, of those that the admin allows.
            volumes: named volumes, made where there is none yet.
            image: a ready-made environment of ``client.info().images``; ``"-"`` is none again.
            git: ``URL`` or ``URL@REF`` of a repository that is cloned into the working directory,
                once; ``"-"`` is none again.
            git_credentials: for a private repository; handed out once, and not kept.
            pull: look the base image up again.
            restart: restart a running notebook if the change needs it.
            dry_run: only say what would happen; folders are still submitted.

        Raises:
            InvalidRequest: an argument or a folder is wrong; nothing was sent.
            LimitExceeded: it does not fit the limits.
            RestartRequired: the running notebook would have to restart and ``restart`` is not set.
        """
        options: dict[str, Any] = {
            "size": size, "cpu": cpu, "memory": memory, "gpu": gpu,
            "idle_timeout": idle_timeout, "idle_type": idle_type, "display_name": display_name,
            "bind_mounts": bind_mounts if bind_mounts is None else [*bind_mounts],
            "volumes": volumes if volumes is None else [*volumes],
            "run": run, "pool": pool, "image": image, "git": git,
            "git_credentials": git_credentials,
            "environment": environment and dict(environment),
        }  # fmt: skip
        request = parse_request(
            NotebookRequest,
            {
                "name": name or self._derived_name(source, data, context, git),
                "pull": pull,
                "restart": restart,
            }
            | {"dry_run": dry_run}
            | {k: v for k, v in options.items() if v is not None},
        )
        chosen = {
            "source": self._reference(source, BundleKind.SOURCE),
            "data": self._reference(data, BundleKind.DATA),
            "context": self._reference(context, BundleKind.CONTEXT),
        }
        answer = self.request(request.model_copy(update=chosen))
        return NotebookHandle(self, answer.notebook, answer.actions)

    def request(self, request: NotebookRequest) -> DeployAnswer:
        """Send a deploy request as it is."""
        body = request.model_dump(mode="json", exclude_defaults=True)
        return parse(DeployAnswer, self._call("POST", quoted("notebooks"), body))

    def list(self) -> "list[Notebook]":
        """All notebooks."""
        return [parse(Notebook, n) for n in self._call("GET", quoted("notebooks"))]

    def get(self, name: str) -> Notebook:
        """One notebook."""
        return self._notebook("GET", name)

    def start(self, name: str) -> Notebook:
        """Start a stopped notebook; building it first where that is needed."""
        return self._notebook("POST", name, "start")

    def stop(self, name: str) -> Notebook:
        """Stop the notebook in good order. Its files are kept."""
        return self._notebook("POST", name, "stop")

    def kill(self, name: str) -> Notebook:
        """End its server or build at once. Its files are kept."""
        return self._notebook("POST", name, "kill")

    def retry(self, name: str) -> Notebook:
        """Try a failed build or start again."""
        return self._notebook("POST", name, "retry")

    def delete(self, name: str) -> None:
        """Delete the notebook with its files. Its bundles are kept."""
        self._call("DELETE", quoted("notebooks", name))

    def events(self, name: str) -> Iterator[Event]:
        """What happens to the notebook, beginning with its present state, without end."""
        return (event for event in self._events(name) if event is not None)

    def _events(self, name: str) -> Iterator[Event | None]:
        """Events, and None whenever nothing has happened for a while."""
        for event in self._transport.events("/api/v1" + quoted("notebooks", name, "events")):
            if event.event == "notebook":
                yield parse(Event, json.loads(event.data))
            else:
                yield None

    def wait(
        self,
        name: str,
        timeout: float | None = None,
        on_event: Callable[[Event], object] | None = None,
    ) -> Notebook:
        """Wait until nothing more happens to the notebook by itself.

        Args:
            name: the notebook.
            timeout: seconds to wait at most; may take some seconds more to be noticed.
            on_event: called with each event.

        Returns:
            The notebook, ``RUNNING`` or ``STOPPED``.

        Raises:
            BuildFailed: its build failed; the message is the reason.
            KaosError: its server failed to start.
            Unavailable: the timeout is over, or the service does not answer.
        """
        notebook = self.follow(name, timeout, on_event)
        error = failure(notebook)
        if error:
            raise error
        return notebook

    def follow(
        self,
        name: str,
        timeout: float | None = None,
        on_event: Callable[[Event], object] | None = None,
    ) -> Notebook:
        """As :meth:`wait`, but a failed notebook is returned like any other."""
        deadline = None if timeout is None else time.monotonic() + timeout
        settled = False
        for event in self._events(name):
            if event and on_event:
                on_event(event)
            settled = event.state.settled if event else settled
            # Asked again in every silence too: the end of a pending restart need not be an event.
            if settled and not self.get(name).pending:
                break
            if deadline is not None and time.monotonic() > deadline:
                raise Unavailable(
                    f"notebook {name} is not ready after {timeout:g} s. It goes on:"
                    f" kaos notebook info -n {name}"
                )
        return self.get(name)

    def logs(self, name: str, follow: bool = False) -> Iterator[str]:
        """The lines of the Host log, each with its time; ``follow`` goes on to its end."""
        return self._log(name, "host-log", follow)

    def build_logs(self, name: str, follow: bool = False) -> Iterator[str]:
        """The lines of the Build log, each with its time; ``follow`` goes on to its end."""
        return self._log(name, "build-log", follow)

    def _log(self, name: str, log: str, follow: bool) -> Iterator[str]:
        return self._transport.log("/api/v1" + quoted("notebooks", name, log), follow)

    def _derived_name(
        self,
        source: Bundle | None,
        data: Bundle | None,
        context: Bundle | None,
        git: str | None,
    ) -> str | None:
        for bundle, kind in (
            (source, BundleKind.SOURCE),
            (context, BundleKind.CONTEXT),
            (data, BundleKind.DATA),
        ):
            if bundle is None or bundle == NOTHING:
                continue
            folder = folder_in(bundle)
            if folder is not None:
                root = self.bundles.root_of(folder, kind)
                return notebook_name_from(root.with_suffix("") if root.is_file() else root)
            text = bundle.name if isinstance(bundle, BundleVersion) else str(bundle)
            if not text.startswith("blake3:"):
                return notebook_name_from(Path(text.partition("@")[0]))
        if git not in (None, NOTHING):
            return notebook_name_from(Path(parse_repository(str(git)).name))
        return None

    def _reference(self, bundle: Bundle | None, kind: BundleKind) -> str | None:
        if bundle is None:
            return None
        if isinstance(bundle, BundleVersion):
            return bundle.digest
        folder = folder_in(bundle)
        return str(bundle) if folder is None else self.bundles.submit(folder, kind).digest

    def _notebook(self, method: str, name: str, *verb: str) -> Notebook:
        return parse(Notebook, self._call(method, quoted("notebooks", name, *verb)))

    def _call(self, method: str, path: str, body: object = None) -> Any:
        return self._transport.json(method, "/api/v1" + path, body)


def failure(notebook: Notebook) -> KaosError | None:
    """The error that a notebook stands for after a deploy, if it failed.

    A new version whose build failed is one too, even though the version before it still runs.
    """
    failed_build = notebook.build.state == "FAILED"
    # A notebook that runs has a reason to tell only if the newest version could not be had.
    beside = notebook.state is NotebookState.RUNNING and failed_build and notebook.reason
    if notebook.state is not NotebookState.FAILED and not beside:
        return None
    reason = notebook.reason or notebook.build.reason or "it failed; its logs say why"
    return (BuildFailed if failed_build else KaosError)(reason, notebook=notebook.name)
