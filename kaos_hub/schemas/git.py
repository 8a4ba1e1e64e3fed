"""Repositories that notebooks begin with: how they are named, and what becomes of a clone."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from kaos_hub.errors import InvalidRequest
from kaos_hub.schemas.base import Model

GIT_SCHEMES = ("https", "http")
"""Schemes that can be cloned at all; an admin may allow less."""

_NOTHING = "-"
_LONGEST_URL, _LONGEST_REF = 2000, 250
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<host>[^/?#\s\\]*)(?P<path>/.*)?")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@\s]+)(:(?P<port>[0-9]{1,5}))?")
_LIKE_SSH = re.compile(r"[^/@\s]+@(?P<host>[^/:@\s]+):(?P<path>[^\s]+)")
_PATH = re.compile(r"/[^\s\\?#]+")
# What git itself refuses in the name of a branch or tag.
_NO_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[/.-]|/\.|[/.]$|\.lock(/|$)|^@$")
_LOGIN = (
    "a name, password or token may not stand in the address, where everybody who sees the notebook"
    " would read it. Leave it out and say --git-credentials, which asks for it; over REST it is"
    " the field git_credentials"
)


class Repository(Model):
    """A repository, and what of it."""

    url: str
    ref: str | None = None
    """Branch, tag or commit; None is what the repository itself begins with."""

    def __str__(self) -> str:
        return self.url if self.ref is None else f"{self.url}@{self.ref}"

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]

    @property
    def host(self) -> str:
        return self.url.partition("://")[2].partition("/")[0]

    @property
    def name(self) -> str:
        """The name of its folder."""
        last = self.url.rstrip("/").rpartition("/")[2].removesuffix(".git")
        return last[:100] if last.strip(". ") else "repository"


def parse_repository(text: str) -> Repository:
    """A repository from ``URL[@REF]``.

    The REF begins after the first ``@`` behind ``.git``; where the address does not end in that,
    at the first ``@`` of its path that does not begin a part of it.

    Raises:
        InvalidRequest: says what is wrong, and repeats no password.
    """
    text = text.strip()
    found = _URL.fullmatch(text)
    if found is None or not text.isprintable():
        raise _no_address(text)
    if "@" in found["host"]:
        raise InvalidRequest(f"git: {_LOGIN}")
    host = _HOST.fullmatch(found["host"])
    if host is None or int(host["port"] or 1) not in range(1, 1 << 16):
        raise InvalidRequest("git: the address names no host")
    path, ref = _apart(found["path"] or "")
    if "?" in path or "#" in path:
        raise InvalidRequest(
            "git: the address of a repository has no '?' and no '#': what stands behind would be"
            " shown to everybody who sees the notebook"
        )
    path = path.rstrip("/")
    if not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise InvalidRequest("git: the address names no repository: https://HOST/PATH[@REF]")
    if ref is not None and (not ref or len(ref) > _LONGEST_REF or _NO_REF.search(ref)):
        raise InvalidRequest(f"git: {ref[:80]!r} can be no branch, tag or commit")
    if len(text) > _LONGEST_URL:
        raise InvalidRequest(f"git: an address has at most {_LONGEST_URL} characters")
    return Repository(url=f"{found['scheme'].lower()}://{found['host'].lower()}{path}", ref=ref)


def _apart(path: str) -> tuple[str, str | None]:
    """Path and REF."""
    found = re.search(r"\.git/?@", path) or re.search(r"(?<=[^/])@", path)
    if found is None:
        return path, None
    return path[: found.end() - 1], path[found.end() :]


def _no_address(text: str) -> InvalidRequest:
    like_ssh = _LIKE_SSH.fullmatch(text)
    if like_ssh:
        meant = f"https://{like_ssh['host']}/{like_ssh['path']}"
        return InvalidRequest(f"git: only http and https can be cloned; is {meant} meant?")
    return InvalidRequest("git: say URL or URL@REF, as in https://host/group/repository.git@main")


def _wish(text: str) -> str:
    return _NOTHING if text.strip() == _NOTHING else str(parse_repository(text))


GitWish = Annotated[str, AfterValidator(_wish)]
"""``URL[@REF]``, written in one way; or ``-``."""


def _login_part(text: str) -> str:
    # What is wrong is never repeated: it is a secret.
    if not text.isprintable():
        raise InvalidRequest("git_credentials: there are characters in it that none can have")
    return text


def _login_name(text: str) -> str:
    if ":" in _login_part(text):
        raise InvalidRequest("git_credentials: no name has a ':' in it")
    return text


class GitCredentials(Model):
    """The credentials of a private repository: used once, and never shown again."""

    username: Annotated[str, AfterValidator(_login_name)] = Field(
        "git", max_length=255, description="most servers take any, with a token"
    )
    password: Annotated[str, AfterValidator(_login_part)] = Field(
        min_length=1, max_length=8192, repr=False, description="or a token"
    )


class GitState(StrEnum):
    """The state of a clone."""

    ASKED = "ASKED"
    """It begins when the notebook starts, or a moment later if it runs."""
    CLONING = "CLONING"
    CLONED = "CLONED"
    FAILED = "FAILED"


Commit = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})?$")]


class Clone(Model):
    """A notebook's repository, and what has become of it."""

    url: str
    ref: str | None = Field(None, description="branch, tag or commit")
    state: GitState = GitState.ASKED
    note: str = Field("", description="how far it is, or why it failed, for people")
    commit: Commit = Field("", description="what was checked out")
    place: str = Field("", description="its folder, below the home")

    def __str__(self) -> str:
        return str(Repository(url=self.url, ref=self.ref))


class CloneReport(Model):
    """A report of the notebook on its clone."""

    repository: GitWish = Field(description="which one it is about")
    state: GitState
    note: str = Field("", max_length=2000)
    commit: Commit = ""
    place: str = Field("", max_length=1000)


class CloneQuestion(Model):
    """The notebook asks for the credentials of its repository."""

    repository: GitWish


class CloneLogin(Model):
    """The credentials of a repository, if there are any that were not yet handed out."""

    credentials: GitCredentials | None = Field(None, repr=False)


class CloneOrder(Model):
    """The repository that a notebook is to clone, and the bounds. No secret is in it."""

    repository: str
    networks: list[str] = Field(default=[], description="to be reached though they are private")
    schemes: list[str] = Field(default=list(GIT_SCHEMES))
    size: int = Field(description="bytes that it may fetch, and that its files may have")
    deadline: int = Field(description="seconds that it may take")
    cloned: bool = Field(False, description="it was there when it was last looked at")
