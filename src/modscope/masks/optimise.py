"""How are the logits of a mask trained?"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from modscope.errors import MaskError
from modscope.masks.adam import Optimizer, adam
from modscope.masks.objective import Objective
from modscope.masks.sampling import ESTIMATORS, rao_blackwell
from modscope.progress import track
from modscope.tasks.task import Task, checked_correct

LOCAL = "local_reparameterization"
Schedule: TypeAlias = Literal["constant", "linear", "cosine"]
PenaltyOn: TypeAlias = Literal["logits", "size"]

_RATE_AT: Mapping[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
}
_CHECK_EVERY = 50  # steps between two looks at how many logits crossed 0
_N_ACCURACY_BATCHES = 4


class NotFiniteError(MaskError):
    """The loss stopped being finite at `step`; `logits` are those before it."""

    def __init__(self, message: str, step: int, logits: list[Tensor]) -> None:
        super().__init__(message)
        self.step = step
        self.logits = logits


def mean_rate(schedule: str) -> float:
    """The mean learning rate over a run, as a share of the first."""
    return statistics.fmean(_RATE_AT[schedule](step / 100) for step in range(101))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the logits are trained; see MaskLearner for what each field means.

    Raises:
        MaskError: If a field has an impossible value.
    """

    penalty: float
    n_steps: int
    learning_rate: float
    initial_logit: float
    estimator: str
    hard_share: float
    schedule: Schedule
    penalty_on: PenaltyOn
    density: float | None
    clip_norm: float | None
    stop_below: float | None
    official: bool

    def __post_init__(self) -> None:
        if not isinstance(self.n_steps, int) or self.n_steps < 1:
            raise MaskError(f"n_steps must be a whole number of at least 1, got {self.n_steps!r}")
        checks = {
            "penalty must be finite and >= 0": (self.penalty, 0 <= self.penalty < math.inf),
            "learning_rate must be finite and > 0": (self.learning_rate, 0 < self.learning_rate < math.inf),
            "initial_logit must be finite": (self.initial_logit, math.isfinite(self.initial_logit)),
            "hard_share must be in [0, 1]": (self.hard_share, 0 <= self.hard_share <= 1),
            "density must be in (0, 1]": (self.density, self.density is None or 0 < self.density <= 1),
            "clip_norm must be > 0": (self.clip_norm, self.clip_norm is None or self.clip_norm > 0),
            "stop_below must be in (0, 1)": (self.stop_below, self.stop_below is None or 0 < self.stop_below < 1),
            f"schedule must be one of {', '.join(_RATE_AT)}": (self.schedule, self.schedule in _RATE_AT),
            "penalty_on must be 'logits' or 'size'": (self.penalty_on, self.penalty_on in ("logits", "size")),
            f"estimator must be one of {LOCAL}, {', '.join(ESTIMATORS)}": (
                self.estimator,
                self.estimator == LOCAL or self.estimator in ESTIMATORS,
            ),
            'official=True needs estimator="straight_through", the only one of the official program': (
                self.estimator,
                not self.official or self.estimator == "straight_through",
            ),
        }
        for wanted, (given, holds) in checks.items():
            if not holds:
                raise MaskError(f"{wanted}, got {given!r}")


