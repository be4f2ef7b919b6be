"""How do the weights of a published file become those of our layers?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

Weights: TypeAlias = Mapping[str, Tensor]


def renamed(weights: Weights, name_by_old_name: Mapping[str, str]) -> dict[str, Tensor]:
    """The same weights under the names of our layers; `name_by_old_name` maps the layers that have another one."""
    return {
        f"{name_by_old_name.get(layer, layer)}.{parameter}": weight
        for (layer, _, parameter), weight in ((name.rpartition("."), weight) for name, weight in weights.items())
    }


def from_transformer_lens(weights: Weights) -> dict[str, Tensor]:
    """Linear layers from TransformerLens' layout: input before output, one block per head.

    W_Q, W_K, W_V are (head, width, head width), W_O is (head, head width, width), W_in, W_out and W_U are
    (inputs, outputs); norms are called ln.
    """
    return _converted(
        weights,
        {
            "embed.W_E": ("token_embedding.weight", _same),
            "pos_embed.W_pos": ("position_embedding.weight", _same),
            "attn.W_Q": ("attention.query.weight", _heads_then_inputs),
            "attn.W_K": ("attention.key.weight", _heads_then_inputs),
            "attn.W_V": ("attention.value.weight", _heads_then_inputs),
            "attn.b_Q": ("attention.query.bias", Tensor.flatten),
            "attn.b_K": ("attention.key.bias", Tensor.flatten),
            "attn.b_V": ("attention.value.bias", Tensor.flatten),
            "attn.W_O": ("attention.output.weight", lambda weight: weight.flatten(0, 1).T),
            "attn.b_O": ("attention.output.bias", _same),
            "ln1.w": ("attention_norm.weight", _same),
            "ln1.b": ("attention_norm.bias", _same),
            "ln2.w": ("mlp_norm.weight", _same),
            "ln2.b": ("mlp_norm.bias", _same),
            "mlp.W_in": ("mlp_in.weight", _transposed),
            "mlp.b_in": ("mlp_in.bias", _same),
            "mlp.W_out": ("mlp_out.weight", _transposed),
            "mlp.b_out": ("mlp_out.bias", _same),
            "ln_final.w": ("norm.weight", _same),
            "ln_final.b": ("norm.bias", _same),
            "unembed.W_U": ("unembedding.weight", _transposed),
            "unembed.b_U": ("unembedding.bias", _same),
        },
    )


def from_progress_measures(weights: Weights) -> dict[str, Tensor]:
    """Linear layers from the layout of the modular addition network.

    W_Q, W_K, W_V are (head, head width, width); W_O, W_in and W_out are (outputs, inputs); W_E and W_U are
    (width, tokens).
    """
    return _converted(
        weights,
        {
            "embed.W_E": ("token_embedding.weight", _transposed),
            "pos_embed.W_pos": ("position_embedding.weight", _same),
            "attn.W_Q": ("attention.query.weight", lambda weight: weight.flatten(0, 1)),
            "attn.W_K": ("attention.key.weight", lambda weight: weight.flatten(0, 1)),
            "attn.W_V": ("attention.value.weight", lambda weight: weight.flatten(0, 1)),
            "attn.W_O": ("attention.output.weight", _same),
            "mlp.W_in": ("mlp_in.weight", _same),
            "mlp.b_in": ("mlp_in.bias", _same),
            "mlp.W_out": ("mlp_out.weight", _same),
            "mlp.b_out": ("mlp_out.bias", _same),
            "unembed.W_U": ("unembedding.weight", _transposed),
        },
    )


def from_llama(weights: Weights) -> dict[str, Tensor]:
    """Our names for the layers of Llama's first release; the output layer is the token embedding."""
    names = {
        "tok_embeddings": "token_embedding",
        "attention.wq": "query",
        "attention.wk": "key",
        "attention.wv": "value",
        "attention.wo": "output",
        "feed_forward.w1": "gate",
        "feed_forward.w2": "down",
        "feed_forward.w3": "up",
        "attention_norm": "attention_norm",
        "ffn_norm": "mlp_norm",
        "norm": "norm",
    }
    table = {f"{old}.weight": (f"{new}.weight", _same) for old, new in names.items()}
    converted = _converted(weights, table)
    return {**converted, "unembedding.weight": converted["token_embedding.weight"]}


def _converted(weights: Weights, table: Mapping[str, tuple[str, Callable[[Tensor], Tensor]]]) -> dict[str, Tensor]:
    converted = {}
    for name, weight in weights.items():
        block, name_in_block = _split_block(name)
        new_name, convert = table[name_in_block]
        converted[f"{block}{new_name}"] = convert(weight).contiguous()
    return converted


def _split_block(name: str) -> tuple[str, str]:
    """Block and rest of a name: "blocks.0." and "attn.W_Q"; names outside the blocks have no block."""
    parts = name.split(".", 2)
    return (f"{parts[0]}.{parts[1]}.", parts[2]) if len(parts) == 3 and parts[1].isdigit() else ("", name)


def _same(weight: Tensor) -> Tensor:
    return weight


def _transposed(weight: Tensor) -> Tensor:
    return weight.T


def _heads_then_inputs(weight: Tensor) -> Tensor:
    return weight.transpose(1, 2).flatten(0, 1)  # (head, width, head width) -> (head x head width, width)
