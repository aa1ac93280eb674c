"""Candles of an exchange: which to ask for, and that the tape gives back the very candles."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.bars import Candles, Lookback
from bot.domain import Block
from bot.feeds.candles import Candle, Segment, block_of_candles, ladder
from bot.timeframes import DAY_MS, HOUR_MS, MINUTE_MS, TIMEFRAMES

EVERY = tuple(TIMEFRAMES)
NOON = 1_735_732_800_000  # 2025-01-01T12:00:00Z
FIXED = [name for name in TIMEFRAMES if name not in ("1w", "1M")]


def needs(**counts: int) -> list[Lookback]:
    return [(TIMEFRAMES[name.removeprefix("t")], count) for name, count in counts.items()]


class TestLadder:
    def test_one_timeframe_up_to_a_whole_bar(self) -> None:
        assert ladder(0, NOON, needs(t1h=5), EVERY) == [("1h", NOON - 5 * HOUR_MS, NOON)]

    def test_the_open_bar_comes_in_minutes(self) -> None:
        before = NOON + 7 * MINUTE_MS + 12_345
        assert ladder(0, before, needs(t1h=5), EVERY) == [
            ("1h", NOON - 5 * HOUR_MS, NOON),
            ("1m", NOON, NOON + 7 * MINUTE_MS),
        ]

    def test_minutes_under_hours(self) -> None:
        before = NOON + 7 * MINUTE_MS
        assert ladder(0, before, needs(t1m=30, t1h=5), EVERY) == [
            ("1h", NOON - 5 * HOUR_MS, NOON - HOUR_MS),
            ("1m", NOON - HOUR_MS, before),
        ]

    def test_after_the_end_of_a_tape(self) -> None:
        after = NOON - 90 * MINUTE_MS - 20_000
        assert ladder(after, NOON + 30_000, needs(t1h=50), EVERY) == [
            ("1m", NOON - 90 * MINUTE_MS, NOON - HOUR_MS),
            ("1h", NOON - HOUR_MS, NOON),
        ]
        assert ladder(NOON - 1, NOON + 59_999, needs(t1h=50), EVERY) == []

    def test_months_and_weeks_come_in_days(self) -> None:
        found = ladder(0, NOON, needs(t1M=2, t1w=3), EVERY)
        assert found == [
            ("1d", TIMEFRAMES["1M"].back(NOON - NOON % DAY_MS, 2), NOON - NOON % DAY_MS),
            ("1h", NOON - NOON % DAY_MS, NOON),
        ]

    def test_what_the_exchange_does_not_have(self) -> None:
        assert ladder(0, NOON, needs(t2h=2), ("1h",)) == [("1h", NOON - 4 * HOUR_MS, NOON)]
        assert ladder(0, NOON, needs(t1m=2), ("1h", "5m")) == []
        assert ladder(0, NOON, needs(t1h=2), ()) == []
        assert ladder(0, NOON, [], EVERY) == []

    @given(
        after=st.one_of(st.just(0), st.integers(NOON - 40 * DAY_MS, NOON + DAY_MS)),
        before=st.integers(NOON, NOON + DAY_MS),
        wanted=st.dictionaries(st.sampled_from(EVERY), st.integers(1, 10), min_size=1, max_size=4),
        available=st.sets(st.sampled_from(FIXED)),
    )
    def test_any(self, after: int, before: int, wanted: dict[str, int], available: set[str]) -> None:
        asked = [(TIMEFRAMES[name], count) for name, count in wanted.items()]
        found = ladder(after, before, asked, available | {"1m"})
        opens = {name: TIMEFRAMES[name].back(TIMEFRAMES[name].open_of(before), count) for name, count in wanted.items()}
        start = max(-(-(after + 1) // MINUTE_MS) * MINUTE_MS, min(opens.values()))
        last = before // MINUTE_MS * MINUTE_MS
        # From where it is wanted to the last whole minute, without a hole and nothing twice.
        edges = [start, *(segment.end_ms for segment in found)] if found else [max(start, last)]
        assert [segment.start_ms for segment in found] == edges[:-1]
        assert edges[-1] == max(start, last) if found else start >= last
        for segment in found:
            timeframe = TIMEFRAMES[segment.timeframe]
            assert segment.timeframe in available | {"1m"}
            assert segment.start_ms < segment.end_ms <= before
            assert segment.start_ms % timeframe.ms == segment.end_ms % timeframe.ms == 0
            for name, open_ms in opens.items():
                if open_ms < segment.end_ms:
                    times = np.arange(max(segment.start_ms, open_ms), segment.end_ms, timeframe.ms)
                    ends = TIMEFRAMES[name].floor(times + timeframe.ms - 1)
                    assert (TIMEFRAMES[name].floor(times) == ends).all(), "a candle lies in one bar of each strategy"
        for one, other in pairwise(found):
            assert one.timeframe != other.timeframe


@st.composite
def candle_rows(draw: st.DrawFn) -> list[Candle]:
    price = st.integers(1, 12).map(lambda cents: cents / 100)
    count = draw(st.integers(1, 12))
    rows: list[Candle] = []
    for number in range(count):
        if not draw(st.booleans()):
            continue
        four = sorted(draw(st.tuples(price, price, price, price)))
        start, end = draw(st.permutations(four[1:3]))
        rows.append((NOON + number * MINUTE_MS, start, four[3], four[0], end, MINUTE_MS))
    return rows


class TestBlock:
    def test_by_hand(self) -> None:
        block = block_of_candles(("A/USDT", "B/USDT"), {"A/USDT": [(NOON, 2.0, 4.0, 1.0, 3.0, 60_000)]})
        assert block is not None
        assert block.timestamp.tolist() == [NOON, NOON + 20_000, NOON + 40_000, NOON + 59_999]
        assert block.last[0].tolist() == [2.0, 1.0, 4.0, 3.0]
        assert np.isnan(block.last[1]).all()
        assert (block.warmup, block.polls) == (4, 0)
        assert np.array_equal(block.bid, block.last, equal_nan=True)
        assert np.array_equal(block.ask, block.last, equal_nan=True)

    def test_what_says_nothing_is_left_out(self) -> None:
        flat = block_of_candles(("A/USDT",), {"A/USDT": [(NOON, 2.0, 2.0, 2.0, 2.0, 60_000)]})
        assert flat is not None
        assert flat.last.tolist() == [[2.0]]
        falling = block_of_candles(("A/USDT",), {"A/USDT": [(NOON, 3.0, 3.0, 1.0, 1.0, 60_000)]})
        assert falling is not None
        assert falling.last.tolist() == [[3.0, 1.0]]

    @pytest.mark.parametrize("bad", [float("nan"), 0.0, -1.0, float("inf")])
    def test_what_is_no_candle(self, bad: float) -> None:
        for place in range(4):
            prices = [1.0, 1.0, 1.0, 1.0]
            prices[place] = bad
            one, two, three, four = prices
            assert block_of_candles(("A/USDT",), {"A/USDT": [(NOON, one, two, three, four, 60_000)]}) is None
        assert block_of_candles(("A/USDT",), {}) is None

    @given(rows=st.lists(candle_rows(), min_size=1, max_size=3))
    def test_ticks_make_the_very_candles(self, rows: list[list[Candle]]) -> None:
        symbols = tuple(f"{letter}/USDT" for letter in "ABC"[: len(rows)])
        block = block_of_candles(symbols, dict(zip(symbols, rows, strict=True)))
        if block is None:
            assert not any(rows)
            return
        assert (np.diff(block.timestamp) > 0).all()
        for name in ("1m", "5m", "1h"):
            made = Candles.empty(TIMEFRAMES[name], len(symbols), 20).after(block)[0]
            for number, candles in enumerate(rows):
                assert bars_of(made, number) == grouped(candles, name)

    def test_segments_are_plain_tuples(self) -> None:
        assert Segment("1m", 1, 2) == ("1m", 1, 2)


def bars_of(made: Candles, row: int) -> list[tuple[float, ...]]:
    known = ~np.isnan(made.prices[0, row])
    bars = [(int(t), *p) for t, p in zip(made.times[row, known], made.prices[:, row, known].T.tolist(), strict=True)]
    if not np.isnan(made.open_prices[0, row]):
        bars.append((int(made.open_times[row]), *made.open_prices[:, row].tolist()))
    return bars


def grouped(candles: list[Candle], name: str) -> list[tuple[float, ...]]:
    bars: dict[int, list[float]] = {}
    for time, start, high, low, end, _ in candles:
        bar = bars.setdefault(TIMEFRAMES[name].open_of(time), [start, high, low, end])
        bar[1:] = max(bar[1], high), min(bar[2], low), end
    return [(time, *bar) for time, bar in bars.items()]


def test_a_block_of_candles_is_history() -> None:
    block = block_of_candles(("A/USDT",), {"A/USDT": [(NOON, 2.0, 4.0, 1.0, 3.0, 60_000)]})
    assert isinstance(block, Block)
