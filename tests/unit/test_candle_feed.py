"""Candles as a feed: the ticks of each by hand, whatever the parts they come in and the polls that are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.backtest import feed as feed_module
from bot.backtest.feed import CandleFeed
from bot.bars import Candles
from bot.domain import Bars, Block, Market
from bot.ports import PriceFeed, Window
from bot.timeframes import DAY_MS, HOUR_MS, MINUTE_MS, TIMEFRAMES, Timeframe
from tests.unit.test_candles import bars_of, grouped

START_MS = 1_735_689_600_000
MINUTE = TIMEFRAMES["1m"]
NAN = float("nan")
Row = tuple[int, float, float, float, float]
examples = settings(max_examples=60)


def bars(rows: Sequence[Row]) -> Bars:
    columns = [[row[place] for row in rows] for place in range(5)]
    return Bars.from_arrays(columns[0], *columns[1:])


def market(symbol: str) -> Market:
    return Market(symbol, Decimal("0.01"))


def feed_of(
    *candles: Sequence[Row], timeframe: Timeframe = MINUTE, at_close: bool = False, cuts: Sequence[int] = ()
) -> CandleFeed:
    symbols = [f"{letter}/USDT" for letter in "ABCD"[: len(candles)]]
    streams = {symbol: cut(rows, cuts) for symbol, rows in zip(symbols, candles, strict=True)}
    return CandleFeed(streams, timeframe, {symbol: market(symbol) for symbol in symbols}, at_close=at_close)


def cut(rows: Sequence[Row], cuts: Sequence[int]) -> Iterator[Bars]:
    """In parts, some of them empty."""
    edges = sorted([0, *(place % (len(rows) + 1) for place in cuts), len(rows)])
    return (bars(rows[start:end]) for start, end in pairwise(edges))


def lived(feed: CandleFeed, sizes: Sequence[int], start_ms: int = 0) -> list[Block]:
    """Poll after poll, each from the millisecond after the last one's end on."""

    async def poll() -> list[Block]:
        found: list[Block] = []
        beat = start_ms
        while (block := await feed.poll(beat, sizes[len(found) % len(sizes)])) is not None:
            assert 0 < len(block) <= sizes[len(found) % len(sizes)]
            assert not block.warmup
            found.append(block)
            beat = int(block.timestamp[-1]) + 1
        assert await feed.poll(beat, 1) is None
        return found

    return asyncio.run(poll())


def past(feed: CandleFeed, before_ms: int, window: Window) -> Block | None:
    return asyncio.run(feed.history(before_ms, window))


def ticks_by_hand(candles: Sequence[Sequence[Row]], timeframe: Timeframe, at_close: bool) -> dict[int, list[float]]:
    """Price by symbol at each time that has one."""
    ticks: dict[int, list[float]] = {}
    for number, rows in enumerate(candles):
        for time, first, high, low, last in rows:
            end = timeframe.back(time, -1)
            third = (end - time) // 3
            ladder = [(time + third, low), (time + 2 * third, high)]
            if last < first:
                ladder = [(time + third, high), (time + 2 * third, low)]
            told = [(time, first), *((when, price) for when, price in ladder if price not in (first, last))]
            if at_close or len(told) > 1 or last != first:
                told.append((end - 1, last))
            for when, price in told:
                ticks.setdefault(when, [NAN] * len(candles))[number] = price
    return dict(sorted(ticks.items()))


