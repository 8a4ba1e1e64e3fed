"""The asking user, the service itself, owners, errors and logins."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from kaos_hub.schemas.base import Model
from kaos_hub.schemas.resources import Capacity, IdlePolicy, Image, Limits, Size, Usage
from kaos_hub.schemas.words import Owner, ShownText


class Whoami(Model):
    """The asking user, with limits and use."""

    user: str
    owner: Owner
    admin: bool = False
    services: list[str] = Field(
        default=[],
        description="of the Hub, that the token may use: kaos for notebooks, kaos-train to train",
    )
    limits: Limits
    usage: Usage
    capacity: Capacity = Field(
        Capacity(), description="the most that one notebook or trial can have here"
    )


class Info(Model):
    """Facts about this service, and what it offers. Needs no login."""

    version: str
    engine: str
    sizes: list[Size]
    default_size: str = ""
    pools: list[str] = Field(default=[], description="Kubernetes: nodes that one can choose")
    images: list[Image] = Field(default=[], description="ready-made environments")
    any_image: bool = Field(False, description="whether one may name any other image, too")
    gpu: bool = Field(description="whether the engine has GPUs to give")
    idle: IdlePolicy
    max_file_size: int
    max_files: int


class OwnerState(StrEnum):
    """The state of an owner in the Hub."""

    HERE = "HERE"
    """The Hub has it."""
    GONE = "GONE"
    """The Hub has it no more: what is left waits for an admin."""
    UNSEEN = "UNSEEN"
    """It was not seen since this is asked; the first that is seen with its name is the owner."""


class OwnerSummary(Model):
    """An owner as an admin sees it, and how much it has."""

    id: str = Field(description="stays when the name changes, and never means another")
    kind: str = Field(description="user or group")
    name: str = Field(description="as it is called now, or was last")
    state: OwnerState
    since: datetime | None = Field(None, description="since when the Hub has it no more")
    notebooks: int
    volumes: int
    versions: int = Field(description="of bundles")
    trainings: int
    storage: int = Field(description="bytes")


class HandOver(Model):
    """The owner to whom things are handed over."""

    to: Annotated[str, StringConstraints(pattern=r"^(user|group):.+$", max_length=300)]


class ErrorBody(Model):
    """An error as the API reports it."""

    code: str
    message: str
    details: dict[str, Any] = {}


class LoginRequest(Model):
    """A command line asks to be let in by a person in a browser (RFC 8628 in spirit).

    ``challenge`` is the SHA-256, in hex, of a secret that the command line keeps.
    """

    challenge: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    client: ShownText = Field(max_length=100, description="host name shown to the person")


class LoginStarted(Model):
    """The page where the person confirms, and the code to compare."""

    url: str
    other_url: str | None = Field(
        None, description="for who may not use the service of `url`; null: `url` is for all"
    )
    user_code: str
    expires_in: int


class LoginPoll(Model):
    """Ask for the token; ``verifier`` is the secret behind the challenge."""

    verifier: Annotated[str, StringConstraints(min_length=20, max_length=200)]


class LoginAnswer(Model):
    """The token, once the person has confirmed."""

    token: str | None = None
