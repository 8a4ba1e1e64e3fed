"""Where models come from, for programs and as a picture."""

from kaos_hub.errors import Unsupported
from kaos_hub.models import Provenance


def dot(provenance: Provenance) -> str:
    """A provenance as a graph in the language of Graphviz."""
    raise Unsupported
