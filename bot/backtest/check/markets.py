"""Seeded random markets, and the futures that a bar may have instead of its own.

Everything is cut from the simulated feed's walk, so that a seed gives the same prices on every machine.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bot.domain import Bars, FloatArray, IntArray
from bot.feeds.walk import Walk
from bot.timeframes import DAY_MS, TIMEFRAMES, Timeframe

# A Monday, so that weeks begin with a whole one.
START_MS = 1_577_664_000_000
TICKS_A_BAR = 4
# One candle of so many is missing, as where an exchange was down.
_MISSING_ONE_OF = 64
_STRETCH = 100


def parts_of(timeframe: Timeframe) -> Timeframe:
    """The longest candles of which whole ones make a bar of this timeframe; a minute is made of itself."""
    # Weeks and months are made of days.
    longest_ms = min(timeframe.ms - 1, DAY_MS)
    fitting = [
        each for each in TIMEFRAMES.values() if each.ms <= longest_ms and min(timeframe.ms, DAY_MS) % each.ms == 0
    ]
    return max(fitting, key=lambda each: each.ms, default=timeframe)


def random_markets(seed: int, length: int, timeframe: Timeframe) -> dict[str, Bars]:
    """Bars in whole cents of markets that have little in common, each of shape [length], some bars missing."""
    opens = _opens(seed, length, timeframe)
    return {name: _bars(opens, make(seed, length)) for name, make in _MARKETS.items()}


def futures_of(bars: Bars, seed: int) -> list[Bars]:
    """What may follow a bar of one symbol instead of what did, of the same length: another walk after a longer pause,
    no move at all, and prices that only rise, or fall, from beyond all there were."""
    length = len(bars)
    level = float(bars.close[0])
    slope = 1.0 + np.arange(length + 1) / _STRETCH
    pause = int(bars.timestamp[-1] - bars.timestamp[0]) + 1
    walked = _walk(seed, "future", 10_000, 0.01, length) * (level / 10_000)
    return [
        _bars(bars.timestamp + pause, walked),
        _bars(bars.timestamp, np.full((length, 1), level)),
        _bars(bars.timestamp, _steps(2 * float(bars.high.max()) * slope)),
        _bars(bars.timestamp, _steps(float(bars.low.min()) / 2 / slope)),
    ]


def _steps(path: FloatArray) -> FloatArray:
    return np.stack((path[:-1], path[1:]), axis=1)


def _opens(seed: int, length: int, timeframe: Timeframe) -> IntArray:
    first = timeframe.open_of(START_MS)
    gaps = _walk(seed, "gaps", 1_000_000, 0.01, 2 * length)[:, 0].astype(np.int64) % _MISSING_ONE_OF == 0
    kept = np.flatnonzero(~gaps)[:length]
    return np.array([timeframe.back(first, -bar) for bar in kept.tolist()], np.int64)


def _walk(seed: int, name: str, base: int, volatility: float, length: int) -> FloatArray:
    """The prices within each bar, in price steps; shape [length, TICKS_A_BAR]."""
    last = Walk.of(seed, name, base=base, volatility=volatility).quotes(0, length * TICKS_A_BAR)[2]
    ticks: FloatArray = last.reshape(length, TICKS_A_BAR).astype(np.float64)
    return ticks


def _bars(opens: IntArray, ticks: FloatArray) -> Bars:
    """Bars of prices of shape [N, ticks a bar]."""
    return Bars.from_arrays(opens, ticks[:, 0], ticks.max(axis=1), ticks.min(axis=1), ticks[:, -1])


def _trending(seed: int, length: int) -> FloatArray:
    """Up and down by half of the price, over and over."""
    bar = np.arange(length * TICKS_A_BAR).reshape(length, TICKS_A_BAR) / (2 * _STRETCH * TICKS_A_BAR)
    slope = 1.0 + np.abs(bar % 2.0 - 1.0)
    return np.rint(_walk(seed, "trending", 10_000, 0.002, length) * slope) / 100


def _choppy(seed: int, length: int) -> FloatArray:
    """A cent or two up and down: many bars are equal."""
    return _walk(seed, "choppy", 2_000, 0.0005, length) / 100


def _flat(seed: int, length: int) -> FloatArray:
    """No price but one for long stretches, and single moves between them."""
    walk = _walk(seed, "flat", 5_000, 0.005, length)[:, :1]
    bar = np.arange(length)
    moves = (bar // _STRETCH % 2 == 1) & (walk[:, 0].astype(np.int64) % 4 == 0)
    newest = np.maximum.accumulate(np.where(moves, bar, 0))
    return walk[newest] / 100


def _jumps(seed: int, length: int) -> FloatArray:
    """Half as much again within one bar is nothing unusual."""
    return _walk(seed, "jumps", 10_000, 0.1, length) / 100


_MARKETS: dict[str, Callable[[int, int], FloatArray]] = {
    "trending": _trending,
    "choppy": _choppy,
    "flat": _flat,
    "jumps": _jumps,
}
