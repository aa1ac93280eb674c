"""One account, live and in a backtest, with what each of the two could see of the prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bot.backtest.compare.sides import Side
from bot.backtest.source import CandleSource, Source, TickSource
from bot.domain import Bars, FloatArray, IntArray
from bot.engine import Plan
from bot.timeframes import Timeframe

LIVE, DATA = "live", "data"


class Hole(NamedTuple):
    """A time without prices on one side, from the last one before it to the first one after it; None: there is none."""

    after_ms: int | None
    until_ms: int | None


class Lacking(NamedTuple):
    """Bars of a window that one side does not have: when the first and the last of them open, and how many."""

    where: str
    first_ms: int
    last_ms: int
    missing: int


class Differing(NamedTuple):
    """The newest bar of a window whose close is not the same on both sides, else one of its other prices, and how many
    of the window's ``bars`` are not."""

    open_ms: int
    price: str
    live: float
    data: float
    differing: int
    bars: int


class Seen(NamedTuple):
    """Of one symbol: when it was polled, what the strategy's bars were live and in the data, and when its candles
    opened."""

    polled: IntArray
    live: Bars
    data: Bars
    candles: IntArray


@dataclass(frozen=True)
class Case:
    """``plan`` is the one of the backtest, which is on candles if ``candles`` tells their timeframe, and else on the
    ledger's own tape; ``timeframe`` is the one that was decided on live. ``targets``, and the ``last_prices`` of what
    was held, are those before both."""

    plan: Plan
    timeframe: Timeframe | None
    live: Side
    backtest: Side
    tape: Mapping[str, TickSource]
    sources: Mapping[str, Source]
    targets: Mapping[str, float]
    last_prices: Mapping[str, float]
    candles: Timeframe | None
    tolerance_ms: int
    interval_ms: int
    _seen: dict[str, Seen] = field(default_factory=dict)

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.live.trades.symbols

    def side(self, where: str) -> Side:
        return self.live if where == LIVE else self.backtest

    def hole(self, where: str, symbol: str, time: int) -> Hole | None:
        """What a side lacks at a time where the other one traded: live a poll within the bar, the data a candle."""
        if self.candles is None:
            return None
        seen = self._of(symbol)
        if where == DATA:
            found = _hole(seen.candles, *_bar(self.candles, time))
            # The last candle before it is there to its end.
            return found and found._replace(after_ms=found.after_ms and self.candles.back(found.after_ms, -1))
        if self.timeframe is None:
            return _hole(seen.polled, time - self.tolerance_ms, time + self.tolerance_ms + 1)
        # A fill at a bar's close is one that live is made in the next bar.
        return _hole(seen.polled, *_bar(self.timeframe, time + 1))

    def silence(self, where: str, symbol: str, time: int) -> Hole | None:
        """The time without a poll that a fill at a poll ended, if it was longer than it should have been."""
        if where == DATA:
            return None
        polled = self._of(symbol).polled
        row = int(np.searchsorted(polled, time)) - 1
        if row < 0 or time - polled[row] <= 2 * self.interval_ms:
            return None
        return Hole(int(polled[row]), time)

    def in_one_bar(self, time: int, other: int) -> bool:
        """Whether fills at two times follow the same bar; one at its close comes a moment before the next begins."""
        if self.timeframe is None:
            return True
        return self.timeframe.open_of(time + 1) == self.timeframe.open_of(other + 1)

    def difference(self, symbol: str, time: int) -> Lacking | Differing | None:
        """Where the bars that a decision at a time looked back on are not the same on both sides; None on ticks."""
        if self.timeframe is None or self.candles is None:
            return None
        seen = self._of(symbol)
        count = self.plan.strategy.lookback
        live, data = (_window(bars, self.timeframe, time, count) for bars in (seen.live, seen.data))
        for where, lacks, has in ((LIVE, live, data), (DATA, data, live)):
            missing = np.setdiff1d(has.timestamp, lacks.timestamp)
            # A window that lacks a bar reaches back further for another one.
            missing = missing[missing >= lacks.timestamp[0]] if len(lacks) == count else missing
            if len(missing):
                return Lacking(where, int(missing[0]), int(missing[-1]), len(missing))
        return _differing(live, data)

    def _of(self, symbol: str) -> Seen:
        if symbol not in self._seen:
            tape, data = self.tape[symbol], self.sources[symbol]
            polled = tape.ticks.timestamp[~tape.history]
            opens = data.bars.timestamp if isinstance(data, CandleSource) else polled
            live, candles = (each.decisions(self.plan.timeframe).bars for each in (tape, data))
            self._seen[symbol] = Seen(polled, live, candles, opens)
        return self._seen[symbol]


def _bar(timeframe: Timeframe, time: int) -> tuple[int, int]:
    start = timeframe.open_of(time)
    return start, timeframe.back(start, -1)


def _hole(times: IntArray, start: int, end: int) -> Hole | None:
    first, after = np.searchsorted(times, (start, end)).tolist()
    if first < after:
        return None
    return Hole(int(times[first - 1]) if first else None, int(times[after]) if after < len(times) else None)


def _window(bars: Bars, timeframe: Timeframe, time: int, count: int) -> Bars:
    """The last bars that are over at a time."""
    end = int(np.searchsorted(timeframe.ends(bars.timestamp) - 1, time, side="right"))
    return bars[max(0, end - count) : end]


def _differing(live: Bars, data: Bars) -> Differing | None:
    _, mine, other = np.intersect1d(live.timestamp, data.timestamp, assume_unique=True, return_indices=True)
    names = ("close", "high", "low", "open")
    pairs: list[tuple[FloatArray, FloatArray]] = [
        (getattr(live, name)[mine], getattr(data, name)[other]) for name in names
    ]
    differ = np.array([left != right for left, right in pairs])
    rows = np.flatnonzero(differ.any(axis=0))
    if not len(rows):
        return None
    column = int(np.argmax(differ.any(axis=1)))
    newest = int(np.flatnonzero(differ[column])[-1])
    left, right = pairs[column]
    numbers = (float(left[newest]), float(right[newest]), len(rows), len(mine))
    return Differing(int(live.timestamp[mine[newest]]), names[column], *numbers)
