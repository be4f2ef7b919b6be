"""Does the fitted shape of residuals say what is known of the distributions that they come from?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modscope.nulls.residual_shape import ResidualShape, _loss, fitted_shape

SIZES = {
    "normal": (lambda rng: np.abs(rng.normal(size=20_000)), 2.0),  # what one size tells of its log scale
    "exponential": (lambda rng: rng.exponential(size=20_000), 1.0),
    "log-normal": (lambda rng: rng.lognormal(size=20_000), 1.0),
    "student": (lambda rng: np.abs(rng.standard_t(3, size=20_000)), 1.0),  # 2 df / (df + 3)
}


@pytest.mark.parametrize("name", sorted(SIZES))
def test_information_is_that_of_the_distribution_and_the_score_adds_up_to_zero(name: str) -> None:
    draw, information = SIZES[name]
    logs = np.log(draw(np.random.default_rng(0)))
    shape = fitted_shape(logs)
    assert shape is not None
    assert shape.information == pytest.approx(information, rel=0.1)
    assert abs(shape.score(logs).mean()) < 0.02
    step = 1e-5
    numeric = (shape.score(logs + step) - shape.score(logs - step)) / (2 * step)
    np.testing.assert_allclose(shape.slope(logs), numeric, rtol=1e-3, atol=1e-6)


def test_residuals_that_do_not_differ_have_no_shape() -> None:
    assert fitted_shape(np.zeros(50)) is None


def test_the_gradient_of_the_fit_is_that_of_its_loss() -> None:
    points, start = np.random.default_rng(1).normal(size=300), np.array([0.7, 0.7, 0.0, 0.0])
    at = np.array([0.3, 1.0, 0.2, 0.4])
    _, gradient = _loss(at, points, start)
    for index in range(4):
        step = 1e-6 * np.eye(4)[index]
        numeric = (_loss(at + step, points, start)[0] - _loss(at - step, points, start)[0]) / 2e-6
        assert gradient[index] == pytest.approx(numeric, abs=1e-5)


def test_the_density_of_the_family_has_area_one() -> None:
    """exp(-loss) of one point is its density, but for the weak pull to the start, which is zero there."""
    for parameters in ([0.7, 0.7, 0.0, 0.0], [0.2, 1.5, -0.5, 1.0], [-0.5, 0.4, 1.0, -2.0]):
        at = np.array(parameters)
        points = np.linspace(-60, 60, 24_001)
        density = np.exp([-_loss(at, points[[index]], at)[0] for index in range(0, len(points), 10)])
        assert np.trapezoid(density, points[::10]) == pytest.approx(1, abs=2e-3)


@settings(max_examples=10, deadline=None)
@given(shift=st.floats(-20, 20), factor=st.floats(0.1, 10), seed=st.integers(0, 100))
def test_residuals_that_are_shifted_and_stretched_have_the_same_shape_shifted_and_stretched(
    shift: float, factor: float, seed: int
) -> None:
    logs = np.log(np.random.default_rng(seed).exponential(size=400))
    shape, moved = fitted_shape(logs), fitted_shape(shift + factor * logs)
    assert shape is not None
    assert moved is not None
    assert moved.centre == pytest.approx(shift + factor * shape.centre, abs=0.02 * factor)
    assert moved.information == pytest.approx(shape.information / factor**2, rel=0.02)
    np.testing.assert_allclose(
        moved.score(shift + factor * logs) * factor, shape.score(logs), atol=0.05 * (shape.left + shape.right)
    )


@settings(max_examples=20, deadline=None)
@given(left=st.floats(0.1, 5), right=st.floats(0.1, 5), bend=st.floats(0.1, 5), centre=st.floats(-3, 3))
def test_a_larger_residual_never_pulls_less_and_no_residual_pulls_more_than_a_tail_does(
    left: float, right: float, bend: float, centre: float
) -> None:
    score = ResidualShape(left, right, bend, centre).score(np.linspace(-80, 80, 500))
    assert (np.diff(score) >= -1e-12).all()
    assert score[0] == pytest.approx(-left, abs=0.05 * (left + right))
    assert score[-1] == pytest.approx(right, abs=0.05 * (left + right))
