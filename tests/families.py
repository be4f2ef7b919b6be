"""Small instances of every model family that modscope is tested on: name -> (factory, example inputs).

Sizes differ wherever they can (no two axes of one size), so that a mix-up of axes cannot go unseen. The definitions
at full size that some counts are known for (ResNet-18, VGG-16) take their widths as arguments.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Factory = Callable[[], nn.Module]


# -- dense and convolutional chains --------------------------------------------------------------------------------


def mlp(widths: Sequence[int] = (6, 9, 7, 4)) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def norm_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 9), nn.BatchNorm1d(9), nn.GELU(), nn.Dropout(0.1), nn.LayerNorm(9), nn.Linear(9, 4)
    )


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(6 * 4 * 4, 10), nn.ReLU(), nn.Linear(10, 3),
    )  # fmt: skip


class VGG(nn.Module):
    """Simonyan & Zisserman 2014; `plan` holds channels and "M" for pooling."""

    def __init__(self, plan: Sequence[int | str], dense: Sequence[int], n_classes: int, size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for entry in plan:
            if isinstance(entry, int):
                layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.ReLU(inplace=True)]
                channels = entry
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(size)
        head: list[nn.Module] = []
        width = channels * size * size
        for wide in dense:
            head += [nn.Linear(width, wide), nn.ReLU(inplace=True), nn.Dropout()]
            width = wide
        self.classifier = nn.Sequential(*head, nn.Linear(width, n_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


VGG16_PLAN = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]


def vgg16() -> nn.Module:
    return VGG(VGG16_PLAN, (4096, 4096), 1000, 7)


def small_vgg() -> nn.Module:
    return VGG([4, 5, "M", 6, 7, "M"], (9, 8), 3, 2)


# -- residual and dense convolutional networks ----------------------------------------------------------------------


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; a 1x1 convolution on the shortcut where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        changes = stride != 1 or before != after
        self.downsample = shortcut(before, after, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with four times the channels outside."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv3, self.bn3 = nn.Conv2d(after, 4 * after, 1, bias=False), nn.BatchNorm2d(4 * after)
        self.relu = nn.ReLU(inplace=True)
        changes = stride != 1 or before != 4 * after
        self.downsample = shortcut(before, 4 * after, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


def shortcut(before: int, after: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))


class ResNet(nn.Module):
    """He et al. 2015, for images."""

    def __init__(self, block: type[nn.Module], depths: Sequence[int], widths: Sequence[int], n_classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False), nn.BatchNorm2d(widths[0])
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        growth = 4 if block is Bottleneck else 1
        channels = widths[0]
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for j in range(depth):
                blocks.append(block(channels, width, 2 if i > 0 and j == 0 else 1))
                channels = width * growth
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.n_stages = len(depths)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for i in range(self.n_stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet18() -> nn.Module:
    return ResNet(BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512), 1000)


def resnet50() -> nn.Module:
    return ResNet(Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512), 1000)


class CifarResNet(nn.Module):
    """He et al. 2015 for CIFAR-10: shortcuts without weights pad the channels with zeros ("option A")."""

    def __init__(self, widths: Sequence[int] = (4, 8), n_blocks: int = 1) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0])
        self.blocks = nn.ModuleList()
        before = widths[0]
        for width in widths:
            for _ in range(n_blocks):
                self.blocks.append(OptionABlock(before, width))
                before = width
        self.linear = nn.Linear(before, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        for block in self.blocks:
            x = block(x)
        return self.linear(x.mean((2, 3)))


class OptionABlock(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.stride, self.missing = (1 if before == after else 2), after - before
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, self.stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        half = self.missing // 2
        same = x[:, :, :: self.stride, :: self.stride]
        return F.relu(out + F.pad(same, (0, 0, 0, 0, half, self.missing - half)))


def dense_layer(before: int, bottleneck: int, growth: int) -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, bottleneck, 1, bias=False),
        nn.BatchNorm2d(bottleneck), nn.ReLU(), nn.Conv2d(bottleneck, growth, 3, padding=1, bias=False),
    )  # fmt: skip


class DenseNet(nn.Module):
    """Huang et al. 2016: each layer reads all before it, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.layers = nn.ModuleList(dense_layer(6 + 4 * i, 5, 4) for i in range(3))
        self.norm, self.classifier = nn.BatchNorm2d(18), nn.Linear(18, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.classifier(F.adaptive_avg_pool2d(F.relu(self.norm(x)), 1).flatten(1))


class MobileBlock(nn.Module):
    """Inverted residual: expand, depth-wise, squeeze and excite, project."""

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.expand, self.bn1 = nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.squeeze, self.excite = nn.Conv2d(wide, 3, 1), nn.Conv2d(3, wide, 1)
        self.project, self.bn3 = nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.bn1(self.expand(x)))
        y = F.hardswish(self.bn2(self.depthwise(y)))
        scale = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        return x + self.bn3(self.project(y * scale))


def mobilenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, 2, 1, bias=False), nn.BatchNorm2d(5), nn.ReLU6(), MobileBlock(5, 8), MobileBlock(5, 7),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
    )  # fmt: skip


def mobilenet_v1() -> nn.Module:
    def separable(before: int, after: int) -> list[nn.Module]:
        return [
            nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False), nn.BatchNorm2d(before), nn.ReLU6(),
            nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU6(),
        ]  # fmt: skip

    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU6(), *separable(4, 6), *separable(6, 8),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


class ShuffleNet(nn.Module):
    """Grouped convolutions with a channel shuffle between them."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 6, 1)
        self.first, self.second = nn.Conv2d(6, 12, 1, groups=3), nn.Conv2d(12, 6, 3, padding=1, groups=3)
        self.classifier = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(self.enter(x)))
        n, c, h, w = y.shape
        y = y.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.classifier(self.second(y).mean((2, 3)))


class UNet(nn.Module):
    """Down, up by a transposed convolution, and the skipped half beside it; then sub-pixel upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, 2, 1)
        self.up = nn.ConvTranspose2d(6, 5, 2, 2)
        self.join = nn.Conv2d(9, 8, 3, padding=2, dilation=2)
        self.shuffle, self.out = nn.PixelShuffle(2), nn.Conv2d(2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = F.relu(self.down1(x))
        low = F.relu(self.down2(wide))
        joined = F.relu(self.join(torch.cat([wide, self.up(low)], 1)))
        return self.out(self.shuffle(joined))


class Inception(nn.Module):
    """Branches of several sizes, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.three = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 3, padding=1)
        self.after_pool = nn.Conv2d(3, 2, 1)
        self.classifier = nn.Linear(11, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.after_pool(F.avg_pool2d(x, 3, 1, 1))
        return self.classifier(F.relu(torch.cat([self.one(x), self.three(x), pooled], 1)).amax((2, 3)))


def conv1d_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 5, 3, padding=2, dilation=2), nn.GroupNorm(5, 5), nn.ReLU(),
        nn.ConvTranspose1d(5, 4, 2, 2), nn.PReLU(4), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip


def conv3d_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), nn.ReLU(), nn.MaxPool3d(2), nn.Flatten(),
        nn.Linear(4 * 8, 3),
    )  # fmt: skip


# -- attention -----------------------------------------------------------------------------------------------------


class TransformerClassifier(nn.Module):
    """torch's own encoder, on token embeddings and learned positions."""

    def __init__(self, norm_first: bool = True) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(11, 8), nn.Parameter(torch.randn(5, 8) / 10)
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(tokens) + self.positions).mean(1))


def sequence_to_sequence() -> nn.Module:
    return nn.Transformer(8, 2, 1, 1, 12, batch_first=True)


