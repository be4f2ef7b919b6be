"""Which null models are there, and what does each one randomise?"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, Protocol, TypeAlias, cast

import numpy as np

from modscope.errors import StatisticsError
from modscope.nulls.subjects import SUBJECT_TYPES
from modscope.randomness import Rng, generator

SubjectKind: TypeAlias = Literal["weights", "graph", "labels", "masks"]


class NullModel(Protocol):
    """A function that draws a random version of a subject. Its first docstring line says what is kept."""

    __name__: str
    __doc__: str | None
    subject: SubjectKind
    takes: tuple[type, ...]

    def __call__(self, subject: Any, rng: Rng) -> Any:
        """One random version of the subject, which stays as it is."""


NULL_MODELS: dict[str, NullModel] = {}


def null_model(
    subject: SubjectKind, *, takes: tuple[type, ...] | None = None
) -> Callable[[Callable[[Any, np.random.Generator], Any]], NullModel]:
    """Enter a function `(subject, rng) -> subject` into `NULL_MODELS` under its own name.

    Args:
        subject: What it randomises: "weights" (a Wiring or a UnitGraph, layer by layer), "graph" (the edges of a
            UnitGraph as one set), "labels" (LabelledUnits) or "masks" (named boolean tensors, or SizedMask).
        takes: The types that it accepts; None = all that stand for the subject.

    Raises:
        StatisticsError: On registering, if the docstring does not begin "Keeps ...; destroys ..."; on calling, if the
            subject is of another kind.
    """
    types = SUBJECT_TYPES[subject] if takes is None else takes

    def register(draw: Callable[[Any, np.random.Generator], Any]) -> NullModel:
        first_line = (draw.__doc__ or "").strip().split("\n")[0]
        if not (first_line.startswith("Keeps ") and "; destroys " in first_line):
            raise StatisticsError(
                f"the docstring of null '{draw.__name__}' must begin 'Keeps ...; destroys ...', got {first_line!r}"
            )

        @wraps(draw)
        def checked(given: Any, rng: Rng) -> Any:
            if not isinstance(given, types):
                wanted = " or a ".join(kind.__name__ for kind in types)
                raise StatisticsError(
                    f"null model '{draw.__name__}' randomises {subject}: it takes a {wanted}, "
                    f"got {type(given).__name__}; {_fitting(given)}"
                )
            return draw(given, generator(rng))

        model = cast("NullModel", checked)
        model.subject, model.takes = subject, types
        NULL_MODELS[draw.__name__] = model
        return model

    return register


def null_named(null: str | NullModel) -> NullModel:
    """The null model of that name, or the one given.

    Raises:
        StatisticsError: If there is none of that name.
    """
    if not isinstance(null, str):
        return null
    if null not in NULL_MODELS:
        raise StatisticsError(f"there is no null model '{null}'; there are {', '.join(sorted(NULL_MODELS))}")
    return NULL_MODELS[null]


def _fitting(given: Any) -> str:
    names = [name for name, null in NULL_MODELS.items() if isinstance(given, null.takes)]
    return f"for that there are {', '.join(names)}" if names else "there is no null model for that"
