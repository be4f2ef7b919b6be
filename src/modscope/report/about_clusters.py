"""What do the clusters say? Figures of the sections "Network" and "Structure"."""

from __future__ import annotations

from modscope.report.content import Analysis, Edges, Missing, NCut, Null, Sweep, SweepBand, Tests, Units
from modscope.report.figure import FigureKind, Said, Table, layer_label
from modscope.report.words import count, counted, letter, listed, number, p_clause, p_text, percent, signed

NO_CLUSTERS = "Clusters were not looked for in this run."
NO_SWEEP = "Other numbers of modules were not tried in this run."
LEVEL = 0.05
MOSTLY_ONE_LAYER = 0.8
MOST_NAMED = 12


def network(analysis: Analysis) -> Said:
    """Units per layer and module."""
    if not analysis.layers:
        return Said(missing="The units of this network were not recorded.")
    named = [f"{letter(index)} with {count(module.n)}" for index, module in enumerate(analysis.modules)]
    rest = [f"{len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else []
    sizes = listed(named[:MOST_NAMED] + rest)
    found = f"{counted(analysis.model.n_units, 'unit')} in {counted(len(analysis.layers), 'layer')}"
    found += f", in {counted(len(analysis.modules), 'module')}: {sizes}." if analysis.modules else "."
    if analysis.model.n_isolated:
        found += f" {counted(analysis.model.n_isolated, 'unit')} without weights in no module."
    columns = ("module", *(layer_label(analysis.layers, layer.id) for layer in analysis.layers), "all")
    rows = [
        (letter(index), *(count(n) for n in module.by_layer), count(module.n))
        for index, module in enumerate(analysis.modules)
    ]
    rows.append(("units", *(count(layer.n) for layer in analysis.layers), count(analysis.model.n_units)))
    return Said(found, Table(columns, tuple(rows)))


def ncut(analysis: Analysis) -> Said:
    """The observed n-cut against each null."""
    if not isinstance(analysis.tests, Tests) or not isinstance(analysis.tests.ncut, NCut):
        part = analysis.tests.ncut if isinstance(analysis.tests, Tests) else analysis.tests
        return Said(missing=part.why if isinstance(part, Missing) else NO_CLUSTERS)
    found = analysis.tests.ncut
    finding = f"n-cut {number(found.observed)}. " + ". ".join(_against(null, found.observed) for null in found.nulls)
    rows = tuple(
        (
            null.label,
            number(found.observed, 3),
            number(_mean(null), 3),
            number(null.test.z, 1),
            p_text(null.test.p),
            p_text(null.test.p_adjusted),
            count(len(null.samples)),
            p_text(null.test.p_floor),
        )
        for null in found.nulls
    )
    columns = ("null", "observed", "null mean", "z", "p", "corrected p", "samples", "smallest possible p")
    return Said(finding + ".", Table(columns, rows))


def _against(null: Null, observed: float) -> str:
    higher = sum(sample > observed for sample in null.samples)
    return f"{null.label[:1].upper()}{null.label[1:]}: below {higher} of {len(null.samples)} ({p_clause(null.test.p)})"


def _mean(null: Null) -> float | None:
    return sum(null.samples) / len(null.samples) if null.samples else None


def sweep(analysis: Analysis) -> Said:
    """The n-cut against the null models at several numbers of modules."""
    part = analysis.tests.sweep if isinstance(analysis.tests, Tests) else analysis.tests
    if not isinstance(part, Sweep):
        return Said(missing=part.why if isinstance(part, Missing) else NO_SWEEP)
    finding = " ".join(_holds_at(band, part) for band in part.bands)
    rows = tuple(
        (
            band.label,
            count(point.k),
            number(point.ncut, 3),
            signed(gap.gap, 3),
            f"{number(gap.low, 3)} to {number(gap.high, 3)}",
            f"{number(gap.min, 3)} to {number(gap.max, 3)}",
            number(gap.z, 1),
            p_text(gap.p),
            p_text(gap.p_adjusted),
            number(point.stability),
        )
        for band in part.bands
        for point, gap in zip(part.points, band.gaps, strict=True)
    )
    columns = (
        *("null", "modules", "n-cut", "minus null mean", "90% of the null", "all of the null"),
        *("z", "p", "corrected p", "stability"),
    )
    return Said(finding, Table(columns, rows))


def _holds_at(band: SweepBand, part: Sweep) -> str:
    """At which numbers of modules the network is more clustered than one null model gives."""
    tests = list(zip(part.points, band.gaps, strict=True))
    found = [point.k for point, gap in tests if gap.p_adjusted <= LEVEL and gap.gap < 0]
    in_all = f"({p_clause(band.p_in_all)} in all)"
    if not found:
        tried = listed(count(point.k) for point, _ in tests)
        return f"Not below {band.label}: at none of {tried} {in_all}."
    where = "every number tried" if len(found) == len(tests) else listed(map(count, found))
    widest = min(tests, key=lambda test: test[1].gap)[0].k
    return f"Below {band.label}: at {where} {in_all}; the gap is widest at {widest}."


def composition(analysis: Analysis) -> Said:
    """Layers inside each module."""
    modules = [module for module in analysis.modules if module.n]
    if not modules:
        return Said(missing=NO_CLUSTERS)
    labels = [layer_label(analysis.layers, layer.id) for layer in analysis.layers]
    tops = [
        (max(module.by_layer) / module.n, letter(index), labels[module.by_layer.index(max(module.by_layer))])
        for index, module in enumerate(analysis.modules)
        if module.n
    ]
    top, name, layer = max(tops)
    one_layer = [(share, name, layer) for share, name, layer in tops if share > MOSTLY_ONE_LAYER]
    warning = " ".join(
        f"{percent(share)} of module {name} is in one layer ({layer}): read it as a layer, not as a module."
        for share, name, layer in one_layer
    )
    finding = f"The module that keeps most to one layer is {name}: {percent(top)} of its units are in {layer}."
    rows = tuple((name, layer, percent(share)) for share, name, layer in tops)
    return Said(finding, Table(("module", "its largest layer", "share of its units"), rows, 2), warning)


def matrix(analysis: Analysis) -> Said:
    """The weight graph, ordered by layers and by modules."""
    if not isinstance(analysis.units, Units) or not isinstance(analysis.edges, Edges):
        part = analysis.edges if isinstance(analysis.units, Units) else analysis.units
        return Said(missing=part.why if isinstance(part, Missing) else "The weights of this network were not recorded.")
    module, edges = analysis.units.module, analysis.edges
    weights = zip(edges.source, edges.target, edges.weight, strict=True)
    total = sum(edges.weight)
    inside = sum(weight for a, b, weight in weights if module[a] == module[b] >= 0)
    drawn = len(edges.weight)
    share = inside / total if total else 0.0
    finding = f"Of the {count(drawn)} strongest weights, {percent(share)} by size join units of one module."
    rows = (
        ("strongest weights drawn", count(drawn)),
        ("all weights", count(edges.n_total)),
        ("inside modules", percent(share, 1)),
    )
    return Said(finding, Table(("weights", "value"), rows))


FIGURES = (
    FigureKind(
        id="network",
        section="network",
        title="Units, coloured by the module that clustering puts them in",
        span=12,
        says=network,
        how=(
            "Depth runs from left to right. Dots are units, grouped by module; a line is a strong weight, "
            "coloured where both ends share a module, grey where they do not. Letters are names within one "
            "network: A here is not A there."
        ),
        formula="graph: A(i, j) = |w(i, j)|",
        source=("Units of neighbouring layers are joined by the size of the weight between them. Filan et al. 2021."),
        code="ms.Spectral(4)(ms.weight_graph(ms.read_wiring(model, x)))",
    ),
    FigureKind(
        id="ncut",
        section="structure",
        title="Observed n-cut against the nulls",
        span=12,
        says=ncut,
        how=(
            "Grey is the n-cut of networks with shuffled weights, the blue line is this network. Left of all "
            "the grey means: more clustered than chance. The stricter null keeps the scale of each unit, so "
            "that uneven units alone cannot pass."
        ),
        formula="n-cut = Σ over modules of cut ∕ volume;   p = (#{null ≤ observed} + 1) ∕ (n + 1)",
        source=(
            "cut: weight leaving the module; volume: all weight of its units. Shi & Malik 2000; Filan et al. "
            "2021; Phipson & Smyth 2010."
        ),
        code="ms.clusterability(wiring, ms.Spectral(4), n_samples=100)",
        is_side_by_side=True,
    ),
    FigureKind(
        id="sweep",
        section="structure",
        title="The same test at other numbers of modules",
        span=12,
        says=sweep,
        how=(
            "0 is the mean of the null. Grey: where 90% of its samples lie (thin lines: all of them). A filled point "
            "lies below the null, corrected for having looked at several numbers. A conclusion that holds at one "
            "number only is fragile."
        ),
        formula=(
            "gap(k) = n-cut(k) − mean null(k);   "
            "p in all = (#{lowest z of the null ≤ lowest z of the network} + 1) ∕ (n + 1)"
        ),
        source=(
            "z: gap in standard deviations of the null, lowest over k. All numbers of modules share the same null "
            "samples, so that they are corrected together (max-T). Westfall & Young 1993; Filan et al. 2021."
        ),
        code="ms.sweep_n_clusters(wiring, (2, 3, 4, 6, 8))",
        is_side_by_side=True,
    ),
    FigureKind(
        id="matrix",
        section="structure",
        title="The strongest weights, before and after ordering",
        span=7,
        says=matrix,
        how=(
            "Each mark is a strong weight between two units. Good modules gather the marks inside the coloured squares."
        ),
        formula="A(i, j) = |w(i, j)|",
        source="Left: units in the order of the layers. Right: the same units, module by module.",
        code="ms.weight_graph(wiring).adjacency()",
    ),
    FigureKind(
        id="composition",
        section="structure",
        title="Layers inside each module",
        span=5,
        says=composition,
        how=(
            "Darker is deeper. A mix of shades is a module that runs through the network; one shade is a "
            "module that is really a layer."
        ),
        formula="top = max over layers of |module ∩ layer| ∕ |module|",
        source="Flagged above 80%.",
        code="partition.sub_clusters(graph.group_of)",
    ),
)
