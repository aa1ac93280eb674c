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

    def at(self, rows: IntArray | BoolArray) -> Quotes:
        return Quotes(self.timestamp[rows], self.bid[rows], self.ask[rows], self.last[rows])


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
        starts = _starts(timeframe.floor(self.bars.timestamp))
        ends = np.append(starts[1:], len(self.bars)) - 1
        bars = _merged(self.bars, starts, ends, timeframe)
        at = 2 * ends + 2
        if at_close:
            at -= self._ends(self.bars.timestamp[ends], self.timeframe) == self._ends(bars.timestamp, timeframe)
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
            timestamp = np.where(at_close, self._ends(opened, self.timeframe), opened)
        return Quotes(timestamp, price, price, price)

    def last_before(self, times: IntArray) -> FloatArray:
        """The last price known at each time, a tick at that very time included; NaN before the first."""
        row = np.searchsorted(self.bars.timestamp, times, side="right") - 1
        known = np.maximum(row, 0)
        opened = self.bars.timestamp[known]
        closed = times >= self._ends(opened, self.timeframe)
        price = np.where(closed, self.bars.close[known], self.bars.open[known])
        return np.where(row < 0, np.nan, price)

    @property
    def marks(self) -> tuple[IntArray, FloatArray]:
        """When the price of each candle that is traded became known for good, and that price."""
        live = slice(int(np.searchsorted(self.bars.timestamp, self.start_ms)), None)
        return self._ends(self.bars.timestamp[live], self.timeframe), self.bars.close[live]

    @staticmethod
    def _ends(opens: IntArray, timeframe: Timeframe) -> IntArray:
        """The last millisecond of the bars that open at these times."""
        if timeframe.name == "1M":
            months = opens.astype("datetime64[ms]").astype("datetime64[M]") + 1
            return months.astype("datetime64[ms]").astype(np.int64) - 1
        return opens + (timeframe.ms - 1)


@dataclass(frozen=True, slots=True)
class TickSource:
    """One symbol's ticks off a tape, arrays of shape [N]; those that are ``history`` are not traded on."""

    market: Market
    ticks: Quotes
    history: BoolArray

    def decisions(self, timeframe: Timeframe | None) -> Decisions:
        """Of bars, or, without a timeframe, of every tick."""
        times, count = self.ticks.timestamp, len(self.ticks.timestamp)
        ticks = Bars.from_ticks(times, self.ticks.last)
        if timeframe is None:
            return Decisions(ticks, 0, count, lambda row: row, self.history)
        starts = _starts(timeframe.floor(times))
        ends = np.append(starts[1:], count) - 1
        bars = _merged(ticks, starts, ends, timeframe)
        live = np.append(np.where(self.history, count, np.arange(count)), count)
        place = np.minimum.accumulate(live[::-1])[::-1][ends + 1]
        # Of several that one tick asks for only the newest counts.
        unasked = place == count
        unasked[:-1] |= place[:-1] == place[1:]
        return Decisions(bars, 0, len(bars), lambda row: place[row], unasked)

    def quotes(self, places: IntArray) -> Quotes:
        return self.ticks.at(places)

    def last_before(self, times: IntArray) -> FloatArray:
        """The last price known at each time, a tick at that very time included; NaN before the first."""
        row = np.searchsorted(self.ticks.timestamp, times, side="right") - 1
        return np.where(row < 0, np.nan, self.ticks.last[np.maximum(row, 0)])

    @property
    def marks(self) -> tuple[IntArray, FloatArray]:
        """Time and last price of each tick that is traded."""
        live = ~self.history
        return self.ticks.timestamp[live], self.ticks.last[live]


Source = CandleSource | TickSource


def _starts(opens: IntArray) -> IntArray:
    """Where a run of equal opens begins."""
    changed = np.ones(len(opens), np.bool_)
    np.not_equal(opens[1:], opens[:-1], out=changed[1:])
    return np.flatnonzero(changed)


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
