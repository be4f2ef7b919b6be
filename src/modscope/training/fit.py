"""How is a network trained on a task, the same way every time?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from modscope.calling import call, check_model, device_of, explained, moved, split_batch, training_mode
from modscope.data.examples import Batches
from modscope.errors import ModscopeError, TaskError
from modscope.progress import track
from modscope.randomness import Rng, numbered, seed_of
from modscope.tasks.task import Task, checked_loss
from modscope.training.pruning import MagnitudePruning, largest, remove


def fit(
    model: nn.Module,
    task: Task,
    *,
    n_steps: int,
    rng: Rng,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    batch_size: int = 128,
    pruning: MagnitudePruning | None = None,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    before_step: Callable[[nn.Module], None] | None = None,
) -> Float[np.ndarray, " steps"]:
    """The task's loss at every step of training the model on the task's training data, in place.

    AdamW with decoupled weight decay on every parameter that asks for gradients; batches are drawn with replacement
    from all training examples, which are held in memory. The same `rng` gives the same weights, bit for bit, on one
    machine with one number of threads; torch's global generators are left as they were.

    Args:
        model: Trained in train mode; afterwards every layer's mode is again what it was.
        task: Its `loss` is what is made small; sum the losses of several tasks in one Task to train on all.
        n_steps: How many batches.
        rng: Draws the batches, and what dropout drops.
        learning_rate: Adam's step size.
        weight_decay: A step shrinks every parameter by the factor 1 - learning_rate * weight_decay.
        batch_size: Examples in a batch.
        pruning: Removes weights on the way; they are exactly 0 from then on.
        penalty: Added to the loss: `penalty(model)` -> scalar, such as a `ClusterabilityPenalty`.
        before_step: Changes the model in place before every batch, such as `normalise_units`.

    Raises:
        TaskError: If an argument is out of range, there is nothing to train or no data, the model or the loss fails
            on a batch, or the loss becomes infinite or NaN.

    Source: Loshchilov & Hutter 2019 (decoupled weight decay).
    """
    model = check_model(model)
    if n_steps < 1 or batch_size < 1 or not learning_rate > 0 or not weight_decay >= 0:
        raise TaskError(
            "training needs at least one step of one example, a learning rate > 0 and a weight decay >= 0; "
            f"got {n_steps=}, {batch_size=}, {learning_rate=}, {weight_decay=}"
        )
    data = _in_memory(model, task)
    optimizer = torch.optim.AdamW(_trained(model), lr=learning_rate, weight_decay=weight_decay, fused=True)
    losses = torch.empty(n_steps, device=device_of(model))
    kept: dict[str, Tensor] = {}
    with _own_randomness(seed_of(rng), device_of(model)) as draws, training_mode(model):
        for step in track(range(n_steps), f"training on {task.name}"):
            if before_step is not None:
                before_step(model)
            loss = _loss(model, task, _drawn(task, data, batch_size, draws))
            optimizer.zero_grad()
            torch.autograd.backward(loss if penalty is None else loss + penalty(model))
            optimizer.step()
            losses[step] = loss.detach()
            if pruning is not None:
                kept = largest(model, pruning.density(step + 1)) if pruning.is_due(step + 1) else kept
                remove(model, kept)
    return _finite(losses.cpu().numpy(), task)


def _trained(model: nn.Module) -> list[nn.Parameter]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise TaskError("the model has no parameters to train; set requires_grad on those that should change")
    return parameters


def _loss(model: nn.Module, task: Task, batch: Any) -> Tensor:
    inputs, targets = split_batch(model, batch)
    try:
        outputs = call(model, inputs)
    except ModscopeError:
        raise
    except Exception as error:
        raise explained(error, f"training the model on task '{task.name}'", inputs, TaskError) from error
    return checked_loss(task, outputs, targets)


def _in_memory(model: nn.Module, task: Task) -> Any:
    """All training examples as one batch, on the model's device."""
    if isinstance(task.train, Batches):
        examples = task.train.examples
        if not len(examples):
            raise TaskError(f"task '{task.name}' has no train data; give at least one example")
        return moved((examples.inputs, examples.targets), device_of(model))  # encoded when drawn
    batches = [tuple(batch) if isinstance(batch, list) else batch for batch in task.batches("train")]
    flat = [pytree.tree_flatten(batch) for batch in batches]
    leaves = [torch.cat(pieces) for pieces in zip(*(leaves for leaves, _ in flat), strict=True)]
    return moved(pytree.tree_unflatten(leaves, flat[0][1]), device_of(model))


def _drawn(task: Task, data: Any, batch_size: int, draws: torch.Generator) -> Any:
    leaves, structure = pytree.tree_flatten(data)
    chosen = torch.randint(len(leaves[0]), (batch_size,), generator=draws).to(leaves[0].device)
    batch = pytree.tree_unflatten([leaf[chosen] for leaf in leaves], structure)
    return (task.train.encoded(batch[0]), batch[1]) if isinstance(task.train, Batches) else batch


@contextmanager
def _own_randomness(seed: int, device: torch.device | None) -> Iterator[torch.Generator]:
    """A generator for the batches; dropout, which can only read the global generators, is seeded inside alone."""
    seed %= 2**63  # torch takes no larger one
    with torch.random.fork_rng([device] if device is not None and device.type == "cuda" else []):
        # A seed of its own: with that of the batches, what is dropped would follow which examples are drawn.
        torch.manual_seed(int(numbered(seed, "dropout").integers(2**63)))
        yield torch.Generator().manual_seed(seed)


def _finite(losses: Float[np.ndarray, " steps"], task: Task) -> Float[np.ndarray, " steps"]:
    wrong = np.flatnonzero(~np.isfinite(losses))
    if wrong.size:
        raise TaskError(
            f"the loss of task '{task.name}' became {losses[wrong[0]]} at step {wrong[0]} of {len(losses)}; "
            "try a smaller learning rate"
        )
    return losses