class Attention(nn.Module):
    """nn.MultiheadAttention with its weights handed out."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        return self.attention(query, memory, memory)[0]


class HeadWeights(nn.Module):
    """Attention with 3-d weights, one matrix for each head, as mechanistic interpretability writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.randn(2, 8, 3) / 3) for _ in range(3))
        self.W_O = nn.Parameter(torch.randn(2, 3, 8) / 3)
        self.W_in, self.W_out = nn.Parameter(torch.randn(8, 12) / 3), nn.Parameter(torch.randn(12, 8) / 3)
        self.W_U = nn.Parameter(torch.randn(8, 11) / 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        q, k, v = (torch.einsum("bsm,hmd->bshd", x, weight) for weight in (self.W_Q, self.W_K, self.W_V))
        pattern = (torch.einsum("bqhd,bkhd->bhqk", q, k) / 3**0.5).softmax(-1)
        x = x + torch.einsum("bqhd,hdm->bqm", torch.einsum("bkhd,bhqk->bqhd", v, pattern), self.W_O)
        x = x + torch.relu(x @ self.W_in) @ self.W_out
        return x @ self.W_U


# -- recurrent -----------------------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    """A recurrent layer between an embedding and a readout."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.rnn = kind(6, 5, batch_first=True, **options)
        width = options.get("proj_size") or 5
        self.head = nn.Linear(width * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, tokens: Tensor) -> Tensor:
        output, _ = self.rnn(self.embed(tokens))
        return self.head(output[:, -1])


class CellLoop(nn.Module):
    """A cell called once for each time step: one layer used several times."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[0], 5)
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return self.head(state)


# -- further shapes of networks ------------------------------------------------------------------------------------


class Siamese(nn.Module):
    """One encoder used on two inputs, given as a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Linear(6, 5), nn.Linear(10, 2)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        both = [torch.tanh(self.encoder(side)) for side in (left, right)]
        return {"same": self.head(torch.cat(both, -1))}


class EarlyExit(nn.Module):
    """Control flow that depends on numbers: torch.export cannot follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 2)
        self.norm = nn.LayerNorm(5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(torch.relu(self.first(x)))
        while hidden.abs().sum() > 1e6:
            hidden = hidden / 2
        if hidden.sum() > -1e6:
            hidden = hidden + torch.relu(self.second(hidden))
        return self.head(hidden)


class TiedAutoencoder(nn.Module):
    """The decoder is the encoder's weight, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.bias = nn.Linear(6, 4), nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.relu(self.encoder(x)), self.encoder.weight.t(), self.bias)


class SwiGLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(6, 9, bias=False), nn.Linear(6, 9, bias=False), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


def weight_normed() -> nn.Module:
    first = nn.utils.parametrizations.weight_norm(nn.Linear(6, 5))
    return nn.Sequential(first, nn.ReLU(), nn.Linear(5, 3))


# -- transformers --------------------------------------------------------------------------------------------------


def _tokens(n: int = 5, vocabulary: int = 11) -> Tensor:
    return (torch.arange(2 * n) % vocabulary).reshape(2, n)


def gpt2(**options: Any) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(
        GPT2Config(**{"n_layer": 2, "n_embd": 12, "n_head": 3, "vocab_size": 11, "n_positions": 16, **ends, **options})
    )


def llama(**options: Any) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    small = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(
        LlamaConfig(**{**small, "num_key_value_heads": 2, "vocab_size": 11, "max_position_embeddings": 32, **options})
    )


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    small = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3}
    return BertForSequenceClassification(BertConfig(**small, vocab_size=11, max_position_embeddings=16, num_labels=4))


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    small = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3}
    return ViTForImageClassification(ViTConfig(**small, image_size=16, patch_size=8, num_labels=5))


def t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(d_model=12, d_kv=5, d_ff=20, num_layers=2, num_heads=3, vocab_size=11, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config)


def bart() -> nn.Module:
    from transformers import BartConfig, BartModel

    names = ("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads")
    ends = dict.fromkeys(
        ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_eos_token_id"), 1
    )
    sizes = {**dict.fromkeys(names, 2), "d_model": 8, "encoder_ffn_dim": 12, "decoder_ffn_dim": 14}
    return BartModel(BartConfig(**sizes, vocab_size=11, max_position_embeddings=16, **ends))


def mamba() -> nn.Module:
    from transformers import MambaConfig, MambaForCausalLM

    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    return MambaForCausalLM(
        MambaConfig(hidden_size=8, state_size=3, num_hidden_layers=2, vocab_size=11, time_step_rank=4, **ends)
    )


def hf_resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=6, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", num_labels=3)
    return ResNetForImageClassification(config)


def convnext() -> nn.Module:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    return ConvNextForImageClassification(
        ConvNextConfig(num_stages=2, hidden_sizes=[6, 8], depths=[1, 1], num_labels=3)
    )


def swin() -> nn.Module:
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(
        image_size=32, patch_size=4, embed_dim=6, depths=[2, 1], num_heads=[2, 3], window_size=4, num_labels=3
    )
    return SwinForImageClassification(config)


def gpt_neox() -> nn.Module:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    small = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(**small, vocab_size=11, bos_token_id=0, eos_token_id=0, max_position_embeddings=32)
    )


