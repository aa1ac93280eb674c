"""Equity and what is folded from it: by hand, against plain loops, and the same for blocks of any size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.backtest.curve import Curve, CurveFold, Drawdown
from bot.backtest.equity import Closes, equities, equity_of
from bot.backtest.outline import POINTS_MAX
from bot.backtest.trades import Trades
from bot.domain import FloatArray, IntArray
from bot.timeframes import DAY_MS, HOUR_MS
from tests.books import Fill, booked, towards

BTC = ("BTC/USDT",)
PAIR = ("BTC/USDT", "ETH/USDT")
RATE = Decimal("0.001")


def closes(*rows: tuple[int, float]) -> Closes:
    return Closes(np.array([time for time, _ in rows], np.int64), np.array([close for _, close in rows]))


def fill(time: int, symbol: int, change: str, price: str) -> Fill:
    return Fill(time, symbol, Decimal(change), Decimal(price))


def curve_of(capital: float, *values: float, step_ms: int = HOUR_MS) -> Curve:
    """Of equities one step apart, the first of them one step after the start at 0."""
    times = step_ms * np.arange(1, len(values) + 1) - 1
    return Curve.folded(capital, 0, [(times, np.array(values, np.float64))])


def same(one: Curve, other: Curve) -> bool:
    """Bit for bit."""
    pairs = ((getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(Curve))
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


class TestEquity:
    def test_cash_and_position_at_each_close(self) -> None:
        trades = booked(BTC, [fill(11, 0, "2", "100"), fill(30, 0, "-3", "120")], RATE)
        bars = closes((10, 99.0), (20, 105.0), (30, 110.0), (40, 90.0))
        # Bought for 200 and 0.2; sold for 360 and 0.36, at 30 already, and one short from then on.
        expected = [1_000, 1_000 - 200.2 + 210, 1_159.44 - 110, 1_159.44 - 90]
        np.testing.assert_allclose(equity_of(1_000.0, trades, [bars]), expected, rtol=1e-15)

    def test_without_fills_it_is_the_capital(self) -> None:
        assert equity_of(7.5, booked(BTC, []), [closes((1, 5.0), (2, 6.0))]).tolist() == [7.5, 7.5]
        assert equity_of(7.5, booked(BTC, []), [closes()]).tolist() == []

    def test_closes_are_carried_forward_between_symbols(self) -> None:
        trades = booked(PAIR, [fill(1, 0, "1", "10"), fill(1, 1, "1", "100")])
        bars = [closes((5, 11.0), (15, 12.0)), closes((10, 101.0), (15, 90.0), (20, 95.0))]
        # At 5 nothing is known of the second symbol but what it was bought at.
        expected = [101, 102, 92, 97]
        assert equity_of(100.0, trades, bars).tolist() == expected
        assert [time for times, _ in equities(100.0, trades, bars) for time in times.tolist()] == [5, 10, 15, 20]

    def test_a_symbol_without_bars_that_was_never_traded(self) -> None:
        trades = booked(PAIR, [fill(1, 0, "1", "10")])
        assert equity_of(100.0, trades, [closes((5, 11.0)), closes()]).tolist() == [101.0]

    def test_what_is_bought_and_sold_by_tenths_leaves_nothing(self) -> None:
        """0.1 + 0.2 - 0.3 is not 0 in binary, and at this price it would be seen."""
        rows = [fill(1, 0, "0.1", "1"), fill(2, 0, "0.2", "1"), fill(3, 0, "-0.3", "1")]
        assert equity_of(5.0, booked(BTC, rows), [closes((4, 1e18))]) == pytest.approx(5.0)

    def test_what_is_too_small_to_be_sold_is_worth_something(self) -> None:
        rows = [fill(1, 0, "1.000000004", "1"), fill(2, 0, "-1", "1")]
        assert equity_of(5.0, booked(BTC, rows), [closes((4, 1e9))]) == pytest.approx(9.0)

    @pytest.mark.parametrize(
        ("trades", "bars", "message"),
        [
            (booked(PAIR, []), [closes()], "2 symbols need as many series of closes, got 1"),
            (booked(BTC, [fill(2, 0, "1", "1"), fill(1, 0, "1", "1")]), [closes((3, 1.0))], "order of time"),
        ],
    )
    def test_what_does_not_belong_together(self, trades: Trades, bars: list[Closes], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            equity_of(1.0, trades, bars)


def slow_equity(capital: float, trades: Trades, bars: Sequence[Closes]) -> list[tuple[int, float]]:
    found = []
    for time in sorted({time for one in bars for time in one.times.tolist()}):
        values = [capital]
        last: dict[int, float] = {}
        for trade in trades:
            last.setdefault(trades.symbols.index(trade.symbol), trade.price)
        for symbol, one in enumerate(bars):
            for at, close in zip(one.times.tolist(), one.closes.tolist(), strict=True):
                if at <= time:
                    last[symbol] = close
        for trade in trades:
            if trade.timestamp <= time:
                sign = 1 if trade.side == "buy" else -1
                values += [-sign * trade.price * trade.quantity, -trade.fee]
                values.append(sign * trade.quantity * last[trades.symbols.index(trade.symbol)])
        found.append((time, math.fsum(values)))
    return found


axes = st.lists(st.integers(1, 60), min_size=1, max_size=25, unique=True).map(sorted)
orders = st.lists(
    st.tuples(st.integers(0, 62), st.integers(0, 2), st.integers(-2, 2), st.integers(1, 99)), max_size=25
).map(sorted)


@settings(max_examples=150)
@given(st.lists(axes, min_size=1, max_size=3), orders, st.booleans(), st.integers(1, 30))
def test_equity_is_that_of_a_plain_loop(
    opens: list[list[int]], wanted: list[tuple[int, int, int, int]], aligned: bool, block: int
) -> None:
    bars = []
    for symbol, places in enumerate(opens):
        times = np.array(opens[0] if aligned else places) * 5 * HOUR_MS
        bars.append(Closes(times, 10.0 + (times // HOUR_MS * (symbol + 7)) % 23 / 4))
    rows = [
        (place * 5 * HOUR_MS, symbol % len(bars), level * Decimal("0.1"), Decimal(price))
        for place, symbol, level, price in wanted
    ]
    trades = booked(("A/USDT", "B/USDT", "C/USDT")[: len(bars)], towards(rows), RATE)
    blocks = list(equities(1_000.0, trades, bars, block))
    expected = slow_equity(1_000.0, trades, bars)
    assert [time for times, _ in blocks for time in times.tolist()] == [time for time, _ in expected]
    np.testing.assert_allclose(np.concatenate([equity for _, equity in blocks]), [equity for _, equity in expected])
    whole = Curve.folded(1_000.0, 0, equities(1_000.0, trades, bars))
    assert same(Curve.folded(1_000.0, 0, blocks), whole)


class TestCurve:
    def test_a_day_ends_with_its_last_value(self) -> None:
        times = np.array([HOUR_MS, DAY_MS - 1, DAY_MS, 3 * DAY_MS + 5], np.int64)
        curve = Curve.folded(100.0, 0, [(times, np.array([101.0, 102.0, 51.0, 204.0]))])
        # The third day has no bar: it ends as the second did.
        assert curve.day_ms.tolist() == [0, DAY_MS, 2 * DAY_MS, 3 * DAY_MS]
        assert curve.daily.tolist() == [102.0, 51.0, 51.0, 204.0]
        assert curve.daily_returns.tolist() == pytest.approx([0.02, -0.5, 0.0, 3.0])
        assert (curve.first, curve.last, curve.bars) == (101.0, 204.0, 4)

    def test_days_before_the_first_close_have_the_capital(self) -> None:
        """A week's close is known on its seventh day."""
        curve = curve_of(100.0, 110.0, step_ms=7 * DAY_MS)
        assert curve.daily.tolist() == [100.0] * 6 + [110.0]
        assert curve.days == 7.0

    def test_a_return_on_nothing_is_none(self) -> None:
        curve = curve_of(100.0, 50.0, 0.0, 10.0, -5.0, 5.0, step_ms=DAY_MS)
        np.testing.assert_array_equal(curve.daily_returns, [-0.5, -1.0, np.nan, -1.5, np.nan])

    def test_drawdown(self) -> None:
        curve = curve_of(100.0, 110.0, 120.0, 120.0, 90.0, 96.0, 120.0, 125.0, 124.0)
        hours = [HOUR_MS * hour - 1 for hour in range(9)]
        # From the last moment at 120 to 90, reached again, but not exceeded, three hours later.
        assert curve.drawdown == Drawdown(30.0, 0.25, hours[3], hours[4], hours[6])
        assert curve.drawdown_absolute == curve.drawdown
        assert curve.longest_under_water_ms == 3 * HOUR_MS

    def test_the_largest_by_ratio_need_not_be_the_largest_amount(self) -> None:
        curve = curve_of(100.0, 60.0, 1_000.0, 900.0)
        # The first fall is from the capital, before the first bar.
        assert curve.drawdown == Drawdown(40.0, 0.4, 0, HOUR_MS - 1, 2 * HOUR_MS - 1)
        assert curve.drawdown_absolute == Drawdown(100.0, 0.1, 2 * HOUR_MS - 1, 3 * HOUR_MS - 1, None)

    def test_of_equal_ones_the_first(self) -> None:
        curve = curve_of(100.0, 50.0, 100.0, 50.0, 100.0)
        assert curve.drawdown is not None
        assert curve.drawdown.peak_ms == 0

    def test_one_that_goes_on_lasts_to_the_end(self) -> None:
        curve = curve_of(100.0, 90.0, 80.0, 85.0)
        assert curve.drawdown == Drawdown(20.0, 0.2, 0, 2 * HOUR_MS - 1, None)
        assert curve.longest_under_water_ms == 3 * HOUR_MS - 1

    def test_ruin(self) -> None:
        curve = curve_of(100.0, 20.0, -30.0, 10.0)
        assert curve.drawdown == Drawdown(130.0, 1.3, 0, 2 * HOUR_MS - 1, None)

    def test_an_account_that_never_falls_or_never_moves(self) -> None:
        for values in ([101.0, 102.0, 102.0, 103.0], [100.0] * 5):
            curve = curve_of(100.0, *values)
            assert (curve.drawdown, curve.drawdown_absolute, curve.longest_under_water_ms) == (None, None, 0)

    def test_without_bars(self) -> None:
        curve = Curve.folded(100.0, 5, [(np.zeros(0, np.int64), np.zeros(0))])
        assert (curve.bars, curve.days, curve.last, curve.drawdown) == (0, 0.0, 100.0, None)
        assert (curve.start_ms, curve.end_ms, curve.daily.tolist()) == (5, 5, [100.0])
        assert (curve.times.tolist(), curve.values.tolist()) == ([5], [100.0])

    def test_a_missing_price_is_told(self) -> None:
        with pytest.raises(ValueError, match=r"not a number at 1970-01-01T01:59:59\.999Z: a price is missing"):
            curve_of(100.0, 90.0, math.nan, 120.0)

    def test_a_result_is_no_end(self) -> None:
        fold = CurveFold(100.0, 0)
        fold.add(np.array([1]), np.array([90.0]))
        first = fold.result()
        fold.add(np.array([2]), np.array([110.0]))
        second = fold.result()
        assert first.drawdown == Drawdown(10.0, 0.1, 0, 1, None)
        assert second.drawdown == Drawdown(10.0, 0.1, 0, 1, 2)

    @pytest.mark.parametrize("capital", [0.0, -1.0, math.nan])
    def test_no_curve_without_capital(self, capital: float) -> None:
        with pytest.raises(ValueError, match="capital must be positive"):
            CurveFold(capital, 0)


