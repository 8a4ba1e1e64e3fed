"""The last choices of a user for a notebook, to be offered again."""

from kaos_hub.schemas.base import Model
from kaos_hub.schemas.notebooks import BundleLink, Notebook
from kaos_hub.schemas.options import BindMount, VolumeMount
from kaos_hub.schemas.resources import IdlePolicy, Resources


class Choices(Model):
    """The choices for a notebook that are worth offering again; of variables not even the names."""

    source: BundleLink | None = None
    data: BundleLink | None = None
    context: BundleLink | None = None
    resources: Resources = Resources()
    pool: str | None = None
    idle: IdlePolicy = IdlePolicy()
    image: str | None = None
    git: str | None = None
    volumes: list[VolumeMount] = []
    bind_mounts: list[BindMount] = []

    @classmethod
    def of(cls, notebook: Notebook) -> "Choices":
        """Return what was chosen for a notebook."""
        same = {name: getattr(notebook, name) for name in cls.model_fields if name != "git"}
        return cls(**same, git=None if notebook.git is None else str(notebook.git))
