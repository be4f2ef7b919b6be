"""What do removed weights read, if not nothing? What stands there on a paired, counterfactual input.

With a mask m, every product W x becomes (W m) x + (W (1 - m)) x', where x' is what the same place holds while the whole
network runs on the paired input. A unit whose weights are removed so takes its counterfactual value; a mask of single
weights is a mask of edges. What the two inputs have in common then needs no weights: the mask is what makes the
difference between them. Source: Vig et al. 2020 (units); Bhaskar et al. 2024 (masks of edges).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from modscope.calling import Inputs, arguments, check_model, evaluation_mode, split_batch
from modscope.errors import MaskError, TaskError
from modscope.masks.applied import applied, masked_parameters
from modscope.masks.chunks import n_examples
from modscope.masks.mask import Mask
from modscope.masks.running import Running
from modscope.tasks.task import Evaluation, Split, Task, evaluate

_Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def evaluate_on_pairs(model: nn.Module, mask: Mask, task: Task, *, split: Split = "test") -> Evaluation:
    """How well the model does a task when what the mask removes reads the paired inputs.

    Args:
        model: Any module whose weights are read by products; examples lie along axis 0.
        mask: Which weights read the inputs themselves.
        task: One with `counterfactual`.
        split: Which of the task's data.

    Raises:
        TaskError: If the task gives no counterfactual inputs.
        MaskError: If the mask is of another model, or a masked weight is read in a way unknown to us.
    """
    network = PairedNetwork(check_model(model))
    pairs = on_pairs(network, task)
    with evaluation_mode(network.network):
        network.check(masked_parameters(network, mask), next(pairs.batches(split))[0][0])
        with applied(network, mask):
            return evaluate(network, pairs, split=split)


def on_pairs(network: PairedNetwork, task: Task) -> Task:
    """The same task for a paired network: its inputs are pairs (inputs, counterfactual inputs).

    Raises:
        TaskError: If the task gives no counterfactual inputs.
        MaskError: If examples do not lie along axis 0.
    """
    if task.counterfactual is None:
        raise TaskError(
            f"task '{task.name}' gives no counterfactual inputs; give it counterfactual=, a function from a batch to "
            "inputs that are paired with the batch's, example by example"
        )
    if task.batch_dim != 0:
        raise MaskError(f"pairs need examples along axis 0, task '{task.name}' has them along axis {task.batch_dim}")
    paired, name = task.counterfactual, task.name
    train, test = (_Pairs(network.network, data, paired, name) for data in (task.train, task.test))
    return replace(task, train=train, test=test, counterfactual=None)


class PairedNetwork(nn.Module):
    """A network that is called on pairs; it has the layers and the parameters of `network`, under the same names.

    Where another tensor stands in for a parameter (a masked copy), what it lacks reads the counterfactual input.
    """

    network: nn.Module
    whole: dict[str, Tensor]

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # shared, not copied: who replaces a parameter here replaces it there
        self.__dict__.update(_modules=network._modules, _parameters=network._parameters, _buffers=network._buffers)
        self.__dict__["network"] = network  # not registered: it would give every parameter a second name
        self.__dict__["whole"] = {
            name: parameter.detach() for name, parameter in network.named_parameters(remove_duplicate=False)
        }

    def forward(self, inputs: Inputs, counterfactual: Inputs) -> Any:
        """The outputs on `inputs`, where removed weights read what they would read on `counterfactual`."""
        count = n_examples(inputs, 0)
        both = tree_map(lambda one, other: _stacked(one, other, count), inputs, counterfactual)
        parameters = self.network.named_parameters(remove_duplicate=False)
        whole = {id(tensor): self.whole[name] for name, tensor in parameters if _differs(tensor, self.whole[name])}
        positional, keywords = arguments(self.network, both)
        with _PairedReads(whole, 2 * count):
            outputs = self.network(*positional, **keywords)
        return tree_map(lambda output: _first_half(output, 2 * count), outputs)

    def check(self, parameters: Mapping[str, Tensor], inputs: Inputs) -> None:
        """Nothing, if the network runs on pairs as it should: paired with itself, an input gives what it always gives.

        Raises:
            MaskError: If it does not.
        """
        generator = torch.Generator().manual_seed(0)
        halves = {
            name: tensor.detach() * (torch.rand(tensor.shape, generator=generator) < 0.5).to(tensor)
            for name, tensor in parameters.items()
        }
        positional, keywords = arguments(self.network, inputs)
        with torch.no_grad():
            plain = self.network(*positional, **keywords)
            with Running(self).under({**dict(self.named_parameters()), **halves}):
                paired = self(inputs, inputs)
        for one, other in zip(tree_leaves(paired), tree_leaves(plain), strict=True):
            if not _are_close(one, other):
                raise MaskError(
                    f"{type(self.network).__name__} cannot be run on pairs: paired with itself, an input gives other "
                    'outputs. Examples must lie along axis 0 in every layer; else take removed="zero"'
                )


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The batches of a task as ((inputs, counterfactual inputs), targets)."""

    network: nn.Module
    batches: Iterable[Any]
    counterfactual: Callable[[Any], Inputs]
    task: str

    def __iter__(self) -> Iterator[tuple[tuple[Inputs, Inputs], Any]]:
        for batch in self.batches:
            inputs, targets = split_batch(self.network, batch)
            yield (inputs, self._paired(inputs, batch)), targets

    def _paired(self, inputs: Inputs, batch: Any) -> Inputs:
        paired = self.counterfactual(batch)
        if isinstance(inputs, Mapping) and isinstance(paired, Mapping):
            paired = {**inputs, **paired}  # what is not named stays: an attention mask, say
        of_inputs, of_paired = (
            [tuple(leaf.shape) for leaf in tree_leaves(each) if isinstance(leaf, Tensor)] for each in (inputs, paired)
        )
        if of_inputs != of_paired:
            raise TaskError(
                f"counterfactual inputs of task '{self.task}' must have the shapes of the inputs, {of_inputs}, "
                f"got {of_paired}"
            )
        return paired


