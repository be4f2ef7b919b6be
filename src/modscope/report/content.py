"""What must a record hold, so that a page can be written from it?

A record of kind "analysis" holds one `Analysis`: one network, analysed in full. A record of kind "collection" holds a
`Collection`: several of them side by side. All values are plain JSON; fractions are in [0, 1]; the page prints percent.

A part that was not measured is `None`, or `{"why": "..."}` with the reason in words. The page computes no statistics:
every effect, interval and p comes from here. Misspelt keys inside a part are refused; a record may hold more parts
than the page shows.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

State: TypeAlias = Literal["yes", "part", "no", "na"]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Count: TypeAlias = Annotated[int, Field(ge=0)]
P: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """Base of every part: frozen, finite numbers only, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Missing(Part):
    """A part that was not measured, or not measurable, and why."""

    why: str


class Test(Part):
    """An effect against its null distribution."""

    effect: float  # observed minus null mean, or whatever `unit` says
    unit: str = ""  # what `effect` counts, for readers: "n-cut, against a shuffle that keeps each unit's scale"
    percent: bool = False  # print effect and null as percentage points
    low: float | None = None  # interval of the effect
    high: float | None = None
    null_mean: float | None = None  # of the effect under the null: 0 for a difference
    null_low: float | None = None  # central 95 % of the null samples, on the scale of `effect`
    null_high: float | None = None
    z: float | None = None
    p: P | None = None
    p_adjusted: P | None = None
    correction: str | None = None  # "Holm", "Benjamini-Hochberg"
    n_null: Count | None = None
    p_floor: P | None = None
    sided: Literal["less", "greater", "two-sided"] | None = None


class RunInfo(Part):
    """Which run this is. No clock: the same run gives the same bytes."""

    id: str  # short, unique in a collection: "dense"
    title: str  # heading: "Dense"
    text: str = ""  # one line for readers: "Trained with weight decay 1.0; every weight is in use"
    seed: int | None = None
    hash: str | None = None
    device: str | None = None


class ModelInfo(Part):
    """The network in numbers."""

    name: str  # "MLP 128-128-128-128-20"
    n_parameters: Count
    n_nonzero: Count | None = None  # parameters that are not zero
    n_units: Count
    n_isolated: Count = 0  # units without any weight
    unsupported: list[str] = []


class DataInfo(Part):
    """The examples it was trained and tested on."""

    name: str
    n_train: Count | None = None
    n_test: Count | None = None
    hash: str | None = None


class TaskInfo(Part):
    """A task; the order of `tasks` is the order of every list "per task"."""

    id: str  # "left"
    label: str  # for readers: "left digit"
    metric: str = "accuracy"
    chance: Fraction | None = None
    accuracy: Fraction | None = None  # of the whole network


class Layer(Part):
    """A unit group, in order of depth."""

    id: str  # "0", "fc1", "output"
    label: str | None = None  # for readers; None: the id
    kind: Literal["input", "hidden", "stream", "output"]
    n: Count
    shape: list[int] | None = None  # [rows, columns] of an input that is a picture
    sides: list[str] = []  # captions below the picture, left to right: ["left digit", "right digit"]
    unit_labels: list[str] = []  # one per unit, where units have names ("L0" .. "R9"); empty: numbers


class Module(Part):
    """A cluster. Its place in `modules` is its label in the partition; its letter is made from that place."""

    n: Count
    by_layer: list[int]  # units in each of `layers`
    name: str = ""  # a note of the user


class Units(Part):
    """One entry per unit. At most 3,000 are drawn one by one."""

    layer: list[int]  # index into `layers`
    index: list[int]  # number of the unit within its layer
    module: list[int]  # index into `modules`; -1: in no module
    degree: list[float] = []  # summed weight; empty: not known


class Edges(Part):
    """The strongest weights (the page draws the 1,800 strongest), as indices into `units`."""

    source: list[int]
    target: list[int]
    weight: list[float]  # size of the weight, > 0
    n_total: Count  # how many weights there are


