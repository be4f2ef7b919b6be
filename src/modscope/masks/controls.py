"""Does a mask mean anything? What must hold before one believes it, and the papers' control experiments."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from modscope.calling import arguments, check_model, device_of, evaluation_mode, moved, split_batch
from modscope.errors import MaskError
from modscope.masks.applied import applied, masked_parameters
from modscope.masks.learner import MaskLearner
from modscope.masks.mask import Mask
from modscope.masks.metrics import iou
from modscope.masks.overlap import common_strata
from modscope.masks.specialization import accuracy_without, random_like
from modscope.progress import track
from modscope.randomness import Rng, generator, numbered, seed_of
from modscope.tasks.task import Task, as_tasks, checked_loss, evaluate

if TYPE_CHECKING:
    import polars as pl

Learner = Callable[..., Mask]
BUILT = 0.8  # share of the mask's gain that a mask on random weights may reach


@dataclass(frozen=True)
class MaskControls:
    """The two controls that decide whether a mask found something, and what they came to."""

    task: str
    whole_accuracy: float
    mask_accuracy: float
    ablated_accuracy: float  # all weights but the mask's
    random_whole_accuracy: float  # the same architecture with shuffled weights
    random_mask_accuracy: float  # a mask of the same size, learned on that
    density: float
    random_density: float
    passes: bool
    reason: str  # why it fails

    def to_dict(self) -> dict[str, Any]:
        """Every number as plain JSON values."""
        return asdict(self)


def mask_controls(
    model: nn.Module, mask: Mask, task: Task, *, learner: Learner | None = None, rng: Rng = 0
) -> MaskControls:
    """Whether a mask found what the network learned: it must do clearly worse on random weights, and be needed.

    On random weights a mask of the same density is learned; if that comes to within a fifth of what the mask reaches
    above a random network, masking builds the function instead of finding it. And without the mask's weights the
    network must lose more than half of its accuracy above that of the random network.

    Args:
        model: The trained network.
        mask: The mask of the task.
        task: The task.
        learner: Learns the mask on random weights; `MaskLearner()` if not given.
        rng: Shuffles the weights, and seeds the learner.

    Source: Zhou et al. 2019 (masks on random weights work); statistics of modscope, section 4.
    """
    model = check_model(model)
    seed = seed_of(rng)
    shuffled = with_random_weights(model, rng=numbered(seed, "random weights"))
    random_mask = (learner or MaskLearner())(shuffled, task, rng=seed)
    if random_mask.logits is not None and mask.n_kept:
        random_mask = random_mask.at_density(mask.density)
    with applied(model, mask):
        with_mask = evaluate(model, task).accuracy
    with applied(shuffled, random_mask):
        built = evaluate(shuffled, task).accuracy
    whole, nothing = evaluate(model, task).accuracy, evaluate(shuffled, task).accuracy
    ablated = float(accuracy_without(model, mask, [task])[0])
    reason = _failure(mask, whole=whole, nothing=nothing, with_mask=with_mask, ablated=ablated, built=built)
    return MaskControls(
        task.name,
        whole,
        with_mask,
        ablated,
        nothing,
        built,
        mask.density,
        random_mask.density,
        not reason,
        reason,
    )


def with_random_weights(model: nn.Module, *, rng: Rng) -> nn.Module:
    """A copy of the model with the entries of every matrix and kernel shuffled: same sizes, no meaning."""
    rng = generator(rng)
    shuffled = copy.deepcopy(check_model(model))
    with torch.no_grad():
        for parameter in shuffled.parameters():
            if parameter.ndim >= 2:
                order = torch.from_numpy(rng.permutation(parameter.numel())).to(parameter.device)
                parameter.copy_(parameter.reshape(-1)[order].view(parameter.shape))
    return shuffled


def half_masks(model: nn.Module, mask: Mask, tasks: Task | Sequence[Task]) -> dict[str, Float[np.ndarray, " tasks"]]:
    """Accuracy with only the first half of the masked parameters masked ("early"), and with only the rest ("late").

    Source: Csordás et al. 2021, their half-mask control.
    """
    several = as_tasks(tasks)
    half = (len(mask.names) + 1) // 2
    halves = {"early": mask.names[:half], "late": mask.names[half:]}
    accuracies = {}
    for which, names in halves.items():
        if not names:
            accuracies[which] = np.array([evaluate(model, task).accuracy for task in several])
            continue
        with applied(model, mask.restrict(names)):
            accuracies[which] = np.array([evaluate(model, task).accuracy for task in several])
    return accuracies


def control_task(tasks: Sequence[Task], *, name: str = "all") -> Task:
    """One task that is all of them: their losses added, an example correct if all find it so. Its mask is the control.

    Tasks of one loss are parts of one data set (additions and multiplications, say): their batches take turns. Tasks
    of different losses are about different outputs for the same data: that of the first is used.
    """
    several = as_tasks(tasks)
    first = several[0]
    if all(task.loss is first.loss for task in several):
        return Task(
            name,
            _Interleaved([task.train for task in several]),
            _Interleaved([task.test for task in several]),
            loss=first.loss,
            correct=first.correct,
            batch_dim=first.batch_dim,
        )
    return Task(
        name,
        first.train,
        first.test,
        loss=lambda outputs, targets: torch.stack([task.loss(outputs, targets) for task in several]).sum(),
        correct=lambda outputs, targets: torch.stack([task.correct(outputs, targets).float() for task in several]).amin(
            dim=0
        ),
        batch_dim=first.batch_dim,
    )


def first_full_mask(mask: Mask, control: Mask, names: Sequence[str]) -> Mask:
    """The inverse of a mask, but with the control mask in the named parameters (input and output layers).

    Source: Csordás et al. 2021, the control "first full mask" of the inverse test.
    """
    inverse = ~mask
    unknown = [name for name in names if name not in inverse.names]
    if unknown:
        raise MaskError(f"the mask has no parameter {', '.join(unknown)}; it has {', '.join(inverse.names)}")
    return Mask({name: control[name] if name in names else kept for name, kept in inverse.kept.items()})


def copy_weights(model: nn.Module, *, inputs: tuple[str, slice, slice], outputs: tuple[str, slice, slice]) -> nn.Module:
    """A copy of the model in which one task's input columns and output rows are another's: it *can* share all else.

    Args:
        model: The network.
        inputs: Parameter name, columns to copy from, columns to copy to, of the first layer.
        outputs: Parameter name, rows to copy from, rows to copy to, of the last layer; its bias is copied too.

    Source: Csordás et al. 2021, the control "copy weights" of double addition.
    """
    copied = copy.deepcopy(check_model(model))
    parameters = dict(copied.named_parameters())
    with torch.no_grad():
        name, source, target = inputs
        parameters[name][:, target] = parameters[name][:, source].clone()
        name, source, target = outputs
        bias = name.removesuffix("weight") + "bias"
        for each in (name, bias) if bias in parameters else (name,):
            parameters[each][target] = parameters[each][source].clone()
    return copied


def stability(masks: Sequence[Mask]) -> Float[np.ndarray, " pairs"]:
    """Intersection over union of every two masks of one task, learned with different seeds.

    Raises:
        MaskError: If there are fewer than two masks.
    """
    if len(masks) < 2:
        raise MaskError("stability compares masks of several seeds; learn n_seeds=2 or more")
    return np.array([iou(first, second) for first, second in itertools.combinations(masks, 2)])


def faithfulness(
    model: nn.Module, mask: Mask, task: Task, *, densities: Sequence[float] = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
) -> pl.DataFrame:
    """Accuracy against density: the mask cut at one threshold after the other, and its inverse beside it."""
    import polars as pl

    rows = []
    for density in track(densities, f"faithfulness of {task.name}"):
        cut = mask.at_density(density)
        with applied(model, cut):
            kept = evaluate(model, task).accuracy
        rows.append({"density": density, "accuracy": kept, "inverse": float(accuracy_without(model, cut, [task])[0])})
    return pl.DataFrame(rows)


@dataclass(frozen=True)
class Interference:
    """What tasks lose when noise is added to the weights of one mask, and to as many random weights."""

    tasks: tuple[str, ...]
    lost: tuple[float, ...]  # accuracy lost per task; noise on the mask's weights
    lost_random: tuple[tuple[float, ...], ...]  # the same, per sample of random weights
    p_values: tuple[float, ...]  # that random weights hurt the task as little as the mask's weights do

    def to_dict(self) -> dict[str, Any]:
        """Every number as plain JSON values."""
        return asdict(self)


def interference(
    model: nn.Module,
    mask: Mask,
    tasks: Task | Sequence[Task],
    *,
    noise: float = 1.0,
    n_samples: int = 19,
    rng: Rng = 0,
) -> Interference:
    """Whether the weights of one mask can be changed without touching the other tasks.

    Gaussian noise, `noise` times each tensor's spread, is added to the mask's weights, and to as many random weights
    of the same strata.
    """
    model = check_model(model)
    several = as_tasks(tasks)
    seed = seed_of(rng)
    whole = np.array([evaluate(model, task).accuracy for task in several])
    strata = common_strata([mask])

    def lost(changed: Mask, index: int) -> Float[np.ndarray, " tasks"]:
        noisy = _with_noise(model, changed, noise, numbered(seed, "noise", index))
        return np.asarray(whole - [evaluate(noisy, task).accuracy for task in several])

    of_mask = np.asarray(np.mean([lost(mask, index) for index in range(3)], axis=0))
    draws = track(range(n_samples), "interference")
    of_random = np.array([lost(random_like(mask, strata, numbered(seed, "weights", i)), i) for i in draws])
    p_values = ((of_random <= of_mask).sum(axis=0) + 1) / (n_samples + 1)
    return Interference(
        tuple(task.name for task in several),
        tuple(of_mask.tolist()),
        tuple(tuple(row) for row in of_random.tolist()),
        tuple(p_values.tolist()),
    )


def gradient_cosine(model: nn.Module, mask: Mask, task: Task) -> dict[str, float]:
    """Cosine between the whole and the masked network's loss gradients on the kept weights, per parameter and in all.

    Near 1: learning would move the masked network as it moves the whole one. NaN where a gradient is zero.
    """
    model = check_model(model)
    parameters = {name: parameter.detach() for name, parameter in masked_parameters(model, mask).items()}
    kept = {name: mask.kept[name].to(weight.device) for name, weight in parameters.items()}
    whole = _gradients(model, task, parameters)
    masked = _gradients(model, task, {name: weight * kept[name] for name, weight in parameters.items()})
    chosen = {name: (whole[name][kept[name]], masked[name][kept[name]]) for name in parameters}
    cosines = {name: _cosine(*pair) for name, pair in chosen.items()}
    together = [torch.cat(parts) for parts in zip(*chosen.values(), strict=True)]
    return {**cosines, "all": _cosine(together[0], together[1])}


@dataclass(frozen=True, eq=False)
class _Interleaved:
    """Batches of several data sets, one from each in turn."""

    sources: Sequence[Any]

    def __iter__(self) -> Any:
        for batches in itertools.zip_longest(*self.sources):
            yield from (batch for batch in batches if batch is not None)


def _failure(mask: Mask, *, whole: float, nothing: float, with_mask: float, ablated: float, built: float) -> str:
    if mask.n_kept == 0:
        return "the mask is empty"
    if whole - nothing < 0.05:
        return f"the network does the task hardly better than one with random weights ({whole:.2f}, {nothing:.2f})"
    if built - nothing > BUILT * (with_mask - nothing):
        return f"a mask of this size reaches {built:.2f} on random weights too: it builds the function"
    if ablated - nothing > (whole - nothing) / 2:
        return f"without the mask's weights the network still reaches {ablated:.2f}: it does not need them"
    return ""


def _with_noise(model: nn.Module, changed: Mask, noise: float, rng: np.random.Generator) -> nn.Module:
    noisy = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in masked_parameters(noisy, changed).items():
            where = changed.kept[name].to(parameter.device)
            values = torch.from_numpy(rng.standard_normal(tuple(parameter.shape))).to(parameter)
            parameter.add_(values * parameter.std() * noise * where)
    return noisy


def _gradients(model: nn.Module, task: Task, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradient of the mean test loss for some weights."""
    tracked = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    frozen = {name: parameter.detach() for name, parameter in model.named_parameters() if name not in weights}
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    with evaluation_mode(model):
        for batch in task.batches("test"):
            inputs, targets = split_batch(model, batch)
            positional, keywords = arguments(model, inputs)
            outputs = functional_call(model, {**frozen, **tracked}, positional, keywords)
            loss = checked_loss(task, outputs, moved(targets, device_of(model)))
            gradients = torch.autograd.grad(loss, list(tracked.values()), allow_unused=True)
            for name, gradient in zip(tracked, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient
    return total


def _cosine(one: Tensor, other: Tensor) -> float:
    length = one.norm() * other.norm()
    return float((one @ other) / length) if length > 0 else float("nan")
