"""How is `nn.MultiheadAttention` computed without moving its numbers about?

PyTorch's formula has the positions first, and copies queries, keys, values and results, forth and back, between that
order and one with the examples first. Kept in the order in which they come, they need no copy; the gradient of a packed
projection is put together at once instead of part by part. The results are the same but for rounding.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

ATTENTION = F.multi_head_attention_forward


class QuickAttention(TorchFunctionMode):
    """While active, attention that leaves out nothing and tells no weights goes the short way."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is ATTENTION:
            given = _named(*args, **kwargs)
            if _is_simple(given):
                return _attention(given), None
        return func(*args, **kwargs)


def _named(*args: Any, **kwargs: Any) -> Mapping[str, Any]:
    """All arguments of a call by name."""
    defaults = _defaults()
    return {**defaults, **dict(zip(defaults, args, strict=False)), **kwargs}


@cache
def _defaults() -> Mapping[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(ATTENTION).parameters.items()}


def _is_simple(given: Mapping[str, Any]) -> bool:
    """Whether this is attention on batches with packed projections, and nothing else."""
    query, key, value = given["query"], given["key"], given["value"]
    extras = ("bias_k", "bias_v", "static_k", "static_v", "add_zero_attn", "need_weights", "use_separate_proj_weight")
    masks = [given[name] for name in ("attn_mask", "key_padding_mask") if given[name] is not None]
    return (
        query.ndim == 3
        and query.shape[-1] == given["embed_dim_to_check"]
        and key.shape == value.shape
        and key.shape[1:] == query.shape[1:]
        and not any(_is_given(given[name]) for name in extras)
        and not (given["training"] and given["dropout_p"] > 0)
        and not (given["is_causal"] and given["attn_mask"] is None)  # PyTorch's own error
        and all(mask.is_floating_point() for mask in masks)
    )


def _is_given(option: Any) -> bool:
    return option is not None and option is not False


def _attention(given: Mapping[str, Any]) -> Tensor:
    """The results, (positions, examples, width) as the inputs are."""
    n_heads = given["num_heads"]
    queries, keys, values = (heads.transpose(1, 2) for heads in _projected(given))  # (examples, heads, positions, size)
    is_causal = given["is_causal"] and given["key_padding_mask"] is None
    mask = None if is_causal else _mask(given, len(queries), n_heads)
    results = F.scaled_dot_product_attention(queries, keys, values, mask, is_causal=is_causal)
    joined = results.transpose(1, 2).flatten(2)
    return F.linear(joined, given["out_proj_weight"], given["out_proj_bias"]).transpose(0, 1)


def _projected(given: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Queries, keys and values, each (examples, positions, heads, size of a head)."""
    query, key, value = (given[name] for name in ("query", "key", "value"))
    weight, bias, n_heads = given["in_proj_weight"], given["in_proj_bias"], given["num_heads"]
    if query is key and key is value:
        return _heads(query, weight, bias, n_heads, 3)
    width = query.shape[-1]
    biases = (None,) * 3 if bias is None else bias.split(width)
    if key is value:
        of_both = None if bias is None else bias[width:]
        queries = _heads(query, weight[:width], biases[0], n_heads, 1)
        return (*queries, *_heads(key, weight[width:], of_both, n_heads, 2))
    parts = zip((query, key, value), weight.split(width), biases, strict=True)
    return tuple(_heads(inputs, part, of_part, n_heads, 1)[0] for inputs, part, of_part in parts)


def _heads(inputs: Tensor, weight: Tensor, bias: Tensor | None, n_heads: int, n_parts: int) -> tuple[Tensor, ...]:
    projected = F.linear(inputs.transpose(0, 1), weight, bias)  # examples first
    parts: tuple[Tensor, ...] = projected.unflatten(-1, (n_parts, n_heads, -1)).unbind(2)
    return parts


def _mask(given: Mapping[str, Any], n_examples: int, n_heads: int) -> Tensor | None:
    """What is added to the scores, as attention masks and masks of padding say; None if nothing is."""
    mask: Tensor | None = given["attn_mask"]
    padding: Tensor | None = given["key_padding_mask"]
    if mask is not None and mask.ndim == 3:
        mask = mask.unflatten(0, (n_examples, n_heads))
    if padding is None:
        return mask
    padding = padding[:, None, None, :]
    return padding if mask is None else mask + padding