@dataclass(eq=False)
class Training:
    """The logits of one mask while they are trained."""

    objective: Objective
    settings: Settings
    logits: list[Tensor]
    n_steps_done: int = 0
    last_loss: float = math.nan
    _before: list[Tensor] = field(default_factory=list)

    def run(self) -> list[Tensor]:
        """The trained logits.

        Raises:
            NotFiniteError: If a loss is not finite.
        """
        settings = self.settings
        # the official loop runs one step more than asked
        n_steps = settings.n_steps + settings.official
        n_soft = round(n_steps * (1 - settings.hard_share)) if self._samples_outputs else n_steps
        optimizer = adam(self.logits)
        batches = _endless(self.objective.task)
        steps = iter(track(range(n_steps), f"mask of {self.objective.task.name}", total=n_steps))
        for step in steps:
            self.step(optimizer, next(batches), step, step / n_steps, is_soft=step < n_soft)
            if self._is_settled(step):
                break
        settled_at = self.n_steps_done / n_steps
        for step in range(n_soft, n_steps) if self.n_steps_done < n_soft else ():
            self.step(optimizer, next(batches), step, settled_at, is_soft=False)  # every run ends on hard samples
        return [tensor.detach() for tensor in self.logits]

    @property
    def _samples_outputs(self) -> bool:
        return self.settings.estimator == LOCAL and bool(self.objective.read_once)

    def step(self, optimizer: Optimizer, batch: Any, step: int, progress: float, *, is_soft: bool) -> None:
        """One step of learning on one batch.

        Args:
            optimizer: Moves the logits.
            batch: Of the task.
            step: Its number, for messages.
            progress: Share of the steps that are done.
            is_soft: Whether outputs may be sampled instead of masks.

        Raises:
            NotFiniteError: If the loss is not finite.
        """
        optimizer.zero_grad()
        if is_soft and self._samples_outputs:
            loss, count = self.objective.locally_sampled_loss(self.logits, batch, rao_blackwell)
        else:
            estimator = ESTIMATORS.get(self.settings.estimator, rao_blackwell)
            loss, count = self.objective.loss(self.logits, batch, estimator, progress)
        self.last_loss = float(loss.detach())
        if not math.isfinite(self.last_loss):
            message = f"the loss of task '{self.objective.task.name}' is {self.last_loss} at step {step}"
            raise NotFiniteError(message, step, [tensor.detach() for tensor in self.logits])
        torch.autograd.backward(loss)
        self._penalise(count)
        self._clip()
        optimizer.step(self.settings.learning_rate * _RATE_AT[self.settings.schedule](progress))
        self.n_steps_done += 1

    def _penalise(self, count: int) -> None:
        """The penalty's gradient, added in place: no second backward pass."""
        strength = self.settings.penalty / count
        if self.settings.density is not None and self._expected_density() <= self.settings.density:
            strength = 0.0
        for tensor in self.logits:
            if tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
            if self.settings.penalty_on == "logits":
                tensor.grad.add_(strength)
            else:
                kept = torch.sigmoid(tensor.detach())
                tensor.grad.addcmul_(kept, 1 - kept, value=strength)

    def _expected_density(self) -> float:
        kept = sum(float(torch.sigmoid(tensor.detach()).sum()) for tensor in self.logits)
        return kept / sum(tensor.numel() for tensor in self.logits)

    def _clip(self) -> None:
        if self.settings.clip_norm is None:
            return
        # the official program never resets the gradients of the frozen weights, and clips by the norm of all
        frozen = [weight for weight in self.objective.tracked if weight.grad is not None]
        torch.nn.utils.clip_grad_norm_([*self.logits, *frozen], self.settings.clip_norm)

    def _is_settled(self, step: int) -> bool:
        """Whether fewer than `stop_below` of the logits crossed 0 since the last look."""
        if self.settings.stop_below is None or step % _CHECK_EVERY:
            return False
        now = [tensor.detach() > 0 for tensor in self.logits]
        changed = sum(int((a != b).sum()) for a, b in zip(now, self._before, strict=False))
        is_first = not self._before
        self._before = now
        return not is_first and changed < self.settings.stop_below * sum(tensor.numel() for tensor in now)


def accuracy_gap(objective: Objective, logits: list[Tensor], estimator: str) -> tuple[float, float]:
    """Accuracy on a few training batches under sampled masks, and under the mask of logits above 0."""
    sampled, thresholded, count = 0.0, 0.0, 0
    sampler = ESTIMATORS.get(estimator, rao_blackwell)
    with torch.no_grad():
        for batch in itertools.islice(objective.task.batches("train"), _N_ACCURACY_BATCHES):
            outputs, targets, _ = objective.outputs(logits, batch, sampler, 1.0)
            correct = checked_correct(objective.task, outputs, targets)
            sampled += float(correct.double().sum())
            outputs, targets = objective.thresholded_outputs(logits, batch)
            thresholded += float(checked_correct(objective.task, outputs, targets).double().sum())
            count += len(correct)
    return sampled / count, thresholded / count


def _endless(task: Task) -> Iterator[Any]:
    once: Iterable[Iterator[Any]] = (task.batches("train") for _ in itertools.count())
    return itertools.chain.from_iterable(once)
