"""A made-up collection, in the shape that the analysis writes, and a browser that tells what a page does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modscope.records import Record, plain

LAYERS = [
    ("input", "input", 128),
    ("0", "hidden", 128),
    ("2", "hidden", 128),
    ("4", "hidden", 128),
    ("6", "output", 20),
]
TASKS = ["left", "right"]
PARAMETERS = ["0.weight", "2.weight", "4.weight", "6.weight"]
N_WEIGHTS = [128 * 128, 128 * 128, 128 * 128, 128 * 20]
CONTROLS = [("raw", "nothing"), ("layer", "layer"), ("full", "layer, degree and weight size")]


def made_up_test(effect: float, sd: float, n: int = 100, *, sided: str = "greater", percent: bool = False) -> dict:
    z = effect / sd
    p = 1 / (n + 1) if (z > 2.5 if sided == "greater" else z < -2.5) else 0.41
    return {
        "effect": effect, "unit": "made-up unit, against random", "percent": percent, "low": effect - 2 * sd,
        "high": effect + 2 * sd, "null_mean": 0.0, "null_low": -1.96 * sd, "null_high": 1.96 * sd, "z": z, "p": p,
        "p_adjusted": min(1.0, 2 * p), "correction": "Holm", "n_null": n, "p_floor": 1 / (n + 1), "sided": sided,
    }  # fmt: skip


def made_up_units(rng: np.random.Generator, n_modules: int, n_isolated: int) -> dict:
    layer = np.concatenate([np.full(n, i) for i, (_, _, n) in enumerate(LAYERS)])
    index = np.concatenate([np.arange(n) for _, _, n in LAYERS])
    column = index % 16
    module = np.where(layer == 0, np.where(column < 8, 0, 1) + 2 * rng.integers(0, 2, len(layer)), 0)
    module = np.where(layer > 0, rng.integers(0, n_modules, len(layer)), module) % n_modules
    isolated = rng.choice(np.flatnonzero((layer > 0) & (layer < 4)), n_isolated, replace=False)
    module[isolated] = -1
    degree = np.where(module < 0, 0.0, rng.gamma(4.0, 1.0, len(layer)))
    return {"layer": layer, "index": index, "module": module, "degree": np.round(degree, 3)}


def made_up_edges(rng: np.random.Generator, units: dict, same: float) -> dict:
    source, target = [], []
    for depth in range(len(LAYERS) - 1):
        here, there = (np.flatnonzero((units["layer"] == d) & (units["module"] >= 0)) for d in (depth, depth + 1))
        for _ in range(420):
            a = rng.choice(here)
            partners = there[units["module"][there] == units["module"][a]] if rng.random() < same else there
            if len(partners):
                source.append(a)
                target.append(rng.choice(partners))
    return {
        "source": source,
        "target": target,
        "weight": np.round(rng.gamma(3.0, 0.4, len(source)) + 0.05, 4),
        "n_total": sum(N_WEIGHTS),
    }


def made_up_masks(rng: np.random.Generator, selective: float) -> dict:
    share, density = [], []
    for name, n in [*zip(PARAMETERS, N_WEIGHTS, strict=True), (None, sum(N_WEIGHTS))]:
        shared = float(np.clip(0.32 - 0.2 * selective + rng.normal(0, 0.03), 0.02, 0.95))
        a = float((1 - shared) * rng.uniform(0.46, 0.54))
        share.append(
            {"pair": TASKS, "layer": name, "a": a, "shared": shared, "b": 1 - a - shared, "kept": int(n * 0.3),
             "random": [0.31, 0.29, 0.33], "p": 0.01, "p_adjusted": 0.02, "repeat": 0.94 if name is None else None}
        )  # fmt: skip
        density += [{"task": t, "layer": name, "kept": int(n * rng.uniform(0.1, 0.25)), "n": n} for t in TASKS]
    own, other = 0.95, 0.95 - 0.84 * selective
    performance = [
        {"label": "no mask", "kind": "none", "task": None, "accuracy": [0.953, 0.949]},
        {"label": "keep left", "kind": "keep", "task": "left", "accuracy": [own, other]},
        {"label": "keep right", "kind": "keep", "task": "right", "accuracy": [other, own]},
        {"label": "remove left", "kind": "remove", "task": "left", "accuracy": [0.11, 0.78]},
        {"label": "remove right", "kind": "remove", "task": "right", "accuracy": [0.74, 0.10]},
    ]
    return {"share": share, "density": density, "performance": performance}


def made_up_ncut(rng: np.random.Generator, z_weak: float, z_strict: float) -> dict:
    nulls = []
    for name, label, keeps, z in [
        ("shuffle_weights", "weights shuffled in each layer", "the weights of each layer", z_weak),
        ("keep_unit_scale", "shuffled, each unit keeps its scale", "each unit's scale and every zero", z_strict),
    ]:
        samples = rng.normal(2.61 - 0.012 * z, 0.012, 100)
        test = made_up_test(float(2.61 - samples.mean()), float(samples.std(ddof=1)), sided="less")
        nulls.append({"id": name, "label": label, "keeps": keeps, "samples": samples, "test": test})
    return {"observed": 2.61, "k": 4, "nulls": nulls}


def made_up_sweep(rng: np.random.Generator, depth_weak: float, depth_strict: float) -> dict:
    numbers = [2, 3, 4, 6, 8]
    bands = []
    for name, label, depth in [
        ("shuffle_weights", "weights shuffled in each layer", depth_weak),
        ("keep_unit_scale", "shuffled, each unit keeps its scale", depth_strict),
    ]:
        gaps = []
        for k in numbers:
            half = 0.01 * k + float(rng.uniform(0, 0.004))
            gap = -depth * 0.05 * k
            ends = {"low": -half, "high": half, "min": -1.6 * half, "max": 1.5 * half}
            p = 0.025 if gap < -1.6 * half else 0.4
            gaps.append({"gap": gap, **ends, "z": gap / half * 1.6, "p": p, "p_adjusted": p})
        bands.append({"id": name, "label": label, "p_in_all": gaps[-1]["p"], "n_null": 39, "gaps": gaps})
    return {"points": [{"k": k, "ncut": 0.8 * k - 0.6, "stability": 0.9} for k in numbers], "bands": bands}


def made_up_stability(rng: np.random.Generator, strength: float) -> dict:
    clusters = [
        {"source": f"{k} modules, clustered again", "measure": "adjusted Rand index", "chance": 0.0,
         "values": rng.uniform(strength / 2, 1, 10)}
        for k in (2, 3, 4, 6, 8)
    ]  # fmt: skip
    masks = [
        {"source": f"mask of {task}, learned again", "measure": "shared weights", "values": [0.9], "chance": 0.2}
        for task in TASKS
    ]
    return {"repeats": clusters + masks}


def made_up_lesions(rng: np.random.Generator, sizes: np.ndarray, strength: float) -> dict:
    rows = []
    for module in range(len(sizes)):
        for depth in (1, 2, 3):
            for number, task in enumerate(TASKS):
                mine = module % 2 == number
                drop = max(0.0, strength * (0.4 if mine else 0.03) * rng.uniform(0.5, 1.2) + rng.normal(0, 0.005))
                rows.append(
                    {"module": module, "layer": LAYERS[depth][0], "n_units": int(sizes[module, depth]), "task": task,
                     "drop": drop, "null_mean": 0.03, "null_low": 0.0, "null_high": 0.09,
                     "p": 0.01 if drop > 0.1 else 0.4, "p_adjusted": 0.02 if drop > 0.1 else 0.5}
                )  # fmt: skip
    return {"ablation": "zero", "rows": rows, "test": made_up_test(0.12 * strength, 0.02, percent=True)}


def made_up_bridge(rng: np.random.Generator, n_modules: int, strength: float) -> dict:
    cells = [
        {"control": control, "task": task, "module": module, "se": 0.2,
         "log_odds": (v := strength * (0.7**c) * (1.6 if module % 2 == t else -1.4) + float(rng.normal(0, 0.12))),
         "p_adjusted": 0.01 if abs(v) > 0.5 else 0.6}
        for c, (control, _) in enumerate(CONTROLS)
        for t, task in enumerate(TASKS)
        for module in range(n_modules)
    ]  # fmt: skip
    agreement = [
        {"control": control, "test": made_up_test(0.3 * strength * 0.7**c, 0.03)}
        for c, (control, _) in enumerate(CONTROLS)
    ]
    return {
        "controls": [{"id": name, "label": label} for name, label in CONTROLS],
        "cells": cells,
        "agreement": agreement,
    }


def made_up_verdicts(states: str, strength: float) -> list[dict]:
    words = {
        "yes": "The left and the right digit are read by mostly different weights.",
        "part": "The weights look clustered, but only because units differ in scale.",
        "no": "Not enough evidence that the weights fall into groups.",
        "na": "Not tested: the masks came out empty.",
    }
    return [
        {"key": key, "state": state, "sentence": words[state],
         "reason": "Made-up numbers: 19% of the weights are shared, random masks share 31%.",
         "test": None if state == "na" else made_up_test(0.12 * strength + 0.001, 0.02, percent=key != "structure")}
        for key, state in zip(("function", "structure", "importance", "bridge"), states.split(), strict=True)
    ]  # fmt: skip


def made_up_analysis(name: str, title: str, text: str, states: str, strength: float, *, n_isolated: int = 0) -> dict:
    rng = np.random.default_rng(len(name))
    units = made_up_units(rng, 4, n_isolated)
    sizes = np.array(
        [[int(np.sum((units["module"] == m) & (units["layer"] == d))) for d in range(5)] for m in range(4)]
    )
    layers = [{"id": i, "kind": kind, "n": n} for i, kind, n in LAYERS]
    layers[0] |= {"shape": [8, 16], "sides": ["left digit", "right digit"]}
    layers[-1] |= {"unit_labels": [f"{side}{digit}" for side in "LR" for digit in range(10)]}
    is_empty = states.startswith("na")
    return plain(
        {
            "run": {"id": name, "title": title, "text": text, "seed": 0},
            "model": {
                "name": "MLP 128-128-128-128-20",
                "n_parameters": 52_244,
                "n_nonzero": 5_224 if n_isolated else 52_244,
                "n_units": 532,
                "n_isolated": n_isolated,
            },
            "data": {"name": "two digits side by side", "n_train": 50_000, "n_test": 2_000},
            "tasks": [
                {"id": t, "label": f"{t} digit", "chance": 0.1, "accuracy": 0.1 if is_empty else 0.95} for t in TASKS
            ],
            "layers": layers,
            "modules": [{"n": int(sizes[m].sum()), "by_layer": sizes[m]} for m in range(4)],
            "units": units,
            "edges": made_up_edges(rng, units, 0.3 + 0.6 * strength),
            "verdict": made_up_verdicts(states, strength),
            "masks": {"why": "The masks came out empty: this network does not do the tasks."}
            if is_empty
            else made_up_masks(rng, 0.6 + 0.4 * strength),
            "tests": {
                "ncut": made_up_ncut(rng, -12 * strength, -11 * strength if strength > 0.8 else 0.4),
                "sweep": made_up_sweep(rng, strength, strength if strength > 0.8 else -0.1),
            },
            "lesions": made_up_lesions(rng, sizes, strength),
            "bridge": {"why": "There are no masks to compare with."} if is_empty else made_up_bridge(rng, 4, strength),
            "stability": made_up_stability(rng, strength),
            "texts": {
                "methods": "We measured modularity with modscope.",
                "python": "import modscope as ms\nrun = ms.analyze(model, x, tasks)",
                "references": [
                    {
                        "text": "Filan et al. Clusterability in neural networks. 2021.",
                        "url": "https://arxiv.org/abs/2103.03386",
                    }
                ],
            },
            "warnings": [
                {
                    "level": "warn",
                    "section": "structure",
                    "text": "p 0.010 is the smallest that 100 null samples can give.",
                },
                {"level": "note", "section": "network", "text": f"{n_isolated} units have no weights left."},
            ],
        }
    )


def made_up_collection_record() -> Record:
    networks = [
        made_up_analysis("untrained", "Untrained", "As it was before training.", "na no no na", 0.02),
        made_up_analysis(
            "dense", "Dense", "Trained with weight decay 1.0; every weight in use.", "yes part no part", 0.5
        ),
        made_up_analysis(
            "pruned", "Pruned", "90% of the weights removed while training.", "yes yes yes yes", 1.0, n_isolated=26
        ),
    ]
    content = {
        "title": "Two digits at once: three networks",
        "text": "Each network sees two handwritten digits side by side and names both. The two sides have nothing to "
        "do with each other, so we know what a modular answer looks like.",
        "records": networks,
    }  # fmt: skip
    return Record("collection", content["title"], content, versions={"modscope": "0.1.0", "numpy": "2.0"})


@pytest.fixture(scope="session")
def made_up_collection() -> Record:
    return made_up_collection_record()


@pytest.fixture(scope="session")
def made_up_single(made_up_collection: Record) -> Record:
    content = made_up_collection.content["records"][2]
    return Record("analysis", "A pruned network", content, versions=made_up_collection.versions)


def chromium() -> str:
    """The browser's program; without it tests are skipped here, and fail in CI."""
    program = shutil.which("chromium")
    if program is None:
        text = "no chromium found; install it to open reports in a real browser"
        if os.environ.get("CI", "").lower() not in ("", "0", "false"):
            pytest.fail(text, pytrace=False)
        pytest.skip(text)
    return program