def mixtral() -> nn.Module:
    from transformers import MixtralConfig, MixtralForCausalLM

    small = {"hidden_size": 8, "intermediate_size": 10, "num_hidden_layers": 1, "num_attention_heads": 2}
    return MixtralForCausalLM(MixtralConfig(**small, num_key_value_heads=1, num_local_experts=3, vocab_size=11))


IMAGE = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
VECTOR = torch.linspace(-1, 1, 12).reshape(2, 6)
SEQUENCE = torch.linspace(-1, 1, 2 * 3 * 8).reshape(2, 3, 8)
MEMORY = torch.linspace(1, -1, 2 * 5 * 8).reshape(2, 5, 8)

FAMILIES: dict[str, tuple[Factory, Any]] = {
    "mlp": (mlp, VECTOR),
    "norm_mlp": (norm_mlp, VECTOR),
    "lenet": (lenet, torch.ones(2, 1, 28, 28)),
    "vgg": (small_vgg, IMAGE),
    "resnet": (lambda: ResNet(BasicBlock, (1, 1), (4, 6), 3), IMAGE),
    "bottleneck_resnet": (lambda: ResNet(Bottleneck, (2, 1), (3, 4), 5), IMAGE),
    "cifar_resnet": (CifarResNet, IMAGE),
    "densenet": (DenseNet, IMAGE),
    "mobilenet_v1": (mobilenet_v1, IMAGE),
    "mobilenet": (mobilenet, IMAGE),
    "shufflenet": (ShuffleNet, IMAGE),
    "unet": (UNet, IMAGE),
    "inception": (Inception, IMAGE),
    "conv1d": (conv1d_net, torch.linspace(-1, 1, 2 * 3 * 8).reshape(2, 3, 8)),
    "conv3d": (conv3d_net, torch.linspace(-1, 1, 2 * 2 * 64).reshape(2, 2, 4, 4, 4)),
    "transformer_pre_norm": (TransformerClassifier, _tokens()),
    "transformer_post_norm": (lambda: TransformerClassifier(norm_first=False), _tokens()),
    "sequence_to_sequence": (sequence_to_sequence, (SEQUENCE, MEMORY)),
    "multihead_attention": (Attention, (SEQUENCE, MEMORY)),
    "multihead_attention_other_sizes": (lambda: Attention(kdim=6, vdim=6), (SEQUENCE, MEMORY[..., :6])),
    "head_weights": (HeadWeights, _tokens()),
    "lstm": (lambda: Recurrent(nn.LSTM), _tokens()),
    "stacked_bidirectional_lstm": (lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), _tokens()),
    "projected_lstm": (lambda: Recurrent(nn.LSTM, proj_size=4), _tokens()),
    "gru": (lambda: Recurrent(nn.GRU, num_layers=2), _tokens()),
    "rnn": (lambda: Recurrent(nn.RNN, nonlinearity="relu"), _tokens()),
    "gru_cell": (CellLoop, torch.linspace(-1, 1, 2 * 3 * 4).reshape(2, 3, 4)),
    "siamese": (Siamese, {"left": VECTOR, "right": VECTOR.flip(0)}),
    "early_exit": (EarlyExit, VECTOR),
    "tied_autoencoder": (TiedAutoencoder, VECTOR),
    "swiglu": (SwiGLU, VECTOR),
    "weight_normed": (weight_normed, VECTOR),
    "gpt2": (gpt2, {"input_ids": _tokens()}),
    "llama": (llama, {"input_ids": _tokens()}),
    "bert": (bert, {"input_ids": _tokens()}),
    "vit": (vit, {"pixel_values": IMAGE}),
    "t5": (t5, {"input_ids": _tokens(), "decoder_input_ids": _tokens(4)}),
    "bart": (bart, {"input_ids": _tokens(), "decoder_input_ids": _tokens(4)}),
    "mamba": (mamba, {"input_ids": _tokens()}),
    "hf_resnet": (hf_resnet, {"pixel_values": IMAGE}),
    "convnext": (convnext, {"pixel_values": IMAGE}),
    "swin": (swin, {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)}),
    "gpt_neox": (gpt_neox, {"input_ids": _tokens()}),
    "mixtral": (mixtral, {"input_ids": _tokens()}),
}
