"""Which published networks can be loaded, and what do they take?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modscope.data.checkpoint import Checkpoint, read_checkpoint
from modscope.errors import DataError
from modscope.models import layouts
from modscope.models.lenet import lenet, small_lenet
from modscope.models.llama import LlamaShape, SmallLlama
from modscope.models.mobilenet import mobilenet_v1, read_layers
from modscope.models.resnet import CifarResNet
from modscope.models.transformer import AlgorithmicTransformer, TransformerShape

Prepare = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class PublishedNetwork:
    """A network that somebody else trained.

    Args:
        name: As in `NETWORKS`.
        model: In eval mode.
        prepare: Turns what the data readers give (bytes of pixels, token numbers) into the model's inputs.
        example_inputs: Inputs of the right shape and type, for one example.
        source: Where the weights come from.
        licence: Under which licence, in the words of that place.
    """

    name: str
    model: nn.Module
    prepare: Prepare
    example_inputs: Tensor
    source: str
    licence: str


@dataclass(frozen=True)
class _Reader:
    build: Callable[[Checkpoint], nn.Module]
    prepare: Prepare
    example_shape: tuple[int, ...]  # of what the data readers give


def load(name: str, *, folder: str | Path | None = None) -> PublishedNetwork:
    """A published network with its weights.

    Args:
        name: One of `NETWORKS`.
        folder: The folder of data sets and networks; None: the one that MODSCOPE_DATA names.

    Raises:
        DataError: If there is no such network, or its file is missing or damaged.
    """
    if name not in _READERS:
        raise DataError(f"there is no published network '{name}'; there are {', '.join(NETWORKS)}")
    reader = _READERS[name]
    checkpoint = read_checkpoint(f"networks/{name}.safetensors", folder)
    with torch.random.fork_rng([]):  # layers draw their first weights from torch's global generator
        model = reader.build(checkpoint).eval()
    example = reader.prepare(torch.zeros(reader.example_shape, dtype=torch.long))
    return PublishedNetwork(
        name, model, reader.prepare, example, checkpoint.metadata["source"], checkpoint.metadata["licence"]
    )


def _normalised(mean: Sequence[float], std: Sequence[float]) -> Prepare:
    """Bytes to (value / 255 - mean) / std, channel by channel."""

    def prepare(pixels: Tensor) -> Tensor:
        columns = (torch.tensor(values).reshape(-1, 1, 1) for values in (mean, std))
        center, spread = (column.to(pixels.device) for column in columns)
        return (pixels.float() / 255 - center) / spread

    return prepare


def _central_160(pixels: Tensor) -> Tensor:
    """The central 224 x 224 of each picture, scaled to 160 x 160, in [-1, 1]."""
    above, left = ((size - 224) // 2 for size in pixels.shape[-2:])
    central = pixels[..., above : above + 224, left : left + 224].float()
    scaled = F.interpolate(central, size=(160, 160), mode="bilinear", antialias=True, align_corners=False)
    return (scaled - 127.5) / 127.5


def _tokens(tokens: Tensor) -> Tensor:
    return tokens.long()


def _filled(model: nn.Module, weights: layouts.Weights) -> nn.Module:
    model.load_state_dict(weights)
    return model


def _resnet(depth: int) -> Callable[[Checkpoint], nn.Module]:
    return lambda checkpoint: _filled(CifarResNet(depth), checkpoint.tensors)


def _lenet(checkpoint: Checkpoint) -> nn.Module:
    names = {"conv_block1.0": "conv1", "conv_block2.0": "conv2", "fc_block.1": "hidden", "fc_block.3": "output"}
    return _filled(lenet(), layouts.renamed(checkpoint.tensors, names))


def _small_lenet(checkpoint: Checkpoint) -> nn.Module:
    return _filled(small_lenet(), layouts.renamed(checkpoint.tensors, {"fc1": "output"}))


def _mobilenet(checkpoint: Checkpoint) -> nn.Module:
    last = "Logits.Conv2d_1c_1x1"
    weights = layouts.renamed(checkpoint.tensors, {last: "logits"})
    shapes = {name.removesuffix(".weight"): tuple(weight.shape) for name, weight in weights.items()}
    return _filled(mobilenet_v1(read_layers(checkpoint.metadata["layers"].replace(last, "logits"), shapes)), weights)


def _transformer(
    shape: TransformerShape, layout: Callable[[layouts.Weights], dict[str, Tensor]]
) -> Callable[[Checkpoint], nn.Module]:
    return lambda checkpoint: _filled(AlgorithmicTransformer(shape), layout(checkpoint.tensors))


def _llama(checkpoint: Checkpoint) -> nn.Module:
    sizes = checkpoint.metadata
    shape = LlamaShape(
        n_tokens=int(sizes["vocab_size"]),
        width=int(sizes["dim"]),
        width_mlp=int(sizes["hidden_dim"]),
        n_layers=int(sizes["n_layers"]),
        n_heads=int(sizes["n_heads"]),
        n_positions=int(sizes["max_seq_len"]),
    )
    return _filled(SmallLlama(shape), layouts.from_llama(checkpoint.tensors))


_MODULAR_ADDITION = TransformerShape(
    n_tokens=114,
    n_positions=3,
    n_outputs=114,
    n_blocks=1,
    width=128,
    n_heads=4,
    width_mlp=512,
    is_causal=True,
    has_norms=False,
    has_attention_biases=False,
    has_output_bias=False,
)
_BRACKETS = TransformerShape(
    n_tokens=5, n_positions=42, n_outputs=2, n_blocks=3, width=56, n_heads=2, width_mlp=56, is_causal=False, padding=1
)
_SORTED_LIST = TransformerShape(
    n_tokens=52, n_positions=21, n_outputs=52, n_blocks=1, width=96, n_heads=2, width_mlp=0, is_causal=True
)
_CIFAR = _normalised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_MNIST = _normalised((0.1307,), (0.3081,))
_FASHION = _normalised((0.2860,), (0.3530,))

_READERS = {
    "aidreams260K": _Reader(_llama, _tokens, (1, 16)),
    "brackets_transformer": _Reader(_transformer(_BRACKETS, layouts.from_transformer_lens), _tokens, (1, 42)),
    "lenet_fashion_mnist": _Reader(_lenet, _FASHION, (1, 1, 28, 28)),
    "lenet_mnist": _Reader(_lenet, _MNIST, (1, 1, 28, 28)),
    "lenet_small_l1_mnist": _Reader(_small_lenet, _MNIST, (1, 1, 28, 28)),
    "mobilenet_v1_0.5_160_imagenet": _Reader(_mobilenet, _central_160, (1, 3, 256, 256)),
    "modadd113_grokked": _Reader(_transformer(_MODULAR_ADDITION, layouts.from_progress_measures), _tokens, (1, 3)),
    "resnet20_cifar10": _Reader(_resnet(20), _CIFAR, (1, 3, 32, 32)),
    "resnet56_cifar10": _Reader(_resnet(56), _CIFAR, (1, 3, 32, 32)),
    "sorted_list_transformer": _Reader(_transformer(_SORTED_LIST, layouts.from_transformer_lens), _tokens, (1, 21)),
}
NETWORKS = tuple(_READERS)
