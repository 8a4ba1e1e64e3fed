"""The base of all models: frozen, strict towards clients, tolerant of newer services."""

from itertools import islice
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from kaos_hub.errors import InvalidRequest


class Model(BaseModel):
    """Base of all models: frozen, and tolerant of unknown fields unless told otherwise."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_enum_values=False)


_MOST_TOLD = 50
"""Mistakes of a request that are told one by one."""

AnyModel = TypeVar("AnyModel", bound=Model)


def parse_request(model: type[AnyModel], data: object) -> AnyModel:
    """Validate what a client sent, refusing unknown fields.

    Raises:
        InvalidRequest: names each wrong field and what would be right. A field whose own
            validator raises a :class:`~kaos_hub.errors.KaosError` raises that error instead.
    """
    try:
        return model.model_validate(data, extra="forbid")
    except ValidationError as e:
        if e.error_count() > _MOST_TOLD:
            # A megabyte can be wrong in sixty thousand places; to list them would take a second.
            raise InvalidRequest(_in_short(model, data, e.error_count())) from None
        problems = [
            f"{'.'.join(map(str, p['loc'])) or 'body'}: {p['msg'].removeprefix('Value error, ')}"
            for p in e.errors(include_url=False)
        ]
        raise InvalidRequest("; ".join(problems)) from None


def _in_short(model: type[Model], data: object, count: int) -> str:
    unknown = (
        [str(name)[:64] for name in islice((n for n in data if n not in model.model_fields), 3)]
        if isinstance(data, dict)
        else []
    )
    which = f", like the unknown {', '.join(map(repr, unknown))}" if unknown else ""
    return f"body: {count:,} mistakes{which}"
