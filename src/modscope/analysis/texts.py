"""How is a run described in words: the methods paragraph and the papers behind it?"""

from __future__ import annotations

from typing import Any

from modscope.analysis.run import Results
from modscope.masks.mask import MaskSet

REFERENCES = {
    "function": "Csordás, van Steenkiste & Schmidhuber 2021. Are neural nets modular? Inspecting functional modularity "
    "through differentiable weight masks. ICLR.",
    "structure": "Filan, Casper, Hod, Wild, Critch & Russell 2021. Clusterability in neural networks. "
    "arXiv 2103.03386.",
    "importance": "Hod, Casper, Filan, Wild, Critch & Russell 2021. Detecting modularity in deep neural networks. "
    "arXiv 2110.08058.",
    "p": "Phipson & Smyth 2010. Permutation p-values should never be zero. Statistical Applications in Genetics and "
    "Molecular Biology 9.",
}


def texts_content(results: Results, masks: MaskSet | None, seed: int) -> dict[str, Any]:
    """A paragraph ready for a paper, and its references."""
    sentences = [_structure(results), _function(results, masks), _importance(results), _bridge(results)]
    closing = f"p-values are (r + 1) / (n + 1), ties count against the claim. All randomness starts from seed {seed}."
    return {
        "methods": " ".join([sentence for sentence in sentences if sentence] + [closing]),
        "references": [{"text": text} for text in REFERENCES.values()],
    }


def _structure(results: Results) -> str:
    structure = results.clusterability
    nulls = " and ".join(f"{test.n_samples} samples of {name}" for name, test in structure.items())
    return (
        f"The network's {results.wiring.n_units:,} units were joined by the absolute sizes of their weights and "
        f"partitioned into {structure.partition.n_clusters} modules; their n-cut was compared with that of {nulls}, "
        f"partitioned in the same way (after Filan et al. 2021).{_sweep(results)}"
    )


def _sweep(results: Results) -> str:
    sweep = results.sweep
    if sweep is None:
        return ""
    *numbers, last = [str(k) for k in sweep.n_clusters]
    listed = f"{', '.join(numbers)} and {last}" if numbers else last
    n_samples = len(next(iter(sweep.values())).null_samples)
    return (
        f" The test was repeated at {listed} modules, with the same {n_samples} samples of each null for all of them, "
        "corrected by max-T (Westfall & Young 1993)."
    )


def _function(results: Results, masks: MaskSet | None) -> str:
    if masks is None or results.specialization is None:
        return ""
    details = masks[next(iter(masks))].details.get("learner", {})
    settings = ", ".join(f"{name} {details[name]}" for name in ("estimator", "n_steps", "penalty") if name in details)
    tests = results.specialization.dissociations
    removals = f" against {len(tests[0].null_samples)} random removals" if tests else ""
    return (
        f"For each task {masks.n_seeds} masks of the weights were learned ({settings}; after Csordás et al. 2021), and "
        f"checked on shuffled weights; what tasks lose without each mask was tested{removals} of weights of the same "
        "sizes."
    )


def _importance(results: Results) -> str:
    importance = results.importance
    if importance is None:
        return ""
    return (
        f"Modules, and their parts in each layer, were silenced ({importance.value}) and compared with "
        f"{importance.n_samples} random sets of as many units of the same layers (after Hod et al. 2021)."
    )


def _bridge(results: Results) -> str:
    alignment = results.alignment
    if alignment is None:
        return ""
    return (
        "Agreement of masks and modules is the share of the variation in what a mask keeps of a unit that modules "
        f"explain within layers, against {alignment.raw.n_samples} permutations of units within their layer; in the "
        "stricter form degree and weight size were regressed out first."
    )
