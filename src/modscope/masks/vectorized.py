"""How do all mask samples of a step run at once, by `torch.vmap`?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from modscope.calling import Inputs

Called = Callable[[Mapping[str, Tensor], Inputs], Any]  # parameters, inputs -> outputs


def vectorized(called: Called, copies: Sequence[Mapping[str, Tensor]], chunks: Sequence[Inputs]) -> list[Any]:
    """What the model gives on each chunk under its own copy of the parameters.

    Args:
        called: Runs the model.
        copies: Parameters, one mapping for each chunk.
        chunks: Inputs; their tensors are of one shape. Tensors that all chunks share are not repeated.
    """
    parameters = {name: torch.stack([copy[name] for copy in copies]) for name in copies[0]}
    columns = [list(column) for column in zip(*(tree_flatten(chunk)[0] for chunk in chunks), strict=True)]
    structure = tree_flatten(chunks[0])[1]
    differs = [isinstance(column[0], Tensor) and any(one is not column[0] for one in column) for column in columns]
    inputs = [torch.stack(column) for column, is_cut in zip(columns, differs, strict=True) if is_cut]

    def one_sample(own: dict[str, Tensor], own_inputs: list[Tensor]) -> Any:
        left = iter(own_inputs)
        leaves = [next(left) if is_cut else column[0] for column, is_cut in zip(columns, differs, strict=True)]
        return called(own, tree_unflatten(leaves, structure))

    with _no_fused_attention():
        outputs = torch.vmap(one_sample, randomness="different")(parameters, inputs)
    leaves, structure_of_outputs = tree_flatten(outputs)
    return [tree_unflatten([leaf[i] for leaf in leaves], structure_of_outputs) for i in range(len(chunks))]


@contextmanager
def _no_fused_attention() -> Iterator[None]:
    """Under `torch.vmap` attention layers cannot see that gradients are wanted, and take a way that has none."""
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)
