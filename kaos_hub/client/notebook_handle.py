"""A notebook that one has got hold of, and what it stands for after a deploy."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from kaos_hub.client.handles import Handle
from kaos_hub.errors import BuildFailed, Failed, KaosError
from kaos_hub.schemas import Event, Notebook, NotebookState

if TYPE_CHECKING:
    from kaos_hub.client.notebooks import Notebooks


class NotebookHandle(Handle[Notebook]):
    """A notebook: one has just deployed it, or got it by its name. Beside what is below it has all
    fields of a notebook, as in ``handle.state``.

    Attributes:
        model: the notebook as last seen.
        actions: what the deploy did, or would do.
        notes: what is to be known of the folders that were submitted for it.
    """

    def __init__(
        self,
        notebooks: "Notebooks",
        model: Notebook,
        actions: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(model)
        self._notebooks = notebooks
        self.actions, self.notes = [*actions], [*notes]

    def __repr__(self) -> str:
        return f"<notebook {self.name}: {self.model.state}, {self.url}>"

    @property
    def name(self) -> str:
        """The notebook's name."""
        return self.model.name

    @property
    def url(self) -> str:
        """The URL at which the notebook answers once it runs."""
        return self.model.url

    def refresh(self) -> "NotebookHandle":
        """Look again how it stands."""
        self.model = self._notebooks.look(self.name)
        return self

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

    def start(self) -> Notebook:
        """Start it; see :meth:`Notebooks.start`."""
        self.model = self._notebooks.start(self.name)
        return self.model

    def stop(self) -> Notebook:
        """Stop it in good order. Its files are kept."""
        self.model = self._notebooks.stop(self.name)
        return self.model

    def kill(self) -> Notebook:
        """End its server or build at once. Its files are kept."""
        self.model = self._notebooks.kill(self.name)
        return self.model

    def delete(self) -> None:
        """Delete it with its files. Its bundles are kept."""
        self._notebooks.delete(self.name)


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
    return (BuildFailed if failed_build else Failed)(reason, notebook=notebook.name)
