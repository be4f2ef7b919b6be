from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modscope.errors import MaskError
from modscope.masks.chunks import batch_axes, cut, first_examples, joined, n_examples

Pair = namedtuple("Pair", ["left", "right"])


@dataclass
class Holder:
    logits: Tensor
    note: str


@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 17), n_chunks=st.integers(1, 5), batch_dim=st.integers(0, 1))
def test_outputs_of_the_chunks_are_joined_to_the_outputs_of_the_whole(
    count: int, n_chunks: int, batch_dim: int
) -> None:
    n_chunks = min(n_chunks, count)
    shape = (count, 19) if batch_dim == 0 else (19, count)
    inputs = torch.arange(count * 19.0).reshape(shape)

    def model(x: Tensor) -> dict[str, object]:
        last = x[:, -1] if batch_dim == 0 else x[-1]
        return {
            "same": x * 2,
            "last": last,
            "nested": Pair((x + 1,), Holder(x, "kept")),
            "mean": last.mean(),
            "none": None,
        }

    axes = batch_axes(model(inputs), model(first_examples(inputs, count - 1, batch_dim)))
    chunks = cut(inputs, n_chunks, batch_dim)
    sizes = [n_examples(chunk, batch_dim) for chunk in chunks]
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    found = joined([model(chunk) for chunk in chunks], axes, sizes)
    whole = model(inputs)
    assert torch.equal(found["same"], whole["same"])
    assert torch.equal(found["last"], whole["last"])
    assert torch.equal(found["nested"].left[0], whole["nested"].left[0])  # type: ignore[attr-defined]
    assert torch.equal(found["nested"].right.logits, inputs)
    assert found["nested"].right.note == "kept"
    assert found["mean"].item() == pytest.approx(whole["mean"].item())  # type: ignore[attr-defined]
    assert found["none"] is None


def test_everything_that_counts_examples_is_cut_and_the_rest_goes_whole_to_each_chunk() -> None:
    batch = {"ids": torch.zeros(6, 3), "positions": torch.zeros(1, 3), "state": (torch.zeros(2, 6, 5),), "flag": True}
    first, second = cut(batch, 2, 0)
    assert isinstance(first, dict)
    assert first["ids"].shape == (3, 3)
    assert first["positions"].shape == (1, 3)
    assert first["state"][0].shape == (2, 3, 5)
    assert first["flag"] is True
    assert isinstance(second, dict)


def test_outputs_whose_size_is_the_square_of_the_batch_cannot_be_joined() -> None:
    with pytest.raises(MaskError, match="more than one axis depends on the batch"):
        batch_axes(torch.zeros(4, 4), torch.zeros(3, 3))