def slow_curve(capital: float, start_ms: int, points: list[tuple[int, float]]) -> tuple[object, ...]:
    """Drawdowns, the longest time under water and the daily values."""
    peak, peak_ms, low, low_ms, longest = capital, start_ms, capital, start_ms, 0
    falls = []
    days = {start_ms // DAY_MS: capital}
    for time, value in points:
        days[time // DAY_MS] = value
        if value >= peak:
            if low < peak:
                falls.append(Drawdown(peak - low, (peak - low) / peak, peak_ms, low_ms, time))
                longest = max(longest, time - peak_ms)
            peak, peak_ms, low = value, time, value
        elif value < low:
            low, low_ms = value, time
    if low < peak:
        falls.append(Drawdown(peak - low, (peak - low) / peak, peak_ms, low_ms, None))
        longest = max(longest, points[-1][0] - peak_ms)
    daily: list[float] = []
    for day in range(min(days), max(days) + 1):
        daily.append(days.get(day, daily[-1] if daily else capital))
    by_ratio = max(falls, key=lambda fall: fall.ratio, default=None)
    by_amount = max(falls, key=lambda fall: fall.absolute, default=None)
    return by_ratio, by_amount, longest, daily


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(-2, 12)), min_size=1, max_size=60),
    st.lists(st.integers(1, 20), min_size=1, max_size=5),
)
def test_the_fold_is_a_plain_loop_for_blocks_of_any_size(steps: list[tuple[int, int]], sizes: list[int]) -> None:
    times = np.cumsum([7 * HOUR_MS * step for step, _ in steps])
    equity = np.array([10.0 * value for _, value in steps])
    fold = CurveFold(50.0, 3)
    first = 0
    while first < len(times):
        part = slice(first, first + sizes[first % len(sizes)])
        fold.add(times[part], equity[part])
        first = part.stop
    curve = fold.result()
    found = (curve.drawdown, curve.drawdown_absolute, curve.longest_under_water_ms, curve.daily.tolist())
    assert found == slow_curve(50.0, 3, list(zip(times.tolist(), equity.tolist(), strict=True)))
    assert same(curve, Curve.folded(50.0, 3, [(times, equity)]))
    # Few enough to be drawn as they are.
    assert curve.values.tolist() == [50.0, *equity.tolist()]


