"""The search for parameters: what is tried, on which bars, and that many at a time find what one by one does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.backtest import run_backtest
from bot.backtest.optimize import figures, sweep
from bot.backtest.optimize.document import document
from bot.backtest.optimize.figures import MAX_DRAWDOWN
from bot.backtest.optimize.found import Found
from bot.backtest.optimize.grid import Grid, GridError, combinations
from bot.backtest.optimize.joined import walked
from bot.backtest.optimize.parquet import write
from bot.backtest.optimize.ranges import axes
from bot.backtest.optimize.search import search
from bot.backtest.optimize.study import IN_SAMPLE, OUT_OF_SAMPLE, Status, Study, example
from bot.backtest.optimize.table import text
from bot.backtest.optimize.windows import Window, split, walk_forward
from bot.backtest.optimize.workers import StartMethod
from bot.backtest.run import setup_of
from bot.domain import Bars, FloatArray
from bot.ports import Strategy
from bot.strategies import StrategyError, build
from bot.strategies.indicators import ema, highest, lowest, moments, rsi, sma, sums
from bot.strategies.registry import Factory
from bot.strategies.sharing import part_of, pool_of, shared
from bot.timeframes import HOUR_MS, TIMEFRAMES

START = 1_704_067_200_000  # 2024-01-01T00:00:00Z
HOUR = TIMEFRAMES["1h"]
OPTIONS: dict[str, Any] = {"capital": 1_000_000, "quantity": 1, "fee_rate": 0.0002}


def market(count: int, seed: int = 7) -> Bars:
    """Hourly candles in whole cents, some of them missing."""
    rng = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.01, count))), 2)
    opened = np.round(close * (1 + rng.normal(0, 0.002, count)), 2)
    high, low = np.maximum(opened, close) + 0.5, np.minimum(opened, close) - 0.5
    kept = rng.random(count) > 0.02
    prices = [column[kept] for column in (opened, high, low, close)]
    return Bars.from_arrays((START + np.arange(count) * HOUR_MS)[kept], *prices)


BARS = market(1_000)
END = START + 1_000 * HOUR_MS


def tried(*texts: str, **options: Any) -> list[dict[str, Any]]:
    return list(combinations(axes(texts), **options))


def study(
    bars: Bars | Mapping[str, Bars] = BARS,
    *texts: str,
    strategy: str = "sma_cross",
    windows: list[Window] | None = None,
    folder: Path | None = None,
    by: str = "sharpe",
    **options: Any,
) -> Study:
    setup = setup_of(bars, **{**OPTIONS, **options})
    found = combinations(axes(texts or ("fast=2:14:3", "slow=10:30:5")))
    return Study(setup, strategy, folder, found, windows or [split(START, END, 0.7, HOUR)], figures.chosen(by))


class TestRanges:
    def test_both_ends_are_included(self) -> None:
        assert tried("fast=5:15:5") == [{"fast": 5}, {"fast": 10}, {"fast": 15}]
        assert tried("fast=5:14:5") == [{"fast": 5}, {"fast": 10}]
        assert tried("fast=5:7") == [{"fast": 5}, {"fast": 6}, {"fast": 7}]

    def test_decimals_are_what_they_say(self) -> None:
        assert tried("d=0.1:0.7:0.1") == [{"d": value} for value in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)]
        assert [type(each["d"]) for each in tried("d=1:2:0.5")] == [float, float, float]

    def test_lists_and_single_values(self) -> None:
        assert tried("short=true,false", "n=5", "kind=a:b") == [
            {"short": True, "n": 5, "kind": "a:b"},
            {"short": False, "n": 5, "kind": "a:b"},
        ]

    def test_the_last_parameter_goes_round_first(self) -> None:
        found = combinations(axes(["a=1:3:1", "b=1,2"]))
        assert [tuple(each.values()) for each in found] == [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)]
        assert found[4] == {"a": 3, "b": 1}

    @pytest.mark.parametrize(
        ("texts", "problem"),
        [
            (["fast=5:50:0"], "--param fast=5:50:0: the step must be above 0, got 0"),
            (["fast=5:50:-5"], "the step must be above 0"),
            (["fast=50:5:5"], "the range ends at 5, before it begins at 50"),
            (["fast=5:5"], "ends at 5, where it begins"),
            (["fast=5:x:1"], "'x' is not a number"),
            (["fast=nan:5:1"], "'nan' is not a number"),
            (["fast=1:2:3:4"], "write fast=5:50:5"),
            (["fast=1:1e15:1e-15"], "too many steps"),
            (["fast"], "--param fast: write"),
            (["=5"], "--param =5: write"),
            (["fast=5,,6"], "a value is missing"),
            (["fast=5,6,5"], "5 is there twice"),
            (["fast=1", "fast=2"], "fast is given twice"),
            (["fast=1:10000000:1"], "10,000,000 combinations are more than 1,000,000"),
            (["a=1:4000:1", "b=1:4000:1"], "16,000,000 combinations are more than 1,000,000"),
            (["d=0.5:1.5"], "d=0.5:1.5 has no step"),
        ],
    )
    def test_nonsense_is_refused(self, texts: list[str], problem: str) -> None:
        with pytest.raises(GridError) as caught:
            combinations(axes(texts))
        assert problem in str(caught.value)


class TestDraws:
    @settings(max_examples=40)
    @given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 400), st.integers(0, 5))
    def test_distinct_ones_of_the_grid_in_its_order(self, width: int, height: int, draws: int, seed: int) -> None:
        parameters = axes([f"a=1:{width}:1", f"b=1:{height}:1"])
        grid = list(combinations(parameters))
        found = list(combinations(parameters, draws, seed))
        assert len(found) == min(draws, len(grid))
        assert found == [each for each in grid if each in found]

    def test_a_seed_is_a_draw(self) -> None:
        texts = ("a=1:100000:1", "b=1:100000:1")
        assert tried(*texts, draws=20, seed=1) == tried(*texts, draws=20, seed=1)
        assert tried(*texts, draws=20, seed=1) != tried(*texts, draws=20, seed=2)

    def test_numbers_between_two(self) -> None:
        rows = tried("d=0.25:0.75", "n=1,2", draws=500)
        found = [row["d"] for row in rows]
        assert len(set(found)) > 490
        assert len({row["n"] for row in rows}) == 2
        assert 0.25 <= min(found) < 0.26
        assert 0.74 < max(found) <= 0.75
        assert found == sorted(found)

    @pytest.mark.parametrize("draws", [0, 1_000_001])
    def test_how_many(self, draws: int) -> None:
        with pytest.raises(GridError, match="--random must be between 1 and 1,000,000"):
            combinations(axes(["a=1:9:1"]), draws)


class TestWindows:
    def test_the_split_is_where_a_bar_opens(self) -> None:
        window = split(START, END, 0.7, TIMEFRAMES["4h"])
        assert window == (START, START + 700 * HOUR_MS, END)
        assert split(START, END, 1, HOUR) == (START, END, END)

    @settings(max_examples=60)
    @given(st.integers(1, 12), st.floats(0.1, 0.95), st.booleans())
    def test_a_walk_forward(self, count: int, share: float, anchored: bool) -> None:
        windows = walk_forward(START, END, count, share, HOUR, anchored=anchored)
        assert len(windows) == count
        assert windows[0].start_ms == START
        assert windows[-1].end_ms == END
        for window in windows:
            assert START <= window.start_ms < window.split_ms < window.end_ms
            assert window.split_ms % HOUR_MS == 0
        for one, other in pairwise(windows):
            # Adjacent and disjoint out of sample.
            assert one.end_ms == other.split_ms
            assert other.start_ms == START if anchored else other.start_ms > one.start_ms
        if not anchored:
            for window in windows:
                length = window.end_ms - window.start_ms
                assert (window.split_ms - window.start_ms) / length == pytest.approx(share, abs=2 * HOUR_MS / length)

    @pytest.mark.parametrize(
        ("count", "share", "problem"),
        [
            (3, 1.0, "--split must be below 1"),
            (3, 0.0, "--split must be above 0"),
            (3, math.nan, "--split must be above 0"),
            (0, 0.7, "--walk-forward must be between"),
        ],
    )
    def test_nonsense_is_refused(self, count: int, share: float, problem: str) -> None:
        with pytest.raises(GridError, match=problem):
            walk_forward(START, END, count, share, HOUR)

    def test_a_window_without_bars(self) -> None:
        with pytest.raises(GridError, match="no out-of-sample bars in window 2 of 2"):
            study(windows=[Window(START, START + HOUR_MS, END), Window(START, END, END + HOUR_MS)])

    def test_no_future_in_sample_and_a_warm_start_out_of_sample(self) -> None:
        windows = walk_forward(START, END, 3, 0.6, HOUR)
        one = study(BARS, "fast=3", "slow=20", windows=windows)
        found = search(one, "sharpe")
        for number, (start, middle, end) in enumerate(windows):
            for side, first, stop in ((IN_SAMPLE, start, middle), (OUT_OF_SAMPLE, middle, end)):
                known = BARS[: int(np.searchsorted(BARS.timestamp, stop))]
                alone = run_backtest(known, build("sma_cross", fast=3, slow=20), **OPTIONS, start_ms=first)
                assert alone.trades.timestamp.min() >= first
                assert found.values[number, side, 0].tolist() == figures.row(alone.metrics, one.figures)


class Rewriting:
    """Writes into what an indicator gives it, as it may."""

    name, lookback = "rewriting", 20

    def __init__(self, period: int) -> None:
        self._period = period

    def targets(self, bars: Bars) -> FloatArray:
        top = highest(bars.high, self._period)
        top -= 1.0
        found = np.full(len(bars), np.nan)
        found[19:] = bars.close[19:] > top[20 - self._period :]
        return found


MANY: list[Strategy] = [
    *(build("sma_cross", fast=fast, slow=slow, short=fast == 5) for fast in (1, 4, 5) for slow in (6, 21, 32)),
    *(build("ema_cross", fast=fast, slow=10) for fast in (3, 5)),
    *(build("macd", fast=fast, slow=8, signal=4) for fast in (3, 5)),
    *(build("rsi_reversion", period=period, oversold=low) for period in (5, 7) for low in (30, 40)),
    *(build("bollinger_breakout", period=20, deviations=width) for width in (1.5, 2.0)),
    *(Rewriting(period) for period in (10, 20)),
    *(build("donchian_breakout", period=period, exit_period=7) for period in (10, 20)),
    build("buy_and_hold"),
]


class TestSharing:
    @settings(max_examples=60)
    @given(st.integers(1, 70), st.integers(0, 40), st.integers(0, 40), st.integers(0, 99))
    def test_a_part_of_what_is_shared_has_the_same_bits(self, period: int, first: int, left: int, seed: int) -> None:
        values = np.random.default_rng(seed).normal(100, 30, 200)
        part = values[first : len(values) - left]
        bars = Bars.from_ticks(np.arange(200), values)
        indicators: list[Callable[[FloatArray], Any]] = [
            lambda prices: sums(prices, period, 17),
            lambda prices: ema(prices, 1 + period % 5),
            lambda prices: rsi(prices, 2 + period % 2),
            lambda prices: moments(prices, period),
            lambda prices: (highest(prices, period), lowest(prices, period)),
        ]
        for indicator in indicators:
            alone = indicator(part)
            pool = pool_of(bars)
            shared(pool, indicator, values)
            together = shared(pool, indicator, part)
            assert [each.tobytes() for each in alone] == [each.tobytes() for each in together]

    def test_what_is_no_part(self) -> None:
        room = np.arange(30.0)
        values = room[5:25]
        pool = pool_of(Bars.from_ticks(np.arange(20), values))
        found = shared(pool, part_of, values[3:7])
        assert found is not None
        assert (found.start, found.length) == (3, 4)
        for other in (room[4:8], room[20:26], values[::2], values[::-1], values.view(np.int64), values.copy()):
            assert shared(pool, part_of, other) is None
        assert part_of(values) is None


class TestSweep:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"timeframe": "4h", "fill": "close", "slippage_bps": 3},
            {"quantity": None, "equity_fraction": 0.5, "start_ms": START + 400 * HOUR_MS},
        ],
    )
    def test_each_is_what_it_is_alone(self, options: dict[str, Any]) -> None:
        bars = {"A/USDT": BARS, "B/USDT": market(900, 8)}
        given_options = {**OPTIONS, **options}
        results = list(sweep(bars, MANY, **given_options))
        assert len(results) == len(MANY)
        for strategy, result in zip(MANY, results, strict=True):
            alone = run_backtest(bars, strategy, **given_options)
            assert list(result.trades) == list(alone.trades)
            assert result.refused == alone.refused
            assert result.metrics == alone.metrics
        assert sum(len(result.trades) for result in results) > 500

    def test_prices_that_are_one_array(self) -> None:
        bars = Bars.from_ticks(BARS.timestamp, BARS.close)
        results = list(sweep(bars, MANY, **OPTIONS))
        for strategy, result in zip(MANY, results, strict=True):
            assert list(result.trades) == list(run_backtest(bars, strategy, **OPTIONS).trades)
        assert BARS.close.flags.writeable

    def test_nothing_is_shared_afterwards(self) -> None:
        list(sweep(BARS, MANY, **OPTIONS))
        mean = sma(BARS.close, 5)
        mean += 1.0

    def test_none_is_none(self) -> None:
        assert list(sweep(BARS, [], **OPTIONS)) == []


class TestRanking:
    def test_from_the_best_in_sample(self) -> None:
        found = search(study(), "sharpe")
        in_sample = found.figure("sharpe", 0, IN_SAMPLE)
        ranked = found.ranked(0)
        assert in_sample[ranked].tolist() == sorted(in_sample[ranked].tolist(), reverse=True)
        assert found.best(0) == ranked[0]
        # fast=11, 14 with slow=10.
        assert found.count(Status.REFUSED) == 2
        assert len(ranked) == found.count(Status.TRIED) == 23

    def test_less_is_better_for_some(self) -> None:
        found = search(study(by=MAX_DRAWDOWN), MAX_DRAWDOWN)
        falls = found.figure(MAX_DRAWDOWN, 0, IN_SAMPLE)[found.ranked(0)]
        assert falls.tolist() == sorted(falls.tolist())

    def test_too_few_trades_and_the_undefined(self) -> None:
        found = Found(study(BARS, "fast=1:5:1", "slow=10"), "sharpe", min_trades=3)
        found.status[:] = Status.TRIED
        place = found.study.figures.index("trades"), found.study.figures.index("sharpe")
        found.values[0, IN_SAMPLE, :, place[0]] = [9, 9, 2, 9, 9]
        found.values[0, IN_SAMPLE, :, place[1]] = [1.0, math.nan, 5.0, 2.0, 2.0]
        found.values[0, OUT_OF_SAMPLE, :, place[1]] = [3.0, 7.0, 9.0, 1.0, 2.0]
        assert found.ranked(0).tolist() == [3, 4, 0, 1]
        assert found.too_few(0) == 1
        luck = found.luck(0, 2)
        assert (luck.median, luck.median_of_top, luck.place_of_best, luck.places) == (2.5, 1.5, 4, 4)
        # Ranks 1.5, 1.5 and 3 by 3, 2 and 1.
        assert luck.rank_correlation == pytest.approx(-math.sqrt(3) / 2)
        found.values[0, IN_SAMPLE, :, place[1]] = [4.0, 3.0, 3.0, 3.0, 1.0]
        found.values[0, OUT_OF_SAMPLE, :, place[1]] = [5.0, 4.0, 3.0, 2.0, 1.0]
        found.min_trades = 0
        # Ranks 1, 3, 3, 3 and 5 by 1 to 5: the sum of products 8, of squares 8 and 10.
        assert found.luck(0, 2).rank_correlation == pytest.approx(8 / math.sqrt(80))

    def test_none_that_is_defined(self) -> None:
        found = search(study(BARS, "fast=400", "slow=500:600:100", windows=[split(START, END, 0.4, HOUR)]), "sharpe")
        assert found.best(0) is None
        assert len(found.ranked(0)) == 2
        luck = found.luck(0, 2)
        assert (luck.place_of_best, luck.rank_correlation) == (None, None)
        assert "    -  " in text(document(found, 20))

    def test_all_are_refused(self) -> None:
        with pytest.raises(StrategyError, match="fast must be below slow, got fast=5 and slow=2"):
            example(Factory.of("sma_cross"), Grid({"fast": (5, 6), "slow": (2, 3)}))

    def test_a_metric_that_there_is_not(self) -> None:
        with pytest.raises(GridError, match="--by sharp: did you mean sharpe"):
            figures.chosen("sharp")


class TestWalkForward:
    def test_the_joined_parts(self) -> None:
        windows = walk_forward(START, END, 4, 0.6, HOUR)
        by = "open_trades"
        found = search(study(BARS, "fast=3", "slow=20", windows=windows, by=by), by)
        joined = walked(found)
        assert joined is not None
        total, trades, left = (
            np.array([found.figure(name, number, OUT_OF_SAMPLE)[0] for number in range(4)])
            for name in ("total_profit", "trades", by)
        )
        assert joined.total_profit == pytest.approx(total.sum())
        # What a part leaves open ends there, but for the last.
        assert joined.trades == trades.sum() + left[:-1].sum()
        assert left[:-1].sum() > 0
        assert (joined.start_ms, joined.end_ms + 1) == (windows[0].split_ms, END)
        assert joined.drawdown is not None
        assert joined.final_balance == pytest.approx(joined.starting_balance + joined.total_profit)

    def test_each_part_has_the_money_that_the_one_before_left(self) -> None:
        windows = walk_forward(START, END, 3, 0.6, HOUR)
        size: dict[str, Any] = {"quantity": None, "equity_fraction": 1}
        found = search(study(BARS, "fast=3", "slow=20", windows=windows, **size), "sharpe")
        joined = walked(found)
        assert joined is not None
        ratios = [1 + found.figure("total_profit_ratio", number, OUT_OF_SAMPLE)[0] for number in range(3)]
        assert 1 + joined.total_profit_ratio == pytest.approx(math.prod(ratios), rel=1e-6)

    def test_a_table_of_all_windows(self) -> None:
        windows = walk_forward(START, END, 3, 0.6, HOUR)
        found = search(study(windows=windows), "sharpe")
        shown = text(document(found, 5, walked(found)))
        assert "joined out of sample" in shown
        assert len([line for line in shown.splitlines() if line.startswith(("1 ", "2 ", "3 "))]) == 3


RAISES = """
import os
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Raises:
    period: int = 1
    lookback = 1

    def targets(self, bars):
        if self.period == 3 and bars.timestamp[-1] > {late}:
            raise ZeroDivisionError("three")
        if self.period == 4:
            os._exit(7)
        return (bars.close > np.median(bars.close[:2]) + self.period).astype(float)
