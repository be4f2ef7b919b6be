"""What is one step's loss: a frozen model under freshly sampled masks, on one batch?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from modscope.calling import Inputs, device_of, moved, split_batch
from modscope.errors import MaskError, TaskError
from modscope.masks.chunked_linear import Scratch
from modscope.masks.chunks import batch_axes, cut, first_examples, joined, leaves, n_examples
from modscope.masks.compiled import kernels_for
from modscope.masks.group_reads import GroupSampler, UnknownRead
from modscope.masks.layout import Layout, LogitPerGroup, LogitPerWeight
from modscope.masks.reads import (
    ChunkedCopies,
    GaussianOutputs,
    Moments,
    ReadOtherwise,
    SampledReads,
    Sampler,
    WeightReads,
)
from modscope.masks.running import Running, agree, quickest
from modscope.masks.sampling import Estimator, rao_blackwell
from modscope.masks.vectorized import vectorized
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
        groups: Masks what layers read instead of weights, where a logit decides about a group; else None.
        running: The way through the model.
        tracked: Weights that collect gradients although they are frozen (the official program's do).
        vmap: Whether masked copies run at once instead of one after another.
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
    groups: GroupSampler | None
    running: Running
    tracked: list[Tensor]
    vmap: bool = False
    _scratch: Scratch = field(default_factory=Scratch)

    def loss(self, logits: list[Tensor], batch: Any, estimator: Estimator, progress: float) -> tuple[Tensor, int]:
        """Loss under hard (or the estimator's) samples of all masked weights, and the number of examples."""
        outputs, targets, count = self.outputs(logits, batch, estimator, progress)
        return checked_loss(self.task, outputs, targets), count

    def locally_sampled_loss(self, logits: list[Tensor], batch: Any, estimator: Estimator) -> tuple[Tensor, int]:
        """Loss where the outputs of layers in `read_once` are sampled, and the other weights by the estimator."""
        sampler = GaussianOutputs(self.generator)
        outputs, targets, count = self._with_sampled_reads(logits, batch, sampler, estimator, 0.0)
        return checked_loss(self.task, outputs, targets), count

    def outputs(self, logits: list[Tensor], batch: Any, estimator: Estimator, progress: float) -> tuple[Any, Any, int]:
        """Outputs of the whole batch under sampled masks, its targets, and the number of examples."""
        if isinstance(self.layout, LogitPerGroup) and self.groups is not None:
            kept = self.layout.kept(logits, estimator, self.n_samples, self.generator, progress)
            try:
                return self.grouped_outputs(kept, batch, self.groups)
            except UnknownRead:  # of a kind that the first batch did not show
                return self.grouped_outputs(kept, batch, self.groups.one_by_one())
        kernels = self._kernels_for_one_run(logits) if estimator is rao_blackwell else None
        if kernels is not None:
            sampler = ChunkedCopies(self.n_samples, self.generator, self._scratch, kernels)
            return self._with_sampled_reads(logits, batch, sampler, estimator, progress)
        return self._with_copies(logits, batch, estimator, progress)

    def _with_copies(
        self, logits: list[Tensor], batch: Any, estimator: Estimator, progress: float
    ) -> tuple[Any, Any, int]:
        """Outputs where each chunk of the examples reads masked copies of the weights, in any way."""
        copies = self.layout.masked(logits, self.weights, estimator, self.n_samples, self.generator, progress)
        return self._run(copies, batch, None)

    def _kernels_for_one_run(self, logits: list[Tensor]) -> ModuleType | None:
        """Compiled loops, if all hard samples of a step can be drawn where the weights are read, in one run."""
        if torch.is_autocast_enabled("cpu") or self.read_once != self.weights.keys():
            return None  # autocast: products in another precision than the weights'
        pairs = zip(logits, self.weights.values(), strict=True)
        found = [None if weight.requires_grad else kernels_for(logit, weight) for logit, weight in pairs]
        return found[0] if all(found) else None

    def _with_sampled_reads(
        self, logits: list[Tensor], batch: Any, sampler: Sampler, estimator: Estimator, progress: float
    ) -> tuple[Any, Any, int]:
        """Outputs where reads of weights in `read_once` are sampled, and the other weights by the estimator.

        A batch on which the model reads one of these otherwise than on the first runs on masked copies.
        """
        sampled_weights = {name: weight for name, weight in self.weights.items() if name not in self.read_once}
        by_name = self.layout.spread(logits)
        stand_ins = {name: weight.detach() for name, weight in self.weights.items() if name in self.read_once}
        moments = {id(weight): Moments(weight, by_name[name]) for name, weight in stand_ins.items()}
        n_copies = self.n_samples if sampled_weights else 1
        copies = self.layout.masked(logits, sampled_weights, estimator, n_copies, self.generator, progress)
        try:
            return self._run([{**stand_ins, **copy} for copy in copies], batch, SampledReads(moments, sampler))
        except ReadOtherwise:
            return self._with_copies(logits, batch, estimator, progress)

    def grouped_outputs(self, kept: tuple[Tensor, ...], batch: Any, groups: GroupSampler) -> tuple[Any, Any, int]:
        """The same as `outputs`, given by how much each sample keeps each group."""
        inputs, targets = split_batch(self.model, batch)
        batch_dim = self.task.batch_dim
        count = n_examples(inputs, batch_dim)
        chunks = cut(inputs, 1 if groups.one_run else min(len(kept), count), batch_dim)
        sizes = [n_examples(chunk, batch_dim) for chunk in chunks]
        outputs = []
        for chunk, mode in zip(chunks, groups.modes(kept, self.weights, sizes), strict=True):
            with mode:
                outputs.append(self._called(self.weights, chunk))
        return joined(outputs, self.axes, sizes), moved(targets, device_of(self.model)), count

    def thresholded_outputs(self, logits: list[Tensor], batch: Any) -> tuple[Any, Any]:
        """Outputs of the whole batch under the mask of logits above 0, and its targets."""
        spread = self.layout.spread(logits)
        kept = {name: weight * (spread[name] > 0).to(weight.dtype) for name, weight in self.weights.items()}
        inputs, targets = split_batch(self.model, batch)
        outputs = self._called(kept, inputs)
        return outputs, moved(targets, device_of(self.model))

    def _run(
        self, copies: list[dict[str, Tensor]], batch: Any, mode: AbstractContextManager[Any] | None
    ) -> tuple[Any, Any, int]:
        """Outputs of each chunk under its copy (a small last batch has fewer chunks), joined."""
        inputs, targets = split_batch(self.model, batch)
        batch_dim = self.task.batch_dim
        count = n_examples(inputs, batch_dim)
        chunks = cut(inputs, min(len(copies), count), batch_dim)
        sizes = [n_examples(chunk, batch_dim) for chunk in chunks]
        if self.vmap and mode is None and len(set(sizes)) == 1:
            outputs = vectorized(self._called, copies[: len(chunks)], chunks)
        else:
            with mode or nullcontext():
                outputs = [self._called(copy, chunk) for copy, chunk in zip(copies, chunks, strict=False)]
        return joined(outputs, self.axes, sizes), moved(targets, device_of(self.model)), count

    def with_vmap(self) -> Objective:
        """The same, with all masked copies run at once, if on the first batch that gives the same outputs."""
        inputs, _ = split_batch(self.model, next(self.task.batches("train")))
        size = n_examples(inputs, self.task.batch_dim) // self.n_samples
        inputs = first_examples(inputs, size * self.n_samples, self.task.batch_dim)
        chunks = cut(inputs, self.n_samples, self.task.batch_dim)
        shares = torch.linspace(0.5, 1, self.n_samples).tolist()
        copies = [{n: (w * share).requires_grad_() for n, w in self.weights.items()} for share in shares]
        try:
            found = vectorized(self._called, copies, chunks)
            sum(leaf.sum() for leaf in leaves(found) if leaf.is_floating_point()).backward()
        except Exception as error:  # models fail under vmap in all ways
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            with torch.no_grad():
                wanted = [self._called(copy, chunk) for copy, chunk in zip(copies, chunks, strict=True)]
            if agree(wanted, found):
                return replace(self, vmap=True)
            problem = "its outputs differ there"
        message = f"the model does not run under torch.vmap ({problem}); its samples run one after another"
        warnings.warn(message, stacklevel=2)
        return self

    def _called(self, weights: Mapping[str, Tensor], inputs: Inputs) -> Any:
        return self.running({**self.others, **weights}, inputs, self.task)


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
    batch = next(task.batches("train"))
    inputs, targets = split_batch(model, batch)
    count = n_examples(inputs, task.batch_dim)
    if count < n_samples:
        raise MaskError(
            f"a batch of task '{task.name}' holds {count} examples, fewer than the {n_samples} mask samples; "
            f"give larger batches or n_samples={count}"
        )
    reads = WeightReads(weights, count)
    with torch.no_grad(), reads:
        outputs = Running(model)({**others, **weights}, inputs, task)
    axes = _axes_of(model, {**others, **weights}, inputs, outputs, count, task) if n_samples > 1 else []
    _check_loss(model, weights, others, inputs, moved(targets, device_of(model)), task)
    running = quickest(model, {**others, **weights}, cut(inputs, n_samples, task.batch_dim)[0], task)
    weights, others = running.ordered(weights), running.ordered(others)
    tracked = [weight.requires_grad_() for weight in (*weights.values(), *others.values())] if track_weights else []
    # one sample per output stands for independent samples of its weights: not where weights share a logit
    read_once = reads.once_per_example if isinstance(layout, LogitPerWeight) else frozenset()
    objective = Objective(
        model, task, layout, weights, others, n_samples, generator, axes, read_once, None, running, tracked
    )
    if not isinstance(layout, LogitPerGroup):
        return objective
    return replace(objective, groups=_sampler(objective, layout, batch))


def _sampler(objective: Objective, layout: LogitPerGroup, batch: Any) -> GroupSampler:
    """All samples in one run of the model, if on one batch that gives what one run per sample gives."""
    separate = GroupSampler.of(layout)
    together = separate.together()
    if together is None or objective.n_samples == 1:
        return separate
    logits = layout.initial(0.0, objective.generator.device)
    draws = torch.Generator(objective.generator.device).manual_seed(0)  # of its own: learning draws as without a trial
    kept = layout.kept(logits, rao_blackwell, objective.n_samples, draws, 0.0)
    with torch.no_grad():
        try:
            given = objective.grouped_outputs(kept, batch, together)[0]
        except (UnknownRead, TaskError):
            return separate
        wanted = objective.grouped_outputs(kept, batch, separate)[0]
    return together if agree(wanted, given) else separate


def _axes_of(
    model: nn.Module, parameters: Mapping[str, Tensor], inputs: Inputs, outputs: Any, count: int, task: Task
) -> list[int | None]:
    with torch.no_grad():
        fewer = Running(model)(parameters, first_examples(inputs, count - 1, task.batch_dim), task)
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
    loss = checked_loss(task, Running(model)({**others, **differentiable}, inputs, task), targets)
    if not loss.requires_grad:
        raise TaskError(
            f"the loss of task '{task.name}' does not depend on the masked weights through operations that can be "
            "differentiated; compute it from the model's outputs, without argmax, .item() or .detach()"
        )
