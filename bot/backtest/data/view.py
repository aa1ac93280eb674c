"""What is known at a time: bars that end where that time does, and an error for whoever asks beyond."""

from __future__ import annotations

from typing import NamedTuple, overload

import numpy as np

from bot.domain import Bars, iso8601
from bot.timeframes import Timeframe


class LookAheadError(IndexError):
    """Somebody asked for a bar that is not closed yet at the time of the view."""


class Bar(NamedTuple):
    """One bar of ``Bars``."""

    timestamp: int
    open: float
    high: float
    low: float
    close: float
    volume: float


class AsOf:
    """The bars that are closed at ``now_ms``: those whose timestamp and timeframe add up to it at most.

    ``view[i]``, ``view[a:b]``, ``view.at(time)`` and ``view.between(first, end)`` give what they would give of a list
    of just these bars, so that ``view[-1]`` is the last closed one; what lies beyond raises LookAheadError. Bars come
    as read-only views of the arrays: nothing is copied, and writing raises.
    """

    __slots__ = ("_bars", "_count", "_open_ms", "_timeframe", "now_ms")

    def __init__(self, bars: Bars, timeframe: Timeframe, now_ms: int = 0) -> None:
        """``bars`` are of shape [N], in the order of time and each where a bar of ``timeframe`` opens."""
        self._bars, self._timeframe = _read_only(bars), timeframe
        self._count = 0
        self.now_ms = now_ms
        self.advance(now_ms)

    def advance(self, now_ms: int) -> int:
        """Moves the view forward, and returns how many bars became known. Raises ValueError for an earlier time."""
        if now_ms < self.now_ms:
            raise ValueError(f"a view goes forward only: from {iso8601(self.now_ms)} to {iso8601(now_ms)}")
        before = self._count
        # Where the bar opens that is not closed yet: each one before it is.
        self._open_ms, self.now_ms = self._timeframe.open_of(now_ms), now_ms
        newest = self._timeframe.back(self._open_ms, 1)
        self._count = int(np.searchsorted(self._bars.timestamp, newest, side="right"))
        return self._count - before

    def __len__(self) -> int:
        """How many bars are known."""
        return self._count

    @property
    def bars(self) -> Bars:
        """All that are known."""
        return self._bars[: self._count]

    @overload
    def __getitem__(self, chosen: int) -> Bar: ...
    @overload
    def __getitem__(self, chosen: slice) -> Bars: ...
    def __getitem__(self, chosen: int | slice) -> Bar | Bars:
        """A bar, or the bars of a slice without a step. Raises IndexError before the first one."""
        if isinstance(chosen, slice):
            if chosen.step not in (None, 1):
                raise ValueError("bars are in the order of time, each of them: a slice of them has no step")
            for edge in (chosen.start, chosen.stop):
                if edge is not None and edge > self._count:
                    raise self._unknown(f"bar {edge - 1}", edge - 1)
            return self.bars[chosen]
        if chosen >= self._count:
            raise self._unknown(f"bar {chosen}", chosen)
        if chosen < -self._count:
            raise IndexError(f"bar {chosen} of {self._count}")
        return self._bar(chosen % self._count)

    def at(self, timestamp: int) -> Bar:
        """The bar that opened at a time. Raises KeyError where there is none."""
        if timestamp >= self._open_ms:
            raise self._unknown(f"the bar of {iso8601(timestamp)}")
        row = int(np.searchsorted(self._bars.timestamp, timestamp))
        if row >= self._count or self._bars.timestamp[row] != timestamp:
            raise KeyError(f"there is no bar of {iso8601(timestamp)}")
        return self._bar(row)

    def between(self, first_ms: int, end_ms: int) -> Bars:
        """The bars that opened from one time to before another."""
        if end_ms > self._open_ms:
            raise self._unknown(f"what opens up to {iso8601(end_ms)}")
        first, end = np.searchsorted(self.bars.timestamp, (first_ms, end_ms)).tolist()
        return self._bars[first : max(first, end)]

    def _bar(self, row: int) -> Bar:
        bars = self._bars
        columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
        return Bar(int(bars.timestamp[row]), *(float(column[row]) for column in columns))

    def _unknown(self, what: str, row: int | None = None) -> LookAheadError:
        times = self._bars.timestamp
        if row is not None and row < len(times):
            what = f"{what} of {iso8601(int(times[row]))}"
        last = (
            f"the last known one is of {iso8601(int(times[self._count - 1]))}" if self._count else "none is known yet"
        )
        return LookAheadError(f"{what} is not known at {iso8601(self.now_ms)}: {last}")


def _read_only(bars: Bars) -> Bars:
    times = bars.timestamp.view()
    prices = [column.view() for column in (bars.open, bars.high, bars.low, bars.close, bars.volume)]
    for column in (times, *prices):
        column.flags.writeable = False
    return Bars(times, *prices)
