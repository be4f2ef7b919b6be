"""The loops over single weights of a mask step, compiled. Importing this file needs numba (the extra `fast`).

A weight that lies at place i of its tensor takes the i-th 16 bits of a stream of random numbers that a seed names, so
that nothing is stored between the forward pass and the backward pass: either draws what it needs again.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from modscope import compiling

BLOCK = 1024  # weights that are worked on at once: a dozen arrays of them fit in the fastest cache
_f, _i = np.float32, np.int32


# "numpy" and "fast": a division by zero or an order of additions is no reason to leave the vector unit
compiled = partial(compiling.compiled, error_model="numpy", fastmath=True)


@compiled
def draw(seed: int, start: int, shorts: np.ndarray) -> None:
    """Random 16-bit integers `start` to `start + len(shorts)` of a stream; both are multiples of four.

    Source: Steele, Lea & Flood 2014, SplitMix64, read at any place of its sequence.
    """
    longs = shorts.view(np.uint64)
    first = np.uint64(seed) + np.uint64(start // 4) * np.uint64(0x9E3779B97F4A7C15)
    for i in range(np.uint64(longs.size)):
        z = first + np.uint64(i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        longs[i] = z ^ (z >> np.uint64(31))


@compiled
def odds_against(logits: np.ndarray, out: np.ndarray) -> None:
    """e^-l, with l in [-20, 20]."""
    for i in range(np.uint64(logits.size)):
        exponent = min(max(logits[i], _f(-20)), _f(20)) * _f(-1.4426950408889634)
        whole = _i(np.floor(exponent))
        rest = (exponent - _f(whole)) * _f(0.6931471805599453)  # e^rest by its series: 1e-7 off at most
        series = _f(1 / 120) + rest * (_f(1 / 720) + rest * _f(1 / 5040))
        series = _f(0.5) + rest * (_f(1 / 6) + rest * (_f(1 / 24) + rest * series))
        out[i] = (_f(1) + rest * (_f(1) + rest * series)) * _i((whole + _i(127)) << _i(23)).view(np.float32)


@compiled
def thresholds(odds: np.ndarray, out: np.ndarray) -> None:
    """round(65536 sigmoid(l)), at most 65535, less 32768: a random 16-bit integer lies below with that chance."""
    for i in range(np.uint64(odds.size)):
        out[i] = min(_i(_f(65536) / (_f(1) + odds[i]) + _f(0.5)), _i(65535)) - _i(32768)


@compiled
def mask(seed: int, start: int, logits: np.ndarray, weights: np.ndarray, copies: tuple[np.ndarray, ...]) -> None:
    """Write masked copies of weights, the first of which lies at place `start` of its tensor."""
    shorts, threshold = np.empty(BLOCK, np.int16), np.empty(BLOCK, np.int16)
    odds = np.empty(BLOCK, np.float32)
    shift = 65536 // len(copies)
    for low in range(0, weights.size, BLOCK):
        size = np.uint64(min(BLOCK, weights.size - low))
        draw(seed, start + low, shorts)
        odds_against(logits[low : low + BLOCK], odds)
        thresholds(odds, threshold)
        weight = weights[low : low + BLOCK]
        for copy in range(len(copies)):
            out, shifted = copies[copy][low : low + BLOCK], np.int16(copy * shift)
            for i in range(size):
                out[i] = weight[i] if np.int16(shorts[i] + shifted) < threshold[i] else _f(0)


@compiled
def follow(
    seed: int,
    start: int,
    logits: np.ndarray,
    weights: np.ndarray,
    gradients: tuple[np.ndarray, ...],
    fit: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the gradient of the logits, given that of each masked copy that `mask` wrote; `fit`: see `factors`."""
    shorts, threshold = np.empty(BLOCK, np.int16), np.empty(BLOCK, np.int16)
    of_all, of_kept = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    odds = np.empty(BLOCK, np.float32)
    shift = 65536 // len(gradients)
    for low in range(0, weights.size, BLOCK):
        draw(seed, start + low, shorts)
        logit, weight, result = logits[low : low + BLOCK], weights[low : low + BLOCK], out[low : low + BLOCK]
        odds_against(logit, odds)
        thresholds(odds, threshold)
        of_all[:] = 0
        of_kept[:] = 0
        copy = 0
        while copy < len(gradients):
            if copy + 4 <= len(gradients):
                _add_four(gradients, copy, low, shorts, shift, threshold, of_all, of_kept)
                copy += 4
            else:
                gradient, shifted = gradients[copy][low : low + BLOCK], np.int16(copy * shift)
                for i in range(np.uint64(gradient.size)):
                    of_all[i] += gradient[i]
                    of_kept[i] += gradient[i] if np.int16(shorts[i] + shifted) < threshold[i] else _f(0)
                copy += 1
        factors(logit, odds, weight, of_all, of_kept, fit, result)


