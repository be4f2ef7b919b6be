from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from modscope.masks.gradient_factors import conditional_factors, mean_factor
from modscope.masks.sampling import ESTIMATORS, kept_samples, rao_blackwell, straight_through

LOGITS = [-9.0, -4.0, -0.05, 0.0, 0.001, 0.3, 2.0, 8.0]


def relaxed(logit: float, uniform: float) -> float:
    """y of the paper: sigmoid of the logit plus logistic noise, which is logit(uniform)."""
    return uniform / (uniform + (1 - uniform) * math.exp(-logit))


@pytest.mark.parametrize("logit", LOGITS)
def test_conditional_factors_are_the_integrals_that_define_them(logit: float) -> None:
    border = 1 / (1 + math.exp(logit))  # y > 1/2 above this uniform number

    def factor(uniform: float) -> float:
        return relaxed(logit, uniform) * (1 - relaxed(logit, uniform))

    kept = integrate.quad(factor, border, 1, epsabs=1e-13)[0] / (1 - border)
    removed = integrate.quad(factor, 0, border, epsabs=1e-13)[0] / border
    found_kept, found_removed = conditional_factors(torch.tensor([logit]))
    assert found_kept.item() == pytest.approx(kept, rel=1e-6)
    assert found_removed.item() == pytest.approx(removed, rel=1e-6)
    assert mean_factor(torch.tensor([logit])).item() == pytest.approx(kept * (1 - border) + removed * border, rel=1e-6)


def test_the_mean_factor_has_the_closed_form_of_the_specification() -> None:
    logits = torch.tensor([-5.0, -1.0, 0.5, 2.0, 4.0], dtype=torch.float64)
    a = logits.exp()
    expected = a * ((logits - 2) * a + logits + 2) / (a - 1) ** 3
    assert torch.allclose(mean_factor(logits), expected, rtol=1e-9)
    assert mean_factor(torch.zeros(1)).item() == pytest.approx(1 / 6)


def test_the_factors_are_smooth_where_series_and_formula_meet() -> None:
    around = torch.linspace(0.0999, 0.1001, 11, dtype=torch.float64)
    for sign in (1, -1):
        kept, _ = conditional_factors(sign * around)
        assert kept.diff().diff().abs().max() < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("logit", [-3.0, 0.0, 2.0])
def test_keep_rate_of_ten_million_samples_passes_a_chi_square_test(logit: float) -> None:
    generator = torch.Generator().manual_seed(5)
    n, copies = 2_500_000, 4
    samples = kept_samples(torch.full((n,), logit), copies, generator)
    for sample in samples:
        kept = int(sample.sum())
        expected = n / (1 + math.exp(-logit))
        assert stats.chisquare([kept, n - kept], [expected, n - expected]).pvalue > 1e-4


def test_neighbouring_weights_and_copies_are_sampled_independently_of_each_other_in_a_copy() -> None:
    generator = torch.Generator().manual_seed(1)
    sample = next(iter(kept_samples(torch.zeros(1_000_000), 4, generator)))
    pairs = sample.view(-1, 2)
    counts = [
        int((pairs == torch.tensor(pair)).all(dim=1).sum()) for pair in itertools.product([False, True], repeat=2)
    ]
    assert stats.chisquare(counts).pvalue > 1e-4


def test_dead_logits_are_never_kept() -> None:
    samples = kept_samples(torch.full((1_000_000,), -14.0), 4, torch.Generator().manual_seed(0))
    assert sum(int(sample.sum()) for sample in samples) == 0


def test_copies_of_one_step_keep_a_weight_as_often_as_its_probability_says_to_within_one() -> None:
    samples = torch.stack(list(kept_samples(torch.full((1000,), 0.3), 4, torch.Generator().manual_seed(0))))
    expected = 4 / (1 + math.exp(-0.3))
    assert ((samples.sum(dim=0) - expected).abs() < 1).all()


def enumerated(
    loss_gradients: dict[tuple[int, ...], np.ndarray], probability: np.ndarray, factor: np.ndarray
) -> np.ndarray:
    """Sum over masks m of P(m) dL/dm_k factor[k, m_k]: what an estimator's gradient must be on average."""
    total = np.zeros(len(probability))
    for mask, gradient in loss_gradients.items():
        weight = np.prod([p if m else 1 - p for m, p in zip(mask, probability, strict=True)])
        total += weight * gradient * np.array([factor[k, m] for k, m in enumerate(mask)])
    return total


def tiny_loss(weights: torch.Tensor) -> torch.Tensor:
    """A small non-linear network: two hidden tanh units on two inputs, one output."""
    hidden = torch.tanh(weights[:4].view(2, 2) @ torch.tensor([1.0, -0.5]))
    return (torch.sigmoid(weights[4:] @ hidden) - 0.9) ** 2


