"""An exchange's candles as history: which ones to ask for, and the ticks that they become on the tape.

A closed candle becomes up to four ticks that lie in it, and ticks make bars: what comes out is the very candle, and
every bar of a longer timeframe that it is a part of.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bot.bars import Lookback
from bot.domain import Block
from bot.timeframes import DAY_MS, TIMEFRAMES, Timeframe

# timestamp of the open, open, high, low, close, milliseconds
Candle = tuple[int, float, float, float, float, int]
# What fills up to a whole bar where only a part of it is over, or missing.
_BRIDGES = ("1m", "1h", "1d")


class Segment(NamedTuple):
    """Closed candles from ``start_ms`` to ``end_ms``, both whole multiples of the timeframe."""

    timeframe: str
    start_ms: int
    end_ms: int


def ladder(after_ms: int, before_ms: int, needs: Sequence[Lookback], available: Collection[str]) -> list[Segment]:
    """The closed candles that lead up to ``before_ms`` from where ``needs`` look back to, or from ``after_ms`` where
    that is later, each as long as it may be; one after the other in time, and never one over the other.

    A candle may be as long as divides all the bars it is looked at in: under a strategy on hours, one on minutes takes
    candles of a minute as far as it looks back, and what lies before that comes in hours. Where the tape ends, or the
    open bar begins, in the middle of one, candles of minutes and hours lead to a whole one. Nothing is longer than a
    day: beyond, exchanges do not agree where a candle begins.
    """
    opens = [(timeframe, timeframe.back(timeframe.open_of(before_ms), count)) for timeframe, count in needs]
    names = {*_BRIDGES, *(timeframe.name for timeframe, _ in needs)} & set(available)
    usable = sorted((TIMEFRAMES[name] for name in names if TIMEFRAMES[name].ms <= DAY_MS), key=lambda each: -each.ms)
    if not opens or not usable:
        return []
    step = usable[-1].ms
    time = -(-max(after_ms + 1, min(start for _, start in opens)) // step) * step
    found: list[Segment] = []
    while time + step <= before_ms:
        chosen = _longest(usable, time, before_ms, opens)
        if chosen is None:
            time += step
            continue
        end = time + chosen.ms
        if found and (found[-1].timeframe, found[-1].end_ms) == (chosen.name, time):
            found[-1] = found[-1]._replace(end_ms=end)
        else:
            found.append(Segment(chosen.name, time, end))
        time = end
    return found


def _longest(
    usable: Sequence[Timeframe], time: int, before_ms: int, opens: Sequence[tuple[Timeframe, int]]
) -> Timeframe | None:
    """The longest candle that begins at a time and is right for all who look back on some of it."""
    for candle in usable:
        end = time + candle.ms
        if time % candle.ms == 0 and end <= before_ms:
            lookers = (timeframe for timeframe, start in opens if start < end)
            # Weeks and months are made of days.
            if all(min(timeframe.ms, DAY_MS) % candle.ms == 0 for timeframe in lookers):
                return candle
    return None


def block_of_candles(symbols: tuple[str, ...], candles: Mapping[str, Sequence[Candle]]) -> Block | None:
    """Closed candles, of one timeframe or several that do not overlap, as a block of history: open at the candle's own
    time, high and low at a third and two thirds of it (the low first where the price rose), close in its last
    millisecond. A tick that would change nothing is left out, and a candle that is no candle too. None if none is left.
    """
    ticks: dict[int, list[float]] = {}
    for row, symbol in enumerate(symbols):
        for candle in candles.get(symbol, ()):
            for time, price in _ticks(candle):
                ticks.setdefault(time, [math.nan] * len(symbols))[row] = price
    if not ticks:
        return None
    times = np.array(sorted(ticks), np.int64)
    last = np.array([ticks[time] for time in times.tolist()]).T.copy()
    return Block(symbols, times, last, last.copy(), last.copy(), warmup=len(times))


def _ticks(candle: Candle) -> list[tuple[int, float]]:
    timestamp, start, high, low, end, length_ms = candle
    prices = (start, high, low, end)
    if not all(math.isfinite(price) and price > 0 for price in prices):
        return []
    highest, lowest = max(prices), min(prices)
    extremes = [lowest, highest] if end >= start else [highest, lowest]
    third = length_ms // 3
    between = [
        (timestamp + place * third, price) for place, price in enumerate(extremes, start=1) if price not in (start, end)
    ]
    closing = [(timestamp + length_ms - 1, end)] if between or end != start else []
    return [(timestamp, start), *between, *closing]
