"""The algorithmic transformer agrees with its definition, head by head."""

import math

import pytest
import torch

from modscope.models.transformer import AlgorithmicTransformer, TransformerShape

SHAPE = TransformerShape(
    n_tokens=6, n_positions=5, n_outputs=6, n_blocks=2, width=8, n_heads=2, width_mlp=12, is_causal=True
)


def _slow(model: AlgorithmicTransformer, tokens: list[int], is_causal: bool, padding: int | None) -> torch.Tensor:
    """One example, one position, one head at a time."""

    def norm(layer, x):
        centered = x - x.mean()
        return centered / (centered.square().mean() + 1e-5).sqrt() * layer.weight + layer.bias

    stream = [
        model.token_embedding.weight[token] + model.position_embedding.weight[position]
        for position, token in enumerate(tokens)
    ]
    for block in model.blocks:
        normed = [norm(block.attention_norm, x) for x in stream]
        attention = block.attention
        for position in range(len(stream)):
            read = []
            for head in range(attention.n_heads):
                rows = slice(4 * head, 4 * head + 4)
                query, key, value = (
                    [layer.weight[rows] @ x + layer.bias[rows] for x in normed]
                    for layer in (attention.query, attention.key, attention.value)
                )
                seen = [
                    other
                    for other in range(len(stream))
                    if (other <= position or not is_causal) and tokens[other] != padding
                ]
                scores = torch.stack([query[position] @ key[other] / math.sqrt(4) for other in seen])
                weights = scores.exp() / scores.exp().sum()
                read.append(sum(weight * value[other] for weight, other in zip(weights, seen, strict=True)))
            stream[position] = stream[position] + attention.output.weight @ torch.cat(read) + attention.output.bias
        for position, x in enumerate(stream):
            hidden = (block.mlp_in.weight @ norm(block.mlp_norm, x) + block.mlp_in.bias).clamp(min=0)
            stream[position] = x + block.mlp_out.weight @ hidden + block.mlp_out.bias
    return torch.stack([model.unembedding.weight @ norm(model.norm, x) + model.unembedding.bias for x in stream])


@pytest.mark.parametrize(("is_causal", "padding"), [(True, None), (False, 1)])
def test_logits_agree_with_a_slow_definition(is_causal, padding):
    torch.manual_seed(0)
    shape = TransformerShape(**{**vars(SHAPE), "is_causal": is_causal, "padding": padding})
    model = AlgorithmicTransformer(shape).double()
    tokens = [0, 3, 1, 5, 1]
    expected = _slow(model, tokens, is_causal, padding)
    assert torch.allclose(model(torch.tensor([tokens]))[0], expected, atol=1e-10)


def test_causal_attention_cannot_see_later_tokens():
    torch.manual_seed(0)
    model = AlgorithmicTransformer(SHAPE)
    first, second = model(torch.tensor([[0, 1, 2, 3, 4], [0, 1, 2, 5, 5]]))
    assert torch.allclose(first[:3], second[:3], atol=1e-6)
    assert not torch.allclose(first[3:], second[3:], atol=1e-2)


def test_parts_that_a_shape_leaves_out_have_no_weights():
    bare = TransformerShape(
        **{**vars(SHAPE), "width_mlp": 0, "has_norms": False, "has_attention_biases": False, "has_output_bias": False}
    )
    names = {name.rsplit(".", 1)[1] for name, _ in AlgorithmicTransformer(bare).named_parameters()}
    assert names == {"weight"}
    assert len(list(AlgorithmicTransformer(bare).parameters())) == 2 + 2 * 4 + 1