class Verdict(Part):
    """One of the four answers."""

    key: Literal["function", "structure", "importance", "bridge"]
    state: State
    sentence: str  # the answer in one line
    reason: str  # why, with numbers
    test: Test | None = None  # the weakest required test; None where nothing was measured


class Share(Part):
    """Which weights two masks keep, in one layer: three fractions of all weights that either keeps."""

    pair: tuple[str, str]  # ids of two tasks
    layer: str | None  # for readers, or the id of a layer: "input → hidden 1"; None: all layers together
    a: Fraction  # kept by the first alone
    shared: Fraction  # kept by both: intersection over union
    b: Fraction
    kept: Count  # weights that either keeps
    random: tuple[float, float, float] | None = None  # shared by random masks of the same size: mean, 2.5 %, 97.5 %
    p: P | None = None
    p_adjusted: P | None = None
    repeat: Fraction | None = None  # shared by two masks of one task (two seeds): the ceiling


class Density(Part):
    """How many of the weights of a layer a mask keeps."""

    task: str
    layer: str | None  # as in `Share`; None: all layers together
    kept: Count
    n: Count  # weights in the layer


class Performance(Part):
    """Accuracy on every task with one mask in place."""

    label: str  # "keep left", "remove left", "no mask"
    kind: Literal["none", "keep", "remove", "random"]
    task: str | None = None  # whose mask
    accuracy: list[float | None]  # one per task


class Masks(Part):
    """Function: which weights does a task need?"""

    share: list[Share] = []
    density: list[Density] = []
    performance: list[Performance] = []


class Null(Part):
    """Null samples of the n-cut."""

    id: str  # "shuffle_weights"
    label: str  # for readers: "weights shuffled within each layer"
    keeps: str = ""
    samples: list[float]
    test: Test
    is_required: bool = True


class NCut(Part):
    """Structure: observed n-cut and its nulls."""

    observed: float
    k: Count
    nulls: list[Null]


class Tests(Part):
    """Tests of structure."""

    ncut: NCut | Missing | None = None


class Lesion(Part):
    """Accuracy lost when a module, or its part in one layer, is silenced, against random units of the same layer."""

    module: Count  # index into `modules`
    layer: str | None = None  # id of a layer; None: the whole module at once
    n_units: Count
    task: str
    drop: float  # accuracy lost, fraction
    null_mean: float | None = None  # lost by random sets of the same size
    null_low: float | None = None
    null_high: float | None = None
    p: P | None = None
    p_adjusted: P | None = None


class Lesions(Part):
    """Importance: does the network need its modules?"""

    ablation: str  # "zero", "mean", "resample"
    rows: list[Lesion]
    test: Test | None = None  # the modules together
    why: str = ""  # remark, for instance on modules that could not be tested


class Cell(Part):
    """How much more a task's mask keeps of one module than of the rest, in log-odds."""

    control: str  # id of one of `controls`
    task: str
    module: Count
    log_odds: float | None
    se: float | None = None
    p_adjusted: P | None = None


class Control(Part):
    """What is held fixed when masks and modules are compared."""

    id: str  # "raw", "layer", "degree"
    label: str  # for readers: "nothing", "layer", "layer, degree and weight size"


class Agreement(Part):
    """Agreement of all masks and modules together, under one control."""

    control: str
    test: Test


class Bridge(Part):
    """Do structure and function agree?"""

    controls: list[Control]
    cells: list[Cell]
    agreement: list[Agreement] = []


class Reference(Part):
    """A paper."""

    text: str
    url: str = ""


class Texts(Part):
    """Words that the analysis wrote itself."""

    methods: str = ""  # one paragraph, ready for a paper
    python: str = ""  # code that makes this run again
    references: list[Reference] = []


class Warning_(Part):
    """Something that the reader should know."""

    level: Literal["warn", "note"]
    section: Literal["network", "function", "structure", "importance", "bridge", "methods"]
    text: str


class File(Part):
    """A file beside the page."""

    name: str
    path: str = ""
    bytes: Count | None = None


