"""What does a modular answer look like? Three networks on real digits, where the right answer is known."""

from __future__ import annotations

import json
import os
import platform
import textwrap
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from modscope.analysis.analyze import analyze
from modscope.analysis.run import RECORD_FILE, Run
from modscope.data.digits import two_digits
from modscope.data.examples import DataSet
from modscope.errors import StudyError
from modscope.jobs.executors import map_in_order, one_thread
from modscope.masks.learner import MaskLearner
from modscope.models.mlp import mlp
from modscope.partition.spectral import Spectral
from modscope.randomness import numbered
from modscope.records import Record, installed_versions, plain, write_whole
from modscope.report.page import write_report
from modscope.studies.folder import finished_folder
from modscope.tasks.images import both_digits, left_digit, right_digit
from modscope.tasks.task import Task
from modscope.training.fit import fit
from modscope.training.pruning import MagnitudePruning

IDLE_SECONDS = 600  # a worker waits that long for work; loky's ten are too few on a busy machine, and it warns
MASK_BATCH = 128
TITLE = "Two digits at once"
TEXT = (
    "Each picture shows two handwritten digits, and a network names both. The two sides have nothing to do with each "
    "other, so the right answer is known: a trained network can keep left and right apart, an untrained one cannot. "
    "Three networks of one shape show what the numbers look like in each case."
)


@dataclass(frozen=True)
class Network:
    """How one of the three networks comes about."""

    name: str
    text: str
    n_steps: int = 4000
    weight_decay: float = 0.0
    pruning: MagnitudePruning | None = None


NETWORKS = (
    Network("untrained", "Random weights, as they are before training.", n_steps=0),
    Network("dense", "Trained with weight decay 1.0; every weight is in use.", weight_decay=1.0),
    Network(
        "pruned",
        "Trained with weight decay 0.3, while nine in ten weights were taken away, the smallest first.",
        weight_decay=0.3,
        pruning=MagnitudePruning(final_density=0.1, begin=1000, end=2500),
    ),
)


@dataclass(frozen=True)
class Demo:
    """The demo; its fields are its whole configuration.

    Args:
        seed: Everything random starts from it.
        sizes: Units of the input (8 x 16 pixels), of the hidden layers, and of the output (ten digits a side).
        n_clusters: How many modules are looked for.
        n_samples: Random draws of every test; None: what `analyze` takes by itself.
        n_mask_seeds: Masks learned per task.
        networks: The networks that are compared.
    """

    seed: int = 0
    sizes: tuple[int, ...] = (128, 128, 128, 128, 20)
    n_clusters: int = 4
    n_samples: int | None = None
    n_mask_seeds: int = 2
    networks: tuple[Network, ...] = NETWORKS


@dataclass(frozen=True, eq=False)
class FinishedDemo:
    """What the demo found, and where its files are."""

    folder: Path
    runs: dict[str, Run] = field(repr=False)

    def summary(self) -> str:
        """The verdicts of the three networks, as a table for the terminal."""
        parts = []
        for name, run in self.runs.items():
            accuracy = ", ".join(f"{task['id']} {task['accuracy']:.1%}" for task in run.content["tasks"])
            parts.append(f"{name} (accuracy: {accuracy})")
            parts.extend(textwrap.fill(f"  {verdict}", 110, subsequent_indent=" " * 20) for verdict in run.verdicts)
        return "\n".join(parts)


def run_demo(demo: Demo, folder: Path, *, n_jobs: int = 1) -> FinishedDemo:
    """Train, analyse and report the three networks, and put the finished files into `folder`.

    Files: report.html; record.json (all numbers of the page, with seeds and versions; the same bytes for the same
    seed); timings.json (times and machine); a folder per network with its masks and its partition.

    Args:
        demo: The configuration.
        folder: Where the files go; only an earlier demo's folder is replaced.
        n_jobs: Worker processes; the numbers do not depend on it.

    Raises:
        StudyError: If `folder` holds something else, or cannot be written, or `n_jobs` is below 1.
    """
    began = time.perf_counter()
    with finished_folder(folder, is_demo) as workshop, one_thread(), _workers(n_jobs) as executor:
        data = two_digits(numbered(demo.seed, "digits"))
        trained = map_in_order(
            partial(trained_network, demo=demo, data=data), demo.networks, executor=executor, description="training"
        )
        runs = {
            network.name: _analysed(network, model, demo, data, executor)
            for network, model in zip(demo.networks, trained, strict=True)
        }
        for name, run in runs.items():
            run.save(workshop / name)
        record = _record(demo, runs)
        record.save(workshop / RECORD_FILE)
        write_report(record, workshop / "report.html")
        timings = {name: run.seconds for name, run in runs.items()}
        _write_timings(workshop, {"total": time.perf_counter() - began, "networks": timings, "n_jobs": n_jobs})
    return FinishedDemo(folder, runs)


