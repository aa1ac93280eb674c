"""The equity curve of an account, folded block by block into what a report says of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from bot.backtest.equity import BLOCK
from bot.backtest.outline import Outline
from bot.domain import FloatArray, IntArray, iso8601
from bot.timeframes import DAY_MS


class Drawdown(NamedTuple):
    """A fall below the highest equity so far: how far, in the quote currency and as a ratio of the peak; from the last
    moment at the peak to the lowest one, and when the peak was reached again, None if it was not.

    Source: Magdon-Ismail and Atiya 2004.
    """

    absolute: float
    ratio: float
    peak_ms: int
    trough_ms: int
    recovered_ms: int | None


@dataclass(frozen=True, slots=True)
class Curve:
    """Equity from ``start_ms``, where it is the capital, to ``end_ms``, the last moment that has one (both UTC ms).

    ``daily`` [D] is the last equity of each UTC day, of all days from the first to the last: one without a bar has that
    of the day before it. ``day_ms`` [D] is where each begins. ``drawdown`` is the largest by ratio and
    ``drawdown_absolute`` the largest in the quote currency, often the same; None if it never fell. ``times`` and
    ``values`` are some 4,000 points at most with all extremes among them, for plots.
    """

    capital: float
    start_ms: int
    end_ms: int
    bars: int
    first: float
    last: float
    day_ms: IntArray
    daily: FloatArray
    drawdown: Drawdown | None
    drawdown_absolute: Drawdown | None
    longest_under_water_ms: int
    times: IntArray
    values: FloatArray

    @classmethod
    def folded(cls, capital: float, start_ms: int, blocks: Iterable[tuple[IntArray, FloatArray]]) -> Curve:
        """Of blocks of times and equity, as ``equity.equities`` yields them."""
        fold = CurveFold(capital, start_ms)
        for times, equity in blocks:
            fold.add(times, equity)
        return fold.result()

    @property
    def days(self) -> float:
        """How long it is, in days of 24 hours; a bar lasts until the end of its last millisecond."""
        return (self.end_ms + 1 - self.start_ms) / DAY_MS if self.bars else 0.0

    @property
    def daily_returns(self) -> FloatArray:
        """Each day's equity by that of the day before it, less 1; the first day's by the capital. Shape [D], NaN after
        a day that ended with nothing or less."""
        before = np.append(self.capital, self.daily[:-1])
        grown: FloatArray = np.divide(self.daily, before, out=np.full(len(before), np.nan), where=before > 0)
        return grown - 1.0


class CurveFold:
    """Takes a curve in blocks of any size and keeps little more than one value a day."""

    def __init__(self, capital: float, start_ms: int) -> None:
        if not capital > 0:
            raise ValueError(f"capital must be positive, got {capital}")
        self._capital = self._first = self._last = float(capital)
        self._start_ms = self._end_ms = int(start_ms)
        self._falls = _Falls(self._capital, self._start_ms)
        self._days = _Days(self._start_ms, self._capital)
        self._outline = Outline()

    def add(self, times: IntArray, equity: FloatArray) -> None:
        """Equity at each of the times, shapes [n]; times increase, over all blocks too. Raises ValueError for NaN."""
        for start in range(0, len(times), BLOCK):
            rows = slice(start, start + BLOCK)
            self._add(times[rows], equity[rows])

    def _add(self, times: IntArray, equity: FloatArray) -> None:
        highest = float(equity.max())
        if math.isnan(highest):
            raise ValueError(f"equity is not a number at {iso8601(int(times[equity.argmax()]))}: a price is missing")
        if not self._outline.bars:
            self._first = float(equity[0])
        self._last, self._end_ms = float(equity[-1]), int(times[-1])
        self._falls.add(times, equity, highest)
        self._days.add(times, equity)
        self._outline.add(times, equity)

    def result(self) -> Curve:
        day_ms, daily = self._days.result()
        deepest, largest, under_water_ms = self._falls.result(self._end_ms)
        times, values = self._outline.points()
        return Curve(
            self._capital,
            self._start_ms,
            self._end_ms,
            self._outline.bars,
            self._first,
            self._last,
            day_ms,
            daily,
            deepest,
            largest,
            under_water_ms,
            np.append(self._start_ms, times),
            np.append(self._capital, values),
        )


class _Days:
    """The last value of each day from the first one on."""

    def __init__(self, start_ms: int, value: float) -> None:
        self._first = start_ms // DAY_MS
        self._values = [value]

    def add(self, times: IntArray, equity: FloatArray) -> None:
        first, last = int(times[0]) // DAY_MS, int(times[-1]) // DAY_MS
        midnights = np.arange(first + 1, last + 1) * DAY_MS
        # A day without a bar ends as the one before it did.
        ends = np.append(np.searchsorted(times, midnights), len(times)) - 1
        known = first - self._first
        self._values += [self._values[-1]] * (known - len(self._values))
        self._values[known:] = equity[ends].tolist()

    def result(self) -> tuple[IntArray, FloatArray]:
        return (np.arange(len(self._values)) + self._first) * DAY_MS, np.array(self._values)


@dataclass(slots=True)
class _Falls:
    """The largest falls so far, and the one that goes on. ``peak_ms`` is the last moment at the peak, ``low`` the
    lowest equity since, infinite where there is none below it."""

    peak: float
    peak_ms: int
    low: float = math.inf
    low_ms: int = 0
    deepest: Drawdown | None = None
    largest: Drawdown | None = None
    under_water_ms: int = 0

    def add(self, times: IntArray, equity: FloatArray, highest: float) -> None:
        if highest < self.peak:
            self._sink(times, equity)
            return
        peaks = np.maximum.accumulate(equity)
        np.maximum(peaks, self.peak, out=peaks)
        under = equity < peaks
        reached = int(under.argmin())
        if reached:
            self._sink(times[:reached], equity[:reached])
        if self.low < self.peak:
            self._keep(self._fall(int(times[reached])))
        # From here on it goes down and up again in turns: where each fall begins, and where it has ended.
        edges = reached + 1 + np.nonzero(under[reached + 1 :] != under[reached:-1])[0]
        whole = len(edges) // 2 * 2
        if whole:
            self._keep_best(times, equity, peaks, edges[:whole])
        if len(edges) > whole:
            start = int(edges[-1])
            self.peak, self.peak_ms, self.low = float(peaks[start]), int(times[start - 1]), math.inf
            self._sink(times[start:], equity[start:])
        else:
            self.peak, self.peak_ms, self.low = float(peaks[-1]), int(times[-1]), math.inf

    def result(self, end_ms: int) -> tuple[Drawdown | None, Drawdown | None, int]:
        """By ratio, by amount, and the longest time below a peak."""
        kept = replace(self)
        if kept.low < kept.peak:
            kept._keep(kept._fall(None), end_ms)
        return kept.deepest, kept.largest, kept.under_water_ms

    def _sink(self, times: IntArray, equity: FloatArray) -> None:
        place = int(equity.argmin())
        if equity[place] < self.low:
            self.low, self.low_ms = float(equity[place]), int(times[place])

    def _fall(self, recovered_ms: int | None) -> Drawdown:
        depth = self.peak - self.low
        return Drawdown(depth, depth / self.peak, self.peak_ms, self.low_ms, recovered_ms)

    def _keep_best(self, times: IntArray, equity: FloatArray, peaks: FloatArray, edges: IntArray) -> None:
        """Of falls that began and ended in this block."""
        starts, ends = edges[::2], edges[1::2]
        depths = peaks[starts] - np.minimum.reduceat(equity, edges)[::2]
        times_under = times[ends] - times[starts - 1]
        self.under_water_ms = max(self.under_water_ms, int(times_under.max()))
        for best in sorted({int((depths / peaks[starts]).argmax()), int(depths.argmax())}):
            start, end = int(starts[best]), int(ends[best])
            fall = _Falls(float(peaks[start]), int(times[start - 1]))
            fall._sink(times[start:end], equity[start:end])
            self._keep(fall._fall(int(times[end])))

    def _keep(self, fall: Drawdown, end_ms: int = 0) -> None:
        """The first of several that are as large."""
        if self.deepest is None or fall.ratio > self.deepest.ratio:
            self.deepest = fall
        if self.largest is None or fall.absolute > self.largest.absolute:
            self.largest = fall
        self.under_water_ms = max(self.under_water_ms, (fall.recovered_ms or end_ms) - fall.peak_ms)