"""


def raising(folder: Path) -> Path:
    (folder / "raises.py").write_text(RAISES.format(late=START + 900 * HOUR_MS))
    return folder


def collected(one: Study, jobs: int, start_method: StartMethod = "spawn") -> Found:
    return search(one, "sharpe", jobs=jobs, start_method=start_method)


class TestParts:
    def test_a_strategy_that_raises(self, tmp_path: Path) -> None:
        one = study(BARS, "period=1:3:1", strategy="raises", folder=raising(tmp_path))
        found = search(one, "sharpe")
        assert found.failures == {2: "ZeroDivisionError: three"}
        assert found.status.tolist() == [[Status.TRIED, Status.TRIED, Status.FAILED]]
        assert np.isnan(found.values[:, :, 2]).all()
        assert "period=3 failed: ZeroDivisionError: three" in text(document(found, 5))

    def test_as_many_processes_as_you_like(self, tmp_path: Path) -> None:
        """Those that share nothing with this one but the file of the bars."""
        one = study(BARS, "period=1:3:1", strategy="raises", folder=raising(tmp_path))
        assert len(one.parts(2)) > 2
        alone, spread = collected(one, 1), collected(one, 2)
        assert spread.ended is None
        assert spread.failures == alone.failures
        assert spread.status.tolist() == alone.status.tolist()
        assert np.array_equal(spread.values, alone.values, equal_nan=True)

    def test_one_that_dies(self, tmp_path: Path) -> None:
        found = collected(study(BARS, "period=4:5:1", strategy="raises", folder=raising(tmp_path)), 2)
        assert found.ended == "one of the 2 worker processes ended (exit code 7)"


class TestParquet:
    def test_a_row_for_each_combination_in_each_window(self, tmp_path: Path) -> None:
        windows = walk_forward(START, END, 2, 0.6, HOUR)
        one = study(BARS, "fast=5,20", "slow=10,30", "short=true,false", windows=windows, by="sqn")
        found = search(one, "sqn", min_trades=5)
        write(found, tmp_path / "found.parquet")
        assert [file.name for file in tmp_path.iterdir()] == ["found.parquet"]
        rows = pq.read_table(tmp_path / "found.parquet").to_pylist()
        assert len(rows) == 2 * 8
        assert [row["window"] for row in rows] == [1] * 8 + [2] * 8
        assert {row["split"].timestamp() * 1000 for row in rows} == {window.split_ms for window in windows}
        for place, row in enumerate(rows):
            window, number = divmod(place, 8)
            params = {name.removeprefix("param_"): row[name] for name in row if name.startswith("param_")}
            assert params == one.combinations[number]
            assert row["status"] == ("refused" if params["fast"] == 20 and params["slow"] == 10 else "tried")
            assert row["rank"] == next(
                (rank for rank, each in enumerate(found.ranked(window), 1) if each == number), None
            )
            for side, name in enumerate(("in_sample", "out_of_sample")):
                for figure in one.figures:
                    value = found.figure(figure, window, side)[number]
                    assert row[f"{name}_{figure}"] == (None if np.isnan(value) else value)
        assert isinstance(rows[0]["in_sample_trades"], int)

    def test_nothing_out_of_sample_has_no_columns(self, tmp_path: Path) -> None:
        found = search(study(windows=[split(START, END, 1, HOUR)]), "sharpe")
        write(found, tmp_path / "found.parquet")
        names = pq.read_schema(tmp_path / "found.parquet").names
        assert "in_sample_sharpe" in names
        assert not [name for name in names if name.startswith("out_of_sample")]
        assert "out of sample" not in text(document(found, 5))

    def test_values_of_several_types(self, tmp_path: Path) -> None:
        found = Found(study(BARS, "fast=5", "slow=20,many,true"), "sharpe")
        write(found, tmp_path / "found.parquet")
        column = pq.read_table(tmp_path / "found.parquet").column("param_slow").to_pylist()
        assert column == ["20", "many", "True"]