def as_dict(blocks: Sequence[Block]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for block in blocks:
        assert block.bid is block.last or np.array_equal(block.bid, block.last, equal_nan=True)
        assert block.ask is block.last or np.array_equal(block.ask, block.last, equal_nan=True)
        for time, prices in zip(block.timestamp.tolist(), block.last.T.tolist(), strict=True):
            assert time > max(found, default=-1)
            found[time] = prices
    return found


def same(one: dict[int, list[float]], other: dict[int, list[float]]) -> bool:
    return list(one) == list(other) and np.array_equal(list(one.values()), list(other.values()), equal_nan=True)


@st.composite
def histories(draw: st.DrawFn, timeframe: Timeframe = MINUTE) -> list[list[Row]]:
    """Of up to three symbols, each with gaps of its own, often flat."""
    price = st.integers(1, 9).map(lambda cents: cents / 100)
    found = []
    for _ in range(draw(st.integers(1, 3))):
        rows: list[Row] = []
        for number in sorted(draw(st.sets(st.integers(0, 30), max_size=14))):
            low, one, other, high = sorted(draw(st.one_of(st.tuples(price, price, price, price), price.map(flat))))
            first, last = draw(st.permutations((one, other)))
            rows.append((timeframe.back(timeframe.open_of(START_MS), -number), first, high, low, last))
        found.append(rows)
    return found


def flat(price: float) -> tuple[float, float, float, float]:
    return price, price, price, price


class TestTicks:
    def test_by_hand(self) -> None:
        rising, falling = (START_MS, 2.0, 4.0, 1.0, 3.0), (START_MS + 2 * MINUTE_MS, 3.0, 4.0, 1.0, 2.0)
        level = (START_MS + MINUTE_MS, 3.0, 3.0, 3.0, 3.0)
        (block,) = lived(feed_of([rising, level, falling]), [100])
        assert (block.timestamp - START_MS).tolist() == [
            0,
            20_000,
            40_000,
            59_999,
            60_000,
            *range(120_000, 180_000, 20_000),
            179_999,
        ]
        assert block.last.tolist() == [[2.0, 1.0, 4.0, 3.0, 3.0, 3.0, 4.0, 1.0, 2.0]]

    def test_a_close_where_it_is_asked_for(self) -> None:
        level = (START_MS, 3.0, 3.0, 3.0, 3.0)
        (block,) = lived(feed_of([level], at_close=True), [100])
        assert (block.timestamp - START_MS).tolist() == [0, 59_999]

    @examples
    @given(
        candles=histories(),
        at_close=st.booleans(),
        cuts=st.lists(st.integers(0, 20), max_size=4),
        sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
        start=st.integers(-1, 32 * 3),
    )
    def test_whatever_the_parts_and_polls(
        self, candles: list[list[Row]], at_close: bool, cuts: list[int], sizes: list[int], start: int
    ) -> None:
        start_ms = START_MS + start * 20_000 - 5
        expected = ticks_by_hand(candles, MINUTE, at_close)
        found = as_dict(lived(feed_of(*candles, at_close=at_close, cuts=cuts), sizes, start_ms))
        assert same(found, {time: prices for time, prices in expected.items() if time >= start_ms})

    @pytest.mark.parametrize("at_once", [1, 2, 7])
    def test_whatever_is_turned_into_ticks_at_once(self, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
        candles = random_walks(3, 60)
        expected = ticks_by_hand(candles, MINUTE, True)
        monkeypatch.setattr(feed_module, "CANDLES_AT_ONCE", at_once)
        assert same(as_dict(lived(feed_of(*candles, at_close=True, cuts=[3, 19, 20]), [5])), expected)

    @pytest.mark.parametrize("name", ["1m", "3m", "1h", "1d", "1w", "1M"])
    @pytest.mark.parametrize("at_close", [False, True])
    def test_they_make_the_very_bars(self, name: str, at_close: bool) -> None:
        timeframe = TIMEFRAMES[name]
        first = timeframe.open_of(START_MS)
        walk = random_walks(1, 50)[0]
        rows: list[Row] = [(timeframe.back(first, -place), *row[1:]) for place, row in enumerate(walk)]
        (block,) = lived(feed_of(rows, timeframe=timeframe, at_close=at_close), [1_000])
        made = Candles.empty(timeframe, 1, 50, at_close=at_close).after(block)[0]
        assert bars_of(made, 0) == rows
        assert np.isnan(made.open_prices).all() == at_close

    @examples
    @given(candles=histories(), at_close=st.booleans(), size=st.integers(1, 40))
    def test_and_those_of_longer_ones(self, candles: list[list[Row]], at_close: bool, size: int) -> None:
        blocks = lived(feed_of(*candles, at_close=at_close), [size])
        for name in ("1m", "5m", "1h"):
            made = Candles.empty(TIMEFRAMES[name], len(candles), 40, at_close=at_close)
            for block in blocks:
                made = made.after(block)[0]
            for number, rows in enumerate(candles):
                assert bars_of(made, number) == grouped([(*row, MINUTE_MS) for row in rows], name)


def random_walks(symbols: int, count: int) -> list[list[Row]]:
    """A candle a minute with one missing now and then."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(symbols):
        paths = np.round(100 + np.cumsum(rng.integers(-3, 4, (count, 4)).ravel()) / 100, 2).reshape(count, 4)
        kept = np.flatnonzero(rng.random(count) < 0.9)
        found.append(
            [
                (START_MS + number * MINUTE_MS, path[0], max(path), min(path), path[3])
                for number, path in zip(kept.tolist(), paths[kept].tolist(), strict=True)
            ]
        )
    return found


class TestStreams:
    def test_it_is_a_feed(self) -> None:
        feed = feed_of([], [])
        assert isinstance(feed, PriceFeed)
        assert feed.symbols == ("A/USDT", "B/USDT")
        assert feed.first_ms() is None
        assert lived(feed, [1]) == []
        assert past(feed, START_MS, Window(3)) is None
        asyncio.run(feed.close())

    def test_no_part_is_read_before_its_time(self) -> None:
        """Of two symbols, too, of which one begins much later."""
        read: list[tuple[str, int]] = []

        def parts(symbol: str, first: int) -> Iterator[Bars]:
            for number in range(first, 10):
                read.append((symbol, number))
                yield bars([(START_MS + number * HOUR_MS, *flat(1.0))])

        symbols = ("A/USDT", "B/USDT")
        streams = {"A/USDT": parts("A", 0), "B/USDT": parts("B", 6)}
        feed = CandleFeed(streams, TIMEFRAMES["1h"], {symbol: market(symbol) for symbol in symbols})
        assert feed.first_ms() == START_MS
        assert read == [("A", 0), ("B", 6)]
        for number in range(10):
            block = asyncio.run(feed.poll(START_MS, 100))
            assert block is not None
            assert block.timestamp.tolist() == [START_MS + number * HOUR_MS]
            assert max(at for _, at in read) == max(6, number)

    def test_symbols_share_a_time_or_not(self) -> None:
        one, other = (
            [(START_MS, 1.0, 1.0, 1.0, 1.0)],
            [(START_MS, 2.0, 2.0, 2.0, 2.5), (START_MS + MINUTE_MS, *flat(3.0))],
        )
        found = as_dict(lived(feed_of(one, other), [100]))
        expected = {0: [1.0, 2.0], 59_999: [NAN, 2.5], 60_000: [NAN, 3.0]}
        assert same({time - START_MS: prices for time, prices in found.items()}, expected)

    @pytest.mark.parametrize("bad", [NAN, 0.0, -1.0, float("inf")])
    def test_what_is_no_candle_is_left_out(self, bad: float) -> None:
        rows = [(START_MS, 1.0, bad, 1.0, 1.0), (START_MS + MINUTE_MS, *flat(1.0))]
        assert lived(feed_of(rows), [100])[0].timestamp.tolist() == [START_MS + MINUTE_MS]
        assert lived(feed_of(rows[:1]), [100]) == []

    @pytest.mark.parametrize(
        ("times", "told"),
        [
            ((0, 2, 1), "not in the order of time"),
            ((0, 1, 1), "not in the order of time"),
            ((0, 1, 2.5), "do not all begin where one of 1m does"),
        ],
    )
    @pytest.mark.parametrize("size", [1, 3])
    def test_candles_that_are_out_of_order(self, times: tuple[float, ...], told: str, size: int) -> None:
        opens = np.array([START_MS + int(time * MINUTE_MS) for time in times])
        price = np.ones(3)
        whole = Bars(opens, price, price, price, price, price)
        parts = [whole[start : start + size] for start in range(0, 3, size)]
        feed = CandleFeed({"A/USDT": parts}, MINUTE, {"A/USDT": market("A/USDT")})
        with pytest.raises(ValueError, match=f"^the candles of A/USDT .*{told}"):
            lived(feed, [1])


class TestHistory:
    @examples
    @given(
        candles=histories(),
        at_close=st.booleans(),
        cuts=st.lists(st.integers(0, 20), max_size=3),
        before=st.integers(0, 31 * 4),
        ticks=st.integers(0, 5),
        counts=st.dictionaries(st.sampled_from(["1m", "5m", "1h"]), st.integers(1, 6), max_size=2),
    )
    def test_it_fills_the_window_and_no_tick_is_lost(
        self,
        candles: list[list[Row]],
        at_close: bool,
        cuts: list[int],
        before: int,
        ticks: int,
        counts: dict[str, int],
    ) -> None:
        before_ms = START_MS + before * 15_000
        window = Window(ticks, tuple((TIMEFRAMES[name], count) for name, count in counts.items()))
        expected = ticks_by_hand(candles, MINUTE, at_close)
        older = {time: prices for time, prices in expected.items() if time < before_ms}
        feed = feed_of(*candles, at_close=at_close, cuts=cuts)
        assert feed.first_ms() == min(expected, default=None)
        block = past(feed, before_ms, window)
        assert same(as_dict(lived(feed, [7], before_ms)), {t: p for t, p in expected.items() if t >= before_ms})
        if block is None:
            assert not (older and window)
            return
        assert block.warmup == len(block) == len([time for time in block.timestamp.tolist() if time in older])
        last = np.array(list(older.values())).T
        everything = Block(block.symbols, np.array(list(older)), last, last, last, len(older))
        for timeframe, count in window.bars:
            empty = Candles.empty(timeframe, len(candles), count, at_close=at_close)
            mine, whole = empty.after(block)[0], empty.after(everything)[0]
            assert [bars_of(mine, row) for row in range(len(candles))] == [
                bars_of(whole, row) for row in range(len(candles))
            ]
        for mine_row, whole_row in zip(block.last, everything.last, strict=True):
            newest = whole_row[~np.isnan(whole_row)][-ticks:] if ticks else np.zeros(0)
            assert mine_row[~np.isnan(mine_row)][-len(newest) or len(mine_row) :].tolist() == newest.tolist()

    def test_four_ticks_a_bar_are_enough(self) -> None:
        """A strategy on days does not keep a million minutes."""
        (rows,) = random_walks(1, 3 * DAY_MS // MINUTE_MS)
        feed = feed_of(rows, cuts=range(0, len(rows), 100))
        block = past(feed, START_MS + 3 * DAY_MS, Window(0, ((TIMEFRAMES["1h"], 5), (TIMEFRAMES["1d"], 2))))
        assert block is not None
        assert 3 * 4 < len(block) <= 4 * (6 + 3)

    def test_nothing_is_asked_for(self) -> None:
        (rows,) = random_walks(1, 10)
        feed = feed_of(rows)
        assert past(feed, START_MS + HOUR_MS, Window()) is None
        assert feed.first_ms() == rows[0][0]
