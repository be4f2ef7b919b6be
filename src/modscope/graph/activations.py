"""Which graph do the activations of a network make?"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, get_args

import numpy as np
from jaxtyping import Int
from torch import nn

from modscope.errors import GraphError
from modscope.graph.correlations import Correlation, squared_correlations
from modscope.graph.places import Moment
from modscope.graph.reductions import Reduction
from modscope.graph.unit_graph import UnitGraph
from modscope.graph.unit_values import unit_values
from modscope.wiring.wiring import Wiring


def activation_graph(
    model: nn.Module,
    wiring: Wiring,
    batches: Iterable[Any],
    *,
    correlation: Correlation = "spearman",
    max_examples: int = 5000,
    moment: Moment = "after",
    reduction: Reduction = "mean",
    inputs: bool = False,
    outputs: bool = False,
) -> UnitGraph:
    """The graph whose edge between two units is the squared correlation of their activations.

    One block for each two unit groups, named "first ~ second". A unit whose value never changes (a dead one) has no
    edges. Above 20,000 units each keeps the 64 strongest edges of its own and those that others keep to it. Values are
    read, ranked and multiplied on the device of the model.

    Args:
        model: The network; it is run in eval mode and left as it was.
        wiring: What `read_wiring` found in it.
        batches: `(inputs, targets)`, dicts that the model takes as keywords, or tensors.
        correlation: "spearman" (the papers'; of ranks, ties averaged), "pearson", or "kendall" (tau-b; slow: its time
            grows with the square of the number of examples).
        max_examples: Reading stops after so many examples (tokens, where every layer sees the same tokens).
        moment: "after" the nonlinearity: where the unit is read; "before": where its layer writes it (streams are
            taken where they are read).
        reduction: What stands for a channel's map: its "mean", or as the papers' programs do, its largest singular
            value ("spectral", Filan et al.) or largest column sum of absolute values ("max_column", Hod et al.).
        inputs: Take in input units, where a layer reads them.
        outputs: Take in output units.

    Raises:
        GraphError: If an option is unknown, there are fewer than three examples, or the activations cannot be read.

    Source: Filan et al. 2021 and Hod et al. 2021 (their programs); ranks and tau-b: Kendall 1945.
    """
    _check_options(correlation, moment, reduction)
    left_out = {kind for kind, is_kept in (("input", inputs), ("output", outputs)) if not is_kept}
    is_wanted = np.array([group.kind not in left_out for group in wiring.groups], dtype=bool)[wiring.group_of]
    read = unit_values(
        model, wiring, batches, wanted=is_wanted, moment=moment, reduction=reduction, max_examples=max_examples
    )
    if len(read.values) < 3:
        raise GraphError(f"correlations need at least 3 examples, got {len(read.values)}; give more batches")
    _warn_of_unread(np.setdiff1d(np.flatnonzero(is_wanted), read.units), wiring)
    names = tuple(group.name for group in wiring.groups)
    blocks = squared_correlations(read.units, read.values, wiring.group_of, names, correlation)
    return UnitGraph(tuple(blocks), wiring.group_of, names)


def _check_options(correlation: str, moment: str, reduction: str) -> None:
    given = (("correlation", correlation, Correlation), ("moment", moment, Moment), ("reduction", reduction, Reduction))
    for name, value, allowed in given:
        if value not in get_args(allowed):
            raise GraphError(f"{name} must be one of {', '.join(get_args(allowed))}; got {value!r}")


def _warn_of_unread(units: Int[np.ndarray, " unread"], wiring: Wiring) -> None:
    if len(units):
        names = sorted({wiring.groups[group].name for group in wiring.group_of[units]})
        warnings.warn(
            f"{len(units)} units have no value on each example that could be followed, and stay without edges; "
            f"groups: {', '.join(names)}",
            stacklevel=3,
        )
