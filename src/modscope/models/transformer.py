"""What are the small transformers that learnt an algorithm?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class TransformerShape:
    """The sizes of a transformer, and the parts it has.

    `width_mlp` 0: attention alone. `padding` is the token that no position attends to; None: there is none.
    """

    n_tokens: int
    n_positions: int
    n_outputs: int
    n_blocks: int
    width: int
    n_heads: int
    width_mlp: int
    is_causal: bool
    has_norms: bool = True
    has_attention_biases: bool = True
    has_output_bias: bool = True
    padding: int | None = None


class AlgorithmicTransformer(nn.Module):
    """Pre-norm transformer with learnt positions and ReLU, as studied for how it computes.

    Source: the layouts of Nanda et al. 2023 (modular addition) and of TransformerLens.
    """

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.padding = shape.padding
        self.token_embedding = nn.Embedding(shape.n_tokens, shape.width)
        self.position_embedding = nn.Embedding(shape.n_positions, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_blocks))
        self.norm = _norm(shape)
        self.unembedding = nn.Linear(shape.width, shape.n_outputs, bias=shape.has_output_bias)

    def forward(self, tokens: Int[Tensor, "examples positions"]) -> Float[Tensor, "examples positions outputs"]:
        """The logits at every position."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        stream = self.token_embedding(tokens) + self.position_embedding(positions)
        attended = None if self.padding is None else (tokens != self.padding)[:, None, None, :]
        for block in self.blocks:
            stream = block(stream, attended)
        logits: Tensor = self.unembedding(self.norm(stream))
        return logits


class Block(nn.Module):
    """Attention and, where there is one, a perceptron; each adds to the stream."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.attention_norm = _norm(shape)
        self.attention = Attention(shape)
        if shape.width_mlp:
            self.mlp_norm = _norm(shape)
            self.mlp_in = nn.Linear(shape.width, shape.width_mlp)
            self.mlp_out = nn.Linear(shape.width_mlp, shape.width)
        self.has_mlp = shape.width_mlp > 0

    def forward(
        self,
        stream: Float[Tensor, "examples positions width"],
        attended: Bool[Tensor, "examples 1 1 positions"] | None,
    ) -> Float[Tensor, "examples positions width"]:
        """The stream after this block."""
        stream = stream + self.attention(self.attention_norm(stream), attended)
        if self.has_mlp:
            stream = stream + self.mlp_out(F.relu(self.mlp_in(self.mlp_norm(stream))))
        return stream


class Attention(nn.Module):
    """Softmax attention of several heads; scores are divided by the root of a head's width."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.n_heads = shape.n_heads
        self.is_causal = shape.is_causal
        has_bias = shape.has_attention_biases
        self.query = nn.Linear(shape.width, shape.width, bias=has_bias)
        self.key = nn.Linear(shape.width, shape.width, bias=has_bias)
        self.value = nn.Linear(shape.width, shape.width, bias=has_bias)
        self.output = nn.Linear(shape.width, shape.width, bias=has_bias)

    def forward(
        self,
        stream: Float[Tensor, "examples positions width"],
        attended: Bool[Tensor, "examples 1 1 positions"] | None,
    ) -> Float[Tensor, "examples positions width"]:
        """What the heads read, written to the stream; `attended` marks the positions that may be read."""
        query, key, value = (
            layer(stream).unflatten(2, (self.n_heads, -1)).transpose(1, 2)  # (examples, heads, positions, head width)
            for layer in (self.query, self.key, self.value)
        )
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=attended, is_causal=self.is_causal)
        written: Tensor = self.output(read.transpose(1, 2).flatten(2))
        return written


def _norm(shape: TransformerShape) -> nn.Module:
    return nn.LayerNorm(shape.width, eps=1e-5) if shape.has_norms else nn.Identity()
