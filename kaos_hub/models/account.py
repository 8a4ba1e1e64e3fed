"""Who asks, what this service is, errors and logins."""

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from kaos_hub.models.base import Model
from kaos_hub.models.resources import IdlePolicy, Image, Limits, Size, Usage
from kaos_hub.models.words import Owner


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


class Info(Model):
    """What this service is and offers. Needs no login."""

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


class ErrorBody(Model):
    """How the API reports an error."""

    code: str
    message: str
    details: dict[str, Any] = {}


class LoginRequest(Model):
    """A command line asks to be let in by a person in a browser (RFC 8628 in spirit).

    ``challenge`` is the SHA-256, in hex, of a secret that the command line keeps.
    """

    challenge: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    client: str = Field(max_length=100, description="host name shown to the person")


class LoginStarted(Model):
    """Where the person confirms, and the code they compare."""

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
