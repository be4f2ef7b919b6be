"""What is the small language model in Llama's layout?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class LlamaShape:
    """The sizes of a Llama-style language model."""

    n_tokens: int
    width: int
    width_mlp: int
    n_layers: int
    n_heads: int
    n_positions: int
    rotary_base: float = 10_000.0
    norm_epsilon: float = 1e-5


class SmallLlama(nn.Module):
    """A Llama-style language model whose output layer is its token embedding.

    Source: Touvron et al. 2023; rotary positions turn neighbouring pairs, as in Su et al. 2021.
    """

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(shape.n_tokens, shape.width)
        self.layers = nn.ModuleList(LlamaLayer(shape) for _ in range(shape.n_layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.unembedding = nn.Linear(shape.width, shape.n_tokens, bias=False)
        self.unembedding.weight = self.token_embedding.weight
        width_head = shape.width // shape.n_heads
        speeds = shape.rotary_base ** (-torch.arange(0, width_head, 2) / width_head)
        angles = torch.outer(torch.arange(shape.n_positions), speeds)  # (positions, head width / 2)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, tokens: Int[Tensor, "examples positions"]) -> Float[Tensor, "examples positions tokens"]:
        """The logits of the next token at every position."""
        n_positions = tokens.shape[1]
        cosine, sine = self.get_buffer("cosine")[:n_positions], self.get_buffer("sine")[:n_positions]
        stream = self.token_embedding(tokens)
        for layer in self.layers:
            stream = layer(stream, cosine, sine)
        logits: Tensor = self.unembedding(self.norm(stream))
        return logits


class LlamaLayer(nn.Module):
    """Causal attention with rotary positions, then a gated perceptron (SwiGLU); each adds to the stream."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.n_heads = shape.n_heads
        self.attention_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.query = nn.Linear(shape.width, shape.width, bias=False)
        self.key = nn.Linear(shape.width, shape.width, bias=False)
        self.value = nn.Linear(shape.width, shape.width, bias=False)
        self.output = nn.Linear(shape.width, shape.width, bias=False)
        self.mlp_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.gate = nn.Linear(shape.width, shape.width_mlp, bias=False)
        self.up = nn.Linear(shape.width, shape.width_mlp, bias=False)
        self.down = nn.Linear(shape.width_mlp, shape.width, bias=False)

    def forward(
        self,
        stream: Float[Tensor, "examples positions width"],
        cosine: Float[Tensor, "positions pairs"],
        sine: Float[Tensor, "positions pairs"],
    ) -> Float[Tensor, "examples positions width"]:
        """The stream after this layer."""
        normed = self.attention_norm(stream)
        query, key, value = (
            layer(normed).unflatten(2, (self.n_heads, -1)).transpose(1, 2)  # (examples, heads, positions, head width)
            for layer in (self.query, self.key, self.value)
        )
        query, key = turned(query, cosine, sine), turned(key, cosine, sine)
        read = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        stream = stream + self.output(read.transpose(1, 2).flatten(2))
        normed = self.mlp_norm(stream)
        change: Tensor = self.down(F.silu(self.gate(normed)) * self.up(normed))
        return stream + change


def turned(
    heads: Float[Tensor, "*batch positions width"],
    cosine: Float[Tensor, "positions pairs"],
    sine: Float[Tensor, "positions pairs"],
) -> Float[Tensor, "*batch positions width"]:
    """Every pair (x_2i, x_2i+1) turned by its position's angle."""
    even, odd = heads[..., 0::2], heads[..., 1::2]
    return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1).flatten(-2)
