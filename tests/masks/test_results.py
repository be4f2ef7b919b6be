from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from masks import planted_tasks
from modscope.masks.dissociation import dissociation
from modscope.masks.faithfulness import faithfulness
from modscope.masks.gradients import gradient_cosine
from modscope.masks.halves import half_masks
from modscope.masks.interference import interference
from modscope.masks.mask import Mask, MaskSet
from modscope.masks.metric_table import mask_metrics
from modscope.masks.overlap import overlap
from modscope.masks.specialization import specialization
from modscope.masks.stability import stability
from modscope.records import Record
from modscope.tasks.task import Task


@cache
def planted() -> tuple[nn.Sequential, list[Task], MaskSet]:
    model = planted_tasks.network([range(8), range(8, 16)])
    tasks = planted_tasks.tasks(model, 2)
    needed = [planted_tasks.needed(model, k) for k in range(2)]
    learned = [Mask(mask.kept, {n: t.float() - 0.5 for n, t in mask.kept.items()}) for mask in needed]
    return model, tasks, MaskSet({task.name: [mask, mask] for task, mask in zip(tasks, learned, strict=True)})


def pair_of(tasks: list[Task]) -> tuple[Task, Task]:
    return tasks[0], tasks[1]


RESULTS: dict[str, Callable[[nn.Module, list[Task], MaskSet], Any]] = {
    "dissociation": lambda model, tasks, masks: dissociation(model, masks, pair_of(tasks), 5, np.random.default_rng(0)),
    "faithfulness": lambda model, tasks, masks: faithfulness(model, masks["output 0"], tasks[0], densities=(0.1, 1)),
    "gradient cosine": lambda model, tasks, masks: gradient_cosine(model, masks["output 0"], tasks[0]),
    "half masks": lambda model, tasks, masks: half_masks(model, masks["output 0"], tasks),
    "interference": lambda model, tasks, masks: interference(model, masks["output 0"], tasks, n_samples=2),
    "mask metrics": lambda _model, _tasks, masks: mask_metrics(masks),
    "overlap": lambda _model, _tasks, masks: overlap(masks, n_unit_samples=3),
    "specialization": lambda model, tasks, masks: specialization(model, masks, tasks, n_samples=3),
    "stability of masks": lambda _model, _tasks, masks: stability(masks.seeds("output 0")),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_every_result_is_a_table_a_picture_a_line_and_a_record(kind: str) -> None:
    matplotlib.use("Agg")
    result = RESULTS[kind](*planted())
    assert result.to_frame().height > 0
    assert "<table" in result._repr_html_()
    axes = Figure().subplots()
    assert result.plot(axes) is axes
    assert axes.has_data()
    assert "\n\n" not in str(result)
    assert "array(" not in str(result)
    assert len(str(result)) < 1000
    record = result.record()
    assert record.kind == kind
    assert Record.from_json(record.to_json()) == record
    json.dumps(result.to_dict(), allow_nan=False)
    assert torch.is_grad_enabled()
