"""Weights of other layouts do in our layers what they did in theirs."""

import torch

from modscope.models.layouts import from_progress_measures, from_transformer_lens, renamed

HEADS, WIDTH, HEAD_WIDTH = 2, 6, 3


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_transformer_lens_heads_are_blocks_of_rows():
    query, bias, output = (
        _random(HEADS, WIDTH, HEAD_WIDTH),
        _random(HEADS, HEAD_WIDTH),
        _random(HEADS, HEAD_WIDTH, WIDTH),
    )
    ours = from_transformer_lens({"blocks.0.attn.W_Q": query, "blocks.0.attn.b_Q": bias, "blocks.0.attn.W_O": output})
    stream, heads = _random(WIDTH), _random(HEADS, HEAD_WIDTH)
    by_head = torch.stack([stream @ query[head] + bias[head] for head in range(HEADS)])
    computed = ours["blocks.0.attention.query.weight"] @ stream + ours["blocks.0.attention.query.bias"]
    assert torch.allclose(computed.reshape(HEADS, HEAD_WIDTH), by_head, atol=1e-6)
    written = sum(heads[head] @ output[head] for head in range(HEADS))
    assert torch.allclose(ours["blocks.0.attention.output.weight"] @ heads.flatten(), written, atol=1e-6)


def test_the_modular_addition_layout_has_outputs_first():
    query, embedding = _random(HEADS, HEAD_WIDTH, WIDTH), _random(WIDTH, 5)
    ours = from_progress_measures({"blocks.0.attn.W_Q": query, "embed.W_E": embedding})
    stream = _random(WIDTH)
    by_head = torch.stack([query[head] @ stream for head in range(HEADS)])
    computed = ours["blocks.0.attention.query.weight"] @ stream
    assert torch.allclose(computed.reshape(HEADS, HEAD_WIDTH), by_head, atol=1e-6)
    assert torch.equal(ours["token_embedding.weight"][3], embedding[:, 3])


def test_only_the_named_layers_get_other_names():
    one = torch.ones(1)
    assert set(renamed({"a.0.weight": one, "b.bias": one}, {"a.0": "conv1"})) == {"conv1.weight", "b.bias"}
