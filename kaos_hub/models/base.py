"""What all models share: frozen, strict towards clients, tolerant of newer services."""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from kaos_hub.errors import InvalidRequest


class Model(BaseModel):
    """Base of all models: frozen, and tolerant of unknown fields unless told otherwise."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_enum_values=False)


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
        problems = [
            f"{'.'.join(map(str, p['loc'])) or 'body'}: {p['msg'].removeprefix('Value error, ')}"
            for p in e.errors(include_url=False)
        ]
        raise InvalidRequest("; ".join(problems)) from None
