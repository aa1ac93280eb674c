"""Prices for a plot: few enough to be drawn, with every extreme, from any number of bars that come in blocks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, takewhile

import numpy as np

from bot.domain import Bars, FloatArray, IntArray
from bot.timeframes import DAY_MS, HOUR_MS, MINUTE_MS

# More than there are pixels, so that there is something to see closer by: hours of two years, minutes of two weeks.
POINTS_MAX = 20_000
# Of all symbols together: what a page still loads without a wait.
POINTS_OF_ALL = 80_000
POINTS_MIN = 400
_SECONDS = (1_000, 5_000, 15_000, 30_000)
_MINUTES = tuple(count * MINUTE_MS for count in (1, 5, 15, 30))
_HOURS = tuple(count * HOUR_MS for count in (1, 2, 4, 8))
# Each divides the next one, so that a wider point is made of whole narrower ones; beyond a day they double.
_WIDTHS = (*_SECONDS, *_MINUTES, *_HOURS, *(DAY_MS << power for power in range(20)))


def points_of_each(symbols: int) -> int:
    """How many points each of so many symbols gets."""
    return max(POINTS_MIN, min(POINTS_MAX, POINTS_OF_ALL // max(1, symbols)))


@dataclass(frozen=True, slots=True)
class PricePoints:
    """One symbol's prices, each array of shape [P], P <= ``points_max``.

    A point is a bar of the data as long as they are few, ``width_ms`` is 0 then; else all bars that open in the same
    ``width_ms``, with the first open, highest high, lowest low and last close. ``timestamp`` is the first bar's open.
    """

    points_max: int
    width_ms: int
    timestamp: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray

    @classmethod
    def empty(cls, points_max: int = POINTS_MAX) -> PricePoints:
        prices = [np.empty(0) for _ in range(4)]
        return cls(points_max, 0, np.empty(0, np.int64), *prices)

    def __len__(self) -> int:
        return len(self.timestamp)

    @property
    def step_ms(self) -> int:
        """How long a point is: where it is one bar, the time to the next one where that comes soonest."""
        if self.width_ms or len(self) < 2:
            return self.width_ms or MINUTE_MS
        return int(np.diff(self.timestamp).min())

    def after(self, bars: Bars) -> PricePoints:
        """With the next bars of shape [N]. How the bars were cut into blocks does not matter to the last points."""
        times = np.concatenate((self.timestamp, bars.timestamp))
        if not len(times):
            return self
        narrower = takewhile(lambda width: width < self.width_ms, _WIDTHS)
        for width in chain((self.width_ms,), _WIDTHS[len(list(narrower)) :]):
            heads = _heads(times, width)
            if len(heads) <= self.points_max:
                break
        ends = np.append(heads[1:], len(times)) - 1
        return PricePoints(
            self.points_max,
            width,
            times[heads],
            np.concatenate((self.open, bars.open))[heads],
            np.maximum.reduceat(np.concatenate((self.high, bars.high)), heads),
            np.minimum.reduceat(np.concatenate((self.low, bars.low)), heads),
            np.concatenate((self.close, bars.close))[ends],
        )


def _heads(times: IntArray, width_ms: int) -> IntArray:
    """Where each point begins; every time is one where the width is 0."""
    if not width_ms:
        return np.arange(len(times))
    place = times // width_ms
    return np.concatenate(([0], np.nonzero(place[1:] != place[:-1])[0] + 1))
