"""``check`` lets honest strategies pass and names the promise, and the bar, that a dishonest one breaks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import count
from time import perf_counter_ns
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from bot.backtest.check import Finding, Hung, Report, checked
from bot.backtest.check.markets import START_MS, futures_of, parts_of, random_markets
from bot.backtest.check.parity import first_difference, vectorised
from bot.backtest.trades import Trades
from bot.cli.check import deadline
from bot.domain import Bars, FloatArray
from bot.ports import Strategy
from bot.strategies import build, known
from bot.timeframes import TIMEFRAMES

MINUTE = TIMEFRAMES["1m"]
LOOKBACK = 10
BARS = 120
Answer = Callable[[Bars], Any]


@dataclass
class Planted:
    """A strategy with a mistake in it, or with none. Each instance has a memory of its own."""

    answer: Answer
    lookback: int = LOOKBACK
    batch: bool = False
    name: str = "planted"
    memory: dict[str, Any] = field(default_factory=dict)

    def targets(self, bars: Bars) -> Any:
        return self.answer(bars)


def judged(make: Callable[[], Any], bars: int | None = BARS, **options: Any) -> Report:
    """With a clock that stands still there is time for every bar."""
    return checked(make, timeframe=MINUTE, monotonic=lambda: 0.0, bars=bars, event_driven=vectorised, **options)


def broken(make: Callable[[], Any], **options: Any) -> Finding:
    """The one check that fails; those after it are not made, or succeed."""
    report = judged(make, **options)
    assert not report.ok
    (found,) = (check for check in report.checks if check.ok is False)
    return found


def hurried(answer: Answer, bars_a_second: int = 2_000) -> Report:
    """With a clock on which each bar takes so long that there is time for some of them only."""
    asked = [0]

    def slowly(bars: Bars) -> Any:
        asked[0] += bars.close.size
        return answer(bars)

    clock = lambda: asked[0] / bars_a_second  # noqa: E731
    return checked(lambda: Planted(slowly), timeframe=MINUTE, monotonic=clock, bars=BARS, event_driven=vectorised)


def planted(answer: Answer, **options: Any) -> Finding:
    return broken(lambda: Planted(answer, **options))


def warmed(answers: npt.ArrayLike, lookback: int = LOOKBACK) -> FloatArray:
    targets = np.array(answers, dtype=np.float64)
    targets[..., : lookback - 1] = np.nan
    return targets


def mean(close: FloatArray, period: int = LOOKBACK) -> FloatArray:
    """Of each window by itself; the first ones are NaN."""
    found = np.full(len(close), np.nan)
    if len(close) >= period:
        found[period - 1 :] = np.lib.stride_tricks.sliding_window_view(close, period).copy().mean(axis=1)
    return found


def above_mean(bars: Bars) -> FloatArray:
    return warmed(bars.close > mean(bars.close))


class TestHonest:
    @pytest.mark.parametrize("name", known())
    def test_every_built_in_strategy(self, name: str) -> None:
        params = {"macd": {"fast": 2, "slow": 4, "signal": 3}, "rsi_reversion": {"period": 2}}.get(name, {})
        small = {"ema_cross": {"fast": 2, "slow": 4}, "sma_cross": {"fast": 3, "slow": 8}}.get(name, params)
        report = judged(partial(build, name, **small))
        told = [(check.name, check.ok) for check in report.checks]
        assert told == [("answers", True), ("purity", True), ("causality", True), ("warm-up", True), ("parity", True)]
        assert all(f"{BARS} of {BARS} bars: " in check.detail for check in report.checks[2:4])
        document = report.document()
        assert (document["ok"], document["strategy"], document["bars"]) == (True, name, BARS)
        assert {*document["checks"][0]} == {"name", "ok", "detail", "market", "bar", "seconds"}

    @pytest.mark.parametrize("name", known())
    def test_with_the_parameters_they_come_with_and_a_tenth_of_the_bars_looked_at(self, name: str) -> None:
        beat = count()
        # Each look at the clock finds that half a second has gone by.
        make = partial(build, name)
        report = checked(make, timeframe=MINUTE, monotonic=lambda: next(beat) / 2, event_driven=vectorised)
        assert report.ok, report
        assert report.bars == max(1000, 2 * report.lookback)

    def test_one_that_knows_the_time_of_day(self) -> None:
        assert judged(lambda: Planted(lambda bars: warmed(bars.timestamp // 600_000 % 2))).ok

    def test_one_that_takes_nothing_shorter_than_its_window(self) -> None:
        def highest(bars: Bars) -> FloatArray:
            windows = np.lib.stride_tricks.sliding_window_view(bars.high, LOOKBACK)
            padded = np.full(len(bars), np.nan)
            padded[LOOKBACK - 1 :] = windows.max(axis=1) == bars.high[LOOKBACK - 1 :]
            return padded

        assert judged(lambda: Planted(highest)).ok
        assert hurried(highest).ok

    def test_one_that_remembers_what_it_was_asked(self) -> None:
        @lru_cache
        def answered(prices: bytes) -> FloatArray:
            close = np.frombuffer(prices)
            return warmed(close > mean(close))

        assert judged(lambda: Planted(lambda bars: answered(bars.close.tobytes()))).ok

    def test_one_that_answers_in_the_same_array_each_time(self) -> None:
        buffers: dict[tuple[int, ...], FloatArray] = {}

        def reused(bars: Bars) -> FloatArray:
            found = buffers.setdefault(bars.close.shape[:-1], np.empty((*bars.close.shape[:-1], BARS)))
            found = found[..., : len(bars)]
            np.sign(bars.close - bars.open, out=found)
            return found

        assert judged(lambda: Planted(reused, lookback=1, batch=True)).ok

    def test_one_in_plain_python_with_parts_of_a_position(self) -> None:
        def each(bars: Bars) -> FloatArray:
            closes = bars.close.tolist()
            rows = range(1, len(bars))
            return np.array([np.nan, *(min(1.0, abs(closes[row] / closes[row - 1] - 1) * 50) for row in rows)])

        assert judged(lambda: Planted(each, lookback=2), bars=60).ok

    def test_one_that_never_trades_and_one_that_always_does(self) -> None:
        assert judged(lambda: Planted(lambda bars: np.full(bars.close.shape, np.nan), batch=True)).ok
        assert judged(lambda: Planted(lambda bars: np.ones(len(bars)), lookback=1)).ok

    def test_one_that_divides_by_nothing(self) -> None:
        def slope(bars: Bars) -> FloatArray:
            change = np.diff(bars.close, prepend=np.nan)
            return np.sign(change / np.abs(change))

        assert judged(lambda: Planted(slope, lookback=2)).ok

    def test_one_for_many_symbols_at_once(self) -> None:
        def rising(bars: Bars) -> FloatArray:
            found = np.full(bars.close.shape, np.nan)
            change = bars.close[..., 1:] - bars.close[..., :-1]
            found[..., 1:] = np.where(change != 0, change > 0, np.nan)
            return np.where(np.isnan(bars.close) | np.isnan(np.roll(bars.close, 1, -1)), np.nan, found)

        assert judged(lambda: Planted(rising, lookback=2, batch=True)).ok


def rolled(bars: Bars) -> FloatArray:
    return warmed(above_mean(replace(bars, close=np.roll(bars.close, -1))))


def tomorrow(bars: Bars) -> FloatArray:
    return warmed(np.append(bars.close[1:], bars.close[-1]) > bars.close)


def later(bars: Bars) -> FloatArray:
    return warmed(np.append(bars.close[3:], [0.0, 0.0, 0.0])[: len(bars)] > bars.close)


def centred(bars: Bars) -> FloatArray:
    return warmed(bars.close > np.convolve(bars.close, np.full(5, 0.2), "same"))


def by_the_highest(bars: Bars) -> FloatArray:
    return warmed(bars.close / bars.close.max())


def by_mean_and_deviation(bars: Bars) -> FloatArray:
    return warmed((bars.close - bars.close.mean()) / (bars.close.std() + 1e-9) > 0)


def by_rank(bars: Bars) -> FloatArray:
    return warmed(np.argsort(np.argsort(bars.close, kind="stable")) / len(bars))


def out_at_the_end(bars: Bars) -> FloatArray:
    targets = above_mean(bars)
    targets[max(LOOKBACK, len(bars) - 5) :] = 0.0
    return targets


def next_high(bars: Bars) -> FloatArray:
    return warmed(np.append(bars.high[1:], 0.0) > bars.high)


def before_a_pause(bars: Bars) -> FloatArray:
    return warmed(np.append(np.diff(bars.timestamp), 60_000) > 60_000)


def lowest_to_come(bars: Bars) -> FloatArray:
    return warmed(np.minimum.accumulate(bars.close[::-1])[::-1] == bars.close)


def filled_from_behind(bars: Bars) -> FloatArray:
    even = np.arange(len(bars)) % 2 == 0
    return warmed(np.where(even, bars.close, np.append(bars.close[1:], bars.close[-1])) > mean(bars.close))


def once_the_future_fell(bars: Bars) -> FloatArray:
    """Knows of bar 60 and the one after it from bar 60 on."""
    crash = len(bars) > 61 and bars.close[61] < 0.75 * bars.close[60]
    return warmed(np.where((np.arange(len(bars)) >= 60) & crash, 0.0, 1.0))


class TestCausality:
    @pytest.mark.parametrize(
        ("answer", "bar", "distance"),
        [
            (rolled, 9, "looks 1 bar ahead"),
            (tomorrow, 9, "looks 1 bar ahead"),
            (later, 9, "looks 3 bars ahead"),
            (centred, 9, "looks up to 2 bars ahead"),
            (by_the_highest, 9, f"looks up to {BARS - 10} bars ahead"),
            (by_mean_and_deviation, 9, f"looks up to {BARS - 10} bars ahead"),
            (by_rank, 9, f"looks up to {BARS - 10} bars ahead"),
            (out_at_the_end, 10, "or at how many there are"),
            (next_high, 9, "looks 1 bar ahead"),
            (lowest_to_come, 9, f"looks up to {BARS - 10} bars ahead"),
            (filled_from_behind, 9, "looks 1 bar ahead"),
            (once_the_future_fell, 60, "looks 1 bar ahead"),
        ],
    )
    def test_what_looks_ahead(self, answer: Answer, bar: int, distance: str) -> None:
        found = planted(answer)
        assert (found.name, found.bar) == ("causality", bar), found
        assert distance in found.detail
        assert found.detail.startswith(f"bar {bar} ({found.market}): ")

    def test_the_time_of_the_next_bar(self) -> None:
        found = planted(before_a_pause)
        assert found.name == "causality"

    def test_with_a_batch_it_is_the_same(self) -> None:
        def ahead(bars: Bars) -> FloatArray:
            later = np.concatenate((bars.close[..., 1:], bars.close[..., -1:]), axis=-1)
            targets = np.where(bars.close == bars.close, later > bars.close, np.nan)
            return warmed(targets, 1)

        found = planted(ahead, lookback=1, batch=True)
        assert (found.name, found.bar) == ("causality", 0)
        assert "looks 1 bar ahead" in found.detail

    def test_the_very_bar_though_one_of_many_is_looked_at_first(self) -> None:

        def from_bar_60_on(bars: Bars) -> FloatArray:
            seen = bars.timestamp >= START_MS + 60 * MINUTE.ms
            return np.where(seen, tomorrow(bars), above_mean(bars))

        (found,) = (check for check in hurried(from_bar_60_on, 20_000).checks if check.ok is False)
        assert (found.name, found.bar) == ("causality", 60), found

    def test_it_says_how_many_it_looked_at(self) -> None:
        report = hurried(above_mean)
        assert report.ok
        assert report.checks[2].detail.startswith("15 of 120 bars: whatever 8 bars come after one")
        assert report.checks[3].detail.startswith("109 of 120 bars: ")


def average(weight: float, bars: Bars) -> FloatArray:
    found = np.empty(len(bars))
    value = bars.close[0]
    for row, price in enumerate(bars.close.tolist()):
        value += weight * (price - value)
        found[row] = price / value > 1
    return warmed(found)


def running_sum(bars: Bars) -> FloatArray:
    total = np.cumsum(np.concatenate(([0.0], bars.close)))
    found = np.full(len(bars), np.nan)
    found[LOOKBACK - 1 :] = (total[LOOKBACK:] - total[:-LOOKBACK]) / LOOKBACK / 1e6
    return found


def best_so_far(bars: Bars) -> FloatArray:
    return warmed(bars.close >= np.maximum.accumulate(bars.close))


def every_seventh(bars: Bars) -> FloatArray:
    return warmed(np.arange(len(bars)) % 7 == 0)


class TestWarmUp:
    @pytest.mark.parametrize(
        ("answer", "bar", "words"),
        [
            (partial(average, 0.3), None, "a lookback of 20 is enough"),
            (running_sum, 10, "no lookback up to 80 is enough"),
            (best_so_far, None, "no lookback up to 80 is enough"),
            (every_seventh, 14, "no lookback up to 80 is enough"),
            (lambda bars: np.ones(len(bars)), 0, "before there are 10 bars"),
            (lambda bars: np.where(np.arange(len(bars)) < 8, np.nan, 1.0), 8, "before there are 10 bars"),
        ],
    )
    def test_what_looks_back_too_far(self, answer: Answer, bar: int | None, words: str) -> None:
        found = planted(answer)
        assert found.name == "warm-up", found
        assert words in found.detail
        assert found.bar == bar or (bar is None and found.bar is not None and found.bar >= LOOKBACK)

    def test_one_bar_too_few(self) -> None:
        found = planted(above_mean, lookback=LOOKBACK - 1)
        assert (found.name, found.bar) == ("warm-up", LOOKBACK - 1)
        assert f"a lookback of {LOOKBACK} is enough" in found.detail

    def test_the_values_are_told(self) -> None:
        found = planted(every_seventh)
        assert "all bars before it give 1.0, the last 10 alone give 0.0" in found.detail


class Shared:
    """Remembers over all instances."""

    name, lookback = "shared", 1
    asked: ClassVar[Iterator[int]] = count()

    def targets(self, bars: Bars) -> FloatArray:
        return np.full(len(bars), next(self.asked) % 5 / 5)


class Counting:
    name, lookback = "counting", 1

    def __init__(self) -> None:
        self.asked = 0

    def targets(self, bars: Bars) -> FloatArray:
        self.asked += 1
        return np.full(len(bars), float(self.asked > 12))


class Held:
    """Begins with what it answered last."""

    name, lookback = "held", 2

    def __init__(self) -> None:
        self.last = 0.0

    def targets(self, bars: Bars) -> FloatArray:
        change = np.diff(bars.close, prepend=bars.close[0])
        found = np.where(change > 0, 1.0, np.where(change < 0, 0.0, self.last))
        self.last = float(found[-1])
        return warmed(found, 2)


class Built:
    """Each instance differs."""

    name, lookback = "built", 1
    made: ClassVar[Iterator[int]] = count()

    def __init__(self) -> None:
        self.number = next(self.made)

    def targets(self, bars: Bars) -> FloatArray:
        return np.full(len(bars), float(self.number % 2))


def at_random(bars: Bars) -> FloatArray:
    return warmed(np.random.default_rng().random(len(bars)))


def by_the_clock(bars: Bars) -> FloatArray:
    return warmed(np.full(len(bars), perf_counter_ns() % 99_991 / 99_991))


def over_symbols(bars: Bars) -> FloatArray:
    return warmed(bars.close / np.nanmax(bars.close))


def decided_on_nothing(bars: Bars) -> FloatArray:
    change = np.diff(bars.close, prepend=np.nan)
    return warmed(np.where(change > 0, 1.0, 0.0), 2)


def breaking_in(bars: Bars) -> FloatArray:
    if bars.close.flags.owndata:
        bars.close.flags.writeable = True
        bars.close[...] = 1.0
    return np.full(bars.close.shape, np.nan)


class TestPurity:
    @pytest.mark.parametrize("make", [Shared, Counting, Held])
    def test_what_remembers(self, make: Callable[[], Strategy]) -> None:
        found = broken(make)
        assert found.name == "purity"
        assert found.bar is not None
        assert "asked again, of the same bars" in found.detail

    def test_what_differs_from_instance_to_instance(self) -> None:
        found = broken(Built)
        assert (found.name, found.bar) == ("purity", 0)
        assert "another instance" in found.detail

    @pytest.mark.parametrize("answer", [at_random, by_the_clock])
    def test_what_comes_from_elsewhere(self, answer: Answer) -> None:
        found = planted(answer)
        assert (found.name, found.bar) == ("purity", LOOKBACK - 1)

    def test_a_batch_that_mixes_its_symbols(self) -> None:
        found = planted(over_symbols, batch=True)
        assert found.name == "purity"
        assert "in a batch of several symbols" in found.detail

    def test_a_batch_that_decides_where_there_are_no_bars(self) -> None:
        found = planted(decided_on_nothing, lookback=2, batch=True)
        assert (found.name, found.bar) == ("purity", 1)
        assert f"listed {BARS // 4} bars later" in found.detail

    def test_writing_by_force(self) -> None:
        found = planted(breaking_in, lookback=1, batch=True)
        assert found.name == "purity"
        assert "writes into the bars" in found.detail

    def test_what_follows_is_not_checked(self) -> None:
        report = judged(lambda: Planted(at_random))
        assert [check.ok for check in report.checks] == [True, False, None, None, None]
        assert report.checks[3].detail == "not checked: nothing follows from it while purity fails"


def writing(bars: Bars) -> FloatArray:
    bars.close[:] = 0.0
    return above_mean(bars)


def dividing(bars: Bars) -> FloatArray:
    found = np.full(len(bars), np.nan)
    for row in range(LOOKBACK - 1, len(bars)):
        window = bars.close[row - LOOKBACK + 1 : row + 1].tolist()
        found[row] = float((window[-1] - min(window)) / (max(window) - min(window)) > 0.5)
    return found


def printing(bars: Bars) -> FloatArray:
    sys.stdout.write(f"looking at {len(bars)} bars\n")
    return above_mean(bars)


def from_bar_50_on(value: float, bars: Bars) -> FloatArray:
    return warmed(np.where(np.arange(len(bars)) >= 50, value, 0.0))


def only_if_long(bars: Bars) -> FloatArray:
    if len(bars) > 50:
        raise MemoryError("too many")
    return above_mean(bars)


class TestAnswers:
    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (writing, "raises ValueError: assignment destination is read-only (test_check.py line "),
            (only_if_long, "raises MemoryError: too many"),
            (lambda bars: sys.exit("enough"), "raises SystemExit: enough"),
            (lambda bars: np.ones(len(bars) - 1), f"shape ({BARS - 1},) for bars of shape ({BARS},)"),
            (lambda bars: 1.0, "answers with shape ()"),
            (lambda bars: None, "answers with shape ()"),
            (lambda bars: ["long"] * len(bars), "which are no numbers"),
        ],
    )
    def test_what_is_no_answer(self, answer: Answer, words: str) -> None:
        report = judged(lambda: Planted(answer))
        assert [check.ok for check in report.checks] == [False, None, None, None, None]
        assert words in report.checks[0].detail

    def test_the_bar_it_raises_at(self) -> None:
        found = planted(dividing)
        assert (found.name, found.market, found.bar) == ("answers", "flat", 9)
        assert "ZeroDivisionError" in found.detail

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda bars: above_mean(bars) == 1.0, "array of bool"),
            (lambda bars: above_mean(bars).astype(np.float32), "array of float32"),
            (lambda bars: above_mean(bars).tolist(), "answers with a list"),
            (printing, f"prints 'looking at {BARS} bars'"),
        ],
    )
    def test_what_is_hardly_one(self, answer: Answer, words: str) -> None:
        """All else is checked nevertheless."""
        checks = judged(lambda: Planted(answer)).checks
        assert [check.ok for check in checks[:3]] == [False, True, True]
        assert words in checks[0].detail

    @pytest.mark.parametrize("value", [1.5, -1.0000001, np.inf])
    def test_what_is_no_position(self, value: float) -> None:
        checks = judged(lambda: Planted(partial(from_bar_50_on, value))).checks
        assert (checks[0].ok, checks[0].bar) == (False, 50)
        assert f"a target of {value!r}, outside [-1, 1]" in checks[0].detail

    def test_a_batch_of_another_shape(self) -> None:
        found = planted(lambda bars: above_mean(bars) if bars.close.ndim == 1 else bars.close[0], batch=True)
        assert (found.name, found.ok) == ("answers", False)

    def test_what_never_answers(self) -> None:
        def endless(bars: Bars) -> FloatArray:
            while True:
                pass

        before = judged(lambda: Planted(endless), limit=partial(deadline, 0.02))
        assert [check.ok for check in before.checks] == [False, None, None, None, None]
        assert before.checks[0].detail == "no answer within 0.02 s"

    def test_what_catches_everything_and_never_answers(self) -> None:
        @contextmanager
        def over() -> Iterator[None]:
            yield
            raise Hung("no answer")

        report = judged(lambda: Planted(above_mean), limit=over)
        assert report.checks[0].detail == "no answer"

    @pytest.mark.parametrize(
        ("lookback", "bars", "words"),
        [
            (2_000, 1_000, "it looks back on 2,000 bars, more than there are: give --bars 4000"),
            (60_000, None, "it looks back on 60,000 bars, and there are 100,000 at most"),
            (10**12, 1_000, "with a shorter lookback"),
        ],
    )
    def test_a_lookback_beyond_the_bars(self, lookback: int, bars: int | None, words: str) -> None:
        (found,) = judged(lambda: Planted(above_mean, lookback), bars=bars).checks
        assert (found.name, found.ok) == ("bars", False)
        assert words in found.detail


class TestMarkets:
    def test_a_seed_gives_the_same_and_another_one_others(self) -> None:
        first, again, other = (random_markets(seed, 200, MINUTE) for seed in (1, 1, 2))
        for name, bars in first.items():
            assert np.array_equal(bars.close, again[name].close)
            assert not np.array_equal(bars.close, other[name].close)

    @pytest.mark.parametrize("name", TIMEFRAMES)
    def test_bars_are_bars_of_their_timeframe(self, name: str) -> None:
        timeframe = TIMEFRAMES[name]
        for bars in random_markets(3, 80, timeframe).values():
            assert len(bars) == 80
            assert np.array_equal(timeframe.floor(bars.timestamp), bars.timestamp)
            assert np.array_equal(np.rint(bars.close * 100) / 100, bars.close)
            assert (bars.low > 0).all()
            assert (bars.high >= np.maximum(bars.open, bars.close)).all()
            assert (bars.low <= np.minimum(bars.open, bars.close)).all()
        candle = parts_of(timeframe)
        assert candle.ms < timeframe.ms or name == "1m"

    def test_futures_are_later_and_have_nothing_of_what_was(self) -> None:
        for bars in random_markets(3, 80, MINUTE).values():
            for future in futures_of(bars, 3):
                assert len(future) == len(bars)
                assert (future.timestamp >= bars.timestamp).all()
                assert (future.low > 0).all()


def trades(**columns: list[Any]) -> Trades:
    rows: dict[str, Any] = {
        "timestamp": [1_000, 2_000],
        "symbol": [0, 1],
        "buy": [True, False],
        "price": [10.0, 20.0],
        "quantity": [1.5, 2.5],
        "fee": [0.01, 0.02],
        "pnl": [0.0, 3.0],
    }
    return Trades(("BTC/USDT", "ETH/USDT"), *(np.array(column) for column in (rows | columns).values()))


class TestDifference:
    def test_none(self) -> None:
        assert first_difference(trades(), trades()) is None
        assert first_difference(trades(), trades(pnl=[0.0, 3.0 + 1e-10], fee=[0.01 - 1e-12, 0.02])) is None

    @pytest.mark.parametrize(
        ("columns", "words"),
        [
            ({"timestamp": [1_000, 2_001]}, "trade 1 has another timestamp"),
            ({"symbol": [1, 1]}, "trade 0 has another symbol"),
            ({"buy": [True, True]}, "trade 1 has another side"),
            ({"price": [10.0, 20.000000000000004]}, "trade 1 has another price"),
            ({"quantity": [1.5, 2.5000000000000004]}, "trade 1 has another quantity"),
            ({"fee": [0.01, 0.020001]}, "trade 1 has another fee"),
            ({"pnl": [1e-8, 3.0]}, "trade 0 has another pnl"),
        ],
    )
    def test_each_column(self, columns: dict[str, list[Any]], words: str) -> None:
        found = first_difference(trades(), trades(**columns))
        assert found is not None
        assert words in found
        assert "sell 2.5 ETH/USDT at 20.0 on 1970-01-01T00:00:02.000Z" in found or "trade 0" in found

    def test_one_more(self) -> None:
        empty = trades(**{name: [] for name in ("timestamp", "symbol", "buy", "price", "quantity", "fee", "pnl")})
        assert "2 trades over arrays and 0 in the loop: buy 1.5" in str(first_difference(trades(), empty))
        assert "is only in the loop" in str(first_difference(empty, trades()))