@dataclass(frozen=True)
class Visit:
    """What a page did in the browser: its elements afterwards, what it said on the console, what it asked for."""

    dom: str
    console: tuple[str, ...]
    requests: tuple[str, ...]


@pytest.fixture(scope="session")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Visit]:
    """Open a page from disk in headless Chromium, without a network, and tell what it did."""
    program = chromium()
    profile = tmp_path_factory.mktemp("browser")

    def visit(page: Path, *, fragment: str = "", width: int = 1360, height: int = 8000) -> Visit:
        log = profile / "net.json"
        options = (
            "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync "
            "--disable-component-update --disable-extensions --enable-logging=stderr --v=0 --virtual-time-budget=6000"
        )
        done = subprocess.run(
            [program, *options.split(), "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}",
             f"--log-net-log={log}", f"--window-size={width},{height}", "--dump-dom", page.as_uri() + fragment],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        console = tuple(line for line in done.stderr.splitlines() if ":CONSOLE" in line)
        return Visit(done.stdout, console, _asked_for(log))

    return visit


def _asked_for(log: Path) -> tuple[str, ...]:
    """Addresses beyond the disk that the page itself asked for; what the browser asks on its own is left out."""
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    asked = [event["url"] for event in events if event.get("initiator", "not an origin") != "not an origin"]
    return tuple(url for url in asked if not url.startswith(("file:", "data:", "blob:", "chrome:")))


# The browser takes commands at 3 and answers at 4: put the pipes there, then become the browser.
AT_PIPES = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Session:
    """A browser that stays open: pages are loaded, scripts are asked, over the browser's own pipe."""

    def __init__(self, profile: Path) -> None:
        command_out, command_in = os.pipe()
        answer_out, answer_in = os.pipe()
        options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
        arguments = [
            *(sys.executable, "-c", AT_PIPES, str(command_out), str(answer_in)),
            *(chromium(), *options.split(), "--remote-debugging-pipe", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *(f"--user-data-dir={profile}", "about:blank"),
        ]
        self._process = subprocess.Popen(arguments, pass_fds=(command_out, answer_in), stderr=subprocess.DEVNULL)
        os.close(command_out)
        os.close(answer_in)
        self._commands, self._answers = command_in, answer_out
        self._buffer, self._n, self._session = b"", 0, ""
        self.events: list[dict] = []
        page = next(target for target in self("Target.getTargets")["targetInfos"] if target["type"] == "page")
        self._session = self("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: object) -> dict:
        self._n += 1
        message = {"id": self._n, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._n:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, page: Path, *, width: int = 1360, fragment: str = "", dark: bool = False) -> None:
        """Load a page at a width, and wait until every figure is drawn."""
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self("Emulation.setEmulatedMedia", features=theme)
        for address in ("about:blank", page.as_uri() + fragment):  # another fragment alone would load nothing
            self.events.clear()
            self("Page.navigate", url=address)
            while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
                self.events.append(self._next())
        self.ask("new Promise(done => { const look = () => waiting.size ? setTimeout(look, 20) : done(); look(); })")

    def ask(self, code: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        answer = self("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key where the focus is."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self("Input.dispatchKeyEvent", type=kind, key=key, **text)

    def problems(self) -> list[str]:
        """What the page threw or wrote on the console since it was opened."""
        wanted = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in wanted]

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait(20)
        os.close(self._commands)
        os.close(self._answers)

    def _next(self) -> dict:
        while b"\0" not in self._buffer:
            piece = os.read(self._answers, 1 << 20)
            assert piece, "the browser has ended"
            self._buffer += piece
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    session = Session(tmp_path_factory.mktemp("session"))
    yield session
    session.close()
