"""Does a mask mean anything? What must hold before one believes it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import nn

from modscope.calling import check_model
from modscope.errors import MaskError
from modscope.masks.applied import applied
from modscope.masks.learner import MaskLearner
from modscope.masks.mask import Mask
from modscope.masks.removal import accuracy_without
from modscope.progress import track
from modscope.randomness import Rng, generator, numbered, seed_of
from modscope.records import Record, record_of
from modscope.tasks.task import Task, evaluate

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

Learner = Callable[..., Mask]
LEVEL = 0.05


@dataclass(frozen=True)
class MaskControls:
    """The two controls that decide whether a mask found something, and what they came to."""

    task: str
    whole_accuracy: float
    mask_accuracy: float
    ablated_accuracy: float  # all weights but the mask's
    random_whole_accuracy: float  # the same architecture with shuffled weights, mean
    random_mask_accuracy: float  # masks of the same size, learned on that, mean without failures
    density: float
    random_density: float
    passes: bool
    reason: str  # why it fails
    random_mask_accuracies: tuple[float, ...] = ()  # one per shuffled network
    n_failed: int = 0  # of these, learnings that failed and are left out of p_built
    p_built: float | None = None  # chance that one more mask on random weights does as well; None with one network
    built_share: float | None = None  # of the mask's gain over a random network, what masks on random weights gain

    def __str__(self) -> str:
        p = "" if self.p_built is None else f" (p = {self.p_built:.3f})"
        return (
            f"{self.task}: mask {self.mask_accuracy:.3f} at density {self.density:.3f}; of that size on random weights "
            f"{self.random_mask_accuracy:.3f}{p}; without it {self.ablated_accuracy:.3f}; "
            f"{'found' if self.passes else self.reason}"
        )

    def to_frame(self) -> pl.DataFrame:
        """One row with every number."""
        import polars as pl

        return pl.DataFrame([{**asdict(self), "random_mask_accuracies": list(self.random_mask_accuracies)}])

    def to_dict(self) -> dict[str, Any]:
        """Every number as plain JSON values."""
        return {**asdict(self), "random_mask_accuracies": list(self.random_mask_accuracies)}

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("mask controls", self.to_dict())

    def _repr_html_(self) -> str:
        return str(self.to_frame()._repr_html_())

    def plot(self, ax: Axes | None = None) -> Axes:
        """Accuracy of the whole network, of the mask and without it, beside random weights."""
        import matplotlib.pyplot as plt

        axes = plt.subplots()[1] if ax is None else ax
        names = ["whole", "mask", "without mask", "random weights", "mask on them"]
        means = [
            self.whole_accuracy, self.mask_accuracy, self.ablated_accuracy, self.random_whole_accuracy,
            self.random_mask_accuracy,
        ]  # fmt: skip
        axes.bar(names, means, color=["0.6", "C0", "C0", "0.8", "C1"])
        axes.plot([names[-1]] * len(self.random_mask_accuracies), self.random_mask_accuracies, "k_", markersize=12)
        axes.set_ylabel(f"accuracy, {self.task}")
        axes.set_ylim(0, 1)
        return axes


def mask_controls(
    model: nn.Module, mask: Mask, task: Task, *, learner: Learner | None = None, n_networks: int = 6, rng: Rng = 0
) -> MaskControls:
    """Whether a mask found what the network learned: it must do better than on random weights, and be needed.

    On several networks with shuffled weights a mask of the same size is learned. If one more of those could do as
    well (Student's t of a new draw, p > .05), masking may have built the function instead of finding it. And without
    the mask's weights the network must lose more than half of its accuracy above that of the random networks.

    Learning on shuffled weights fails now and then. Such a failure says nothing about what random weights offer, but
    would widen the spread so much that nothing could be told from chance: see `succeeded`.

    Args:
        model: The trained network.
        mask: The mask of the task.
        task: The task.
        learner: Learns the masks on random weights; `MaskLearner()` if not given. A `MaskLearner` is made to keep as
            many weights as the mask does; the mask of another learner is cut to that size if it has logits.
        n_networks: Shuffled networks. With one there is no p; then it must gain less than the mask at all.
        rng: Shuffles the weights, and seeds the learner.

    Raises:
        MaskError: If `n_networks` is below 1, or the mask does not fit the model.

    Source: Zhou et al. 2019 (masks on random weights work); Lepori et al. 2023 (random networks as the control).
    """
    model = check_model(model)
    if n_networks < 1:
        raise MaskError(f"n_networks must be at least 1, got {n_networks}")
    with applied(model, mask):
        of_mask = evaluate(model, task)
    seed, made = seed_of(rng), _of_size(learner or MaskLearner(), mask)
    jobs = track(range(n_networks), f"masks on random weights, {task.name}")
    random = np.array([_on_random_weights(model, task, made, seed, index) for index in jobs])
    nothing, density = float(random[:, 0].mean()), float(random[:, 2].mean())
    usable = random[succeeded(random[:, 1], nothing), 1]
    built, gain = float(usable.mean()), of_mask.accuracy - nothing
    whole, ablated = evaluate(model, task).accuracy, float(accuracy_without(model, mask, [task])[0])
    found = MaskControls(
        task.name, whole, of_mask.accuracy, ablated, nothing, built, mask.density, density, True, "",
        tuple(random[:, 1].tolist()), n_networks - len(usable),
        chance_of_one_more(usable, of_mask.accuracy, of_mask.n_examples) if n_networks > 1 else None,
        (built - nothing) / gain if gain > 0 else None,
    )  # fmt: skip
    reason = "the mask is empty" if mask.n_kept == 0 else _failure(found)
    return replace(found, passes=not reason, reason=reason)


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


def succeeded(accuracies: Float[np.ndarray, " networks"], nothing: float) -> Bool[np.ndarray, " networks"]:
    """Which masks on random weights were learned at all.

    One that gains less than two thirds of what the median gains has failed; at most the lowest third is called so, as
    what befalls more is the rule. The test stays honest: a mask in question that failed as badly is never called found,
    and one that did not is compared with its like.

    >>> succeeded(np.array([0.7, 0.12, 0.75, 0.72]), nothing=0.1).tolist()
    [True, False, True, True]
    """
    kept = accuracies - nothing >= (np.median(accuracies) - nothing) * 2 / 3
    kept[np.argsort(accuracies, kind="stable")[len(accuracies) // 3 :]] = True
    return np.asarray(kept)


def chance_of_one_more(accuracies: Float[np.ndarray, " networks"], observed: float, n_examples: int) -> float:
    """The p that one more accuracy like these is at least the observed one.

    Student's t of a new draw, on the scale arcsin(sqrt(accuracy)), where the noise of n test examples has the standard
    deviation 1 / (2 sqrt(n)) at any accuracy; the spread is never taken as smaller than that.
    """
    from scipy.special import stdtr

    scaled, own = np.arcsin(np.sqrt(accuracies)), np.arcsin(np.sqrt(observed))
    n = len(scaled)
    spread = max(float(scaled.std(ddof=1)), 0.5 / np.sqrt(n_examples))
    return float(stdtr(n - 1, -(own - scaled.mean()) / (spread * np.sqrt(1 + 1 / n))))


def _of_size(learner: Learner, mask: Mask) -> Learner:
    """The learner, made to keep as many weights as the mask does."""
    if mask.n_kept == 0:
        return lambda *_, **__: mask  # of this size there is no other
    if isinstance(learner, MaskLearner):
        # To cut a smaller mask up to this size would be no control: what it adds nobody has learned.
        return replace(learner, density=mask.density)

    def cut(model: nn.Module, task: Task, **options: Any) -> Mask:
        learned = learner(model, task, **options)
        return learned.at_density(mask.density) if learned.logits is not None else learned

    return cut


def _on_random_weights(
    model: nn.Module, task: Task, learner: Learner, seed: int, index: int
) -> tuple[float, float, float]:
    """Accuracy of a shuffled network, accuracy of a mask on it, and the mask's density."""
    shuffled = with_random_weights(model, rng=numbered(seed, "random weights", index))
    mask = learner(shuffled, task, rng=seed + index)
    with applied(shuffled, mask):
        built = evaluate(shuffled, task).accuracy
    return evaluate(shuffled, task).accuracy, built, mask.density


def _failure(found: MaskControls) -> str:
    whole, nothing, ablated = found.whole_accuracy, found.random_whole_accuracy, found.ablated_accuracy
    if whole - nothing < 0.05:
        return f"the network does the task hardly better than one with random weights ({whole:.2f}, {nothing:.2f})"
    built, p_built = found.random_mask_accuracy, found.p_built
    if built >= found.mask_accuracy or (p_built is not None and p_built > LEVEL):
        p = "" if p_built is None else f" (p = {p_built:.2f})"
        return f"masks of this size reach {built:.2f} on random weights too{p}: they may build the function"
    if ablated - nothing > (whole - nothing) / 2:
        return f"without the mask's weights the network still reaches {ablated:.2f}: it does not need them"
    return ""
