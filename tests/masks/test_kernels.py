from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from modscope.masks import compiled
from modscope.masks.gradient_factors import conditional_factors, factor_fit
from modscope.masks.sampling import rao_blackwell

kernels = pytest.importorskip("modscope.masks.kernels", reason="numba is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("logit", [-3.0, 0.0, 2.0])
def test_keep_rate_of_ten_million_compiled_samples_passes_a_chi_square_test(logit: float) -> None:
    n, n_copies = 2_500_000, 4
    logits = torch.full((n,), logit)
    for copy in rao_blackwell(logits, torch.ones(n), n_copies, torch.Generator().manual_seed(5), 0.0):
        kept = int(copy.sum())
        expected = n / (1 + np.exp(-logit))
        assert stats.chisquare([kept, n - kept], [expected, n - expected]).pvalue > 1e-4


def test_random_numbers_are_uniform_and_independent_of_their_neighbours() -> None:
    shorts = np.empty(2**22, np.int16)
    kernels.draw(12345, 0, shorts)
    high = (shorts.astype(np.int64) + 32768) >> 12  # sixteen cells
    assert stats.chisquare(np.bincount(high, minlength=16)).pvalue > 1e-4
    for distance in (1, 2, 3, 4):
        pairs = np.bincount(high[:-distance:8] * 16 + high[distance::8], minlength=256)
        assert stats.chisquare(pairs).pvalue > 1e-4


def test_a_stream_can_be_read_from_any_place() -> None:
    whole, part = np.empty(64, np.int16), np.empty(16, np.int16)
    kernels.draw(7, 0, whole)
    kernels.draw(7, 40, part)
    assert np.array_equal(whole[40:56], part)


def test_thresholds_are_the_probabilities_in_sixteen_bits() -> None:
    logits = np.linspace(-25, 25, 100_001, dtype=np.float32)
    odds, found = np.empty_like(logits), np.empty(len(logits), np.int16)
    kernels.odds_against(logits, odds)
    kernels.thresholds(odds, found)
    exact = np.minimum(65536 / (1 + np.exp(-logits.astype(np.float64))), 65535) - 32768
    assert np.abs(found - exact).max() < 0.51


@pytest.mark.parametrize("n_copies", [1, 3, 4, 6, 8])
def test_compiled_copies_and_gradients_are_those_of_the_definition_for_the_same_random_numbers(n_copies: int) -> None:
    draws = torch.Generator().manual_seed(0)
    logits, weight = 4 * torch.randn(5, 321, generator=draws), torch.randn(5, 321, generator=draws)
    pulls = [torch.randn(5, 321, generator=draws) for _ in range(n_copies)]
    tracked = logits.clone().requires_grad_()
    copies = rao_blackwell(tracked, weight, n_copies, torch.Generator().manual_seed(1), 0.0)
    (found,) = torch.autograd.grad(
        torch.stack([(copy * pull).sum() for copy, pull in zip(copies, pulls, strict=True)]).sum(), tracked
    )
    shorts = np.empty(1608, np.int16)
    kernels.draw(compiled.stream(torch.Generator().manual_seed(1)), 0, shorts)
    uniform = torch.from_numpy(shorts[: logits.numel()].astype(np.int64)).view_as(logits) + 32768
    border = (torch.sigmoid(logits.double()) * 65536).clamp(max=65535)
    kept_factor, removed_factor = conditional_factors(logits)
    expected = torch.zeros_like(logits, dtype=torch.float64)
    for index, (copy, pull) in enumerate(zip(copies, pulls, strict=True)):
        shifted = (uniform + index * (65536 // n_copies)) % 65536
        kept = copy != 0
        is_sure = (shifted - border).abs() > 1  # probabilities are rounded
        assert torch.equal(kept[is_sure], (shifted < border)[is_sure])
        assert torch.equal(copy, weight * kept)
        expected += weight * pull * torch.where(kept, kept_factor, removed_factor)
    assert torch.allclose(found.double(), expected, rtol=1e-3, atol=2e-4 * float(expected.abs().max()))


def test_fitted_factors_are_those_of_the_integrals_to_two_parts_in_ten_thousand() -> None:
    logits = torch.linspace(-19.9, 19.9, 40_001)
    ones, zeros = np.ones(len(logits), np.float32), np.zeros(len(logits), np.float32)
    odds, found = np.empty_like(ones), np.empty_like(ones)
    kernels.odds_against(logits.numpy(), odds)
    for of_kept, expected in zip((ones, zeros), conditional_factors(logits), strict=True):
        kernels.factors(logits.numpy(), odds, ones, ones, of_kept, factor_fit(), found)
        assert np.abs(found / expected.numpy() - 1).max() < 2e-4


def test_copies_in_one_step_are_spread_evenly_and_neighbours_independent() -> None:
    n = 400_000
    copies = torch.stack(rao_blackwell(torch.full((n,), 0.3), torch.ones(n), 4, torch.Generator().manual_seed(2), 0.0))
    assert ((copies.sum(dim=0) - 4 / (1 + np.exp(-0.3))).abs() < 1).all()
    share = 1 / (1 + np.exp(-0.3))
    pairs = copies[0].view(-1, 2).bool()
    counts, expected = [], []
    for first, second in itertools.product([False, True], repeat=2):
        counts.append(int(((pairs[:, 0] == first) & (pairs[:, 1] == second)).sum()))
        expected.append(n / 2 * (share if first else 1 - share) * (share if second else 1 - share))
    assert stats.chisquare(counts, np.array(expected) * sum(counts) / sum(expected)).pvalue > 1e-4


def test_without_numba_the_same_distribution_comes_from_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_kernels", lambda: None)
    n = 1_000_000
    for copy in rao_blackwell(torch.full((n,), 1.0), torch.ones(n), 2, torch.Generator().manual_seed(0), 0.0):
        kept, expected = int(copy.sum()), n / (1 + np.exp(-1.0))
        assert stats.chisquare([kept, n - kept], [expected, n - expected]).pvalue > 1e-4


def test_halves_are_rounded_and_widened_as_pytorch_does_it() -> None:
    numbers = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(-20, 20).repeat(25)
    numbers[:4] = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 0.0, -(1 + 2**-8)])  # ties
    halves, back = np.empty(1000, np.uint16), np.empty(1000, np.float32)
    kernels.rounded(numbers.numpy(), halves)
    assert np.array_equal(halves.view(np.int16), numbers.bfloat16().view(torch.int16).numpy())
    kernels.widened(halves, back)
    assert np.array_equal(back, numbers.bfloat16().float().numpy())
