"""Indicators defined on the window.

Each value is a fixed expression tree over its own last bars, so it has the same bits whatever came before. A
running sum does not: it carries the rounding of all it has ever seen. Doubling makes the trees cheap:
aggregates of 2, 4, 8, ... bars are each one vectorised step from the last, and those that match the binary
digits of a period join up to it (the sparse table of range queries), about 2 log2(period) passes at most.

All work on the last axis, oldest first, on shapes [N] or [S, N]. Results have no warm-up: a window of w bars
turns N values into N - w + 1, the last of them for the last bar. The caller has at least w bars. NaN stays in
the windows that contain it.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import numpy as np

from bot.domain import FloatArray
from bot.strategies import sharing
from bot.strategies.sharing import Series

# (older, newer, length of older, length of newer) -> the aggregate of both, the windows being adjacent.
Join = Callable[[FloatArray, FloatArray, int, int], FloatArray]

# An exponential average forgets what is older than its window: at most this share of the weight.
FORGOTTEN = 1e-8


def fold(values: FloatArray, join: Join, *lengths: int) -> list[FloatArray]:
    """The aggregates of all windows of each length; the doubling is shared between them."""
    if sharing.pool and (part := sharing.part_of(values)):
        return [part.of(_grown(part.series, join, length)) for length in lengths]
    return _folded(values, join, *lengths)


def _grown(series: Series, join: Join, length: int) -> FloatArray:
    """The aggregates of a series that is shared, joined like those of ``_folded`` from what is known already."""
    return series.windows((join, length), _joined, series, join, length) if length > 1 else series.values


def _joined(series: Series, join: Join, length: int) -> FloatArray:
    older = 1 << (length - 1).bit_length() - 1
    newer = length - older
    first, last = _grown(series, join, older), _grown(series, join, newer)
    return join(first[..., :-newer], last[..., older:], older, newer)


def _folded(values: FloatArray, join: Join, *lengths: int) -> list[FloatArray]:
    digits = functools.reduce(operator.or_, lengths)
    doubled = {1: values}
    size = 1
    while 2 * size <= digits:
        values = join(values[..., :-size], values[..., size:], size, size)
        size *= 2
        if digits & size:
            doubled[size] = values
    return [_assemble(doubled, join, length) for length in lengths]


def _assemble(doubled: dict[int, FloatArray], join: Join, length: int) -> FloatArray:
    done = length & -length
    whole = doubled[done]
    while done < length:
        size = (length - done) & (done - length)
        whole = join(doubled[size][..., :-done], whole[..., size:], size, done)
        done += size
    return whole


def sums(values: FloatArray, *periods: int) -> list[FloatArray]:
    """The sums of the last ``period`` values, for each of the periods."""
    return fold(values, _add, *periods)


def sma(values: FloatArray, period: int) -> FloatArray:
    """Simple moving average, the sum of the last ``period`` values divided by it."""
    return sums(values, period)[0] / period


def ema(values: FloatArray, period: int) -> FloatArray:
    """Exponential moving average with a = 2 / (period + 1), over ``memory(a)`` values.

    Source: Hunter 1986, cut off where the rest no longer matters.
    """
    return decayed(values, 2 / (period + 1))


def decayed(values: FloatArray, weight: float) -> FloatArray:
    """sum(q**k * value[t - k]) / sum(q**k) for k below ``memory(weight)``, with q = 1 - weight."""
    decay = 1 - weight
    window = memory(weight)
    return fold(values, _decaying(decay), window)[0] * (weight / (1 - power(decay, window)))


@functools.cache
def _decaying(decay: float) -> Join:
    def join(older: FloatArray, newer: FloatArray, _: int, age: int) -> FloatArray:
        return newer + older * power(decay, age)

    return join


@functools.cache
def power(base: float, exponent: int) -> float:
    """A whole power by squaring: the C library's ``pow`` may differ in the last bit from one machine to the next."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


@functools.cache
def memory(weight: float) -> int:
    """How many values an exponential average looks at: a power of two, where doubling leaves no rest."""
    window = 1
    while power(1 - weight, window) > FORGOTTEN:
        window *= 2
    return window


def rsi(closes: FloatArray, period: int) -> FloatArray:
    """Relative strength index, 100 * gain / (gain + loss), of the averages with a = 1 / period (Wilder 1978).

    The window is ``memory(1 / period) + 1`` closes. NaN where no close in it differs from the next.
    """
    if sharing.pool and (part := sharing.part_of(closes)):
        return part.of(part.series.windows((rsi, period), _rsi, part.series.values, period))
    return _rsi(closes, period)


def _rsi(closes: FloatArray, period: int) -> FloatArray:
    change = closes[..., 1:] - closes[..., :-1]
    moves = np.empty((2, *change.shape))
    np.maximum(change, 0.0, out=moves[0])
    np.maximum(-change, 0.0, out=moves[1])
    gain, loss = decayed(moves, 1 / period)
    strength: FloatArray = 100.0 * gain / (gain + loss)
    return strength


def moments(values: FloatArray, period: int) -> tuple[FloatArray, FloatArray]:
    """Mean and population standard deviation of the last ``period`` values.

    Windows are joined as (mean, sum of squared deviations) pairs (Chan, Golub, LeVeque 1979). Only
    differences are squared, so equal values have a deviation of exactly zero, and large ones lose no digits.
    """
    if sharing.pool and (part := sharing.part_of(values)):
        mean, deviation = part.of(part.series.windows((moments, period), _both_moments, part.series.values, period))
        return mean, deviation
    return _moments(values, period)


def _both_moments(values: FloatArray, period: int) -> FloatArray:
    return np.stack(_moments(values, period))


def _moments(values: FloatArray, period: int) -> tuple[FloatArray, FloatArray]:
    pairs = np.zeros((2, *values.shape))
    pairs[0] = values
    mean, squares = fold(pairs, _join_moments, period)[0]
    return mean, np.sqrt(squares / period)


def highest(values: FloatArray, period: int) -> FloatArray:
    return fold(values, _maximum, period)[0]


def lowest(values: FloatArray, period: int) -> FloatArray:
    return fold(values, _minimum, period)[0]


def _add(older: FloatArray, newer: FloatArray, _: int, __: int) -> FloatArray:
    return older + newer


def _maximum(older: FloatArray, newer: FloatArray, _: int, __: int) -> FloatArray:
    return np.maximum(older, newer)


def _minimum(older: FloatArray, newer: FloatArray, _: int, __: int) -> FloatArray:
    return np.minimum(older, newer)


def _join_moments(older: FloatArray, newer: FloatArray, older_length: int, newer_length: int) -> FloatArray:
    length = older_length + newer_length
    gap = newer[0] - older[0]
    joined = older + newer
    np.add(older[0], gap * (newer_length / length), out=joined[0])
    joined[1] += gap * gap * (older_length * newer_length / length)
    return joined
