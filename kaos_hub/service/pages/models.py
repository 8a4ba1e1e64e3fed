"""The pages of models: the list, and one model with all that made it."""

from typing import Any

from kaos_hub.errors import Damaged, NotFound, Unavailable
from kaos_hub.schemas import ModelId, NameRequest, NotebookRequest, TrainedModel, parse_request
from kaos_hub.service.api.provenance import dot
from kaos_hub.service.auth.auth import KAOS, Right
from kaos_hub.service.pages.base import Searched
from kaos_hub.service.pages.trainings import TrainPage
from kaos_hub.service.pages.trials_table import PAGE

_MODEL = r"(?P<model>[^/]+)"
_FILES = 200
"""Files of a model that its page lists."""


class ModelsQuery(Searched):
    """The models that a list shows."""

    named: bool = False
    after: ModelId | None = None


class ModelsPage(TrainPage):
    """The page of all models."""

    route_name = "/models"

    async def get(self) -> None:
        """Show the list, youngest first, a page at a time."""
        query = self.asked(ModelsQuery)
        found = await self.trainings.models(
            self.whose, PAGE + 1, query.after, query.named, query.search
        )
        self.show(
            "kaos_models.html",
            models=found[:PAGE],
            more=len(found) > PAGE,
            query=query,
            hub_url=self.core.public_url,
            workspaces=await self.workspaces(),
        )


class _OfModel(TrainPage):
    async def model(self, text: str) -> TrainedModel:
        """Return the model of an id, a name, or a name and version.

        Raises:
            NotFound: the owner has none.
        """
        return await self.trainings.model(self.whose, text)


class ModelPage(_OfModel):
    """The page of one model."""

    route_name = "/models/{model}"

    async def get(self, model: str) -> None:
        """Show the model, and its provenance."""
        found = await self.model(model)
        made = await self.trainings.provenance(self.whose, found.id)
        listed = await self._listed(found.output.digest)
        self.show("kaos_model.html", model=found, made=made, listed=listed)

    async def _listed(self, digest: str) -> list[tuple[str, int]] | None:
        """Return the first of the model's files and their sizes; None if they cannot be read."""
        try:
            return await self.core.catalogue.files(digest, _FILES)
        except (Damaged, NotFound, Unavailable):
            return None


class OpenHandler(_OfModel):
    """The opening of a notebook on a model.

    The notebook has the model, and the code, data and parameters that made it.
    """

    route_name = "/models/{model}/notebook"

    async def post(self, model: str) -> None:
        """Deploy the notebook, and redirect to its page, which opens it as soon as it answers."""
        asker = self.asker
        asker.reach(KAOS)
        run = (await self.model(model)).id
        groups = await self.core.owners.groups(asker.owner, fresh=True)
        answer = await self.core.notebooks.deploy(
            asker.owner, asker.author, NotebookRequest(run=run), [asker.owner, *groups.values()]
        )
        page = f"{self.pages.path_of(KAOS)}notebooks/{answer.notebook.name}?open=1"
        # 303: reloading what follows does not do it again.
        self.redirect(page, status=303)


class GraphFile(_OfModel):
    """The provenance of a model, as a graph in the language of Graphviz."""

    route_name = "/models/{model}/provenance.dot"

    async def get(self, model: str) -> None:
        """Send the graph."""
        found = await self.model(model)
        made = await self.trainings.provenance(self.whose, found.id)
        self.set_header("Content-Type", "text/vnd.graphviz; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="{found.id}.dot"')
        self.finish(dot(made))


class NameHandler(_OfModel):
    """The naming of a model."""

    route_name = "/models/{model}/name"

    async def post(self, model: str) -> None:
        """Give the name, and redirect to the model."""
        wanted = parse_request(NameRequest, {"name": self.get_body_argument("name", "").strip()})
        named = await self.trainings.name_model(self.whose, self.asker.author, model, wanted.name)
        self.redirect(self.at(f"models/{named.id}"), status=303)


class ModelConfirmDelete(_OfModel):
    """A question before a model's name is removed."""

    route_name = "/models/{model}/confirm/delete"

    async def get(self, model: str) -> None:
        """Ask the question."""
        found = await self.model(model)
        self.ask(
            f"Delete the model {model}?",
            f"The name no longer leads to it. What trial {found.trial} left stays with its training"
            " until that is deleted.",
            "Delete",
            self.at(f"models/{model}/delete"),
            self.at(f"models/{found.id}"),
        )


class ModelDeleteHandler(_OfModel):
    """The removal of a model's name."""

    route_name = "/models/{model}/delete"
    right = Right.MANAGE

    async def post(self, model: str) -> None:
        """Remove the name, and redirect to the model that had it."""
        found = await self.model(model)
        await self.trainings.delete_model(self.whose, model)
        self.redirect(self.at(f"models/{found.id}"), status=303)


def model_rules(prefix: str) -> list[Any]:
    """Return tornado's rules for the pages of models below ``prefix``."""
    one, given = f"{prefix}models/{_MODEL}", {"prefix": prefix}
    return [
        (f"{prefix}models", ModelsPage, given),
        (one, ModelPage, given),
        (f"{one}/provenance\\.dot", GraphFile, given),
        (f"{one}/name", NameHandler, given),
        (f"{one}/notebook", OpenHandler, given),
        (f"{one}/confirm/delete", ModelConfirmDelete, given),
        (f"{one}/delete", ModelDeleteHandler, given),
    ]
