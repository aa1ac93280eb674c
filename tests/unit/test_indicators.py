"""Each indicator against TA-Lib on the same prices, or the plain formula where TA-Lib is less exact."""

from __future__ import annotations

import numpy as np
import pytest
import talib

from bot.domain import FloatArray
from bot.strategies import indicators
from bot.strategies.indicators import FORGOTTEN, memory


def walk(length: int = 4_000, seed: int = 7) -> FloatArray:
    steps = np.random.default_rng(seed).normal(scale=0.01, size=length)
    return np.asarray(100.0 * np.exp(np.cumsum(steps)))


def windows(values: FloatArray, length: int) -> FloatArray:
    return np.lib.stride_tricks.sliding_window_view(values, length, axis=-1)


@pytest.mark.parametrize("length", [*range(1, 18), 31, 32, 33, 63, 100])
def test_sums_cover_exactly_their_window(length: int) -> None:
    whole_numbers = np.arange(120.0) ** 2
    (total,) = indicators.sums(whole_numbers, length)
    np.testing.assert_array_equal(total, windows(whole_numbers, length).sum(axis=-1))


@pytest.mark.parametrize("length", range(1, 16))
def test_fold_joins_older_to_newer(length: int) -> None:
    digits = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4], dtype=np.float64)

    def appended(older: FloatArray, newer: FloatArray, _: int, newer_length: int) -> FloatArray:
        return older * 10.0**newer_length + newer

    (numbers,) = indicators.fold(digits, appended, length)
    expected = [float("".join(str(int(digit)) for digit in window)) for window in windows(digits, length)]
    np.testing.assert_array_equal(numbers, expected)


def test_fold_tells_its_join_the_true_lengths() -> None:
    ones = np.ones(50)

    def counted(older: FloatArray, newer: FloatArray, older_length: int, newer_length: int) -> FloatArray:
        assert (older == older_length).all()
        assert (newer == newer_length).all()
        return older + newer

    for length, counts in zip((23, 7, 1), indicators.fold(ones, counted, 23, 7, 1), strict=True):
        np.testing.assert_array_equal(counts, np.full(51 - length, float(length)))


@pytest.mark.parametrize("period", [2, 3, 10, 30, 199])
def test_sma_is_talibs_up_to_rounding(period: int) -> None:
    closes = walk()
    np.testing.assert_allclose(indicators.sma(closes, period), talib.SMA(closes, period)[period - 1 :], rtol=1e-12)


@pytest.mark.parametrize("period", [2, 9, 12, 26, 50])
def test_ema_is_talibs_up_to_what_is_forgotten(period: int) -> None:
    closes = walk()
    window = memory(2 / (period + 1))
    # By then TA-Lib, which never forgets, has less than FORGOTTEN left of how it started.
    settled = slice(2 * window, None)
    ours = indicators.ema(closes, period)[window + 1 :]
    np.testing.assert_allclose(ours, talib.EMA(closes, period)[settled], atol=2 * FORGOTTEN * np.ptp(closes))


@pytest.mark.parametrize("period", [2, 14, 30])
def test_rsi_is_talibs_up_to_what_is_forgotten(period: int) -> None:
    closes = walk()
    window = memory(1 / period)
    ours = indicators.rsi(closes, period)[window:]
    # A move may be some ten times the average move, and RSI is a percentage.
    np.testing.assert_allclose(ours, talib.RSI(closes, period)[2 * window :], atol=1_000 * FORGOTTEN)


def test_rsi_of_a_flat_market_is_nan() -> None:
    with np.errstate(invalid="ignore"):
        assert np.isnan(indicators.rsi(np.full(300, 0.1), 14)).all()


@pytest.mark.parametrize("period", [2, 5, 20, 77])
def test_moments_are_those_of_the_bollinger_bands(period: int) -> None:
    closes = walk()
    mean, deviation = indicators.moments(closes, period)
    upper, middle, lower = (band[period - 1 :] for band in talib.BBANDS(closes, period, 1.0, 1.0))
    np.testing.assert_allclose(mean, middle, rtol=1e-12)
    # TA-Lib subtracts a square from a sum of squares, which costs it about half of the digits.
    np.testing.assert_allclose(mean + deviation, upper, rtol=1e-7)
    np.testing.assert_allclose(mean - deviation, lower, rtol=1e-7)


@pytest.mark.parametrize("offset", [0.0, 1e9, -1e6])
def test_deviation_keeps_its_digits_far_from_zero(offset: float) -> None:
    values = offset + np.round(walk() * 64) / 64
    _, deviation = indicators.moments(values, 20)
    np.testing.assert_allclose(deviation, windows(values, 20).std(axis=-1), rtol=1e-6)


@pytest.mark.parametrize("price", [0.1, 1e-8, 1e9, 12345.678])
@pytest.mark.parametrize("period", [2, 7, 20, 31])
def test_deviation_of_equal_prices_is_exactly_zero(price: float, period: int) -> None:
    mean, deviation = indicators.moments(np.full(100, price), period)
    assert (deviation == 0.0).all()
    assert (mean == price).all()


@pytest.mark.parametrize("period", [2, 3, 20, 55])
def test_extremes_are_exactly_talibs(period: int) -> None:
    closes = walk()
    np.testing.assert_array_equal(indicators.highest(closes, period), talib.MAX(closes, period)[period - 1 :])
    np.testing.assert_array_equal(indicators.lowest(closes, period), talib.MIN(closes, period)[period - 1 :])


@pytest.mark.parametrize("weight", [2 / 3, 2 / 13, 2 / 27, 1 / 14, 2 / 10_001])
def test_memory_is_the_shortest_power_of_two_that_forgets_enough(weight: float) -> None:
    window = memory(weight)
    assert window.bit_count() == 1
    assert (1 - weight) ** window <= FORGOTTEN < (1 - weight) ** (window // 2)


def test_all_work_row_by_row_on_the_last_axis() -> None:
    closes = np.stack([walk(seed=seed, length=400) for seed in range(3)])
    pairs = [
        (indicators.sma(closes, 10), [indicators.sma(row, 10) for row in closes]),
        (indicators.ema(closes, 10), [indicators.ema(row, 10) for row in closes]),
        (indicators.rsi(closes, 10), [indicators.rsi(row, 10) for row in closes]),
        (indicators.moments(closes, 10)[1], [indicators.moments(row, 10)[1] for row in closes]),
        (indicators.highest(closes, 10), [indicators.highest(row, 10) for row in closes]),
    ]
    for together, one_by_one in pairs:
        np.testing.assert_array_equal(together, np.stack(one_by_one))
