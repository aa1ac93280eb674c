"""An exchange's candles as history: which ones to ask for, and the ticks that they become on the tape.

A closed candle becomes up to four ticks that lie in it, and ticks make bars: what comes out is the very candle, and
every bar of a longer timeframe that it is a part of.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from bot.bars import Lookback
from bot.domain import Block, FloatArray, IntArray
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


class Ticks(NamedTuple):
    """One symbol's prices in the order of time, shapes [N]."""

    times: IntArray
    prices: FloatArray


def block_of_candles(symbols: tuple[str, ...], candles: Mapping[str, Sequence[Candle]]) -> Block | None:
    """Closed candles, of one timeframe or several that do not overlap, as a block of history; see ``ticks_of``. None if
    none of them is a candle."""
    found = []
    for symbol in symbols:
        rows = candles.get(symbol, ())
        times = np.array([(row[0], row[0] + row[5]) for row in rows], np.int64).reshape(-1, 2)
        prices = np.array([row[1:5] for row in rows], np.float64).reshape(-1, 4)
        found.append(ticks_of(times[:, 0], times[:, 1], prices.T))
    block = block_of_ticks(symbols, found)
    return replace(block, warmup=len(block)) if len(block) else None


def ticks_of(opens: IntArray, ends: IntArray, prices: FloatArray, *, at_close: bool = False) -> Ticks:
    """Candles as ticks: open at the candle's own time, high and low at a third and two thirds of it (the low first
    where the price rose), close in its last millisecond. ``prices`` are open, high, low and close, shape [4, N].

    A tick that would change nothing is left out, but for the last one if ``at_close``; and so is a candle that is none.
    """
    usable = (np.isfinite(prices) & (prices > 0)).all(axis=0)
    if not usable.all():
        opens, ends, prices = opens[usable], ends[usable], prices[:, usable]
    first, last, lowest, highest = prices[0], prices[3], prices.min(axis=0), prices.max(axis=0)
    changes = first != last
    if not at_close and not changes.any() and (lowest == highest).all():
        return Ticks(opens, first)
    rises, third = last >= first, (ends - opens) // 3
    low_told, high_told = lowest < np.minimum(first, last), highest > np.maximum(first, last)
    four = (first, np.where(rises, lowest, highest), np.where(rises, highest, lowest), last)
    told = np.ones((len(opens), 4), np.bool_)
    told[:, 1] = np.where(rises, low_told, high_told)
    told[:, 2] = np.where(rises, high_told, low_told)
    if not at_close:
        told[:, 3] = changes | low_told | high_told
    times = np.stack((opens, opens + third, opens + 2 * third, ends - 1), axis=1)
    return Ticks(times[told], np.stack(four, axis=1)[told])


def block_of_ticks(symbols: tuple[str, ...], ticks: Sequence[Ticks]) -> Block:
    """Each symbol's ticks in one block, bid and ask as the last price; NaN where a symbol has none."""
    if len(ticks) == 1:
        times, last = ticks[0].times, ticks[0].prices[None]
    else:
        times = np.unique(np.concatenate([each.times for each in ticks]))
        last = np.full((len(ticks), len(times)), np.nan)
        for row, each in zip(last, ticks, strict=True):
            row[np.searchsorted(times, each.times)] = each.prices
    return Block(symbols, times, last, last, last)
