"""What a backtest runs on: candles from files or ticks from a ledger, by symbol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from bot.backtest.data.rows import BoolArray
from bot.backtest.data.series import Series
from bot.domain import FloatArray, IntArray, Market
from bot.timeframes import Timeframe


@dataclass(frozen=True, slots=True)
class SimulatedMarket:
    """What the simulated prices are a function of, as the settings have it: ``feed.symbols``, ``feed.simulated`` and
    the poll interval."""

    symbols: tuple[str, ...]
    seed: int
    volatility: float
    start_ms: int
    interval_ms: int


@dataclass(frozen=True, slots=True)
class TickSeries:
    """One symbol's recorded ticks in the order of time, each array of shape [N].

    ``history`` is True for what nothing is decided on: ticks that were recorded as history, those that retention has
    left of an older part of the tape, and those before the range. ``timestamp`` is int64 UTC milliseconds, the prices
    are float64 in the quote currency.
    """

    symbol: str
    market: Market
    timestamp: IntArray
    bid: FloatArray
    ask: FloatArray
    last: FloatArray
    history: BoolArray

    def __len__(self) -> int:
        return len(self.timestamp)

    def before(self, end_ms: int) -> TickSeries:
        end = int(np.searchsorted(self.timestamp, end_ms))
        prices = (self.bid[:end], self.ask[:end], self.last[:end])
        return TickSeries(self.symbol, self.market, self.timestamp[:end], *prices, self.history[:end])


@dataclass(frozen=True, slots=True)
class MarketData:
    """Either ``series`` or ``ticks`` has something, by symbol in the order in which it was asked for.

    What is traded on is from ``start_ms`` to before ``end_ms``, as it was asked for: an end that was left open is 0, or
    the year 2100. ``timeframe`` is the one of all candles, None for ticks.
    """

    start_ms: int
    end_ms: int
    timeframe: Timeframe | None = None
    series: Mapping[str, Series] = field(default_factory=dict)
    ticks: Mapping[str, TickSeries] = field(default_factory=dict)

    @property
    def kind(self) -> Literal["candles", "ticks"]:
        return "ticks" if self.ticks else "candles"

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(self.ticks or self.series)

    @property
    def markets(self) -> dict[str, Market]:
        """What is known of each symbol's market, by symbol."""
        found: dict[str, Market] = {symbol: each.market for symbol, each in self.series.items()}
        return found | {symbol: each.market for symbol, each in self.ticks.items()}
