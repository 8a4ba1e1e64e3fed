"""The one tree of errors.

Every class has a ``code`` (stable, for programs), an HTTP ``status`` and an ``exit_code`` for the
command line. The message is for people: what went wrong, where, and what to do about it. The
service renders an error as ``{"code", "message", "details"}``; the client turns that back into the
same class.

    KaosError
    ├── InvalidRequest         400  the request itself is wrong
    │   ├── InvalidBundle           a folder breaks a rule of bundles; names the entry
    │   ├── InvalidName             a notebook's or bundle's name
    │   ├── TooSlow            408  the body came too slowly
    │   └── InvalidResources        cpu, memory, gpu, size or idle policy
    ├── NotAuthenticated       401
    ├── Forbidden              403
    │   └── LimitExceeded           a limit of the ledger; says how much is held and allowed
    ├── NotFound               404  not there, or not yours: the answer does not tell which
    ├── Conflict               409
    │   ├── RestartRequired         the change needs the running notebook to restart
    │   ├── NotBuilt                asked to start something whose build still runs
    │   └── MissingObjects          a commit names objects that the owner has not sent
    ├── TooLarge               413
    ├── TooManyRequests        429  more than one may ask for now; says when to try again
    ├── BuildFailed            422  the user's own build failed; names the line
    ├── Failed                 422  a notebook, training or clone ended badly; says why
    ├── Unsupported            422  this engine cannot do that
    ├── Damaged                500  content that should be in the store is not, or is damaged
    ├── StorageFull            507
    └── Unavailable            503  something we need does not answer
        ├── EngineUnavailable
        └── HubUnavailable
"""

from typing import Any, ClassVar


class KaosError(Exception):
    """Something went wrong in kaos_hub itself. The log of the service says more."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str | None = None, /, **details: Any) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.details = details
        super().__init__(self.message)

    def body(self) -> dict[str, Any]:
        """The error as the REST API sends it."""
        return {"code": self.code, "message": self.message, "details": self.details}


class InvalidRequest(KaosError):
    """The request cannot be understood."""

    code, status, exit_code = "invalid_request", 400, 2


class InvalidBundle(InvalidRequest):
    """The folder cannot be a bundle."""

    code = "invalid_bundle"


class InvalidName(InvalidRequest):
    """The name is not allowed."""

    code = "invalid_name"


class TooSlow(InvalidRequest):
    """The body came too slowly. Send it again over a better connection."""

    code, status = "too_slow", 408


class InvalidResources(InvalidRequest):
    """The resources asked for make no sense."""

    code = "invalid_resources"


class NotAuthenticated(KaosError):
    """Not logged in. Run: kaos login URL"""

    code, status, exit_code = "not_authenticated", 401, 4


class Forbidden(KaosError):
    """You may not do that. `kaos whoami` shows as whom you are logged in."""

    code, status, exit_code = "forbidden", 403, 4


class LimitExceeded(Forbidden):
    """That would exceed your limits. `kaos whoami` shows them."""

    code, exit_code = "limit_exceeded", 6


class NotFound(KaosError):
    """There is no such thing."""

    code, status, exit_code = "not_found", 404, 3


class Conflict(KaosError):
    """That does not fit the present state."""

    code, status, exit_code = "conflict", 409, 5


class RestartRequired(Conflict):
    """The change needs the notebook to restart; its kernels would be lost. Confirm with -y."""

    code = "restart_required"


class NotBuilt(Conflict):
    """The image is not built yet. The notebook starts by itself when it is: kaos notebook list"""

    code = "not_built"


class MissingObjects(Conflict):
    """The bundle names content that was not sent. Submit it again."""

    code = "missing_objects"


class TooLarge(KaosError):
    """That is more than may be sent."""

    code, status, exit_code = "too_large", 413, 2


class TooManyRequests(KaosError):
    """That is more than you may ask for at once. Try again in a moment."""

    code, status, exit_code = "too_many_requests", 429, 7


class BuildFailed(KaosError):
    """The build failed. `kaos notebook build-logs` shows its log."""

    code, status, exit_code = "build_failed", 422, 8


class Failed(KaosError):
    """It failed. Its log says why."""

    code, status = "failed", 422


class Unsupported(KaosError):
    """This engine cannot do that."""

    code, status, exit_code = "unsupported", 422, 2


class Damaged(KaosError):
    """Content in the store is damaged or missing. An admin should check the store."""

    code = "damaged"


class StorageFull(KaosError):
    """The store is full. Nothing was kept of the upload; what was there before is intact."""

    code, status, exit_code = "storage_full", 507, 6


class Unavailable(KaosError):
    """The service does not answer. `kaos doctor` may tell why."""

    code, status, exit_code = "unavailable", 503, 7


class EngineUnavailable(Unavailable):
    """The engine does not answer. On its machine, `kaos doctor` tells why."""

    code = "engine_unavailable"


class HubUnavailable(Unavailable):
    """The Hub does not answer. Try again in a moment; on its machine, `kaos doctor` tells why."""

    code = "hub_unavailable"


def _tree(cls: type[KaosError]) -> dict[str, type[KaosError]]:
    found = {cls.code: cls}
    for child in cls.__subclasses__():
        found |= _tree(child)
    return found


def from_body(status: int, body: dict[str, Any]) -> KaosError:
    """The error that a response describes, as the class that raised it.

    Unknown codes (of a newer service) become the nearest class with that HTTP status.
    """
    tree = _tree(KaosError)
    cls = tree.get(str(body.get("code")))
    if cls is None:
        cls = next((c for c in tree.values() if c.status == status), KaosError)
    return cls(str(body.get("message") or f"HTTP {status}"), **dict(body.get("details") or {}))
