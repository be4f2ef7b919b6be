"""Random versions of a subject, each named by what it keeps."""

from modscope.nulls.registry import NULL_MODELS, NullModel, null_model, null_named
from modscope.nulls.subjects import LabelledUnits, SizedMask
from modscope.nulls.weights import (
    keep_unit_scale,
    keep_unit_scale_rewired,
    redraw_nonzero_weights,
    shuffle_and_redraw_weights,
    shuffle_nonzero_weights,
    shuffle_weights,
)

__all__ = [
    "NULL_MODELS",
    "LabelledUnits",
    "NullModel",
    "SizedMask",
    "keep_unit_scale",
    "keep_unit_scale_rewired",
    "null_model",
    "null_named",
    "redraw_nonzero_weights",
    "shuffle_and_redraw_weights",
    "shuffle_nonzero_weights",
    "shuffle_weights",
]
