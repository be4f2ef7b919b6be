"""The rules of the four verdicts, by hand-made results."""

import numpy as np
import pytest

from modscope.analysis.verdicts import two_nulls
from modscope.statistics import Comparison


def comparison(observed: float, n_samples: int = 99, spread: float = 1.0) -> Comparison:
    """Null samples evenly spread around 0."""
    samples = np.linspace(-spread, spread, n_samples)
    return Comparison(observed, samples, "greater", "hand-made", looks=(n_samples,))


@pytest.mark.parametrize(
    ("weaker", "stricter", "state"),
    [
        (10.0, 10.0, "yes"),
        (10.0, 5.0, "yes"),
        (10.0, 4.9, "part"),  # significant, but under half of the effect is left
        (10.0, 0.0, "part"),  # only the weaker null is passed
        (0.0, 10.0, "no"),
        (0.0, 0.0, "no"),
        (-10.0, 10.0, "no"),
    ],
)
def test_a_claim_stands_only_if_it_passes_the_stricter_null_with_half_of_its_effect(weaker, stricter, state):
    assert two_nulls(comparison(weaker), comparison(stricter)) == state


def test_too_few_samples_to_reach_the_level_are_no_test():
    assert two_nulls(comparison(10.0, n_samples=18), comparison(10.0)) == "na"
    assert two_nulls(comparison(10.0, n_samples=19), comparison(10.0, n_samples=19)) == "yes"
