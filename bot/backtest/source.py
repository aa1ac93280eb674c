"""What a backtest decides on and fills at: a symbol's bars, and for each of them the quote that an order gets.

These are the loop's own rules, over arrays. A bar is closed by the first tick of another one and decided on there; with
fills at the close, by the tick in its last millisecond. Where the closing tick is history, the first tick that is not
asks for the newest bar closed until then.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bot.domain import Bars, FloatArray, IntArray, Market
from bot.timeframes import Timeframe

BoolArray = npt.NDArray[np.bool_]
NEXT_OPEN, CLOSE = FILLS = "next_open", "close"


class Quotes(NamedTuple):
    """The prices at some moments, arrays of one shape: what a buy pays, what a sale brings, and the last price."""

    timestamp: IntArray
    bid: FloatArray
    ask: FloatArray
    last: FloatArray

    def at(self, rows: IntArray | BoolArray | slice) -> Quotes:
        return Quotes(self.timestamp[rows], self.bid[rows], self.ask[rows], self.last[rows])


def are_candles(start: FloatArray, high: FloatArray, low: FloatArray, end: FloatArray) -> BoolArray:
    """Whether all four are prices, with none beyond the high or the low."""
    if start is high is low is end:
        # Ticks, whose four prices are one array.
        return (low > 0) & (low < np.inf)
    return (low > 0) & (high < np.inf) & (low <= start) & (low <= end) & (high >= start) & (high >= end)


class Marks(NamedTuple):
    """What is traded of a source: prices for good, and since when they are, shapes [N]; when its first candle or tick
    began, and at which price, NaN where there is none."""

    times: IntArray
    prices: FloatArray
    start_ms: int
    first: float

    @classmethod
    def none(cls) -> Marks:
        return cls(np.zeros(0, np.int64), np.zeros(0), 0, np.nan)


@dataclass(frozen=True, slots=True)
class Decisions:
    """A symbol's bars in the timeframe of a strategy. Those in ``first`` to ``stop``, without the ones in ``unasked``,
    are decided on; ``place`` tells of some of these where in the source their orders are filled, ascending."""

    bars: Bars
    first: int
    stop: int
    place: Callable[[IntArray], IntArray]
    unasked: BoolArray | None = None


@dataclass(frozen=True, slots=True)
class CandleSource:
    """One symbol's candles, of the same length for all symbols of an account, so that a fill is never within one.

    Those before ``start_ms`` are history: looked back on, and not traded.
    """

    market: Market
    bars: Bars
    timeframe: Timeframe
    start_ms: int
    fill: str = NEXT_OPEN

    def decisions(self, timeframe: Timeframe | None) -> Decisions:
        """Of a timeframe that the candles are a part of; None: the candles' own."""
        at_close = self.fill == CLOSE
        if timeframe is None or timeframe == self.timeframe:
            return self._asked(_without_volume(self.bars), lambda row: 2 * row + 1 if at_close else 2 * row + 2)
        starts, ends = _runs(timeframe.floor(self.bars.timestamp))
        bars = _merged(self.bars, starts, ends, timeframe)
        at = 2 * ends + 2
        if at_close:
            at -= self.timeframe.ends(self.bars.timestamp[ends]) == timeframe.ends(bars.timestamp)
        return self._asked(bars, lambda row: at[row])

    def _asked(self, bars: Bars, at: Callable[[Any], Any]) -> Decisions:
        """A candle has two places, its open and its close; ``at`` tells the one that closes a bar."""
        live = 2 * int(np.searchsorted(self.bars.timestamp, self.start_ms))
        rows = range(len(bars))
        first = bisect_left(rows, live, key=at)
        stop = bisect_left(rows, 2 * len(self.bars), key=at)
        if first and live < 2 * len(self.bars) and (first == stop or at(first) != live):
            first -= 1
        return Decisions(bars, first, max(first, stop), lambda row: np.maximum(at(row), live))

    def quotes(self, places: IntArray) -> Quotes:
        row, at_close = places >> 1, (places & 1).astype(np.bool_)
        opened = self.bars.timestamp[row]
        if not at_close.any():
            price, timestamp = self.bars.open[row], opened
        else:
            price = np.where(at_close, self.bars.close[row], self.bars.open[row])
            timestamp = np.where(at_close, self.timeframe.ends(opened) - 1, opened)
        return Quotes(timestamp, price, price, price)

    def last_before(self, times: IntArray) -> FloatArray:
        """The last price known at each time, a tick at that very time included; NaN before the first."""
        if not len(self.bars):
            return np.full(len(times), np.nan)
        row = np.searchsorted(self.bars.timestamp, times, side="right") - 1
        known = np.maximum(row, 0)
        opened = self.bars.timestamp[known]
        closed = times >= self.timeframe.ends(opened) - 1
        price = np.where(closed, self.bars.close[known], self.bars.open[known])
        return np.where(row < 0, np.nan, price)

    def marks(self) -> Marks:
        """The closes of the candles that are traded."""
        live = self.bars[int(np.searchsorted(self.bars.timestamp, self.start_ms)) :]
        if not len(live):
            return Marks.none()
        closed = self.timeframe.ends(live.timestamp) - 1
        return Marks(closed, live.close, int(live.timestamp[0]), float(live.open[0]))


