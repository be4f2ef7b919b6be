"""Random versions of a subject, each named by what it keeps."""

from modscope.nulls.graphs import keep_degrees, permute_edges
from modscope.nulls.labels import shuffle_labels_within_groups
from modscope.nulls.masks import random_masks, random_masks_of_equal_sizes
from modscope.nulls.registry import NULL_MODELS, NullModel, null_model, null_named
from modscope.nulls.subjects import LabelledUnits, SizedMask
from modscope.nulls.weights import (
    keep_unit_scale,
    keep_unit_scale_by_size,
    keep_unit_scale_rewired,
    permute_within_columns,
    permute_within_rows,
    random_initialisation,
    redraw_nonzero_weights,
    shuffle_and_redraw_weights,
    shuffle_nonzero_weights,
    shuffle_weights,
    shuffle_within_signs,
)

__all__ = [
    "NULL_MODELS",
    "LabelledUnits",
    "NullModel",
    "SizedMask",
    "keep_degrees",
    "keep_unit_scale",
    "keep_unit_scale_by_size",
    "keep_unit_scale_rewired",
    "null_model",
    "null_named",
    "permute_edges",
    "permute_within_columns",
    "permute_within_rows",
    "random_initialisation",
    "random_masks",
    "random_masks_of_equal_sizes",
    "redraw_nonzero_weights",
    "shuffle_and_redraw_weights",
    "shuffle_labels_within_groups",
    "shuffle_nonzero_weights",
    "shuffle_weights",
    "shuffle_within_signs",
]
