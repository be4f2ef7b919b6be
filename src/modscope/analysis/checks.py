"""What is wrong with a call of `analyze`? Said before minutes of work are spent, not after."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral

from torch import nn

from modscope.errors import MaskError, ModscopeError, PartitionError, RecordError, StatisticsError, TaskError
from modscope.tasks.task import Evaluation, Task


def check_settings(
    partitioner: object, learner: object, sweep: object, n_seeds: int, n_samples: int | None, name: object
) -> None:
    """Stop at settings of a wrong type or size.

    Raises:
        PartitionError, MaskError, StatisticsError, RecordError: Whichever the setting belongs to.
    """
    _check_called("partitioner", partitioner, "Spectral()", PartitionError)
    _check_called("learner", learner, "MaskLearner()", MaskError)
    if not (sweep is None or isinstance(sweep, Iterable)):
        raise PartitionError(f"sweep must be several numbers of clusters, as (6, 12), got {sweep!r}")
    if not (isinstance(n_seeds, Integral) and n_seeds >= 1):
        raise MaskError(f"n_seeds must be a whole number of at least 1, got {n_seeds!r}")
    if not (n_samples is None or (isinstance(n_samples, Integral) and n_samples >= 1)):
        raise StatisticsError(f"n_samples must be None or a whole number of at least 1, got {n_samples!r}")
    if not isinstance(name, str):
        raise RecordError(f"name must be text, got {type(name).__name__}")


def check_losses(model: nn.Module, tasks: Sequence[Task], evaluations: Sequence[Evaluation]) -> None:
    """Stop if the whole network's loss on a task is NaN: nothing could be learned from it.

    Raises:
        TaskError: Naming the task, and the parameters that hold NaN or infinite values.
    """
    for task, evaluation in zip(tasks, evaluations, strict=True):
        if math.isnan(evaluation.loss):
            broken = [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
            cause = f"parameter {', '.join(broken)} holds NaN or infinite values" if broken else "look at its data"
            raise TaskError(f"the loss of the whole network on task '{task.name}' is NaN; {cause}")


def _check_called(what: str, strategy: object, example: str, error: type[ModscopeError]) -> None:
    if strategy is not None and (isinstance(strategy, type) or not callable(strategy)):
        given = f"the class {strategy.__name__}" if isinstance(strategy, type) else type(strategy).__name__
        raise error(f"a {what} like {example} is wanted, got {given}")