class _PairedReads(TorchFunctionMode):
    """While active, products with a masked weight read the first half of the batch, its missing part the second."""

    def __init__(self, whole: Mapping[int, Tensor], n_rows: int) -> None:
        super().__init__()
        self.whole = whole  # by id of the masked copy
        self.n_rows = n_rows  # examples and their pairs

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not any(id(leaf) in self.whole for leaf in tree_leaves((args, kwargs))):
            return func(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._attention(_ATTENTION.bind(*args, **kwargs).arguments)
        found = _product(func, args, kwargs)
        if found is not None and id(found[2]) not in self.whole:  # of a masked bias nothing is missing: see below
            found = (*found[:3], self._kept(found[3]))
            return found[0](*found[1:])
        if found is not None:
            product, operand, masked, bias = found
            return self._mixed(product, operand, (masked, self.whole[id(masked)]), self._kept(bias))
        result = func(*args, **kwargs)
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            raise MaskError(
                f"a masked weight is read by '{getattr(func, '__name__', func)}', which we cannot run on pairs; "
                'choose other parameters, or removed="zero"'
            )
        return result  # a shape, a type

    def _mixed(
        self, product: _Product, operand: Tensor, weight: tuple[Tensor, Tensor], bias: Tensor | None, axis: int = 0
    ) -> Tensor:
        """The product with (masked, whole) weights; a bias is the same on both inputs."""
        masked, whole = weight
        count = operand.shape[axis]
        if count % self.n_rows:
            if count > 1 and operand.is_floating_point():
                raise MaskError(
                    f"a masked weight reads {count} rows where there are {self.n_rows // 2} pairs; "
                    'examples must lie along axis 0 in every layer, else take removed="zero"'
                )
            return product(operand, whole, bias)  # one row for all examples, as of positions: the same on both inputs
        own, other = operand.tensor_split(2, dim=axis)
        mixed = product(own, masked, bias) + product(other, whole - masked, None)
        return torch.cat([mixed, product(other, whole, bias)], dim=axis)

    def _attention(self, given: dict[str, Any]) -> Any:
        """Multi-head attention, its four projections on pairs; in PyTorch's function examples lie along axis 1."""
        if any(id(given[name]) in self.whole for name in ("bias_k", "bias_v")):
            raise MaskError('bias_k and bias_v of attention cannot be masked on pairs; take removed="zero"')
        names = _PROJECTIONS if given.get("use_separate_proj_weight", False) else ("in_proj_weight",)
        weights = [pair for name in names for pair in self._with_whole(given[name], 3 // len(names))]
        bias = self._kept(given["in_proj_bias"])
        biases: Sequence[Tensor | None] = [None] * 3 if bias is None else bias.chunk(3)
        projected = [
            self._mixed(F.linear, given[name], weight, each, axis=1)
            for name, weight, each in zip(("query", "key", "value"), weights, biases, strict=True)
        ]
        done = torch.eye(given["embed_dim_to_check"]).to(projected[0])  # what is left of the projections
        inner = {**given, **dict(zip(("query", "key", "value"), projected, strict=True))}
        inner |= {**dict.fromkeys(_PROJECTIONS, done), "use_separate_proj_weight": True, "out_proj_weight": done}
        inner |= dict.fromkeys(("in_proj_weight", "in_proj_bias", "out_proj_bias"))
        mixed, attention = F.multi_head_attention_forward(**inner)
        (last,) = self._with_whole(given["out_proj_weight"], 1)
        return self._mixed(F.linear, mixed, last, self._kept(given["out_proj_bias"]), axis=1), attention

    def _with_whole(self, masked: Tensor, n_parts: int) -> list[tuple[Tensor, Tensor]]:
        """(masked, whole) of each part of a weight in which several are packed."""
        whole = self.whole.get(id(masked), masked)
        return list(zip(masked.chunk(n_parts), whole.chunk(n_parts), strict=True))

    def _kept(self, bias: Tensor | None) -> Tensor | None:
        """The whole bias, also of a masked one."""
        return None if bias is None else self.whole.get(id(bias), bias)


def _product(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[_Product, Tensor, Tensor, Tensor | None] | None:
    """How to multiply, what with, the weight and the bias, if this is a product of an activation and a weight."""
    if func in _LAYERS:
        rest = {name: value for name, value in kwargs.items() if name not in ("input", "weight", "bias")}
        named = {**dict(zip(("input", "weight", "bias"), args, strict=False)), **kwargs}
        more = args[3:]
        return lambda x, w, b: func(x, w, b, *more, **rest), named["input"], named["weight"], named.get("bias")
    if func is F.embedding:
        more = args[2:]
        return lambda x, w, _: func(x, w, *more, **kwargs), args[0], args[1], None
    if func is torch.addmm and not kwargs:
        return lambda x, w, b: x @ w if b is None else torch.addmm(b, x, w), args[1], args[2], args[0]
    if func in _MATRIX_PRODUCTS and not kwargs:
        return lambda x, w, _: func(x, w), args[0], args[1], None
    return None


_LAYERS = (
    F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
)  # fmt: skip
_ATTENTION = inspect.signature(F.multi_head_attention_forward)
_PROJECTIONS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
_MATRIX_PRODUCTS = (torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__)


def _differs(tensor: Tensor, whole: Tensor) -> bool:
    return tensor.data_ptr() != whole.data_ptr()


def _stacked(one: Any, other: Any, count: int) -> Any:
    has_examples = isinstance(one, Tensor) and one.ndim > 0 and len(one) == count
    return torch.cat([one, other]) if has_examples else one


def _first_half(output: Any, count: int) -> Any:
    has_examples = isinstance(output, Tensor) and output.ndim > 0 and len(output) == count
    return output[: count // 2] if has_examples else output


def _are_close(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not one.is_floating_point() or one.shape != other.shape:
        return not isinstance(one, Tensor) or one.shape == other.shape
    size = float(other.detach().abs().max()) if other.numel() else 0.0
    return bool((one - other).abs().max() <= 0.01 * size + 1e-6) if other.numel() else True