@pytest.mark.parametrize("name", ["rao_blackwell", "straight_through"])
def test_mean_gradient_on_a_tiny_network_is_the_one_found_by_enumeration(name: str) -> None:
    weight = torch.tensor([0.8, -1.2, 0.5, 1.5, 2.0, -1.0])
    logits = torch.tensor([1.0, -0.5, 2.0, 0.2, 0.0, 1.5])
    probability = torch.sigmoid(logits).double().numpy()
    gradients = {}
    for mask in itertools.product([0, 1], repeat=6):
        m = torch.tensor(mask, dtype=torch.float32, requires_grad=True)
        gradients[mask] = torch.autograd.grad(tiny_loss(weight * m), m)[0].double().numpy()
    kept, removed = conditional_factors(logits)
    expected = enumerated(gradients, probability, torch.stack([removed, kept], dim=1).numpy())
    generator = torch.Generator().manual_seed(3)
    n_draws, n_copies = 1500, 4
    draws = np.empty((n_draws, 6))
    for draw in range(n_draws):
        tracked = logits.clone().requires_grad_()
        copies = ESTIMATORS[name](tracked, weight, n_copies, generator, 0.0)
        loss = sum((tiny_loss(copy) for copy in copies), torch.zeros(())) / n_copies
        draws[draw] = torch.autograd.grad(loss, tracked)[0].numpy()
    error = draws.std(axis=0, ddof=1) / np.sqrt(n_draws)
    assert (np.abs(draws.mean(axis=0) - expected) < 4.5 * error + 0.003 * np.abs(expected)).all()
    # the estimators are biased: they are not the gradient of the expected loss, and too small near 0
    exact = enumerated(gradients, probability, np.repeat((probability * (1 - probability))[:, None], 2, axis=1))
    assert np.linalg.norm(expected - exact) > 0.1 * np.linalg.norm(exact)


def test_rao_blackwell_gradients_vary_less_than_straight_through_ones() -> None:
    weight, logits = torch.randn(50, generator=torch.Generator().manual_seed(0)), torch.full((50,), 3.0)

    def variance(estimator: object) -> float:
        generator = torch.Generator().manual_seed(0)
        gradients = []
        for _ in range(400):
            tracked = logits.clone().requires_grad_()
            copies = estimator(tracked, weight, 4, generator, 0.0)  # type: ignore[operator]
            gradients.append(torch.autograd.grad(sum(copy.sum() ** 2 for copy in copies), tracked)[0])
        return float(torch.stack(gradients).var(dim=0).sum())

    assert variance(rao_blackwell) < 0.8 * variance(straight_through)


def test_straight_through_has_the_paper_s_distribution() -> None:
    logit, n = 1.3, 200_000
    tracked = torch.full((n,), logit, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    (copy,) = straight_through(tracked, torch.ones(n), 1, generator, 0.0)
    (factor,) = torch.autograd.grad(copy.sum(), tracked)
    # the paper's formula: the difference of two Gumbel numbers
    u = torch.rand(2, n, dtype=torch.float64, generator=generator)
    noise = -torch.log(torch.log(u[1] + 1e-10) / torch.log(u[0] + 1e-10) + 1e-10)
    y = torch.sigmoid(logit + noise)
    assert copy.mean().item() == pytest.approx((y > 0.5).double().mean().item(), abs=0.006)
    assert stats.ks_2samp(factor.double().numpy(), (y * (1 - y)).numpy()).pvalue > 1e-4


def test_hard_concrete_keeps_weights_at_zero_one_and_between() -> None:
    logits = torch.zeros(20_000)
    (copy,) = ESTIMATORS["hard_concrete"](logits, torch.ones(20_000), 1, torch.Generator().manual_seed(0), 0.0)
    # Louizos et al. 2018: P(z = 0) = sigmoid(beta log(-gamma / zeta) - l)
    expected = 1 / (1 + math.exp(-(2 / 3) * math.log(0.1 / 1.1)))
    assert (copy == 0).float().mean().item() == pytest.approx(expected, abs=0.01)
    assert (copy == 1).float().mean().item() == pytest.approx(expected, abs=0.01)


def test_continuous_sparsification_ends_at_zero_and_one() -> None:
    logits = torch.tensor([-0.2, 0.2])
    sampler = ESTIMATORS["continuous_sparsification"]
    (start,) = sampler(logits, torch.ones(2), 1, torch.Generator(), 0.0)
    (end,) = sampler(logits, torch.ones(2), 1, torch.Generator(), 1.0)
    assert torch.allclose(start, torch.sigmoid(logits))
    assert torch.allclose(end, torch.tensor([0.0, 1.0]), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_copies_have_the_weight_s_precision_and_gradients_the_logits(name: str, dtype: torch.dtype) -> None:
    logits = torch.zeros(3, 2, requires_grad=True)
    copies = ESTIMATORS[name](logits, torch.ones(3, 2, dtype=dtype), 2, torch.Generator().manual_seed(0), 0.5)
    assert [copy.dtype for copy in copies] == [dtype, dtype]
    (gradient,) = torch.autograd.grad(sum(copy.float().sum() for copy in copies), logits)
    assert gradient.dtype == torch.float32
    assert gradient.isfinite().all()
