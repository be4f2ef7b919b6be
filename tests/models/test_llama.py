"""The small Llama: rotary positions, tied weights, causality."""

import torch

from modscope.models.llama import LlamaShape, SmallLlama, turned

SHAPE = LlamaShape(n_tokens=11, width=8, width_mlp=12, n_layers=2, n_heads=2, n_positions=6)


def _angles(n_positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    angles = torch.outer(torch.arange(n_positions), torch.tensor([1.0, 0.3])).double()
    return angles.cos(), angles.sin()


def test_neighbouring_pairs_are_turned_by_their_angle():
    cosine, sine = _angles(2)
    head = torch.tensor([[1.0, 0, 0, 2], [1, 0, 0, 2]]).double()
    expected = torch.stack([cosine[1, 0], sine[1, 0], -2 * sine[1, 1], 2 * cosine[1, 1]])
    assert torch.equal(turned(head, cosine, sine)[0], head[0])
    assert torch.allclose(turned(head, cosine, sine)[1], expected)


def test_products_of_turned_heads_depend_on_the_distance_alone():
    cosine, sine = _angles(6)
    query, key = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).double()
    scores = turned(query.expand(6, 4), cosine, sine) @ turned(key.expand(6, 4), cosine, sine).T
    for distance in range(-3, 4):
        diagonal = scores.diagonal(distance)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal))


def test_the_output_layer_is_the_token_embedding():
    model = SmallLlama(SHAPE)
    assert model.unembedding.weight is model.token_embedding.weight
    assert sum(parameter.numel() for parameter in model.parameters()) == 11 * 8 + 2 * (4 * 64 + 3 * 96 + 16) + 8


def test_later_tokens_change_nothing_before_them_and_order_matters():
    torch.manual_seed(0)
    model = SmallLlama(SHAPE)
    first, second, third = model(torch.tensor([[1, 2, 3, 4], [1, 2, 3, 9], [2, 1, 3, 4]]))
    assert torch.allclose(first[:3], second[:3], atol=1e-6)
    assert not torch.allclose(first[3], third[3], atol=1e-3)
