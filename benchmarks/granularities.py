"""Which grouping of weights shows best that two tasks have parts of their own? Every granularity against random groups.

    python benchmarks/granularities.py --jobs 2         # all tables, and one picture of all: fifteen CPU minutes
    python benchmarks/granularities.py --only pruned    # one kind of network
    python benchmarks/granularities.py --keep FOLDER    # what was measured before a break is not measured again
    python benchmarks/granularities.py --cost           # what a step of a unit mask costs, beside a plain training step

Two tasks on one network are masked weight by weight, row by row, unit by unit, and so on; and once more over as many
random groups of the same sizes (`RandomGroups`), learned the same way. *Separation* is the mean of two differences, in
accuracy: the own task's minus the other's with only the mask's weights, and the other's minus the own without them. The
*gap* is the separation minus that of random groups, with its 95 % interval over networks of several seeds (Student's
t). Prices of a logit are the learner's defaults; clusters are also measured at five times that ("x 5").
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from modscope.data.digits import two_digits
from modscope.graph.weights import weight_graph
from modscope.masks.layout import Granularity
from modscope.masks.learner import MaskLearner, learn_masks
from modscope.masks.random_groups import RandomGroups
from modscope.masks.specialization import specialization
from modscope.models.mlp import mlp
from modscope.models.transformer import Block, TransformerShape
from modscope.partition.spectral import Spectral
from modscope.randomness import numbered
from modscope.studies.demo import NETWORKS, Demo, sides, trained_network
from modscope.tasks.arithmetic import add_or_multiply, both_operations, one_operation
from modscope.tasks.images import both_digits
from modscope.tasks.task import Task
from modscope.training.fit import fit
from modscope.wiring.trace import read_wiring
from modscope.wiring.wiring import Wiring

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "granularities.png"
N_NETWORKS = 3  # of each kind
N_CLUSTERS = 8


class PatchTransformer(nn.Module):
    """Two digits as eight patches of 4 x 4 pixels; two blocks of four heads; the mean of all patches is read."""

    def __init__(self) -> None:
        super().__init__()
        shape = TransformerShape(1, 8, 20, n_blocks=2, width=32, n_heads=4, width_mlp=64, is_causal=False)
        self.embedding = nn.Linear(16, shape.width)
        self.positions = nn.Parameter(0.1 * torch.randn(8, shape.width))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_blocks))
        self.norm, self.output = nn.LayerNorm(shape.width), nn.Linear(shape.width, 20)

    def forward(self, images: Tensor) -> Tensor:
        patches = images.unflatten(1, (2, 4, 4, 4)).transpose(2, 3).reshape(len(images), 8, 16)
        stream = self.embedding(patches) + self.positions
        for block in self.blocks:
            stream = block(stream, None)
        return self.output(self.norm(stream).mean(dim=1))


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained network and two tasks on it."""

    model: nn.Module
    tasks: tuple[Task, Task]
    wiring: Wiring


def pruned(seed: int) -> Subject:
    demo, data = Demo(seed=seed), two_digits(numbered(seed, "digits"))
    (network,) = (each for each in NETWORKS if each.name == "pruned")
    model = trained_network(network, demo, data)
    return Subject(model, _two_sides(seed), read_wiring(model, data.test.inputs[:2]))


