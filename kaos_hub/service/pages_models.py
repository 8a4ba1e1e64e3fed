"""The pages of models: the list, and one model with all that made it."""

from typing import Any

from kaos_hub.models import ModelId, NameRequest, TrainedModel, parse_request
from kaos_hub.service.auth import Right
from kaos_hub.service.pages import Searched
from kaos_hub.service.pages_trainings import TrainPage
from kaos_hub.service.trials_table import PAGE
from kaos_hub.trainings.provenance import dot

_MODEL = r"(?P<model>[^/]+)"


class ModelsQuery(Searched):
    """Which models a list shows."""

    named: bool = False
    after: ModelId | None = None


class ModelsPage(TrainPage):
    """All models."""

    route_name = "/models"

    async def get(self) -> None:
        """The list, youngest first, a page at a time."""
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
        """The model of an id, a name, or a name and version.

        Raises:
            NotFound: the owner has none.
        """
        return await self.trainings.model(self.whose, text)


class ModelPage(_OfModel):
    """One model."""

    route_name = "/models/{model}"

    async def get(self, model: str) -> None:
        """What it is, and what made it."""
        found = await self.model(model)
        made = await self.trainings.provenance(self.whose, found.id)
        self.show("kaos_model.html", model=found, made=made)


class GraphFile(_OfModel):
    """What made a model, as a graph in the language of Graphviz."""

    route_name = "/models/{model}/provenance.dot"

    async def get(self, model: str) -> None:
        """The graph."""
        found = await self.model(model)
        made = await self.trainings.provenance(self.whose, found.id)
        self.set_header("Content-Type", "text/vnd.graphviz; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="{found.id}.dot"')
        self.finish(dot(made))


class NameHandler(_OfModel):
    """Gives a model a name."""

    route_name = "/models/{model}/name"

    async def post(self, model: str) -> None:
        """Leads back to the model."""
        wanted = parse_request(NameRequest, {"name": self.get_body_argument("name", "").strip()})
        named = await self.trainings.name_model(self.whose, self.asker.user, model, wanted.name)
        self.redirect(self.at(f"models/{named.id}"), status=303)


class ConfirmDelete(_OfModel):
    """A question before a name is taken away."""

    route_name = "/models/{model}/confirm/delete"

    async def get(self, model: str) -> None:
        """Asks."""
        found = await self.model(model)
        self.ask(
            f"Delete the model {model}?",
            f"The name no longer leads to it. What trial {found.trial} left stays with its training"
            " until that is deleted.",
            "Delete",
            self.at(f"models/{model}/delete"),
            self.at(f"models/{found.id}"),
        )


class DeleteHandler(_OfModel):
    """Takes a name away."""

    route_name = "/models/{model}/delete"
    right = Right.MANAGE

    async def post(self, model: str) -> None:
        """Leads to what had the name."""
        found = await self.model(model)
        await self.trainings.delete_model(self.whose, model)
        self.redirect(self.at(f"models/{found.id}"), status=303)


def model_rules(prefix: str) -> list[Any]:
    """Tornado's rules for the pages of models below ``prefix``."""
    one, given = f"{prefix}models/{_MODEL}", {"prefix": prefix}
    return [
        (f"{prefix}models", ModelsPage, given),
        (one, ModelPage, given),
        (f"{one}/provenance\\.dot", GraphFile, given),
        (f"{one}/name", NameHandler, given),
        (f"{one}/confirm/delete", ConfirmDelete, given),
        (f"{one}/delete", DeleteHandler, given),
    ]
