"""A folder becomes a hosted notebook, or a trained model, on the JupyterHub you already run."""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Client", "__version__", "log"]

if TYPE_CHECKING:
    from kaos_hub.client import Client
    from kaos_hub.live import log
else:

    def __getattr__(name: str) -> object:
        # Loaded on use, so that `import kaos_hub` costs nothing in a notebook.
        if name == "Client":
            return import_module("kaos_hub.client").Client
        if name == "log":
            return import_module("kaos_hub.live").log
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
