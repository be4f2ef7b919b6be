"""Does the fitted shape of residuals say what is known of the distributions that they come from?"""

from __future__ import annotations

import numpy as np
import pytest

from modscope.nulls import order
from modscope.nulls.order import random_order
from modscope.nulls.residual_shape import _loss, fitted_shape

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


def test_every_order_is_drawn_equally_often_with_and_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = [tuple(random_order(3, np.random.default_rng(index))) for index in range(600)]
    monkeypatch.setattr(order, "_has_numba", lambda: False)
    assert [tuple(random_order(3, np.random.default_rng(index))) for index in range(600)] == compiled
    counts = [compiled.count(one) for one in set(compiled)]
    assert len(counts) == 6
    assert max(abs(count / 600 - 1 / 6) for count in counts) < 0.08
    assert random_order(0, np.random.default_rng(0)).tolist() == []
