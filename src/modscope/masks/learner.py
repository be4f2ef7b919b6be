"""How is the mask of a task learned?"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from modscope.calling import check_model, device_of, evaluation_mode, split_batch
from modscope.errors import MaskError
from modscope.jobs.executors import map_in_order
from modscope.masks.layout import Granularity, Layout, layout_of, needs_wiring
from modscope.masks.mask import Mask, MaskSet
from modscope.masks.objective import prepared
from modscope.masks.optimise import (
    LOCAL,
    NotFiniteError,
    PenaltyOn,
    Schedule,
    Settings,
    Training,
    accuracy_gap,
    mean_rate,
)
from modscope.masks.pairs import PairedNetwork, on_pairs
from modscope.masks.parameters import chosen_parameters
from modscope.masks.prices import default_penalty
from modscope.masks.strata import weight_strata
from modscope.partition.partition import Partition
from modscope.randomness import Rng, numbered, seed_of
from modscope.tasks.task import Task, as_tasks
from modscope.wiring.wiring import Wiring

# What is sampled when the user does not say. What one weight is worth, the gradient foretells. What a unit is worth it
# does not: nearly nothing while an indispensable unit is whole, and anything while it is gone. So groups are sampled
# softly, on the way between the two.
START = 4.0
BEST_ESTIMATOR: Mapping[str, str] = {"weight": LOCAL, "group": "hard_concrete"}


class MaskLearningError(MaskError):
    """The loss stopped being finite; `mask` is the last good one."""

    def __init__(self, message: str, mask: Mask) -> None:
        super().__init__(message)
        self.mask = mask

    def __reduce__(self) -> tuple[Any, ...]:
        return MaskLearningError, (str(self), self.mask)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskLearner:
    """Learns which weights a task needs, by training one logit per weight (or per group of weights).

    The weights are frozen. A weight is kept with probability sigmoid(logit); the objective is the task's loss plus
    penalty / (examples in the step) x the sum of all logits. What ends with a logit above 0 is kept.

    Args:
        penalty: The paper's beta: how much a kept weight must be worth. None: raising all logits by one costs half
            of what the task can lose; over 1/3000 of it a logit costs only if they are few (`modscope.masks.prices`).
        n_steps: Optimisation steps.
        learning_rate: Adam's, for the logits.
        n_samples: Mask samples per step; each sees its own chunk of the batch.
        initial_logit: Where all logits start. None: at 4, which keeps 98 % (from the paper's 2, 88 %, networks with
            many layers of convolutions or attention start below the accuracy from which they can be learned); in a
            run so short that none could reach 0 from there, half as far from 0 as a logit can move.
        estimator: "local_reparameterization" (samples outputs of linear layers on vectors, and is "rao_blackwell"
            elsewhere and in the last steps), "rao_blackwell", "straight_through" (the paper's), "hard_concrete" or
            "continuous_sparsification". None: the best known for the granularity, see `BEST_ESTIMATOR`.
        granularity: What one logit decides about: "weight", "row" (a unit's incoming weights), "column" (outgoing),
            "unit" (both), "head", "layer", "block", a Partition (a cluster), or group numbers by parameter name.
        parameters: "weights" (matrices, kernels, embeddings), "weights+biases", "all", "csordas2021", or patterns.
        hard_share: Share of the steps, at the end, that "local_reparameterization" spends on hard samples.
        schedule: How the learning rate falls over the steps: "constant", "linear" or "cosine", the last two to 0.
        penalty_on: "logits" (the paper's sum of logits) or "size" (the expected number of kept entries).
        density: Share of the entries to keep: the penalty rests while the expected share is below it, and the entries
            with the largest logits are kept. None: as many as are worth the penalty.
        clip_norm: Clip the logits' gradient to this norm. None: do not.
        stop_below: Stop early, and go on to the hard samples, once less than this share of the logits crossed 0 in
            50 steps. None: never.
        removed: What a removed weight reads: "zero", or "counterfactual": what it would read on the inputs that the
            task pairs with its own. Masks so learned are judged by `evaluate_on_pairs`.
        vmap: Run masked copies of the weights at once, by `torch.vmap`, where a trial run shows that the model can;
            else, with a warning, one after another. Worth a trial on a GPU; on a processor it is no quicker.
        official: Do as the official program does: the gradients of the frozen weights pile up in the norm that is
            clipped, and there is one step more than asked.

    Raises:
        MaskError: If a field has an impossible value.

    Source: Csordás, van Steenkiste & Schmidhuber 2021, section 2; `csordas2021()` has their settings.
    """

    penalty: float | None = None
    n_steps: int = 300
    learning_rate: float = 0.2
    n_samples: int = 4
    initial_logit: float | None = None
    estimator: str | None = None
    granularity: Granularity = "weight"
    parameters: str | Sequence[str] = "weights"
    hard_share: float = 0.1
    schedule: Schedule = "cosine"
    penalty_on: PenaltyOn = "logits"
    density: float | None = None
    clip_norm: float | None = None
    stop_below: float | None = None
    removed: Literal["zero", "counterfactual"] = "zero"
    vmap: bool = False
    official: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.n_samples, int) or self.n_samples < 1:
            raise MaskError(f"n_samples must be a whole number of at least 1, got {self.n_samples!r}")
        if self.removed not in ("zero", "counterfactual"):
            raise MaskError(f"removed must be 'zero' or 'counterfactual', got {self.removed!r}")
        # checks the others
        self._settings(self.penalty or 0.0, START if self.initial_logit is None else self.initial_logit)

    def _settings(self, penalty: float, start: float) -> Settings:
        chosen: dict[str, Any] = {"penalty": penalty, "estimator": self._estimator(), "initial_logit": start}
        names = {field.name for field in dataclasses.fields(Settings)} - chosen.keys()
        return Settings(**chosen, **{name: getattr(self, name) for name in names})

    def _estimator(self) -> str:
        if self.estimator is not None:
            return self.estimator
        is_per_weight = isinstance(self.granularity, str) and self.granularity == "weight"
        return BEST_ESTIMATOR["weight" if is_per_weight else "group"]

    def _start(self) -> float:
        if self.initial_logit is not None:
            return self.initial_logit
        reach = self.learning_rate * self.n_steps * mean_rate(self.schedule)  # Adam moves by about the rate a step
        return min(START, reach / 2)

    @classmethod
    def csordas2021(cls, **changes: Any) -> MaskLearner:
        """The paper's settings: penalty 1e-4, 20,000 steps, rate 1e-2, straight-through, no embeddings, no biases."""
        settings: dict[str, Any] = {
            "penalty": 1e-4,
            "n_steps": 20_000,
            "learning_rate": 1e-2,
            "initial_logit": 2.0,
            "estimator": "straight_through",
            "schedule": "constant",
            "clip_norm": 1.0,
            "parameters": "csordas2021",
        }
        return cls(**{**settings, **changes})

    def __call__(self, model: nn.Module, task: Task, *, wiring: Wiring | None = None, rng: Rng = 0) -> Mask:
        """The mask of one task.

        Args:
            model: Any module; it is left exactly as it was.
            task: Its `train` data and `loss` are used.
            wiring: The model's units, for granularities that need them; read from a batch when not given.
            rng: Seed or generator of the samples.

        Raises:
            MaskError: If no parameter is chosen, the granularity does not fit, or a batch is smaller than `n_samples`.
            MaskLearningError: If the loss is not finite; it names the step and carries the last good mask.
            TaskError: If the task has no data or no counterfactual inputs where they are wanted, or its loss is not a
                differentiable scalar.
        """
        model = check_model(model)
        seed = seed_of(rng)
        masked = chosen_parameters(model, self.parameters)
        if wiring is None and needs_wiring(self.granularity):
            wiring = _wiring_of(model, task)
        layout = layout_of(self.granularity, masked, wiring)
        names = list(layout.spread(layout.initial(0.0, torch.device("cpu"))))
        device = device_of(model) or torch.device("cpu")
        with _own_random_state(device, seed), evaluation_mode(model), torch.enable_grad():
            generator = torch.Generator(device).manual_seed(seed % 2**63)
            kept = {name: masked[name] for name in names}
            network, task = self._network(model, task, kept)
            objective = prepared(network, task, layout, kept, self.n_samples, generator, track_weights=self.official)
            if network is not model:  # pairs are read through masked copies of weights, not around their reads
                objective = dataclasses.replace(objective, groups=None, read_once=frozenset())
            if self.vmap and self.n_samples > 1:
                objective = objective.with_vmap()
            initial = [tensor.requires_grad_() for tensor in layout.initial(self._start(), device)]
            penalty = default_penalty(objective, initial) if self.penalty is None else self.penalty
            training = Training(objective, self._settings(penalty, self._start()), initial)
            details = {"task": task.name, "seed": seed, "learner": {**self.to_dict(), "penalty": penalty}}
            try:
                logits = training.run()
            except NotFiniteError as error:
                raise MaskLearningError(
                    f"{error}; stopped, and kept the mask so far as error.mask - lower learning_rate, or look at the "
                    "task's data",
                    self._mask(layout, error.logits, {**details, "n_steps": error.step}),
                ) from error
            sampled, thresholded = accuracy_gap(objective, logits, self._estimator())
            strata = weight_strata(network, task, objective.weights)
        details |= {"n_steps": training.n_steps_done, "last_loss": training.last_loss}
        details |= {"sampled_accuracy": sampled, "thresholded_accuracy": thresholded}
        mask = self._mask(layout, logits, details, strata)
        return mask if self.density is None else mask.at_density(self.density)

    def _network(self, model: nn.Module, task: Task, masked: Mapping[str, nn.Parameter]) -> tuple[nn.Module, Task]:
        """What runs under masks: the model, or the model on pairs."""
        if self.removed == "zero":
            return model, task
        network = PairedNetwork(model)
        pairs = on_pairs(network, task)
        network.check(masked, next(pairs.batches("train"))[0][0])
        return network, pairs

    def _mask(
        self, layout: Layout, logits: list[Tensor], details: dict[str, Any], strata: dict[str, Tensor] | None = None
    ) -> Mask:
        by_name = {name: tensor.detach().cpu().clone() for name, tensor in layout.spread(logits).items()}
        kept = {name: tensor > 0 for name, tensor in by_name.items()}
        return Mask(kept, by_name, details, strata)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        settings["estimator"], settings["initial_logit"] = self._estimator(), self._start()
        if isinstance(self.granularity, Partition):
            settings["granularity"] = "partition"
        elif not isinstance(self.granularity, str):
            settings["granularity"] = "groups"
        if not isinstance(self.parameters, str):
            settings["parameters"] = list(self.parameters)
        return settings


def learn_masks(
    model: nn.Module,
    tasks: Task | Sequence[Task],
    learner: Callable[..., Mask] | None = None,
    *,
    n_seeds: int = 1,
    wiring: Wiring | None = None,
    rng: Rng = 0,
    executor: Executor | None = None,
) -> MaskSet:
    """The masks of several tasks, `n_seeds` of each.

    Each mask has a random stream of its own, so the result does not depend on the executor or on the other tasks.

    Args:
        model: Any module.
        tasks: One task or several.
        learner: How a mask is learned; `MaskLearner()` if not given.
        n_seeds: Masks per task; two show how much a mask depends on chance.
        wiring: The model's units, for granularities that need them.
        rng: Seed or generator.
        executor: Where the masks are learned; None: here, one after another.
    """
    learner = MaskLearner() if learner is None else learner
    model = check_model(model)
    several = as_tasks(tasks)
    if n_seeds < 1:
        raise MaskError(f"n_seeds must be at least 1, got {n_seeds}")
    seed = seed_of(rng)
    jobs = [(task, index) for task in several for index in range(n_seeds)]
    seeded = [(task, seed_of(numbered(seed, f"mask of {task.name}", index))) for task, index in jobs]
    work = functools.partial(_learned, learner, model, wiring)
    masks = map_in_order(work, seeded, executor=executor, description="masks", runs_a_model=True)
    return MaskSet({task.name: masks[index * n_seeds : (index + 1) * n_seeds] for index, task in enumerate(several)})


def _learned(learner: Callable[..., Mask], model: nn.Module, wiring: Wiring | None, seeded: tuple[Task, int]) -> Mask:
    task, seed = seeded
    return learner(model, task, wiring=wiring, rng=seed)


@contextmanager
def _own_random_state(device: torch.device, seed: int) -> Iterator[None]:
    """Global random state seeded for whatever the model or the data loader draw, and put back afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed % 2**63)
        yield


def _wiring_of(model: nn.Module, task: Task) -> Wiring:
    from modscope.wiring.trace import read_wiring

    inputs, _ = split_batch(model, next(task.batches("train")))
    return read_wiring(model, inputs)