def transformer(seed: int) -> Subject:
    data = two_digits(numbered(seed, "digits"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = PatchTransformer()
    fit(model, both_digits(data), n_steps=800, rng=seed, learning_rate=2e-3)
    return Subject(model.eval(), _two_sides(seed), read_wiring(model, data.test.inputs[:2]))


def add_mul(seed: int) -> Subject:
    data = add_or_multiply(seed, n_train=20_000, n_test=2000)
    model = mlp([42, 256, 256, 20], rng=seed)
    fit(model, both_operations(data), n_steps=4000, rng=seed, learning_rate=2e-3)
    add, mul = (one_operation(data, operation, batch_size=128) for operation in ("add", "mul"))
    inputs, _ = next(add.batches("train"))
    return Subject(model, (add, mul), read_wiring(model, inputs[:2]))


def _two_sides(seed: int) -> tuple[Task, Task]:
    data = two_digits(numbered(seed, "digits"))
    left, right = sides(replace(data, test=data.test[:1000]))
    return left, right


@dataclass(frozen=True)
class Network:
    """What is measured on one kind of network."""

    title: str
    build: Callable[[int], Subject]
    groupings: tuple[str, ...]


MEASURED = {
    "transformer": Network("transformer, left and right digit", transformer, ("weight", "unit", "head", "block")),
    "add_mul": Network(
        "MLP, addition and multiplication",
        add_mul,
        ("weight", "row", "column", "unit", "cluster", "cluster x 5"),
    ),
    "pruned": Network(
        "pruned MLP, left and right digit",
        pruned,
        (
            "weight",
            "row",
            "column",
            "unit",
            "half rows",
            "cluster",
            "cluster x 5",
            "layer",
        ),
    ),
}


def granularity_of(name: str, subject: Subject) -> Granularity:
    if name == "cluster":
        return Spectral(n_clusters=N_CLUSTERS)(weight_graph(subject.wiring), rng=0)
    if name == "half rows":
        return half_rows(subject.model)
    return name


def half_rows(model: nn.Module) -> dict[str, Tensor]:
    """Groups of one's own: what a unit reads from the first, and from the second half of the layer below."""
    groups, n_groups = {}, 0
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            n_units, n_inputs = parameter.shape
            second = (torch.arange(n_inputs) >= n_inputs // 2).long()
            if n_inputs == 128 and name.startswith("hidden1"):  # pictures of 8 x 16 pixels: the left, the right digit
                second = (torch.arange(n_inputs) % 16 >= 8).long()
            groups[name] = n_groups + 2 * torch.arange(n_units)[:, None] + second
            n_groups += 2 * n_units
    return groups


@dataclass(frozen=True)
class Score:
    """How two masks do; means over tasks and mask seeds."""

    own: float
    other: float
    without_own: float
    without_other: float
    density: float
    p_specialize: float | None
    seconds: float  # CPU, per mask

    @property
    def separation(self) -> float:
        return (self.own - self.other + self.without_other - self.without_own) / 2


def score(subject: Subject, granularity: Granularity, price: float) -> Score:
    start = time.process_time()
    learner = MaskLearner(granularity=granularity)
    if price != 1:
        default = replace(learner, n_steps=1)(subject.model, subject.tasks[0], wiring=subject.wiring)
        learner = replace(learner, penalty=price * default.details["learner"]["penalty"])
    masks = learn_masks(subject.model, subject.tasks, learner, n_seeds=2, wiring=subject.wiring)
    seconds = (time.process_time() - start) / 4
    found = specialization(subject.model, masks, subject.tasks, n_samples=1)
    own = np.eye(2, dtype=bool)
    kept, removed = found.mask_accuracy, found.inverse_accuracy
    means = (float(part.mean()) for part in (kept[own], kept[~own], removed[own], removed[~own], found.density))
    return Score(*means, found.p_specialize, seconds)


Scores = dict[str, dict[str, Score]]  # by grouping, then "real" or "random"


def scores_of(job: tuple[str, int], kept: Path | None) -> tuple[Scores, float]:
    """All groupings of the network of one kind and seed, and the CPU seconds that it took.

    What was found before, and is kept in a file, is not measured again.
    """
    torch.set_num_threads(1)
    start = time.process_time()
    name, seed = job
    path = None if kept is None else kept / f"{name}-{seed}.json"
    found = {} if path is None or not path.exists() else _read(path)
    missing = [grouping for grouping in MEASURED[name].groupings if grouping not in found]
    if missing:
        subject = MEASURED[name].build(seed)
        for grouping in missing:
            found[grouping] = measured(subject, grouping, seed)
            print(name, seed, grouping, found[grouping], file=sys.stderr)
            if path is not None:
                _write(path, found)
    return {grouping: found[grouping] for grouping in MEASURED[name].groupings}, time.process_time() - start


def measured(subject: Subject, grouping: str, seed: int) -> dict[str, Score]:
    """One grouping, and random groups of the same sizes."""
    what, _, price = grouping.partition(" x ")
    real = granularity_of(what, subject)
    both = {"real": real} if what == "weight" else {"real": real, "random": RandomGroups(real, seed)}
    return {kind: score(subject, each, float(price or 1)) for kind, each in both.items()}


def _write(path: Path, found: Scores) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({name: {kind: asdict(each) for kind, each in both.items()} for name, both in found.items()})
    )


def _read(path: Path) -> Scores:
    kept = json.loads(path.read_text())
    return {grouping: {kind: Score(**each) for kind, each in both.items()} for grouping, both in kept.items()}


@dataclass(frozen=True)
class Row:
    """One grouping on one kind of network: a score per network, with real groups and with random ones."""

    grouping: str
    scores: dict[str, list[Score]]

    @property
    def gaps(self) -> list[float]:
        if "random" not in self.scores:
            return []
        pairs = zip(self.scores["real"], self.scores["random"], strict=True)
        return [real.separation - random.separation for real, random in pairs]


def rows_of(found: Sequence[Scores]) -> list[Row]:
    kinds = {grouping: list(scores) for grouping, scores in found[0].items()}
    return [
        Row(grouping, {kind: [scores[grouping][kind] for scores in found] for kind in several})
        for grouping, several in kinds.items()
    ]


TITLES = ("one logit per", "own task", "other task", "without it: own", "other", "kept", "p_specialize",
          "separation", "of random groups", "gap (95 %)", "CPU s")  # fmt: skip


def table_row(row: Row) -> str:
    scores = row.scores["real"]

    def mean(name: str) -> float:
        values = [getattr(each, name) for each in scores if getattr(each, name) is not None]
        return float(np.mean(values)) if values else math.nan

    names = ("own", "other", "without_own", "without_other", "density", "p_specialize", "separation")
    cells = ["-" if math.isnan(mean(name)) else f"{mean(name):.2f}" for name in names]
    random = np.mean([each.separation for each in row.scores["random"]]) if row.gaps else math.nan
    cells += [f"{random:.2f}", interval_text(row.gaps)] if row.gaps else ["the same", "0"]
    return f"| {row.grouping} | {' | '.join(cells)} | {mean('seconds'):.1f} |"


def interval(values: Sequence[float]) -> tuple[float, float]:
    from scipy.stats import sem, t

    half = float(t.ppf(0.975, len(values) - 1) * sem(values))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def interval_text(values: Sequence[float]) -> str:
    low, high = interval(values)
    return f"{np.mean(values):.2f} ({low:.2f} to {high:.2f})"


def sentence(rows: Sequence[Row]) -> str:
    """Which grouping shows modularity best."""
    grouped = sorted((row for row in rows if row.gaps), key=lambda row: -float(np.mean(row.gaps)))
    first, second = grouped[:2]
    ahead = [a - b for a, b in zip(first.gaps, second.gaps, strict=True)]
    low, _ = interval(ahead)
    verdict = "clearly" if low > 0 else "not clearly"
    best = f"one logit per {first.grouping} shows it best, {interval_text(first.gaps)} above random groups"
    return f"{best}; {verdict} ahead of the next, {second.grouping}, at {np.mean(second.gaps):.2f}"


def draw(by_network: dict[str, list[Row]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(by_network), 3.6), layout="constrained")
    panels = figure.subplots(1, len(by_network), sharey=True, squeeze=False)[0]
    for axes, (name, rows) in zip(panels, by_network.items(), strict=True):
        for place, row in enumerate(rows):
            for kind, color, shift in (("random", "0.6", 0.12), ("real", "C0", -0.12)):
                values = [each.separation for each in row.scores.get(kind, [])]
                axes.plot([place + shift] * len(values), values, "o", color=color, alpha=0.7, markersize=5)
                if values:
                    mean = float(np.mean(values))
                    axes.plot([place + shift - 0.1, place + shift + 0.1], [mean, mean], color=color, linewidth=3)
        axes.set_xticks(range(len(rows)), [row.grouping for row in rows], rotation=30, ha="right")
        axes.set_title(MEASURED[name].title, fontsize=10)
        axes.axhline(0, color="0.8", linewidth=1, zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("separation of two tasks (accuracy)")
    panels[-1].plot([], [], "o", color="C0", label="one logit per ...")
    panels[-1].plot([], [], "o", color="0.6", label="random groups of the same sizes")
    figure.legend(loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print a table and a sentence per network, and draw the picture; or what a step costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(MEASURED), choices=MEASURED)
    parser.add_argument("--jobs", type=int, default=1, help="networks at once")
    parser.add_argument("--cost", action="store_true", help="only what a step of a unit mask costs")
    parser.add_argument("--picture", type=Path, default=None, help="where the picture goes (all networks: docs/images)")
    parser.add_argument(
        "--keep", type=Path, help="a folder for what is measured; what lies there is not measured again"
    )
    options = parser.parse_args()
    if options.cost:
        import unit_masks

        unit_masks.main()
        return
    by_network = {}
    jobs = [(name, seed) for name in options.only for seed in range(1, N_NETWORKS + 1)]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as executor:
        results = executor.map(partial(scores_of, kept=options.keep), jobs)
        for name in options.only:
            several = [next(results) for _ in range(N_NETWORKS)]
            rows = by_network[name] = rows_of([scores for scores, _ in several])
            print(f"\n{MEASURED[name].title}, {N_NETWORKS} networks\n")
            print("\n".join([f"| {' | '.join(TITLES)} |", "|" + " --- |" * len(TITLES), *map(table_row, rows)]))
            print(f"\n{sentence(rows)} ({sum(seconds for _, seconds in several):.0f} CPU seconds)", flush=True)
    picture = options.picture or (PICTURE if len(by_network) == len(MEASURED) else None)
    if picture is not None:
        draw(by_network, picture)


if __name__ == "__main__":
    main()
