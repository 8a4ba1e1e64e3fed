"""The client: where it comes in, and the things that it gives access to."""

import os

from kaos_hub.client.bundles import Bundles
from kaos_hub.client.models import Models, Workspaces
from kaos_hub.client.notebooks import Notebooks
from kaos_hub.client.owners import Owners
from kaos_hub.client.trainings import Trainings
from kaos_hub.client.volumes import Volumes
from kaos_hub.errors import NotAuthenticated
from kaos_hub.schemas import Info, Whoami
from kaos_hub.transport.credentials import (
    SERVICE_PATH,
    TRAIN_PATH,
    Credentials,
    hub_base,
    load_credentials,
    load_workspace,
)
from kaos_hub.transport.http import Transport, parse


def find_credentials(url: str | None = None, token: str | None = None) -> Credentials:
    """The Hub and token to use: what is given, else the notebook's own, else what login saved.

    Args:
        url: a Hub's URL.
        token: a token for it.

    Raises:
        NotAuthenticated: no token is known.
        InvalidRequest: the URL or the credentials file is wrong.
    """
    inside = os.environ.get("KAOS_URL")
    inside_token = os.environ.get("JUPYTERHUB_API_TOKEN")
    if url is None and inside and (token or inside_token):
        return Credentials(hub_base(inside), token or str(inside_token))
    if url is not None and token:
        return Credentials(hub_base(url), token)
    known = load_credentials(url)
    if known is None:
        where = hub_base(url) if url else "URL"
        raise NotAuthenticated(
            f"not logged in{f' to {where}' if url else ''}. Run: kaos login {where}"
            + ("" if url else ", or kaos up to start everything on this machine")
        )
    return Credentials(known.url, token or known.token, known.user)


class Client:
    """A user's bundles, notebooks, trainings and models on one Hub.

    Args:
        url: the Hub, e.g. ``http://127.0.0.1:8000``; without it the notebook's own Hub or the one
            last logged in to.
        token: a Hub token; without it the notebook's own or the saved one.
        workspace: the group of the Hub whose bundles, trainings and models are meant; empty: one's
            own; without it, what ``kaos workspace set`` chose. Notebooks are always one's own.

    Attributes:
        bundles: see :class:`~kaos_hub.client.bundles.Bundles`.
        notebooks: see :class:`~kaos_hub.client.notebooks.Notebooks`.
        volumes: see :class:`~kaos_hub.client.volumes.Volumes`.
        trainings: see :class:`~kaos_hub.client.trainings.Trainings`.
        models: see :class:`~kaos_hub.client.models.Models`.
        workspaces: see :class:`~kaos_hub.client.models.Workspaces`.

    Raises:
        NotAuthenticated: no token is known.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, workspace: str | None = None
    ) -> None:
        self.credentials = find_credentials(url, token)
        chosen = load_workspace(self.credentials.url) if workspace is None else workspace or None
        owner = f"group:{chosen}" if chosen else None
        base, known = self.credentials.url, self.credentials.token
        # Who may only train asks kaos-train for what both services have: bundles, who one is.
        first, second = base + SERVICE_PATH, base + TRAIN_PATH
        self._transport = Transport(first, known)
        self._about = Transport(first, known, instead=second)
        self._shared = Transport(first, known, owner, instead=second)
        self._train = Transport(second, known, owner)
        self.bundles = Bundles(self._shared)
        self.notebooks = Notebooks(self._transport, Bundles(self._transport))
        self.volumes = Volumes(self._transport)
        self.owners = Owners(self._transport)
        self.trainings = Trainings(self._train, Bundles(self._train))
        self.models = Models(self._train)
        # Asked as oneself: also one who was put out of a group wants to know which there are.
        self.workspaces = Workspaces(Transport(base + TRAIN_PATH, known), chosen)

    def __repr__(self) -> str:
        return f"<kaos client of {self.credentials.url}>"

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all connections."""
        for transport in (self._transport, self._about, self._shared, self._train):
            transport.close()

    def whoami(self) -> Whoami:
        """Return the user who is asking, with limits and use."""
        return parse(Whoami, self._about.json("GET", "/api/v1/whoami"))

    def info(self) -> Info:
        """Return what the service is and offers."""
        return parse(Info, self._transport.json("GET", "/api/v1/info"))
