"""The SDK's notebooks."""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaos_hub.bundles.source import default_name, plain_letters
from kaos_hub.client.errands import Files
from kaos_hub.client.notebook_handle import NotebookHandle, failure
from kaos_hub.errors import Failed, NotFound, Unavailable
from kaos_hub.schemas import (
    NOTHING,
    BindMount,
    BundleKind,
    BundleVersion,
    DeployAnswer,
    Event,
    GitCredentials,
    GitState,
    IdleType,
    Notebook,
    NotebookRequest,
    NotebookState,
    VolumeMount,
    parse_repository,
    parse_request,
)
from kaos_hub.transport.http import Transport, parse, quoted

if TYPE_CHECKING:
    from kaos_hub.client.bundles import Bundles

_WAIT = 20
"""Seconds that the service waits for a deletion before it answers."""

Bundle = str | os.PathLike[str] | BundleVersion
"""A folder to submit, a version, or a reference: digest, ``name`` or ``name@v2``."""


def notebook_name_from(path: Path) -> str | None:
    """A notebook's name from the folder it comes from; None where nothing of the name is usable.

    Args:
        path: the folder, e.g. ``My_Modèl (v2)``, which gives ``my-model-v2``.
    """
    words = re.sub(r"[^a-z0-9]+", "-", plain_letters(path.resolve().name).lower())
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


def name_beside(notebooks: "Notebooks", name: str, source: str) -> str:
    """A notebook's name, or one like it: that of no notebook, or of one on a source of that name.

    Args:
        notebooks: where to look.
        name: the name wanted.
        source: name of the source bundle.
    """
    for candidate in chain([name], (f"{name[:26]}-{number}" for number in count(2))):
        try:
            found = notebooks.look(candidate)
        except NotFound:
            break
        if found.source is None or found.source.name == source:
            break
    return candidate


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
            name: without it, the source folder's name; the same folder is the same notebook. What
                has that name and nothing in common is left alone: then it is one like ``name-2``,
                and a warning says so.
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
                "name": name,
                "pull": pull,
                "restart": restart,
            }
            | {"dry_run": dry_run}
            | {k: v for k, v in options.items() if v is not None},
        )
        source = self._submitted(source, BundleKind.SOURCE, name)
        data = self._submitted(data, BundleKind.DATA, name)
        chosen = {
            "name": name or self._free_name(source, data, context, git),
            "source": self._reference(source, BundleKind.SOURCE),
            "data": self._reference(data, BundleKind.DATA),
            "context": self._reference(context, BundleKind.CONTEXT),
        }
        answer = self.request(request.model_copy(update=chosen))
        sent = (each for each in (source, data) if isinstance(each, BundleVersion))
        notes = [note for each in sent for note in each.notes]
        return NotebookHandle(self, answer.notebook, answer.actions, notes)

    def _submitted(
        self, bundle: Bundle | None, kind: BundleKind, name: str | None
    ) -> Bundle | None:
        """A folder, submitted; under its own name if the notebook is named, whatever has it."""
        folder = None if bundle is None else folder_in(bundle)
        if folder is None:
            return bundle
        called = default_name(self.bundles.root_of(folder, kind)) if name else None
        return self.bundles.submit(folder, kind, called)

    def _free_name(
        self,
        source: Bundle | None,
        data: Bundle | None,
        context: Bundle | None,
        git: str | None,
    ) -> str | None:
        name = self._derived_name(source, data, context, git)
        if name is None or not isinstance(source, BundleVersion):
            return name
        return name_beside(self, name, source.name)

    def request(self, request: NotebookRequest) -> DeployAnswer:
        """Send a deploy request as it is."""
        body = request.model_dump(mode="json", exclude_defaults=True)
        return parse(DeployAnswer, self._call("POST", quoted("notebooks"), body))

    def list(self) -> "list[Notebook]":
        """All notebooks."""
        return [parse(Notebook, n) for n in self._call("GET", quoted("notebooks"))]

    def get(self, name: str) -> NotebookHandle:
        """One notebook, with what can be done about it."""
        return NotebookHandle(self, self.look(name))

    def look(self, name: str) -> Notebook:
        """One notebook, as it is now."""
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
        """Delete the notebook with its files. Its bundles are kept. Returns when it is gone.

        Raises:
            NotFound: there is none.
            Unavailable: its server takes long to end; it is deleted after that.
        """
        path = "/api/v1" + quoted("notebooks", name)
        # Ends because the service gives up after a while, and says so.
        if not self._transport.json("DELETE", path, query={"wait": _WAIT})["done"]:
            with contextlib.suppress(NotFound):
                while not self._transport.json("DELETE", path, query={"wait": _WAIT})["done"]:
                    pass

    def events(self, name: str) -> Iterator[Event]:
        """Return the events of the notebook, beginning with its present state, without end."""
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
            Failed: its server failed to start.
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
            if settled and not self.look(name).pending:
                break
            if deadline is not None and time.monotonic() > deadline:
                raise Unavailable(
                    f"notebook {name} is not ready after {timeout:g} s. It goes on:"
                    f" kaos notebook info -n {name}"
                )
        return self.look(name)

    def cloned(self, name: str) -> Notebook:
        """Wait until the repository of a running notebook is cloned.

        Returns:
            The notebook; it may have stopped meanwhile.

        Raises:
            Failed: it could not be cloned; says why, and what to do.
            Unavailable: the service does not answer.
        """
        for _ in self._events(name):
            found = self.look(name)
            if found.git is not None and found.git.state is GitState.FAILED:
                raise Failed(f"the repository was not cloned: {found.git.note}", notebook=name)
            waits = found.git is not None and found.git.state is not GitState.CLONED
            if not (waits and found.state is NotebookState.RUNNING):
                break
        return self.look(name)

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