@dataclass(frozen=True, slots=True)
class TickSource:
    """One symbol's ticks off a tape, arrays of shape [N]; those that are ``history`` are not traded on."""

    market: Market
    ticks: Quotes
    history: BoolArray
    fill: str = NEXT_OPEN

    def decisions(self, timeframe: Timeframe | None) -> Decisions:
        """Of bars, or, without a timeframe, of every tick."""
        times, count = self.ticks.timestamp, len(self.ticks.timestamp)
        ticks = Bars.from_ticks(times, self.ticks.last)
        if timeframe is None:
            return Decisions(ticks, 0, count, lambda row: row, self.history)
        starts, ends = _runs(timeframe.floor(times))
        bars = _merged(ticks, starts, ends, timeframe)
        live = np.append(np.where(self.history, count, np.arange(count)), count)
        closing = ends + 1
        if self.fill == CLOSE:
            closing -= timeframe.floor(times[ends] + 1) != bars.timestamp
        place = np.minimum.accumulate(live[::-1])[::-1][closing]
        # Of several that one tick asks for only the newest counts.
        unasked = place == count
        unasked[:-1] |= place[:-1] == place[1:]
        return Decisions(bars, 0, len(bars), lambda row: place[row], unasked)

    def quotes(self, places: IntArray) -> Quotes:
        return self.ticks.at(places)

    def last_before(self, times: IntArray) -> FloatArray:
        """The last price known at each time, a tick at that very time included; NaN before the first."""
        if not len(self.ticks.timestamp):
            return np.full(len(times), np.nan)
        row = np.searchsorted(self.ticks.timestamp, times, side="right") - 1
        return np.where(row < 0, np.nan, self.ticks.last[np.maximum(row, 0)])

    def marks(self) -> Marks:
        """The last prices of the ticks that are traded."""
        live = ~self.history
        times, prices = self.ticks.timestamp[live], self.ticks.last[live]
        return Marks(times, prices, int(times[0]), float(prices[0])) if len(times) else Marks.none()


Source = CandleSource | TickSource


def _runs(opens: IntArray) -> tuple[IntArray, IntArray]:
    """Where each run of equal opens begins, and where its last one is."""
    changed = np.ones(len(opens) + 1, np.bool_)
    np.not_equal(opens[1:], opens[:-1], out=changed[1:-1])
    edges = np.flatnonzero(changed)
    return edges[:-1], edges[1:] - 1


def _merged(bars: Bars, starts: IntArray, ends: IntArray, timeframe: Timeframe) -> Bars:
    if not len(starts):
        return bars
    return Bars(
        timeframe.floor(bars.timestamp[starts]),
        bars.open[starts],
        np.maximum.reduceat(bars.high, starts),
        np.minimum.reduceat(bars.low, starts),
        bars.close[ends],
        np.zeros(len(starts)),
    )


def _without_volume(bars: Bars) -> Bars:
    """As the live loop sees them: polled prices come without a volume."""
    return Bars(bars.timestamp, bars.open, bars.high, bars.low, bars.close, np.zeros(len(bars)))
