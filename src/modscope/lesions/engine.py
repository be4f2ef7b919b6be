"""How well does a model do its tasks under each of many lesions?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from modscope.calling import arguments, check_model, device_of, evaluation_mode, explained, moved, split_batch
from modscope.errors import LesionError, ModscopeError, TaskError
from modscope.jobs.executors import map_in_order
from modscope.lesions.silence import run_silenced
from modscope.lesions.tape import NoTape, Tape, recorded
from modscope.lesions.values import Replacement, Value, fill_for
from modscope.randomness import Rng
from modscope.tasks.task import Task, checked_correct, checked_loss
from modscope.wiring.forward.kernels import unfused
from modscope.wiring.forward.reads import ReadMode
from modscope.wiring.wiring import Wiring

Metric: TypeAlias = Literal["accuracy", "loss"]
Lesion: TypeAlias = np.ndarray  # which units are silenced: one bool per unit

N_PER_CHUNK = 128  # lesions that share one recording of each batch


@dataclass(frozen=True, eq=False)
class SharedBatch:
    """One batch of inputs, with the targets of every task that it belongs to."""

    inputs: Any
    targets: dict[int, Any]  # index of the task -> targets
    number: int  # of this batch within its tasks


def shared_batches(model: nn.Module, tasks: Sequence[Task], n_examples: int | None) -> list[SharedBatch]:
    """The tasks' test batches; tasks that have the same inputs share them, so that a lesion is run once for all.

    Args:
        model: What the inputs are for.
        tasks: Whose test data are taken.
        n_examples: Whole batches of each task are taken until there are at least so many examples; None: all.
    """
    streams: list[list[SharedBatch]] = []
    for index, task in enumerate(tasks):
        mine = list(_first(model, task, n_examples))
        twin = next((stream for stream in streams if _have_same_inputs(stream, mine)), None)
        if twin is None:
            streams.append([SharedBatch(inputs, {index: targets}, n) for n, (inputs, targets) in enumerate(mine)])
            continue
        for batch, (_, targets) in zip(twin, mine, strict=True):
            batch.targets[index] = targets
    return [batch for stream in streams for batch in stream]


def _first(model: nn.Module, task: Task, n_examples: int | None) -> Iterable[tuple[Any, Any]]:
    n_seen = 0
    for batch in task.batches("test"):
        inputs, targets = split_batch(model, batch)
        yield inputs, targets
        n_seen += _n_examples(inputs, task)
        if n_examples is not None and n_seen >= n_examples:
            return


def _n_examples(inputs: Any, task: Task) -> int:
    tensors = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.ndim > task.batch_dim]
    return int(tensors[0].shape[task.batch_dim]) if tensors else 1


def _have_same_inputs(stream: list[SharedBatch], mine: list[tuple[Any, Any]]) -> bool:
    return len(stream) == len(mine) and all(
        _are_same(batch.inputs, inputs) for batch, (inputs, _) in zip(stream, mine, strict=True)
    )


def _are_same(one: Any, other: Any) -> bool:
    ours, theirs = tree_leaves(one), tree_leaves(other)
    return len(ours) == len(theirs) and all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a is b
        for a, b in zip(ours, theirs, strict=True)
    )


class LesionEngine:
    """Runs a model on its tasks under lesions. Predictions are those of `silenced`, several times faster.

    Args:
        model, wiring, tasks: The network, and what it does.
        metric: "accuracy" or "loss": what `scores` measures.
        value, reference, rng: What is read instead of a silenced unit, as in `silenced`.
        n_examples: Test examples of each task that are used (whole batches); None: all.
    """

    def __init__(
        self,
        model: nn.Module,
        wiring: Wiring,
        tasks: Sequence[Task],
        *,
        metric: Metric = "accuracy",
        value: Value = "zero",
        reference: Iterable[Any] | None = None,
        rng: Rng = 0,
        n_examples: int | None = None,
    ) -> None:
        if metric not in ("accuracy", "loss"):
            raise LesionError(f"metric must be 'accuracy' or 'loss', got {metric!r}")
        self._model = check_model(model)
        self._wiring = wiring
        self._tasks = tuple(tasks)
        self._metric = metric
        self._units = np.arange(wiring.n_units)
        self._fill = fill_for(self._model, wiring, self._units, value=value, reference=reference, rng=rng)
        self._batches = shared_batches(self._model, self._tasks, n_examples)
        self._tasks = tuple(task.for_tests() for task in self._tasks)
        self.is_replayed = self._replays_exactly()

    @property
    def n_examples(self) -> int:
        """Number of examples of the first task that are used."""
        sizes = [_n_examples(batch.inputs, self._tasks[0]) for batch in self._batches if 0 in batch.targets]
        return sum(sizes)

    def scores(
        self, lesions: Sequence[Lesion], *, executor: Executor | None = None, description: str = "lesions"
    ) -> Float[np.ndarray, "lesions tasks"]:
        """Accuracy (or loss) of every task under every lesion; a lesion of no unit is the intact model.

        Args:
            lesions: Which units are silenced, one bool per unit.
            executor: Where the work is done; None = this process.
            description: What it is, for progress bars.
        """
        chunks = [lesions[start : start + N_PER_CHUNK] for start in range(0, len(lesions), N_PER_CHUNK)]
        parts = map_in_order(self._chunk, chunks, executor=executor, description=description, runs_a_model=True)
        return np.concatenate(parts) if parts else np.zeros((0, len(self._tasks)))

    def _chunk(self, lesions: Sequence[Lesion]) -> Float[np.ndarray, "lesions tasks"]:
        sums = np.zeros((len(lesions), len(self._tasks)))
        counts = np.zeros(len(self._tasks))
        with evaluation_mode(self._model), torch.no_grad(), unfused(self._model):
            for batch in self._batches:
                targets = {index: moved(value, device_of(self._model)) for index, value in batch.targets.items()}
                tape = self._tape(batch) if self.is_replayed else None
                for row, lesion in enumerate(lesions):
                    outputs = self._outputs(batch, lesion, tape)
                    for index, wanted in targets.items():
                        score, n = self._score(self._tasks[index], outputs, wanted)
                        sums[row, index] += score
                        counts[index] += n if row == 0 else 0
        return sums / np.maximum(counts, 1)

    def _score(self, task: Task, outputs: Any, targets: Any) -> tuple[float, int]:
        correct = checked_correct(task, outputs, targets)
        if self._metric == "accuracy":
            return float(correct.sum(dtype=torch.float64)), len(correct)
        return float(checked_loss(task, outputs, targets)) * len(correct), len(correct)

    def _outputs(self, batch: SharedBatch, lesion: Lesion, tape: Tape | None) -> Any:
        if tape is not None:
            return tape.run(lesion)
        units = np.flatnonzero(lesion)
        mode = ReadMode(
            self._model, self._wiring, units, Replacement(self._fill, units, self._wiring.n_units), LesionError
        )
        try:
            positional, keywords = arguments(self._model, batch.inputs)
            return run_silenced(mode, self._fill, self._model.forward, positional, keywords, batch.number)
        except ModscopeError:
            raise
        except Exception as error:
            raise explained(error, "running the model under a lesion", batch.inputs, TaskError) from error

    def _tape(self, batch: SharedBatch) -> Tape:
        tape, _ = recorded(self._model, self._wiring, self._units, self._fill, batch.inputs, batch.number)
        return tape

    def _replays_exactly(self) -> bool:
        """Does a replayed lesion of the first batch give what the plain way gives?"""
        lesion = np.random.default_rng(0).random(self._wiring.n_units) < 0.3
        with evaluation_mode(self._model), torch.no_grad(), unfused(self._model):
            plain = self._outputs(self._batches[0], lesion, None)
            try:
                replayed = self._outputs(self._batches[0], lesion, self._tape(self._batches[0]))
            except NoTape:
                return False
        pairs = zip(tree_leaves(plain), tree_leaves(replayed), strict=True)
        return all(
            torch.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True) for a, b in pairs if isinstance(a, Tensor)
        )
