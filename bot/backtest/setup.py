"""A backtest without its strategy: any number of them can be put to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from bot.backtest.at_once import Asked
from bot.backtest.booking import booked
from bot.backtest.data.view import AsOf
from bot.backtest.result import PricesInMemory, Result
from bot.backtest.source import CandleSource, Source
from bot.backtest.vectorised import asked_by
from bot.domain import Account, IntArray
from bot.engine import Plan, Sizing
from bot.fills import Terms
from bot.ports import Strategy
from bot.timeframes import Timeframe


@dataclass(frozen=True, slots=True)
class Setup:
    """Prices by symbol, and the terms on which they are traded. ``timeframe`` is that of the bars which are decided on;
    None: whatever the sources have."""

    sources: Mapping[str, Source]
    capital: Decimal
    sizing: Sizing
    terms: Terms
    timeframe: Timeframe | None = None

    @property
    def span(self) -> tuple[int, int]:
        """From the first candle or tick that is traded to the end of the last one, in UTC milliseconds."""
        spans = [_span(source) for source in self.sources.values()]
        return min(start_ms for start_ms, _ in spans), max(end_ms for _, end_ms in spans)

    def between(self, start_ms: int, end_ms: int) -> Setup:
        """The same over what is before ``end_ms``, of which what is before ``start_ms`` is only looked back on."""
        sources = {symbol: _between(source, start_ms, end_ms) for symbol, source in self.sources.items()}
        return replace(self, sources=sources)

    def results(
        self, strategies: Sequence[Strategy], on_error: Callable[[Exception | SystemExit], None] = lambda error: None
    ) -> Iterator[Result]:
        """What each of the strategies comes to with an account of its own, one after the other. ``on_error`` hears of
        one that raised."""
        plans = [Plan(each, each.name, self.sizing, on_error, self.timeframe) for each in strategies]
        prices = PricesInMemory(self.sources)
        for plan, asked in zip(plans, asked_by(plans, self.sources), strict=True):
            yield traded(plan, self.capital, self.sources, self.terms, asked, prices)


def traded(
    plan: Plan, capital: Decimal, sources: Mapping[str, Source], terms: Terms, asked: Asked, prices: PricesInMemory
) -> Result:
    """What a plan comes to that asks for this, with a new account of its own."""
    currency = next(iter(sources.values())).market.quote
    found = booked(plan, Account(plan.account, currency, capital, capital), sources, asked, terms)
    return Result(plan, capital, found.trades, found.refused, prices)


def times_of(source: Source) -> IntArray:
    """When its candles open, or its ticks were; shape [N]."""
    return source.bars.timestamp if isinstance(source, CandleSource) else source.ticks.timestamp


def _span(source: Source) -> tuple[int, int]:
    times = times_of(source)
    if isinstance(source, CandleSource):
        first = int(np.searchsorted(times, source.start_ms))
        ends = source.timeframe.ends(times[-1:])
    else:
        first = int(np.argmin(source.history))
        ends = times[-1:] + 1
    return (int(times[first]), int(ends[0])) if first < len(times) else (0, 0)


def _between(source: Source, start_ms: int, end_ms: int) -> Source:
    if isinstance(source, CandleSource):
        # What is not closed by then is not there to be looked at.
        known = AsOf(source.bars, source.timeframe, end_ms).bars
        return replace(source, bars=known, start_ms=max(start_ms, source.start_ms))
    times = source.ticks.timestamp
    stop = int(np.searchsorted(times, end_ms))
    history = source.history[:stop] | (times[:stop] < start_ms)
    return replace(source, ticks=source.ticks.at(slice(stop)), history=history)