@compiled
def _add_four(
    gradients: tuple[np.ndarray, ...],
    copy: int,
    low: int,
    shorts: np.ndarray,
    shift: int,
    threshold: np.ndarray,
    of_all: np.ndarray,
    of_kept: np.ndarray,
) -> None:
    first, second = gradients[copy][low : low + BLOCK], gradients[copy + 1][low : low + BLOCK]
    third, fourth = gradients[copy + 2][low : low + BLOCK], gradients[copy + 3][low : low + BLOCK]
    a, b = np.int16(copy * shift), np.int16((copy + 1) * shift)
    c, d = np.int16((copy + 2) * shift), np.int16((copy + 3) * shift)
    for i in range(np.uint64(first.size)):
        bits, border = shorts[i], threshold[i]
        of_all[i] += first[i] + second[i] + third[i] + fourth[i]
        kept = first[i] if np.int16(bits + a) < border else _f(0)
        kept += second[i] if np.int16(bits + b) < border else _f(0)
        kept += third[i] if np.int16(bits + c) < border else _f(0)
        kept += fourth[i] if np.int16(bits + d) < border else _f(0)
        of_kept[i] += kept


@compiled
def factors(
    logits: np.ndarray,
    odds: np.ndarray,
    weights: np.ndarray,
    of_all: np.ndarray,
    of_kept: np.ndarray,
    fit: np.ndarray,
    out: np.ndarray,
) -> None:
    """The gradient of the logits: what all copies pull, and what those pull that keep the weight, times their factors.

    With z = e^-|l| the factor of the likelier outcome is z (P(z) + |l| Q(z)), that of the other R(z), and P, Q, R are
    the three rows of `fit`: polynomials of degree four.
    """
    p0, p1, p2, p3, p4 = fit[0, 0], fit[0, 1], fit[0, 2], fit[0, 3], fit[0, 4]
    q0, q1, q2, q3, q4 = fit[1, 0], fit[1, 1], fit[1, 2], fit[1, 3], fit[1, 4]
    r0, r1, r2, r3, r4 = fit[2, 0], fit[2, 1], fit[2, 2], fit[2, 3], fit[2, 4]
    for i in range(np.uint64(out.size)):
        size, against = abs(logits[i]), odds[i]
        z = min(against, _f(1) / against)
        likely = p0 + z * (p1 + z * (p2 + z * (p3 + z * p4)))
        likely = z * (likely + min(size, _f(20)) * (q0 + z * (q1 + z * (q2 + z * (q3 + z * q4)))))
        unlikely = r0 + z * (r1 + z * (r2 + z * (r3 + z * r4)))
        of_removed = of_all[i] - of_kept[i]
        is_likely_kept = against < _f(1)
        for_kept = likely if is_likely_kept else unlikely
        for_removed = unlikely if is_likely_kept else likely
        out[i] = weights[i] * (of_kept[i] * for_kept + of_removed * for_removed)


@compiled
def chance(odds: np.float32) -> tuple[np.float32, np.float32]:
    """The chance p that a weight is kept, given the odds against it, and p (1 - p)."""
    kept = _f(1) / (_f(1) + odds)
    return kept, kept * kept * odds


@compiled
def rounded(values: np.ndarray, out: np.ndarray) -> None:
    """Write numbers of 32 bits as the nearest bfloat16, the upper half of such a number; ties go to the even one."""
    bits = values.view(np.uint32)
    for i in range(np.uint64(out.size)):
        out[i] = np.uint16((bits[i] + np.uint32(0x7FFF) + ((bits[i] >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@compiled
def widened(halves: np.ndarray, out: np.ndarray) -> None:
    """Write bfloat16 numbers as those of 32 bits."""
    bits = out.view(np.uint32)
    for i in range(np.uint64(halves.size)):
        bits[i] = np.uint32(halves[i]) << np.uint32(16)


@compiled
def moments(
    logits: np.ndarray, weights: np.ndarray, means: np.ndarray, variances: np.ndarray, halves: np.ndarray
) -> None:
    """Write the mean w p of each masked weight, and its variance w^2 p (1 - p).

    The variances are written to `variances`, or as bfloat16 to `halves`: to the one that is not empty.
    """
    odds, variance = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for low in range(0, weights.size, BLOCK):
        weight, mean = weights[low : low + BLOCK], means[low : low + BLOCK]
        size = np.uint64(weight.size)
        odds_against(logits[low : low + BLOCK], odds)
        for i in range(size):
            kept, spread = chance(odds[i])
            mean[i] = weight[i] * kept
            variance[i] = weight[i] * weight[i] * spread
        if halves.size:
            rounded(variance, halves[low : low + BLOCK])
        else:
            variances[low : low + BLOCK] = variance[:size]


@compiled
def follow_moments(
    logits: np.ndarray, weights: np.ndarray, by_mean: np.ndarray, by_variance: np.ndarray, by_halves: np.ndarray
) -> None:
    """Turn the gradient of the means into that of the logits, given that of the variances, in one form or the other.

    It is w p (1 - p) [by mean + w (1 - 2 p) by variance].
    """
    odds, variance = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for low in range(0, weights.size, BLOCK):
        weight, mean = weights[low : low + BLOCK], by_mean[low : low + BLOCK]
        size = np.uint64(weight.size)
        odds_against(logits[low : low + BLOCK], odds)
        if by_halves.size:
            widened(by_halves[low : low + BLOCK], variance)
        else:
            variance[:size] = by_variance[low : low + BLOCK]
        for i in range(size):
            kept, spread = chance(odds[i])
            mean[i] = weight[i] * spread * (mean[i] + weight[i] * (_f(1) - _f(2) * kept) * variance[i])