class Analysis(BaseModel):
    """One network, analysed in full."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    run: RunInfo
    model: ModelInfo
    data: DataInfo | None = None
    tasks: list[TaskInfo] = []
    layers: list[Layer] = []
    modules: list[Module] = []
    units: Units | Missing | None = None
    edges: Edges | Missing | None = None
    verdict: Annotated[list[Verdict], Field(min_length=4, max_length=4)]  # function, structure, importance, bridge
    masks: Masks | Missing | None = None
    tests: Tests | Missing | None = None
    lesions: Lesions | Missing | None = None
    bridge: Bridge | Missing | None = None
    texts: Texts = Texts()
    warnings: list[Warning_] = []
    files: list[File] = []

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Analysis:
        """Refuse an index, a length or a name in one part that no other part has."""
        _check_verdicts(self)
        _check_modules(self)
        _check_units(self)
        _check_tasks(self)
        return self


class Collection(BaseModel):
    """Several networks side by side. `records` are the contents of "analysis" records, in the order of reading."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    title: str
    text: str = ""  # what the reader is looking at, one or two sentences
    records: Annotated[list[Analysis], Field(min_length=1)]
    texts: Texts = Texts()
    warnings: list[Warning_] = []
    files: list[File] = []


def _check_verdicts(analysis: Analysis) -> None:
    keys = tuple(verdict.key for verdict in analysis.verdict)
    if keys != ("function", "structure", "importance", "bridge"):
        raise ValueError(
            f"verdict must hold function, structure, importance, bridge in this order, got {', '.join(keys)}"
        )


def _check_modules(analysis: Analysis) -> None:
    for index, module in enumerate(analysis.modules):
        if len(module.by_layer) != len(analysis.layers):
            raise ValueError(f"modules[{index}].by_layer must hold one count per layer ({len(analysis.layers)})")
    rows: list[Lesion | Cell] = [
        *(analysis.lesions.rows if isinstance(analysis.lesions, Lesions) else []),
        *(analysis.bridge.cells if isinstance(analysis.bridge, Bridge) else []),
    ]
    if any(row.module >= len(analysis.modules) for row in rows):
        raise ValueError(f"lesions or bridge name a module that is not among the {len(analysis.modules)} modules")


def _check_units(analysis: Analysis) -> None:
    units, edges = analysis.units, analysis.edges
    if isinstance(units, Units):
        n = len(units.layer)
        if {len(units.index), len(units.module)} != {n} or len(units.degree) not in (0, n):
            raise ValueError("units.layer, index, module and degree must be of one length")
        _check_range("units.layer", units.layer, 0, len(analysis.layers))
        _check_range("units.module", units.module, -1, len(analysis.modules))
    if isinstance(edges, Edges):
        if not len(edges.source) == len(edges.target) == len(edges.weight):
            raise ValueError("edges.source, target and weight must be of one length")
        if not isinstance(units, Units):
            raise ValueError("edges name units, but units are missing")
        n = len(units.layer)
        _check_range("edges.source", edges.source, 0, n)
        _check_range("edges.target", edges.target, 0, n)


def _check_range(name: str, values: list[int], low: int, end: int) -> None:
    if values and not (low <= min(values) and max(values) < end):
        raise ValueError(f"{name} must lie between {low} and {end - 1}, got {min(values)} to {max(values)}")


def _check_tasks(analysis: Analysis) -> None:
    known = {task.id for task in analysis.tasks}
    named: set[str] = set()
    if isinstance(analysis.masks, Masks):
        named |= {task for share in analysis.masks.share for task in share.pair}
        named |= {density.task for density in analysis.masks.density}
        named |= {row.task for row in analysis.masks.performance if row.task is not None}
        if any(len(row.accuracy) != len(known) for row in analysis.masks.performance):
            raise ValueError(f"masks.performance needs one accuracy per task ({len(known)})")
    if isinstance(analysis.lesions, Lesions):
        named |= {row.task for row in analysis.lesions.rows}
    if isinstance(analysis.bridge, Bridge):
        named |= {cell.task for cell in analysis.bridge.cells}
    if named - known:
        raise ValueError(f"not among the tasks: {', '.join(sorted(named - known))}")
