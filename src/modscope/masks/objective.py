"""What is one step's loss: a frozen model under freshly sampled masks, on one batch?"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from modscope.calling import Inputs, arguments, device_of, explained, moved, split_batch
from modscope.errors import MaskError, ModscopeError, TaskError
from modscope.masks.chunks import batch_axes, cut, first_examples, joined, n_examples
from modscope.masks.layout import Layout, LogitPerWeight
from modscope.masks.reads import Moments, SampledOutputs, WeightReads
from modscope.masks.sampling import Estimator
from modscope.tasks.task import Task, checked_loss


@dataclass(frozen=True, eq=False)
class Objective:
    """The task's loss under sampled masks, as a function of the logits.

    Args:
        model: The model; its weights are frozen and never written.
        task: Gives the loss.
        layout: How logits join the weights.
        weights: The masked parameters, detached.
        others: Every other parameter, detached.
        n_samples: Mask samples per step; the batch is cut into as many chunks.
        generator: Where samples come from.
        axes: Where examples lie in the outputs (see `batch_axes`).
        read_once: Masked weights that one example reads once, in a linear layer; empty unless there is a logit for
            each weight.
        tracked: Weights that collect gradients although they are frozen (the official program's do).
    """

    model: nn.Module
    task: Task
    layout: Layout
    weights: Mapping[str, Tensor]
    others: Mapping[str, Tensor]
    n_samples: int
    generator: torch.Generator
    axes: list[int | None]
    read_once: frozenset[str]
    tracked: list[Tensor]

    def loss(self, logits: list[Tensor], batch: Any, estimator: Estimator, progress: float) -> tuple[Tensor, int]:
        """Loss under hard (or the estimator's) samples of all masked weights, and the number of examples."""
        outputs, targets, count = self.outputs(logits, batch, estimator, progress)
        return checked_loss(self.task, outputs, targets), count

    def locally_sampled_loss(self, logits: list[Tensor], batch: Any, estimator: Estimator) -> tuple[Tensor, int]:
        """Loss where the outputs of layers in `read_once` are sampled, and the other weights by the estimator."""
        sampled_weights = {name: weight for name, weight in self.weights.items() if name not in self.read_once}
        by_name = self.layout.spread(logits)
        stand_ins = {name: weight.detach() for name, weight in self.weights.items() if name in self.read_once}
        moments = {id(weight): Moments(weight, by_name[name]) for name, weight in stand_ins.items()}
        n_copies = self.n_samples if sampled_weights else 1
        copies = self.layout.masked(logits, sampled_weights, estimator, n_copies, self.generator, 0.0)
        mode = SampledOutputs(moments, self.generator)
        outputs, targets, count = self._run([{**stand_ins, **copy} for copy in copies], batch, mode)
        return checked_loss(self.task, outputs, targets), count

    def outputs(self, logits: list[Tensor], batch: Any, estimator: Estimator, progress: float) -> tuple[Any, Any, int]:
        """Outputs of the whole batch under sampled masks, its targets, and the number of examples."""
        copies = self.layout.masked(logits, self.weights, estimator, self.n_samples, self.generator, progress)
        return self._run(copies, batch, nullcontext())

    def thresholded_outputs(self, logits: list[Tensor], batch: Any) -> tuple[Any, Any]:
        """Outputs of the whole batch under the mask of logits above 0, and its targets."""
        spread = self.layout.spread(logits)
        kept = {name: weight * (spread[name] > 0).to(weight.dtype) for name, weight in self.weights.items()}
        inputs, targets = split_batch(self.model, batch)
        outputs = _called(self.model, {**self.others, **kept}, inputs, self.task)
        return outputs, moved(targets, device_of(self.model))

    def _run(
        self, copies: list[dict[str, Tensor]], batch: Any, mode: AbstractContextManager[Any]
    ) -> tuple[Any, Any, int]:
        inputs, targets = split_batch(self.model, batch)
        batch_dim = self.task.batch_dim
        count = n_examples(inputs, batch_dim)
        chunks = cut(inputs, min(len(copies), count), batch_dim)
        sizes = [n_examples(chunk, batch_dim) for chunk in chunks]
        with mode:
            outputs = [
                _called(self.model, {**self.others, **copy}, chunk, self.task)
                for copy, chunk in zip(copies, chunks, strict=False)  # a small last batch has fewer chunks
            ]
        return joined(outputs, self.axes, sizes), moved(targets, device_of(self.model)), count


def prepared(
    model: nn.Module,
    task: Task,
    layout: Layout,
    masked: Mapping[str, nn.Parameter],
    n_samples: int,
    generator: torch.Generator,
    *,
    track_weights: bool = False,
) -> Objective:
    """The objective, after a trial run of the model on the first batch.

    Raises:
        TaskError: If the task has no data, or its loss is not a scalar that the outputs determine.
        MaskError: If the first batch holds fewer examples than there are samples.
    """
    weights = {name: parameter.detach() for name, parameter in masked.items()}
    others = {name: parameter.detach() for name, parameter in model.named_parameters() if name not in weights}
    tracked = [weight.requires_grad_() for weight in (*weights.values(), *others.values())] if track_weights else []
    inputs, targets = split_batch(model, next(task.batches("train")))
    count = n_examples(inputs, task.batch_dim)
    if count < n_samples:
        raise MaskError(
            f"a batch of task '{task.name}' holds {count} examples, fewer than the {n_samples} mask samples; "
            f"give larger batches or n_samples={count}"
        )
    reads = WeightReads(weights, count)
    with torch.no_grad(), reads:
        outputs = _called(model, {**others, **weights}, inputs, task)
    axes = _axes_of(model, {**others, **weights}, inputs, outputs, count, task) if n_samples > 1 else []
    _check_loss(model, weights, others, inputs, moved(targets, device_of(model)), task)
    # one sample per output stands for independent samples of its weights: not where weights share a logit
    read_once = reads.once_per_example if isinstance(layout, LogitPerWeight) else frozenset()
    return Objective(model, task, layout, weights, others, n_samples, generator, axes, read_once, tracked)


def _axes_of(
    model: nn.Module, parameters: Mapping[str, Tensor], inputs: Inputs, outputs: Any, count: int, task: Task
) -> list[int | None]:
    with torch.no_grad():
        fewer = _called(model, parameters, first_examples(inputs, count - 1, task.batch_dim), task)
    return batch_axes(outputs, fewer)


def _check_loss(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    others: Mapping[str, Tensor],
    inputs: Inputs,
    targets: Any,
    task: Task,
) -> None:
    differentiable = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    loss = checked_loss(task, _called(model, {**others, **differentiable}, inputs, task), targets)
    if not loss.requires_grad:
        raise TaskError(
            f"the loss of task '{task.name}' does not depend on the masked weights through operations that can be "
            "differentiated; compute it from the model's outputs, without argmax, .item() or .detach()"
        )


def _called(model: nn.Module, parameters: Mapping[str, Tensor], inputs: Inputs, task: Task) -> Any:
    positional, keywords = arguments(model, inputs)
    try:
        return functional_call(model, dict(parameters), positional, keywords)
    except ModscopeError:
        raise
    except Exception as error:
        raise explained(error, f"running the model under a mask on task '{task.name}'", inputs, TaskError) from error
