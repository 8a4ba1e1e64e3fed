"""Base images: what each owner's references mean, and which images are none.

An image that a build for an owner left is no base for any owner. That is told from what a reference
was resolved to, not from how it was written.
"""

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.engines.base import Engine
from kaos_hub.errors import Forbidden, KaosError, Unavailable, Unsupported
from kaos_hub.formats import dockerfile as reading
from kaos_hub.registry.names import Reference
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import BaseRow, ImageRow, now


class Bases:
    """Resolves images, and remembers for each owner what they mean.

    Args:
        db, engine: what it works with.
        trusted: images that the admin names, which are taken as they are.
    """

    def __init__(self, db: Database, engine: Engine, trusted: Collection[str] = ()) -> None:
        self._db, self._engine, self._trusted = db, engine, frozenset(trusted)

    async def resolve(self, owner: str, image: str, pull: bool, ask: bool) -> str | None:
        """Resolve an image for an owner. Once it is known, only ``pull`` asks a registry again.

        Args:
            owner: whose.
            image: its reference.
            pull: look it up again.
            ask: ask the engine, which may take as long as fetching the image; else None is the
                answer for one that the owner never used.

        Raises:
            NotFound: it is nowhere to be found, or is no reference.
            Forbidden: it is what a build left.
        """
        if image not in self._trusted and image != "scratch":
            self._refuse_name(image)
        key = (owner, self._engine.name, image)
        known = await self._db.run(lambda session: session.get(BaseRow, key))
        resolved = known.resolved if known is not None else None
        if ask and (pull or resolved is None):
            resolved = await self._look_up(image, pull, resolved)
            await self._refuse_built(image, resolved)
            row = BaseRow(
                owner=owner, engine=key[1], reference=image, resolved=resolved, at=now()
            )  # fmt: skip
            await self._db.run(lambda session: session.merge(row))
        return resolved

    async def _look_up(self, image: str, pull: bool, known: str | None) -> str:
        try:
            return await self._engine.resolve(image, pull)
        except Unavailable:
            raise
        except KaosError:
            if known is None:
                raise
            return known

    def _refuse_name(self, image: str) -> None:
        # What is no reference is an image's id, say, or a way through an API.
        if self._engine.owns(Reference.parse(image)):
            raise _built(image)

    async def _refuse_built(self, image: str, resolved: str) -> None:
        if image in self._trusted or image == "scratch":
            return
        digest = resolved.rpartition("@")[2]

        def left(session: Session) -> bool:
            means = ImageRow.result["image"].as_string()
            query = select(ImageRow.key).where(means.endswith(digest, autoescape=True))
            return session.scalar(query.limit(1)) is not None

        if await self._engine.is_built(resolved) or await self._db.run(left):
            raise _built(image)

    async def refuse_triggers(self, image: str, resolved: str) -> None:
        """Refuse a base whose ONBUILD instructions take files out of images that no line names.

        Raises:
            Unsupported: says which.
        """
        lines = await self._engine.triggers(resolved)
        if not lines:
            return
        found = reading.images_copied_from(reading.stages("\n".join(["FROM scratch", *lines, ""])))
        if found:
            raise Unsupported(
                f"The base image {image} has ONBUILD instructions that take files out of"
                f" {found[0]}. Copy them in the Dockerfile itself, and use a base without."
            )


def _built(image: str) -> Forbidden:
    return Forbidden(f"{image} is what a build left. Build on what that was built from instead.")
