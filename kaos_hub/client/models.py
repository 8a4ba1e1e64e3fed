"""The SDK's models, what they come from, and whose they are."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaos_hub.client.handles import Handle
from kaos_hub.client.receiving import check_target, receive
from kaos_hub.schemas import NameRequest, Provenance, TrainedModel, Workspace, parse_request
from kaos_hub.transport.http import Transport, parse, quoted
from kaos_hub.transport.objects import Progress

_DOT = "text/vnd.graphviz"


class ModelHandle(Handle[TrainedModel]):
    """A model. Beside what is below it has all fields of one, as in ``handle.metrics``.

    Attributes:
        model: the model as last seen.
    """

    def __init__(self, models: "Models", model: TrainedModel) -> None:
        super().__init__(model)
        self._models = models

    def __repr__(self) -> str:
        return f"<model {self.model.name or self.model.id}>"

    def download(
        self, target: str | os.PathLike[str], progress: Progress | None = None
    ) -> TrainedModel:
        """Fetch its files; see :meth:`Models.download`."""
        return self._models.download(self.model.id, target, progress)

    def provenance(self) -> Provenance:
        """All that made it."""
        return self._models.provenance(self.model.id)

    def give_name(self, name: str) -> TrainedModel:
        """Give it a name; the same name again makes a new version of it."""
        self.model = self._models.name(self.model.id, name)
        return self.model


class Models:
    """Models: what trials left. One is meant by its id (``1f3a…9c.2``: the second trial of that
    training), its name (the newest version), or name and version (``mnist@v3``). Every method
    raises a :class:`~kaos_hub.errors.KaosError` subclass, ``NotFound`` for what is not there."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self, named: bool = False, limit: int = 100, after: str | None = None
    ) -> "list[TrainedModel]":
        """Models, newest first.

        Args:
            named: only those that have a name.
            limit: at most so many, up to 1,000.
            after: only those after the one with this id.
        """
        query = {"named": "true" if named else None, "limit": limit, "after": after}
        found = self._call("GET", quoted("models"), query=query)
        return [parse(TrainedModel, each) for each in found]

    def get(self, model: str) -> ModelHandle:
        """One model, with what can be done about it."""
        return ModelHandle(self, self.look(model))

    def look(self, model: str) -> TrainedModel:
        """One model, as it is now."""
        return parse(TrainedModel, self._call("GET", quoted("models", model)))

    def name(self, model: str, name: str) -> TrainedModel:
        """Give a model a name; the same name again makes a new version of it."""
        body = parse_request(NameRequest, {"name": name}).model_dump()
        return parse(TrainedModel, self._call("POST", quoted("models", model, "name"), body))

    def delete(self, name: str) -> None:
        """Take a name, or one version of it, away. The trials keep what they left.

        Raises:
            Conflict: something that has not ended uses it.
        """
        self._call("DELETE", quoted("models", name))

    def download(
        self, model: str, target: str | os.PathLike[str], progress: Progress | None = None
    ) -> TrainedModel:
        """Fetch a model's files.

        Args:
            model: the model.
            target: folder to make; it must not exist or be empty.
            progress: called with the bytes fetched and the bytes to fetch.

        Raises:
            InvalidRequest: ``target`` is there already.
        """
        folder = Path(target).expanduser()
        check_target(folder)
        found = self.look(model)
        path = "/api/v1" + quoted("models", found.id, "archive")
        receive(self._transport.stream(path), folder, found.output.size, progress)
        return found

    def provenance(self, model: str) -> Provenance:
        """All that made a model."""
        return parse(Provenance, self._call("GET", quoted("models", model, "provenance")))

    def provenance_dot(self, model: str) -> str:
        """The same as a graph in the language of Graphviz."""
        path = "/api/v1" + quoted("models", model, "provenance")
        return b"".join(self._transport.stream(path, accept=_DOT)).decode()

    def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, object] | None = None,
    ) -> Any:
        return self._transport.json(method, "/api/v1" + path, body, query)


class Workspaces:
    """The workspaces that a user may see and use: their own, and those of their groups of the Hub.

    Attributes:
        current: the name of the group whose things the client works on; None: the user's own.
    """

    def __init__(self, transport: Transport, current: str | None) -> None:
        self._transport = transport
        self.current = current

    def list(self) -> "list[Workspace]":
        """All of them, one's own first."""
        found = self._transport.json("GET", "/api/v1" + quoted("workspaces"))
        return [parse(Workspace, each) for each in found]
