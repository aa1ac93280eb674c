"""Candles of the simulated market: the very bars that the loop builds from its ticks."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import numpy as np

from bot.backtest.data.marketdata import SimulatedMarket
from bot.bars import CLOSE, HIGH, LOW, OPEN, Candles
from bot.domain import Bars, Market
from bot.feeds.simulated import SimulatedFeed
from bot.timeframes import Timeframe

TICKS_AT_ONCE = 131_072
T = TypeVar("T")


class SimulatedSource:
    """Implements ``series.Source``: a market that has no beginning, so that of what lies before a range there is as
    much as is asked for; where all of it is wanted it begins at its start."""

    report = None

    def __init__(self, symbol: str, given: SimulatedMarket, timeframe: Timeframe, start_ms: int, end_ms: int) -> None:
        self._feed = SimulatedFeed(
            [symbol], seed=given.seed, volatility=given.volatility, interval_ms=given.interval_ms
        )
        self._interval_ms, self._timeframe = given.interval_ms, timeframe
        self._first_ms, self._end_ms = min(given.start_ms, start_ms), end_ms
        self.market: Market = self._feed.markets[symbol]

    @property
    def rows_about(self) -> int:
        return (self._end_ms - self._first_ms) // self._timeframe.ms

    def bars(self, since_ms: int) -> Iterator[Bars]:
        """Every bar is whole, also those that the time to begin at and the end lie in."""
        timeframe, interval_ms = self._timeframe, self._interval_ms
        begin = timeframe.open_of(since_ms if since_ms > 0 else self._first_ms)
        closed = timeframe.back(timeframe.open_of(self._end_ms - 1), -1)
        beat, last = -(-begin // interval_ms) * interval_ms, -(-closed // interval_ms) * interval_ms
        candles = Candles.empty(timeframe, symbols=1, count=0)
        while beat <= last:
            ticks = min(TICKS_AT_ONCE, (last - beat) // interval_ms + 1)
            candles, found = candles.after(_now(self._feed.poll(beat, ticks)))
            for _, times, prices, _ in found:
                if times.size:
                    values = prices[OPEN, 0], prices[HIGH, 0], prices[LOW, 0], prices[CLOSE, 0]
                    yield Bars(times[0], *values, np.zeros(times.shape[1]))
            beat += ticks * interval_ms


def _now(poll: Coroutine[Any, Any, T]) -> T:
    """The answer of a feed that waits for nothing: there may be a loop running already, or none."""
    try:
        poll.send(None)
    except StopIteration as answer:
        found: T = answer.value
        return found
    raise RuntimeError("the simulated feed waits")
