"""The handles of the SDK: each thing as it was last seen, with what can be done about it."""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from kaos_hub.schemas import Model, Trial, TrialCounts

_OURS = str(Path(__file__).parent)

AnyModel = TypeVar("AnyModel", bound=Model)


class Handle(Generic[AnyModel]):
    """A thing of the service. Its fields are those of its model: ``handle.state`` is
    ``handle.model.state``.

    Attributes:
        model: the thing as last seen.
    """

    def __init__(self, model: AnyModel) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        # Private names are asked for by copy and pickle, before there is a model.
        if name.startswith("_") or name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *type(self.model).model_fields})


class Trials(Sequence[Trial]):
    """The trials of a training: a sequence that is asked for when it is used, how many there are
    in which state (``trials.failed``), and a function that sorts them."""

    def __init__(self, ask: Callable[..., list[Trial]], counts: TrialCounts) -> None:
        self._ask, self._counts = ask, counts

    def __call__(self, sort: str | None = None, order: str | None = None) -> list[Trial]:
        return self._ask(sort, order)

    def __repr__(self) -> str:
        return repr(self._counts)

    def __len__(self) -> int:
        return self._counts.total

    def __iter__(self) -> Iterator[Trial]:
        return iter(self._ask(None, None))

    @overload
    def __getitem__(self, index: int) -> Trial: ...
    @overload
    def __getitem__(self, index: slice) -> list[Trial]: ...
    def __getitem__(self, index: int | slice) -> Trial | list[Trial]:
        return self._ask(None, None)[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._counts, name)


def warn(text: str) -> None:
    """Warn the caller of the SDK, with the line of theirs that called."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)
