"""Ready-made environments: images that the admin offers, or any if that is allowed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kaos_hub.errors import Forbidden, InvalidRequest, NotFound, Unsupported
from kaos_hub.registry.names import Reference
from kaos_hub.schemas import Image


@dataclass(frozen=True)
class Images:
    """The images that notebooks may run in without a build.

    Args:
        offered: what the admin offers.
        any_image: whether any other image may be named, too.
        ours: whether a reference names what a user's build left; none of those may be named.
        engine: the engine's name, if it has no images; for a refusal.
    """

    offered: Sequence[Image] = ()
    any_image: bool = False
    ours: Callable[[Reference], bool] = lambda _: False
    engine: str = ""

    def reference(self, text: str) -> str:
        """The image that a name or reference means.

        Raises:
            Unsupported: this engine has no images.
            NotFound: no such environment is offered; says which are.
            Forbidden: it is what a user's build left.
        """
        if self.engine:
            raise Unsupported(
                f"Notebooks of the engine {self.engine!r} are processes of this machine, without"
                " images. Name what is needed in a requirements.txt of a source bundle, or have the"
                " hub run with `kaos up --engine docker`."
            )
        for image in self.offered:
            if text in (image.name, image.image):
                return image.image
        if not self.any_image:
            names = ", ".join(image.name for image in self.offered)
            there = f"offered: {names}" if names else "none is offered, deploy without --image"
            raise NotFound(f"There is no environment {text!r} here; {there}.")
        if not text.isascii() or not text.isprintable():
            raise InvalidRequest("an image is named as in python:3.13-slim")
        found = Reference.parse(text)
        if self.ours(found):
            raise Forbidden(
                f"{text} is what a build left. Deploy the source it was built from instead."
            )
        # In full: an engine would take a few letters for the id of an image that it has.
        return str(found)