def hills(count: int) -> tuple[IntArray, FloatArray]:
    """A long curve without chance, with ties."""
    place = np.arange(count)
    return 60_000 * (place + 1), 1_000.0 + np.cumsum((place * place * 31 + place * 7_919) % 401 - 199)


def slow_points(times: IntArray, values: FloatArray) -> list[tuple[int, float]]:
    width = 1
    while math.ceil(len(values) / width) > POINTS_MAX // 3:
        width *= 2
    kept = set()
    for first in range(0, len(values), width):
        bucket = values[first : first + width].tolist()
        kept |= {first + bucket.index(min(bucket)), first + bucket.index(max(bucket)), first + len(bucket) - 1}
    return [(int(times[place]), float(values[place])) for place in sorted(kept)]


@pytest.mark.parametrize("count", [1, 1_333, 1_334, 5_332, 12_345])
@pytest.mark.parametrize("block", [1, 7, 1_000, 4_096, 100_000])
def test_points_for_a_plot_are_those_of_a_plain_loop(count: int, block: int) -> None:
    times, values = hills(count)
    blocks = [(times[k : k + block], values[k : k + block]) for k in range(0, count, block)]
    curve = Curve.folded(1_000.0, 0, blocks)
    assert list(zip(curve.times.tolist(), curve.values.tolist(), strict=True)) == [
        (0, 1_000.0),
        *slow_points(times, values),
    ]
    assert len(curve.times) <= POINTS_MAX
    assert same(curve, Curve.folded(1_000.0, 0, [(times, values)]))
