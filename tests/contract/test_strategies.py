"""What every strategy promises, whatever its parameters and whatever the market does.

Parametrised over the registry: a new built-in strategy is held to all of this by being registered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import talib
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bot.domain import Bars, FloatArray
from bot.ports import Strategy
from bot.strategies import StrategyError, build, known
from bot.strategies.invariants import first_breach
from bot.strategies.registry import BUILT_IN
from bot.strategies.windowed import BLOCK_VALUES

every_strategy = pytest.mark.parametrize("name", known())
examples = settings(max_examples=50)


def trending(rng: np.random.Generator, length: int) -> FloatArray:
    return np.asarray(100 + np.arange(length) * rng.uniform(-0.04, 0.04) + rng.normal(scale=0.01, size=length))


def tick_rounded(rng: np.random.Generator, length: int) -> FloatArray:
    return np.asarray(np.round(100 + np.cumsum(rng.integers(-1, 2, size=length)) * 0.01, 2))


def flat(rng: np.random.Generator, length: int) -> FloatArray:
    return np.full(length, rng.uniform(0.01, 1.0))


def random_walk(rng: np.random.Generator, length: int) -> FloatArray:
    return np.asarray(100 * np.exp(np.cumsum(rng.normal(scale=0.01, size=length))))


def jumpy(rng: np.random.Generator, length: int) -> FloatArray:
    return np.asarray(10 ** rng.uniform(-6, 6, size=length))


def piecewise_flat(rng: np.random.Generator, length: int) -> FloatArray:
    return np.asarray(rng.uniform(0.01, 1.0, size=length).repeat(rng.integers(1, 60, size=length))[:length])


MARKETS = (trending, tick_rounded, flat, random_walk, jumpy, piecewise_flat)


def bars_of(close: FloatArray) -> Bars:
    """Bars that open at the last close and, where the price moves, reach a little further than it."""
    opened = np.concatenate([close[..., :1], close[..., :-1]], axis=-1)
    reach = 0.1 * np.abs(close - opened)
    high = np.maximum(opened, close) + reach
    low = np.minimum(opened, close) - reach
    return Bars.from_arrays(np.arange(close.shape[-1]) * 60_000, opened, high, low, close)


def symbol(bars: Bars, row: int) -> Bars:
    return Bars(bars.timestamp, bars.open[row], bars.high[row], bars.low[row], bars.close[row], bars.volume[row])


@st.composite
def closes(draw: st.DrawFn, length: int) -> FloatArray:
    market = draw(st.sampled_from(MARKETS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    # A coin worth almost nothing and an index worth a lot: rounding differs, the promise does not.
    return market(rng, length) * draw(st.sampled_from([1.0, 1e-8, 1e7, 0.3]))


@st.composite
def configured(draw: st.DrawFn, name: str) -> Strategy:
    """The strategy with parameters drawn from the limits in its own hints, periods kept short for speed."""
    if draw(st.booleans()):
        return build(name)
    cls = BUILT_IN[name]
    hints = get_type_hints(cls, include_extras=True)
    params = {key: draw(values_of(hints[key])) for key in signature(cls).parameters}
    try:
        return build(name, **params)
    except StrategyError:
        assume(False)
        raise


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    if hint is bool:
        return st.booleans()
    if get_origin(hint) is not Annotated:
        return st.none() | values_of(get_args(hint)[0])
    kind, limits = get_args(hint)
    if kind is int:
        return st.integers(int(limits.least), 40)
    return st.floats(limits.least, min(limits.most, 99.0))


def equal(left: FloatArray, right: FloatArray) -> bool:
    return left.shape == right.shape and np.array_equal(left, right, equal_nan=True)


@every_strategy
@examples
@given(data=st.data())
def test_each_target_is_a_function_of_its_own_window(name: str, data: st.DataObject) -> None:
    strategy = data.draw(configured(name))
    close = data.draw(closes(strategy.lookback + 150))
    assert first_breach(strategy, bars_of(close)) is None


@every_strategy
@examples
@given(data=st.data())
def test_history_may_start_anywhere_and_the_future_may_be_anything(name: str, data: st.DataObject) -> None:
    strategy = data.draw(configured(name))
    warmup = strategy.lookback - 1
    close = data.draw(closes(warmup + 300))
    cut = data.draw(st.integers(1, 300))
    targets = strategy.targets(bars_of(close))

    later_start = strategy.targets(bars_of(close)[cut:])
    assert equal(later_start[warmup:], targets[cut + warmup :])

    other_future = close.copy()
    other_future[-cut:] = data.draw(closes(cut))
    assert equal(strategy.targets(bars_of(other_future))[:-cut], targets[:-cut])


@every_strategy
@examples
@given(data=st.data())
def test_symbols_together_are_symbols_one_by_one(name: str, data: st.DataObject) -> None:
    strategy = data.draw(configured(name))
    length = strategy.lookback + data.draw(st.sampled_from([0, 1, 90]))
    rows = [data.draw(closes(length)) for _ in range(3)]
    together = strategy.targets(bars_of(np.stack(rows)))
    assert equal(together, np.stack([strategy.targets(bars_of(row)) for row in rows]))


@every_strategy
@examples
@given(data=st.data())
def test_targets_are_positions_or_hold(name: str, data: st.DataObject) -> None:
    strategy = data.draw(configured(name))
    targets = strategy.targets(bars_of(data.draw(closes(strategy.lookback + 200))))
    allowed = [1.0, 0.0, -1.0] if getattr(strategy, "short", False) else [1.0, 0.0]
    assert np.isin(targets[~np.isnan(targets)], allowed).all()


@every_strategy
@examples
@given(data=st.data())
def test_a_flat_market_makes_no_signal(name: str, data: st.DataObject) -> None:
    strategy = data.draw(configured(name))
    price = data.draw(st.floats(1e-8, 1e9))
    targets = strategy.targets(bars_of(np.full(strategy.lookback + 200, price)))
    if name == "buy_and_hold":
        assert (targets == 1.0).all()
    else:
        assert np.isnan(targets).all()


@every_strategy
@examples
@given(data=st.data())
def test_a_symbol_listed_later_holds_until_it_has_its_window(name: str, data: st.DataObject) -> None:
    strategy = data.draw(configured(name))
    length = strategy.lookback + 100
    missing = data.draw(st.integers(1, length - 1))
    bars = bars_of(np.stack([data.draw(closes(length)) for _ in range(2)]))
    early, late = (strategy.targets(symbol(bars, row)) for row in (0, 1))
    for column in (bars.open, bars.high, bars.low, bars.close):
        column[1, :missing] = np.nan

    targets = strategy.targets(bars)
    first = missing + strategy.lookback - 1
    assert equal(targets[0], early)
    assert np.isnan(targets[1, :first]).all()
    assert equal(targets[1, first:], late[first:])


@every_strategy
@pytest.mark.parametrize("market", [tick_rounded, jumpy])
def test_long_histories_are_worked_on_in_blocks_that_leave_no_seam(
    name: str, market: Callable[[np.random.Generator, int], FloatArray]
) -> None:
    strategy = build(name)
    bars = bars_of(market(np.random.default_rng(1), 2 * BLOCK_VALUES + strategy.lookback + 50))
    seams = [strategy.lookback - 1 + block * BLOCK_VALUES for block in range(3)]
    rows = [row for seam in seams for row in range(max(seam - 30, 0), seam + 30)]
    assert first_breach(strategy, bars, rows) is None


@every_strategy
@pytest.mark.parametrize("length", [1, 2, 5])
def test_too_short_a_history_holds(name: str, length: int) -> None:
    strategy = build(name)
    targets = strategy.targets(bars_of(np.arange(1.0, length + 1)))
    assert np.isnan(targets[: strategy.lookback - 1]).all()
    assert targets.shape == (length,)
    assert strategy.targets(bars_of(np.ones((3, length)))).shape == (3, length)


@every_strategy
@examples
@given(data=st.data())
def test_absurd_prices_keep_the_promise_and_warn_nobody(name: str, data: st.DataObject) -> None:
    strategy = build(name)
    length = strategy.lookback + 40
    absurd = st.sampled_from([0.0, -1.0, 5e-324, 1e308, -1e308, np.inf, -np.inf, np.nan, 1.0])
    close = np.array(data.draw(st.lists(absurd, min_size=length, max_size=length)))
    assert first_breach(strategy, Bars.from_ticks(np.arange(length), close)) is None


@every_strategy
def test_it_takes_batches_and_is_a_value(name: str) -> None:
    strategy = build(name)
    assert isinstance(strategy, Strategy)
    assert strategy.batch  # type: ignore[attr-defined]
    assert strategy == build(name)
    assert hash(strategy) == hash(build(name))


@every_strategy
def test_prices_are_left_as_they_were(name: str) -> None:
    close = random_walk(np.random.default_rng(3), 600)
    bars = bars_of(close.copy())
    before = [column.copy() for column in (bars.open, bars.high, bars.low, bars.close)]
    build(name).targets(bars)
    for column, copy in zip((bars.open, bars.high, bars.low, bars.close), before, strict=True):
        assert equal(column, copy)


# What the textbook says on the last bar of a fall that turned into a rise, and the other way round.


@pytest.mark.parametrize(
    ("name", "after_rise", "after_fall"),
    [
        ("sma_cross", 1.0, 0.0),
        ("ema_cross", 1.0, 0.0),
        ("macd", 1.0, 0.0),
        ("rsi_reversion", 0.0, 1.0),
        ("bollinger_breakout", 1.0, 0.0),
        ("donchian_breakout", 1.0, 0.0),
        ("buy_and_hold", 1.0, 1.0),
    ],
)
def test_which_side_it_takes(name: str, after_rise: float, after_fall: float) -> None:
    rise = 100 * 1.02 ** np.concatenate([np.zeros(500), np.arange(8)])
    assert build(name).targets(bars_of(rise))[-1] == after_rise
    assert build(name).targets(bars_of(1 / rise))[-1] == after_fall
    if name != "buy_and_hold":
        short = build(name, short=True)
        assert {short.targets(bars_of(close))[-1] for close in (rise, 1 / rise)} == {1.0, -1.0}


def test_donchian_leaves_by_the_shorter_channel() -> None:
    close = np.concatenate([np.arange(100.0, 130.0), [124.0, 118.0]])
    bars = Bars.from_ticks(np.arange(len(close)), close)
    quick, slow = build("donchian_breakout", exit_period=5), build("donchian_breakout", exit_period=20)
    assert quick.targets(bars)[-3:-1].tolist() == [1.0, 0.0]
    assert slow.targets(bars)[-3] == 1.0
    assert np.isnan(slow.targets(bars)[-2:]).all()


def sma_gap(close: FloatArray) -> FloatArray:
    return np.asarray(talib.SMA(close, 10) - talib.SMA(close, 30))


def ema_gap(close: FloatArray) -> FloatArray:
    return np.asarray(talib.EMA(close, 12) - talib.EMA(close, 26))


def macd_histogram(close: FloatArray) -> FloatArray:
    return np.asarray(talib.MACD(close, 12, 26, 9)[2])


@pytest.mark.parametrize(("name", "gap"), [("sma_cross", sma_gap), ("ema_cross", ema_gap), ("macd", macd_histogram)])
def test_crossovers_side_with_talib(name: str, gap: Callable[[FloatArray], FloatArray]) -> None:
    close = random_walk(np.random.default_rng(11), 5_000)
    expected = gap(close)
    # TA-Lib never forgets, these do: where its gap is smaller than what is forgotten, either side is right.
    decisive = np.abs(expected) > 1e-6 * close
    decisive[:1_000] = False
    assert decisive.sum() > 3_900
    assert equal(build(name).targets(bars_of(close))[decisive], (expected > 0).astype(float)[decisive])


# The checker itself: it has to see what it is there to see.


@dataclass(frozen=True)
class Planted:
    """A strategy with a mistake in it."""

    answer: Callable[[FloatArray], FloatArray]
    lookback: int = 30
    name: str = "planted"

    def targets(self, bars: Bars) -> FloatArray:
        return self.answer(bars.close)


def warmed_up(targets: FloatArray, lookback: int = 30) -> FloatArray:
    targets[: lookback - 1] = np.nan
    return targets


def running_sum_cross(close: FloatArray) -> FloatArray:
    total = np.cumsum(np.concatenate([[0.0], close]))
    fast, slow = (np.full(len(close), np.nan) for _ in range(2))
    fast[9:] = (total[10:] - total[:-10]) / 10
    slow[29:] = (total[30:] - total[:-30]) / 30
    return warmed_up((fast > slow).astype(float))


def talib_cross(close: FloatArray) -> FloatArray:
    return warmed_up((talib.SMA(close, 10) > talib.SMA(close, 30)).astype(float))


def unbounded_average(close: FloatArray) -> FloatArray:
    return warmed_up(np.tanh(np.nan_to_num(close / talib.EMA(close, 10) - 1)))


def best_of_all_history(close: FloatArray) -> FloatArray:
    return warmed_up((close >= np.maximum.accumulate(close)).astype(float))


def tomorrow(close: FloatArray) -> FloatArray:
    return warmed_up((np.append(close[1:], 0.0) > close).astype(float))


def scaled_by_the_whole(close: FloatArray) -> FloatArray:
    return warmed_up(close / close.max())


def too_eager(close: FloatArray) -> FloatArray:
    return np.ones(len(close))


def too_bold(close: FloatArray) -> FloatArray:
    return warmed_up(np.full(len(close), 1.5))


@pytest.mark.parametrize(
    ("answer", "close", "rule"),
    [
        (running_sum_cross, np.full(400, 0.1), "depends on more than"),
        (talib_cross, tick_rounded(np.random.default_rng(5), 4_000), "depends on more than"),
        (unbounded_average, random_walk(np.random.default_rng(5), 400), "depends on more than"),
        (best_of_all_history, random_walk(np.random.default_rng(5), 400), "depends on more than"),
        (tomorrow, random_walk(np.random.default_rng(5), 400), "depends on more than"),
        (scaled_by_the_whole, random_walk(np.random.default_rng(5), 400), "depends on more than"),
        (too_eager, np.full(400, 0.1), "before lookback"),
        (too_bold, np.full(400, 0.1), "outside"),
    ],
)
def test_the_checker_finds_the_mistake(
    answer: Callable[[FloatArray], FloatArray], close: FloatArray, rule: str
) -> None:
    breach = first_breach(Planted(answer), Bars.from_ticks(np.arange(len(close)), close))
    assert breach is not None
    assert rule in breach.rule
    assert f"row {breach.row}: " in str(breach)


def test_the_checker_refuses_targets_that_are_not_one_a_bar() -> None:
    bars = bars_of(np.ones(50))
    with pytest.raises(ValueError, match="float64 of shape"):
        first_breach(Planted(lambda close: close[1:]), bars)
    with pytest.raises(ValueError, match="float64 of shape"):
        first_breach(Planted(lambda close: close.astype(np.float32)), bars)
