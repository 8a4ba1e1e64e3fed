"""Models: looking at them, naming them."""

from collections.abc import AsyncIterator, Sequence

from sqlalchemy.orm import Session

from kaos_hub.schemas import BundleKind, CommitRequest, Provenance, TrainedModel
from kaos_hub.service.trainings import listing, trained
from kaos_hub.service.trainings.base import Base


class Naming(Base):
    """The requests about models."""

    async def models(
        self,
        owner: str,
        limit: int = 100,
        after: str | None = None,
        named: bool = False,
        search: str = "",
    ) -> Sequence[TrainedModel]:
        """Models of the owner's, the youngest first; ``after`` is the id of the last one seen,
        ``named`` leaves out those without a name, ``search`` is a part of the name, or of the name
        or id of the training."""
        return await self._db.run(
            lambda session: listing.models(session, owner, limit, after, named, search)
        )

    async def model(self, owner: str, text: str) -> TrainedModel:
        """The model of an id, a name, or a name and version: ``mnist@v3``."""

        def look(session: Session) -> TrainedModel:
            return trained.shown(session, trained.find_model(session, owner, text))

        return await self._db.run(look)

    async def name_model(self, owner: str, user: str, text: str, name: str) -> TrainedModel:
        """Give a model a name; the same name again makes a new version of it."""
        model = await self.model(owner, text)
        wanted = CommitRequest(kind=BundleKind.ARTIFACT, name=name, root=model.output.digest)
        version = await self._versions.commit(owner, user, wanted)

        def write(session: Session) -> TrainedModel:
            return trained.set_name(session, trained.find_model(session, owner, model.id), version)

        return await self._db.run(write)

    async def delete_model(self, owner: str, text: str) -> None:
        """Take a name (or one version: ``mnist@v3``) from its models. The trials keep what they
        left.

        Raises:
            Conflict: something that has not ended uses it.
        """
        await self._db.run(lambda session: trained.forget_name(session, owner, text))

    async def model_archive(self, owner: str, text: str) -> AsyncIterator[bytes]:
        """A model's files as a tar."""
        model = await self.model(owner, text)
        return self._versions.archive(model.output.digest)

    async def provenance(self, owner: str, text: str) -> Provenance:
        """All that made a model."""

        def look(session: Session) -> Provenance:
            return trained.provenance(session, trained.find_model(session, owner, text))

        return await self._db.run(look)
