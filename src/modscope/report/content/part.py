"""What is every part of a record made of: numbers, tests, and reasons why there is none?"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

State: TypeAlias = Literal["yes", "part", "no", "na"]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Count: TypeAlias = Annotated[int, Field(ge=0)]
P: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """Base of every part: frozen, finite numbers only, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Missing(Part):
    """A part that was not measured, or not measurable, and why."""

    why: str


class Test(Part):
    """An effect against its null distribution."""

    effect: float  # observed minus null mean, or whatever `unit` says
    unit: str = ""  # what `effect` counts, for readers: "n-cut, against a shuffle that keeps each unit's scale"
    percent: bool = False  # print effect and null as percentage points
    low: float | None = None  # interval of the effect
    high: float | None = None
    null_mean: float | None = None  # of the effect under the null: 0 for a difference
    null_low: float | None = None  # central 95 % of the null samples, on the scale of `effect`
    null_high: float | None = None
    z: float | None = None
    p: P | None = None
    p_adjusted: P | None = None
    correction: str | None = None  # "Holm", "Benjamini-Hochberg"
    n_null: Count | None = None
    p_floor: P | None = None
    sided: Literal["less", "greater", "two-sided"] | None = None
