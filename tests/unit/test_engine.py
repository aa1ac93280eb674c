"""Decisions: the same whatever the size of the blocks, and the same as a person with a pencil would make."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, localcontext
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.bars import Candles, needed
from bot.domain import MONEY, Account, Bars, Block, FloatArray, Market, OrderSide, Position, Signal
from bot.engine import (
    ABOVE_MAX_AMOUNT,
    ABOVE_MAX_COST,
    BELOW_MIN_AMOUNT,
    BELOW_MIN_COST,
    INVALID_TARGET,
    NO_CHANGE,
    NO_EQUITY,
    Decision,
    Engine,
    LoopState,
    OrderRequest,
    Plan,
    Sizing,
    SizingKind,
)
from bot.fills import Terms, settle, touch_price
from bot.ports import Strategy
from bot.strategies import build
from bot.timeframes import TIMEFRAMES, timeframe_of
from tests.scripted import Momentum, part

SYMBOLS = ("BTC/USDT", "ETH/USDT", "DOGE/USDT")
START_MS = 1_735_689_600_000
POLLS = 90
UNIT = Sizing(SizingKind.QUANTITY, Decimal(1))
examples = settings(max_examples=40)


def market(symbol: str, **limits: Decimal) -> Market:
    return Market(symbol, Decimal("0.01"), **limits)


MARKETS = {symbol: market(symbol) for symbol in SYMBOLS}


class Wild:
    """Answers nonsense as a pure function of the last price."""

    name, lookback = "wild", 1
    answers = np.array([0.0, 1.0, -1.0, 0.5, np.nan, 1.5, np.inf, -np.inf, -0.0, np.nan, -7.0])

    def targets(self, bars: Bars) -> FloatArray:
        return self.answers[np.rint(bars.close * 100).astype(np.int64) % len(self.answers)]


class Fussy:
    """Raises on any price that ends in 3, anywhere in what it is shown."""

    name, lookback = "fussy", 3

    def targets(self, bars: Bars) -> FloatArray:
        cents = np.rint(bars.close * 100).astype(np.int64)
        if (cents % 10 == 3).any():
            raise RuntimeError("a three")
        found = np.full(len(bars), np.nan)
        found[2:] = cents[2:] % 2
        return found


class Misshapen:
    """Answers with one value too few."""

    name, lookback = "misshapen", 2

    def targets(self, bars: Bars) -> FloatArray:
        return np.ones(len(bars) - 1)


def tape(seed: int, *, polls: int = POLLS, gaps: float = 0.0, symbols: tuple[str, ...] = SYMBOLS) -> Block:
    rng = np.random.default_rng(seed)
    last = np.round(100 + np.cumsum(rng.integers(-4, 5, (len(symbols), polls)), axis=1) / 100, 2)
    last[rng.random(last.shape) < gaps] = np.nan
    timestamp = START_MS + np.arange(polls, dtype=np.int64) * 1000
    return Block(symbols, timestamp, np.round(last - 0.01, 2), np.round(last + 0.01, 2), last)


def plans(*strategies: Strategy) -> list[Plan]:
    return [Plan(strategy, f"{number}-{strategy.name}", UNIT) for number, strategy in enumerate(strategies)]


def everybody() -> list[Plan]:
    return plans(
        build("sma_cross", fast=2, slow=5),
        build("sma_cross", fast=1, slow=9, short=True),
        build("donchian_breakout"),
        build("buy_and_hold"),
        Momentum(),
        Wild(),
        Fussy(),
        Misshapen(),
    )


def parts(block: Block, cuts: Sequence[int]) -> Iterator[Block]:
    edges = sorted({0, len(block), *(cut % len(block) for cut in cuts)})
    for start, end in pairwise(edges):
        yield part(block, start, end)


def decided(
    asked: Sequence[Plan], blocks: Iterator[Block] | Sequence[Block], *, at_close: bool = False
) -> tuple[list[Signal], LoopState]:
    engine, state = Engine(asked, MARKETS), None
    signals: list[Signal] = []
    polls = 0
    for block in blocks:
        if state is None:
            state = LoopState.empty(block.symbols, asked, {}, at_close=at_close)
        decision = engine.decide(state, block, polls + 1, len(signals) + 1)
        signals += decision.signals
        polls += block.polls
        state.advance(decision)
    assert state is not None
    return signals, state


@dataclass
class Pencil:
    """The bars of one symbol, drawn one tick at a time."""

    closed: list[tuple[float, ...]] = field(default_factory=list)
    bar: list[float] = field(default_factory=list)
    # So many were closed when it was asked the last time.
    asked: int = -1

    def draw(self, start: int, price: float, *, ends: bool) -> None:
        if self.bar and self.bar[0] != start:
            self.close()
        self.bar = self.bar or [start, price, price, price, price]
        self.bar[2:] = [max(self.bar[2], price), min(self.bar[3], price), price]
        if ends:
            self.close()

    def close(self) -> None:
        self.closed.append(tuple(self.bar))
        self.bar = []

    def window(self, lookback: int) -> Bars:
        columns = list(zip(*self.closed[-lookback:], strict=True))
        return Bars.from_arrays(columns[0], *columns[1:])


def by_hand(
    asked: Sequence[Plan], block: Block, warmup: int = 0, *, at_close: bool = False
) -> list[tuple[object, ...]]:
    """Poll by poll, plan by plan, symbol by symbol: a list of prices for each, and the strategy asked of its end."""
    drawn: defaultdict[tuple[str, str], Pencil] = defaultdict(Pencil)
    prices: dict[str, list[float]] = {symbol: [] for symbol in block.symbols}
    times: dict[str, list[int]] = {symbol: [] for symbol in block.symbols}
    targets: dict[tuple[str, str], float] = {}
    rows: list[tuple[object, ...]] = []
    for column in range(len(block)):
        fresh = [row for row in range(len(block.symbols)) if not np.isnan(block.last[row, column])]
        for row in fresh:
            prices[block.symbols[row]].append(float(block.last[row, column]))
            times[block.symbols[row]].append(int(block.timestamp[column]))
            for plan in asked:
                if plan.timeframe is not None:
                    time = int(block.timestamp[column])
                    start = plan.timeframe.open_of(time)
                    ends = at_close and time == plan.timeframe.back(start, -1) - 1
                    drawn[plan.account, block.symbols[row]].draw(start, float(block.last[row, column]), ends=ends)
        for plan in asked if column >= warmup else ():
            lookback = plan.strategy.lookback
            for row in fresh:
                symbol = block.symbols[row]
                pencil = drawn[plan.account, symbol]
                before, pencil.asked = pencil.asked, len(pencil.closed)
                if plan.timeframe is not None and before == pencil.asked:
                    continue
                if len(prices[symbol] if plan.timeframe is None else pencil.closed) < lookback:
                    continue
                window = (
                    pencil.window(lookback)
                    if plan.timeframe
                    else Bars.from_ticks(np.array(times[symbol][-lookback:]), np.array(prices[symbol][-lookback:]))
                )
                try:
                    answer = np.asarray(plan.strategy.targets(window))
                except RuntimeError:
                    continue
                target = float(answer[-1])
                if len(answer) != lookback or np.isnan(target) or target == targets.get((plan.account, symbol), 0.0):
                    continue
                targets[plan.account, symbol] = target
                quote = (float(block.bid[row, column]), float(block.ask[row, column]))
                time = int(block.timestamp[column])
                rows.append((len(rows) + 1, column - warmup + 1, time, plan.account, symbol, target, *quote))
    return rows


def assert_same_state(one: LoopState, other: LoopState) -> None:
    known = ~np.isnan(one.prices)
    assert np.array_equal(one.prices, other.prices, equal_nan=True)
    assert np.array_equal(one.times[known], other.times[known])
    assert np.array_equal(one.targets, other.targets)
    assert one.last_prices == other.last_prices
    assert one.newest_ms == other.newest_ms
    for candles, others in zip(one.candles, other.candles, strict=True):
        assert bars_of(candles) == bars_of(others)
        assert np.array_equal(candles.due, others.due)


def bars_of(candles: Candles) -> list[list[tuple[float, ...]]]:
    """All that is known of each symbol, the open bar last."""
    times = np.concatenate((candles.times, candles.open_times[:, None]), axis=1)
    prices = np.concatenate((candles.prices, candles.open_prices[:, :, None]), axis=2)
    return [
        [(time, *four) for time, four in zip(row.tolist(), table.T.tolist(), strict=True) if four[0] == four[0]]
        for row, table in zip(times, prices.transpose(1, 0, 2), strict=True)
    ]


class TestBlocks:
    @examples
    @given(
        seed=st.integers(0, 10_000), gaps=st.sampled_from([0.0, 0.1, 0.6, 0.95]), cuts=st.lists(st.integers(1, POLLS))
    )
    def test_signals_do_not_depend_on_them(self, seed: int, gaps: float, cuts: list[int]) -> None:
        block = tape(seed, gaps=gaps)
        signals, state = decided(everybody(), [block])
        assert [tuple(signal) for signal in signals] == by_hand(everybody(), block)
        again, state_again = decided(everybody(), parts(block, cuts))
        assert again == signals
        assert_same_state(state_again, state)

    @pytest.mark.parametrize("gaps", [0.0, 0.4])
    def test_one_poll_at_a_time(self, gaps: float) -> None:
        block = tape(17, gaps=gaps)
        signals, state = decided(everybody(), [block])
        again, state_again = decided(everybody(), parts(block, range(POLLS)))
        assert len(signals) > 100
        assert again == signals
        assert_same_state(state_again, state)

    @examples
    @given(seed=st.integers(0, 10_000), warmup=st.integers(1, 40), gaps=st.sampled_from([0.0, 0.3]))
    def test_history_fills_windows_and_is_not_traded_on(self, seed: int, warmup: int, gaps: float) -> None:
        block = tape(seed, gaps=gaps)
        expected = by_hand(everybody(), block, warmup)
        whole = part(block, 0, POLLS, warmup)
        assert [tuple(signal) for signal in decided(everybody(), [whole])[0]] == expected
        cut = [part(block, 0, warmup + 1, warmup), part(block, warmup + 1, POLLS)]
        assert [tuple(signal) for signal in decided(everybody(), cut)[0]] == expected

    def test_deciding_changes_nothing(self) -> None:
        block = tape(5, gaps=0.2)
        asked = everybody()
        engine, state = Engine(asked, MARKETS), LoopState.empty(SYMBOLS, asked, {})
        state.advance(engine.decide(state, part(block, 0, 30), 1, 1))
        before = replace(
            state,
            times=state.times.copy(),
            prices=state.prices.copy(),
            targets=state.targets.copy(),
            last_prices=dict(state.last_prices),
        )
        decisions = [engine.decide(state, part(block, 30, 60), 31, 8) for _ in range(2)]
        assert decisions[0].signals == decisions[1].signals
        assert_same_state(state, before)

    def test_ids_and_polls_are_counted_on(self) -> None:
        block = tape(5)
        asked = everybody()
        engine, state = Engine(asked, MARKETS), LoopState.empty(SYMBOLS, asked, {})
        decision = engine.decide(state, block, first_poll=1001, first_signal=501)
        assert [signal.id for signal in decision.signals] == list(range(501, 501 + len(decision.signals)))
        assert all(signal.timestamp == START_MS + (signal.poll - 1001) * 1000 for signal in decision.signals)
        order = [(signal.poll, int(signal.account[0])) for signal in decision.signals]
        assert order == sorted(order)

    @pytest.mark.parametrize("polls", [1, 7])
    def test_a_target_below_zero_by_its_sign_only_is_flat(self, polls: int) -> None:
        """The file knows no -0.0, so a digest over it would not be that of what is read back."""

        class Negative:
            name, lookback = "negative", 1

            def targets(self, bars: Bars) -> FloatArray:
                answer: FloatArray = -np.sign(np.rint(bars.close * 100) % 3)
                return answer

        block = tape(3, polls=40)
        parts = [part(block, first, min(first + polls, 40)) for first in range(0, 40, polls)]
        signals, _ = decided(plans(Negative()), parts)
        flat = [signal.target for signal in signals if signal.target == 0]
        assert flat
        assert not np.signbit(flat).any()

    def test_one_symbol_and_one_poll(self) -> None:
        block = tape(1, polls=1, symbols=SYMBOLS[:1])
        (signal,) = decided(plans(build("buy_and_hold")), [block])[0]
        assert signal == (1, 1, START_MS, "0-buy_and_hold", "BTC/USDT", 1.0, block.bid[0, 0], block.ask[0, 0])


class Ranging:
    """Looks at all four prices and at the time."""

    name, lookback = "ranging", 2

    def targets(self, bars: Bars) -> FloatArray:
        found = np.full(len(bars), np.nan)
        body = bars.close[1:] - bars.open[:-1]
        found[1:] = np.where(body > 0, (bars.high - bars.low)[1:] * 10 % 1, -(bars.timestamp[1:] // 60_000 % 2))
        return found


class Stamped:
    """The target tells which bar it was asked of last: 1/16 the first minute, 1/32 the second."""

    name, lookback = "stamped", 1

    def targets(self, bars: Bars) -> FloatArray:
        return 1 / 2.0 ** (4 + (bars.timestamp - START_MS) // 60_000)


def on(name: str, *strategies: Strategy) -> list[Plan]:
    return [
        Plan(each, f"{name}-{number}-{each.name}", UNIT, timeframe=timeframe_of(name))
        for number, each in enumerate(strategies)
    ]


def on_bars() -> list[Plan]:
    """Ticks, minutes and longer bars side by side, those who answer in batches and those who do not."""
    return [
        *on("1m", build("sma_cross", fast=1, slow=3, short=True), Ranging(), Wild(), Fussy()),
        *on("tick", build("sma_cross", fast=2, slow=5), Wild()),
        *on("3m", build("donchian_breakout", period=2, exit_period=1), Momentum(), build("buy_and_hold")),
        *on("1h", Ranging(), Misshapen()),
        *on("1M", Wild()),
    ]


YEAR_END_MS = START_MS - 20 * 60_000


def slow_tape(seed: int, gaps: float, polls: int = POLLS) -> Block:
    """Ticks some seconds apart, and now and then an hour, over the end of a week, a month and a year."""
    block = tape(seed, polls=polls, gaps=gaps)
    rng = np.random.default_rng(seed)
    steps = np.where(rng.random(polls) < 0.03, rng.integers(1, 200, polls) * 60_000, rng.integers(1, 50, polls) * 1000)
    return replace(block, timestamp=YEAR_END_MS + np.cumsum(steps))


def closing_tape(seed: int, gaps: float, polls: int = POLLS) -> Block:
    """The same, with many ticks in the last millisecond of a minute, some of these of an hour or the year."""
    block = slow_tape(seed, gaps, polls)
    rng = np.random.default_rng(seed)
    minutes = block.timestamp // 60_000
    last = np.flatnonzero(np.append(minutes[1:] != minutes[:-1], True))
    chosen = last[rng.random(len(last)) < 0.6]
    times = block.timestamp.copy()
    times[chosen] = (minutes[chosen] + 1) * 60_000 - 1
    year_end = int(np.searchsorted(times, START_MS))
    if year_end > 0 and rng.random() < 0.7:
        times[year_end - 1] = START_MS - 1
    return replace(block, timestamp=times)


def bar_tape(seed: int, gaps: float, polls: int = POLLS, *, at_close: bool) -> Block:
    return closing_tape(seed, gaps, polls) if at_close else slow_tape(seed, gaps, polls)


class TestBars:
    """A bar is decided on at the tick that closes it."""

    @examples
    @given(
        seed=st.integers(0, 10_000),
        gaps=st.sampled_from([0.0, 0.1, 0.6, 0.95]),
        cuts=st.lists(st.integers(1, POLLS)),
        warmup=st.sampled_from([0, 0, 1, 20, 60]),
        at_close=st.booleans(),
    )
    def test_they_are_those_of_a_pencil_whatever_the_blocks(
        self, seed: int, gaps: float, cuts: list[int], warmup: int, at_close: bool
    ) -> None:
        block = bar_tape(seed, gaps, at_close=at_close)
        signals, state = decided(on_bars(), [part(block, 0, POLLS, warmup)], at_close=at_close)
        assert [tuple(signal) for signal in signals] == by_hand(on_bars(), block, warmup, at_close=at_close)
        head = warmup + 1 if warmup else 0
        rest = list(parts(part(block, head, POLLS), cuts))
        blocks = [part(block, 0, head, warmup), *rest] if head else rest
        again, state_again = decided(on_bars(), blocks, at_close=at_close)
        assert again == signals
        assert_same_state(state_again, state)

    @pytest.mark.parametrize("at_close", [False, True])
    @pytest.mark.parametrize("gaps", [0.0, 0.4])
    def test_one_poll_at_a_time(self, gaps: float, at_close: bool) -> None:
        block = bar_tape(17, gaps, 400, at_close=at_close)
        signals, state = decided(on_bars(), [block], at_close=at_close)
        again, state_again = decided(on_bars(), parts(block, range(400)), at_close=at_close)
        assert len(signals) > 200
        assert again == signals
        assert_same_state(state_again, state)

    @examples
    @given(
        seed=st.integers(0, 10_000),
        gaps=st.sampled_from([0.0, 0.3, 0.9]),
        cut=st.integers(1, POLLS - 1),
        at_close=st.booleans(),
    )
    def test_a_start_in_between_changes_nothing(self, seed: int, gaps: float, cut: int, at_close: bool) -> None:
        """Of the ticks before it only those are read that bars are made of; all are asked of their last bar again."""
        block, asked = bar_tape(seed, gaps, at_close=at_close), on_bars()
        whole, last = decided(asked, [block], at_close=at_close)
        first, state = decided(asked, [part(block, 0, cut)], at_close=at_close)
        engine, restarted = Engine(asked, MARKETS), LoopState.empty(SYMBOLS, asked, {}, at_close=at_close)
        kept = np.zeros(cut, np.bool_)
        for row in block.last[:, :cut]:
            seen = np.nonzero(row == row)[0]
            lookbacks = [(timeframe, count + 1) for timeframe, count in restarted.lookbacks]
            kept[seen[needed(block.timestamp[seen], row[seen], 9, lookbacks)]] = True
        tail = block.columns(np.append(kept, np.zeros(POLLS - cut, np.bool_)), warmup=int(kept.sum()))
        if len(tail):
            restarted.advance(engine.decide(restarted, tail, 0, 0))
        restarted.targets, restarted.last_prices = state.targets, dict(state.last_prices)
        for before, after in zip(state.candles, restarted.candles, strict=True):
            assert bars_of(after) == bars_of(before)
        decision = engine.decide(restarted, part(block, cut, POLLS), cut + 1, len(first) + 1)
        assert first + decision.signals == whole
        restarted.advance(decision)
        for one, other in zip(restarted.candles, last.candles, strict=True):
            assert bars_of(one) == bars_of(other)

    @staticmethod
    def minutes(*prices: float | None, step_ms: int = 60_000) -> Block:
        """One price a minute, from the beginning of one on."""
        times = START_MS + np.arange(len(prices), dtype=np.int64) * step_ms
        last = np.array([[np.nan if price is None else price for price in prices]])
        seen = last[0] == last[0]
        return Block(SYMBOLS[:1], times, last - 0.01, last + 0.01, last).columns(seen)

    @pytest.mark.parametrize("one_by_one", [False, True])
    def test_it_fills_at_the_first_tick_of_the_next_one(self, one_by_one: bool) -> None:
        block = self.minutes(10, 11, 12, 13, 14, 15, step_ms=30_000)
        blocks = parts(block, range(len(block))) if one_by_one else [block]
        (signal,) = decided(on("1m", build("buy_and_hold")), blocks)[0]
        assert (signal.poll, signal.timestamp, signal.ask) == (3, START_MS + 60_000, 12.01)

    @pytest.mark.parametrize("one_by_one", [False, True])
    def test_or_at_the_tick_in_its_own_last_millisecond(self, one_by_one: bool) -> None:
        """Only where that is asked for; a bar without such a tick is closed by the next one."""
        block = self.minutes(10, 11, 12, 13, 14)
        offsets = np.array([0, 59_998, 59_999, 60_000, 120_001])
        block = replace(block, timestamp=START_MS + offsets)
        blocks = parts(block, range(len(block))) if one_by_one else [block]
        signals, state = decided(on("1m", Stamped()), blocks, at_close=True)
        assert [(signal.poll, signal.timestamp - START_MS, signal.target) for signal in signals] == [
            (3, 59_999, 1 / 16),
            (5, 120_001, 1 / 32),
        ]
        assert bars_of(state.candles[0]) == [[(START_MS + 60_000, *[13.0] * 4), (START_MS + 120_000, *[14.0] * 4)]]
        (late, *_), _ = decided(on("1m", Stamped()), [block])
        assert (late.poll, late.target) == (4, 1 / 16)

    def test_nothing_is_open_after_it(self) -> None:
        block = replace(self.minutes(10, 11), timestamp=START_MS + np.array([0, 59_999]))
        _, state = decided(on("1m", Momentum()), [block], at_close=True)
        assert np.isnan(state.candles[0].open_prices).all()

    @pytest.mark.parametrize("warmup", [0, 1])
    def test_one_tick_that_closes_two_bars_is_asked_of_the_newer_one(self, warmup: int) -> None:
        block = replace(self.minutes(10, 11, 12), timestamp=START_MS + np.array([0, 119_999, 120_000]), warmup=warmup)
        (signal,) = decided(on("1m", Stamped()), [block], at_close=True)[0]
        assert (signal.timestamp - START_MS, signal.target) == (119_999, 1 / 32)
        (closed,) = Candles.empty(TIMEFRAMES["1m"], 1, 1, at_close=True).after(block)[1]
        # The first tick that is not history is asked of what was closed before it, and there was nothing.
        assert closed.columns.tolist() == [[1] if warmup else [0, -1, 1]]

    def test_where_nothing_was_traded_there_is_no_bar(self) -> None:
        _, state = decided(on("1m", Momentum()), [self.minutes(10, None, None, 13, 14)])
        assert bars_of(state.candles[0]) == [
            [(START_MS + minute * 60_000, *[price] * 4) for minute, price in ((0, 10.0), (3, 13.0), (4, 14.0))]
        ]

    def test_what_history_closed_is_decided_on_at_the_first_tick_after_it(self) -> None:
        block = replace(self.minutes(10, 11, 12, 13, 14, step_ms=20_000), warmup=4)
        (signal,) = decided(on("1m", build("buy_and_hold")), [block])[0]
        assert (signal.poll, signal.ask) == (1, 14.01)

    def test_a_history_that_ends_with_a_bar_is_decided_on_at_the_first_tick_after_it(self) -> None:
        block = replace(self.minutes(10, 11, 12), timestamp=START_MS + np.array([0, 59_999, 60_000]), warmup=2)
        (signal,) = decided(on("1m", Stamped()), [block], at_close=True)[0]
        assert (signal.poll, signal.timestamp - START_MS, signal.target) == (1, 60_000, 1 / 16)

    def test_a_strategy_cannot_write_into_its_bars(self) -> None:
        class Vandal:
            name, lookback, batch = "vandal", 1, True

            def targets(self, bars: Bars) -> FloatArray:
                bars.high[:] = 0
                return np.zeros(bars.close.shape)

        heard: list[Exception | SystemExit] = []
        plan = Plan(Vandal(), "vandal", UNIT, heard.append, timeframe_of("1m"))
        beside, state = decided([plan, *on("1m", Ranging())], [slow_tape(8, 0.0)])
        alone, _ = decided(on("1m", Ranging()), [slow_tape(8, 0.0)])
        assert [signal[1:] for signal in beside] == [signal[1:] for signal in alone]
        assert heard
        assert state.candles[0].prices.min() > 0

    def test_deciding_changes_nothing(self) -> None:
        block, asked = slow_tape(5, 0.2), on_bars()
        engine, state = Engine(asked, MARKETS), LoopState.empty(SYMBOLS, asked, {})
        state.advance(engine.decide(state, part(block, 0, 30), 1, 1))
        before = [bars_of(candles) for candles in state.candles]
        decisions = [engine.decide(state, part(block, 30, end), 31, 8) for end in (31, 60, 60)]
        assert decisions[1].signals == decisions[2].signals
        assert [bars_of(candles) for candles in state.candles] == before


class TestOtherPeoplesCode:
    def test_a_strategy_that_raises_is_heard_of_and_holds_only_there(self) -> None:
        heard: list[Exception | SystemExit] = []
        asked = [Plan(Fussy(), "fussy", UNIT, heard.append)]
        block = tape(8)
        signals, _ = decided(asked, [block])
        assert [tuple(signal) for signal in signals] == by_hand(asked, block)
        assert signals
        bad = np.rint(block.last * 100).astype(np.int64) % 10 == 3
        windows = np.lib.stride_tricks.sliding_window_view(bad, 3, axis=1).any(axis=2)
        assert len(heard) == np.count_nonzero(windows)
        assert {str(error) for error in heard} == {"a three"}

    @pytest.mark.parametrize("how", ["raises", "exits", "misshapen"])
    def test_one_that_answers_in_batches_is_no_safer(self, how: str) -> None:
        class Batch:
            name, lookback, batch = "batch", 1, True

            def targets(self, bars: Bars) -> FloatArray:
                if how == "raises":
                    raise RuntimeError("no")
                if how == "exits":
                    sys.exit(3)
                return np.zeros(3)

        heard: list[Exception | SystemExit] = []
        signals, _ = decided([Plan(Batch(), "batch", UNIT, heard.append)], [tape(8, polls=5)])
        assert signals == []
        assert len(heard) == 5 * len(SYMBOLS)

    def test_an_answer_of_another_length_is_an_error(self) -> None:
        heard: list[Exception | SystemExit] = []
        signals, _ = decided([Plan(Misshapen(), "misshapen", UNIT, heard.append)], [tape(8, polls=5)])
        assert signals == []
        assert len(heard) == 4 * len(SYMBOLS)
        assert isinstance(heard[0], ValueError)

    def test_one_that_fails_does_not_touch_the_others(self) -> None:
        block = tape(8, gaps=0.2)
        alone, _ = decided(plans(Momentum()), [block])
        beside, _ = decided([*plans(Momentum()), *plans(Fussy(), Misshapen())[1:]], [block])
        told = [signal[1:] for signal in beside if signal.account == "0-momentum"]
        assert told == [signal[1:] for signal in alone]

    def test_one_that_writes_into_its_bars_does_not_touch_the_others(self) -> None:
        class Vandal:
            name, lookback = "vandal", 3

            def targets(self, bars: Bars) -> FloatArray:
                closes = bars.close
                closes -= closes.mean()
                return np.full(len(bars), np.nan)

        block = tape(8)
        alone, state = decided(plans(Momentum()), parts(block, [10, 40]))
        vandal = Plan(Vandal(), "vandal", UNIT)
        beside, state_beside = decided([vandal, *plans(Momentum())], parts(block, [10, 40]))
        assert [signal[1:] for signal in beside] == [signal[1:] for signal in alone]
        assert np.array_equal(state_beside.prices, state.prices)
        assert state_beside.last_prices == state.last_prices

    def test_bars_have_their_own_times(self) -> None:
        """A strategy of somebody else's that answers in batches may look at the time too."""

        class Hourly:
            name, lookback, batch = "hourly", 1, True

            def targets(self, bars: Bars) -> FloatArray:
                return np.broadcast_to((bars.timestamp // 1000) % 2, bars.close.shape).astype(np.float64)

        block = tape(8, polls=12)
        for column in (block.last, block.bid, block.ask):
            column[0, ::2] = column[1, 1::2] = np.nan
        signals, _ = decided(plans(Hourly()), [block])
        assert [tuple(signal) for signal in signals] == by_hand(plans(Hourly()), block)


class TestEdges:
    """An edge is asked once."""

    @staticmethod
    def signals_of(*answers: float) -> list[float]:
        class Script:
            name, lookback = "script", 1

            def targets(self, bars: Bars) -> FloatArray:
                return np.array(answers)[(bars.timestamp - START_MS) // 1000]

        block = tape(1, polls=len(answers), symbols=SYMBOLS[:1])
        whole, _ = decided(plans(Script()), [block])
        single, _ = decided(plans(Script()), parts(block, range(len(answers))))
        assert whole == single
        return [signal.target for signal in whole]

    def test_no_signal_for_what_stays(self) -> None:
        assert self.signals_of(0, 1, 1, 1, 0, 0, -1, -1) == [1, 0, -1]

    def test_nan_holds(self) -> None:
        nan = float("nan")
        assert self.signals_of(nan, 1, nan, 1, nan, nan, 0, nan, 0) == [1, 0]

    def test_minus_zero_is_zero(self) -> None:
        assert self.signals_of(-0.0, 1, -0.0, 0.0) == [1, 0]

    def test_an_impossible_target_is_asked_once_too(self) -> None:
        infinite = float("inf")
        assert self.signals_of(1.5, 1.5, 1, infinite, infinite, -infinite) == [1.5, 1, infinite, -infinite]


class TestOrders:
    @staticmethod
    def order(
        target: float,
        sizing: Sizing = UNIT,
        *,
        held: str = "0",
        cash: str = "1000",
        limits: Market | None = None,
        prices: Sequence[float] = (99.99, 100.01, 100.0),
    ) -> OrderRequest | str:
        bid, ask, last = (np.array([[price]]) for price in prices)
        block = Block(("BTC/USDT",), np.array([START_MS]), bid, ask, last)
        asked = [Plan(build("buy_and_hold"), "main", sizing)]
        account = Account(
            "main", "USDT", Decimal(1000), Decimal(cash), {"BTC/USDT": Position("BTC/USDT", Decimal(held))}
        )
        engine = Engine(asked, {"BTC/USDT": limits or market("BTC/USDT", amount_step=Decimal("0.001"))})
        state = LoopState.empty(block.symbols, asked, {"main": account})
        decision: Decision = engine.decide(state, block, 1, 1)
        signal = Signal(1, 1, START_MS, "main", "BTC/USDT", target, *prices[:2])
        with localcontext(MONEY):
            return engine.order_for(signal, account, decision.marks)

    @pytest.mark.parametrize(
        ("target", "held", "expected"),
        [
            (1.0, "0", (OrderSide.BUY, "1")),
            (-1.0, "0", (OrderSide.SELL, "1")),
            (-1.0, "1", (OrderSide.SELL, "2")),
            (0.5, "0", (OrderSide.BUY, "0.5")),
            (0.25, "0.5", (OrderSide.SELL, "0.25")),
            (0.0, "0.123456", (OrderSide.SELL, "0.123")),  # the exchange takes whole steps, the rest stays
            (0.0, "-0.123456", (OrderSide.BUY, "0.123")),
            (1.0, "0.123456", (OrderSide.BUY, "0.876")),
            (-1.0, "0.123456", (OrderSide.SELL, "1.123")),
            (0.0, "-2", (OrderSide.BUY, "2")),
            (-0.0, "1", (OrderSide.SELL, "1")),
            (1 / 3, "0", (OrderSide.BUY, "0.333")),
            (-1 / 3, "0", (OrderSide.SELL, "0.333")),
        ],
    )
    def test_the_difference_to_what_is_held(self, target: float, held: str, expected: tuple[OrderSide, str]) -> None:
        assert self.order(target, held=held) == (expected[0], Decimal(expected[1]))

    def test_so_much_of_the_quote_currency(self) -> None:
        size = Sizing(SizingKind.QUOTE_AMOUNT, Decimal(500))
        assert self.order(1.0, size) == (OrderSide.BUY, Decimal("4.999"))  # 500 / 100.01, in steps of 0.001
        assert self.order(-1.0, size) == (OrderSide.SELL, Decimal("5.000"))  # 500 / 99.99
        assert self.order(0.5, size) == (OrderSide.BUY, Decimal("2.499"))

    def test_a_part_of_the_equity(self) -> None:
        size = Sizing(SizingKind.EQUITY_FRACTION, Decimal("0.5"))
        assert self.order(1.0, size) == (OrderSide.BUY, Decimal("4.999"))
        # 400 in cash and 6 at 100: 500 of an equity of 1000 is less than what is held.
        assert self.order(1.0, size, held="6", cash="400") == (OrderSide.SELL, Decimal("1.001"))

    def test_refusals(self) -> None:
        step = Decimal("0.001")
        assert self.order(1.0, held="1") == NO_CHANGE
        assert self.order(0.0) == NO_CHANGE
        assert self.order(1.0, held="0.9991") == NO_CHANGE
        assert self.order(0.0001) == BELOW_MIN_AMOUNT
        small = market("BTC/USDT", amount_step=step, min_amount=Decimal(2))
        assert self.order(1.0, limits=small) == BELOW_MIN_AMOUNT
        assert self.order(-1.0, held="1", limits=small) == (OrderSide.SELL, Decimal(2))
        cheap = market("BTC/USDT", amount_step=step, min_cost=Decimal("100.02"))
        assert self.order(1.0, limits=cheap) == BELOW_MIN_COST  # 1 at an ask of 100.01
        assert self.order(1.0, Sizing(SizingKind.QUANTITY, Decimal("1.01")), limits=cheap) == (
            OrderSide.BUY,
            Decimal("1.01"),
        )
        size = Sizing(SizingKind.EQUITY_FRACTION, Decimal(1))
        assert self.order(1.0, size, cash="0") == NO_EQUITY
        assert self.order(1.0, size, held="-20", cash="1500") == NO_EQUITY

    @pytest.mark.parametrize("target", [1.0000001, -1.5, float("inf"), float("-inf"), 1e300])
    @pytest.mark.parametrize("kind", list(SizingKind))
    def test_targets_out_of_range(self, target: float, kind: SizingKind) -> None:
        assert self.order(target, Sizing(kind, Decimal(1))) == INVALID_TARGET

    @pytest.mark.parametrize("kind", list(SizingKind))
    @pytest.mark.parametrize("target", [5e-324, -5e-324, 1e-12])
    def test_a_target_next_to_nothing(self, target: float, kind: SizingKind) -> None:
        assert self.order(target, Sizing(kind, Decimal(1))) == BELOW_MIN_AMOUNT
        assert self.order(target, Sizing(kind, Decimal(1)), held="0.0001") == BELOW_MIN_AMOUNT

    @pytest.mark.parametrize(("target", "held"), [(1.0, "0"), (-1.0, "0"), (0.0, "1"), (0.0, "-1")])
    @pytest.mark.parametrize(
        ("limit", "step", "refused"),
        [
            ("min_amount", "1e-18", BELOW_MIN_AMOUNT),
            ("max_amount", "-1e-18", ABOVE_MAX_AMOUNT),
            ("max_market_amount", "-1e-18", ABOVE_MAX_AMOUNT),
            ("min_cost", "1e-18", BELOW_MIN_COST),
            ("max_cost", "-1e-18", ABOVE_MAX_COST),
        ],
    )
    def test_a_limit_is_kept_to_the_last_digit_whatever_the_order_is_for(
        self, target: float, held: str, limit: str, step: str, refused: str
    ) -> None:
        """One unit at the quote that it fills at: the ask for a buy, the bid for a sale. Also to close a position."""
        side = OrderSide.BUY if target > Decimal(held) else OrderSide.SELL
        bound = Decimal(1)
        if "cost" in limit:
            bound = Decimal("100.01" if side is OrderSide.BUY else "99.99")
        taken = market("BTC/USDT", amount_step=Decimal("0.001"), **{limit: bound})
        assert self.order(target, held=held, limits=taken) == (side, Decimal(1))
        with localcontext(MONEY):
            beyond = market("BTC/USDT", amount_step=Decimal("0.001"), **{limit: bound + Decimal(step)})
        assert self.order(target, held=held, limits=beyond) == refused

    def test_limits_are_held_against_the_rounded_amount(self) -> None:
        least = market("BTC/USDT", amount_step=Decimal("0.1"), min_amount=Decimal("0.95"))
        size = Sizing(SizingKind.QUANTITY, Decimal("0.99"))
        assert self.order(1.0, size, limits=least) == BELOW_MIN_AMOUNT  # 0.9
        most = market("BTC/USDT", amount_step=Decimal("0.1"), max_amount=Decimal("0.9"), max_cost=Decimal("90.01"))
        assert self.order(1.0, size, limits=most) == (OrderSide.BUY, Decimal("0.9"))

    def test_an_order_that_is_too_large_is_not_made_smaller(self) -> None:
        most = market("BTC/USDT", amount_step=Decimal("0.001"), max_market_amount=Decimal(1))
        assert self.order(-1.0, held="1", limits=most) == ABOVE_MAX_AMOUNT
        assert self.order(0.0, held="1", limits=most) == (OrderSide.SELL, Decimal(1))

    @pytest.mark.parametrize("held", ["0.0009", "-0.0009"])
    def test_less_than_a_step_cannot_be_closed(self, held: str) -> None:
        assert self.order(0.0, held=held) == BELOW_MIN_AMOUNT
        assert self.order(1.0, Sizing(SizingKind.QUANTITY, Decimal("0.001")), held="0.0009") == NO_CHANGE

    def test_each_symbol_has_costs_of_its_own(self) -> None:
        cheap, dear = (
            Market(symbol, Decimal("0.01"), Decimal("0.001"), taker=Decimal(rate))
            for symbol, rate in zip(SYMBOLS[:2], ("0.0005", "0.25"), strict=True)
        )
        whole = [Plan(build("buy_and_hold"), "main", Sizing(SizingKind.EQUITY_FRACTION, Decimal(1)))]
        engine = Engine(whole, {each.symbol: each for each in (cheap, dear)}, Terms(None))
        price = np.array([[100.0], [100.0]])
        block = Block(SYMBOLS[:2], np.array([START_MS]), price, price, price)
        account = Account("main", "USDT", Decimal(1000), Decimal(1000))
        marks = engine.decide(LoopState.empty(block.symbols, whole, {"main": account}), block, 1, 1).marks
        with localcontext(MONEY):
            for symbol, quantity in ((cheap.symbol, "9.995"), (dear.symbol, "8")):
                signal = Signal(1, 1, START_MS, "main", symbol, 1.0, 100.0, 100.0)
                assert engine.order_for(signal, account, marks) == (OrderSide.BUY, Decimal(quantity))

    @pytest.mark.parametrize("target", [1.0, -1.0])
    @pytest.mark.parametrize(("quote", "slippage_bps"), [("101.37", "2"), ("0.0137", "50"), ("99999.99", "0.5")])
    def test_all_of_the_equity_can_be_paid_for(self, target: float, quote: str, slippage_bps: str) -> None:
        """With its fee, and with a price that slips and is rounded to a whole step against it."""
        listed = Market("BTC/USDT", Decimal("0.0001"), Decimal("1e-8"), taker=Decimal("0.001"))
        whole = [Plan(build("buy_and_hold"), "main", Sizing(SizingKind.EQUITY_FRACTION, Decimal(1)))]
        terms = Terms(None, Decimal(slippage_bps))
        engine = Engine(whole, {"BTC/USDT": listed}, terms)
        price = np.array([[float(quote)]])
        block = Block(("BTC/USDT",), np.array([START_MS]), price, price, price)
        account = Account("main", "USDT", Decimal(1000), Decimal(1000))
        marks = engine.decide(LoopState.empty(block.symbols, whole, {"main": account}), block, 1, 1).marks
        with localcontext(MONEY):
            signal = Signal(1, 1, START_MS, "main", "BTC/USDT", target, float(quote), float(quote))
            order = engine.order_for(signal, account, marks)
            assert isinstance(order, OrderRequest)
            paid = touch_price(order.side, signal.bid, signal.ask, terms.slippage_bps, listed.price_step)
            for quantity, taken in ((order.quantity, True), (order.quantity + listed.amount_step, False)):
                cost = paid * quantity
                fresh = Account("main", "USDT", Decimal(1000), Decimal(1000))
                outcome = settle(fresh, "BTC/USDT", order.side, quantity, paid, cost, cost * Decimal("0.001"))
                assert isinstance(outcome, Decimal) is taken

    def test_flat_is_reached_without_a_price_for_what_else_is_held(self) -> None:
        size = Sizing(SizingKind.EQUITY_FRACTION, Decimal(1))
        assert self.order(0.0, size, held="3", cash="-5000") == (OrderSide.SELL, Decimal(3))