def is_demo(record: Record) -> bool:
    """Whether this is the record of a demo."""
    return record.kind == "collection" and record.title == TITLE


def trained_network(network: Network, demo: Demo, data: DataSet) -> nn.Module:
    """One of the three networks; all three start from the same random weights."""
    model = mlp(demo.sizes, rng=numbered(demo.seed, "initial weights"))
    if network.n_steps:
        fit(
            model,
            both_digits(data),
            n_steps=network.n_steps,
            rng=numbered(demo.seed, "training"),
            weight_decay=network.weight_decay,
            pruning=network.pruning,
        )
    return model


def sides(data: DataSet) -> tuple[Task, Task]:
    """The two tasks: name the left digit, name the right digit."""
    # The size of training batches matters to masks; accuracy does not depend on it, and large batches are faster.
    left, right = (make(data, batch_size=MASK_BATCH) for make in (left_digit, right_digit))
    test = data.test.batches(1000)
    return replace(left, test=test), replace(right, test=test)


def _analysed(network: Network, model: nn.Module, demo: Demo, data: DataSet, executor: Executor | None) -> Run:
    run = analyze(
        model,
        data.test.inputs[:1],
        sides(data),
        partitioner=Spectral(n_clusters=demo.n_clusters),
        learner=MaskLearner(),
        n_seeds=demo.n_mask_seeds,
        n_samples=demo.n_samples,
        rng=demo.seed,
        executor=executor,
        name=network.name,
    )
    return run.with_content(**_words(network, demo, data, run))


def _words(network: Network, demo: Demo, data: DataSet, run: Run) -> dict[str, Any]:
    """What only the demo knows about its networks: names, data, and how the layers look."""
    layers = [dict(layer) for layer in run.content["layers"]]
    layers[0].update(shape=[8, 16], sides=["left digit", "right digit"])
    layers[-1]["unit_labels"] = [f"{side}{digit}" for side in "LR" for digit in range(10)]
    name = "MLP " + "-".join(map(str, demo.sizes))
    return {
        "run": {**run.content["run"], "title": network.name.capitalize(), "text": network.text},
        "model": {**run.content["model"], "name": name},
        "data": {
            "name": "scikit-learn's handwritten digits, two side by side",
            "n_train": len(data.train),
            "n_test": len(data.test),
        },
        "tasks": [{**task, "label": f"{task['id']} digit", "chance": 0.1} for task in run.content["tasks"]],
        "layers": layers,
    }


def _record(demo: Demo, runs: dict[str, Run]) -> Record:
    content = {
        "title": TITLE,
        "text": TEXT,
        "demo": plain(demo),
        "records": [run.content for run in runs.values()],
        "texts": {**next(iter(runs.values())).content["texts"], "python": f"modscope demo --seed {demo.seed}"},
    }
    return Record("collection", TITLE, content, versions=installed_versions())


@contextmanager
def _workers(n_jobs: int) -> Iterator[Executor | None]:
    if n_jobs < 1:
        raise StudyError(f"--jobs must be at least 1 (this process alone), got {n_jobs}")
    if n_jobs == 1:
        yield None
        return
    from joblib.externals.loky import get_reusable_executor

    executor = get_reusable_executor(max_workers=n_jobs, timeout=IDLE_SECONDS)
    with warnings.catch_warnings():
        # a worker that has compiled the loops for the first time is taken for one that leaks memory, and replaced
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        try:
            yield executor
        finally:
            executor.shutdown(wait=True, kill_workers=True)


def _write_timings(folder: Path, seconds: dict[str, Any]) -> None:
    machine = {"machine": platform.machine(), "system": platform.platform(), "cores": os.cpu_count()}
    write_whole(folder / "timings.json", json.dumps({**seconds, **machine}, indent=2).encode() + b"\n")
