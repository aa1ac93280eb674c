"""What a backtest of one account found, and what follows from it, worked out when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Protocol

import numpy as np

from bot.backtest.curve import Curve
from bot.backtest.equity import Closes, Panel, cut, panels, valued
from bot.backtest.metrics import Metrics, metrics_of
from bot.backtest.source import Marks, Source
from bot.backtest.trades import Trades
from bot.backtest.trips import RoundTrips, round_trips
from bot.domain import FloatArray
from bot.engine import Plan


class Prices(Protocol):
    """What accounts are valued at: the closes of the range that was traded, of all symbols [S] in their order.

    ``first_opens`` and ``last_closes`` are NaN for a symbol without bars there.
    """

    @property
    def start_ms(self) -> int: ...
    @property
    def bars(self) -> int: ...
    @property
    def first_opens(self) -> FloatArray: ...
    @property
    def last_closes(self) -> FloatArray: ...

    def panels(self) -> Iterator[Panel]:
        """Block by block, from the start each time."""


@dataclass(frozen=True)
class PricesInMemory:
    """Implements ``Prices`` for sources, which are gone through when something is first asked."""

    sources: Mapping[str, Source]

    @cached_property
    def marks(self) -> list[Marks]:
        return [source.marks() for source in self.sources.values()]

    @property
    def start_ms(self) -> int:
        return min((mark.start_ms for mark in self.marks if len(mark.times)), default=0)

    @property
    def bars(self) -> int:
        return sum(len(mark.times) for mark in self.marks)

    @property
    def first_opens(self) -> FloatArray:
        return np.array([mark.first for mark in self.marks])

    @property
    def last_closes(self) -> FloatArray:
        return np.array([mark.prices[-1] if len(mark.times) else np.nan for mark in self.marks])

    def panels(self) -> Iterator[Panel]:
        return panels([cut(Closes(mark.times, mark.prices)) for mark in self.marks])


@dataclass(frozen=True, repr=False)
class Result:
    """``trades`` are the fills; ``refused`` counts the signals that had none, by reason."""

    plan: Plan
    capital: Decimal
    trades: Trades
    refused: Mapping[str, int]
    prices: Prices

    @cached_property
    def curve(self) -> Curve:
        """The equity from bar to bar, as a report needs it."""
        blocks = valued(float(self.capital), self.trades, self.prices.panels())
        return Curve.folded(float(self.capital), self.prices.start_ms, blocks)

    @cached_property
    def equity(self) -> FloatArray:
        """What the account is worth at each close, shape [N]: cash and positions, in the quote currency."""
        found = [equity for _, equity in valued(float(self.capital), self.trades, self.prices.panels())]
        return np.concatenate(found) if found else np.zeros(0)

    @cached_property
    def round_trips(self) -> tuple[RoundTrips, RoundTrips]:
        """Those that were closed, and those that the end of the data left open."""
        return round_trips(self.trades, self.prices.last_closes, self.curve.end_ms)

    @cached_property
    def metrics(self) -> Metrics:
        return metrics_of(
            self.trades,
            *self.round_trips,
            self.curve,
            first_opens=self.prices.first_opens,
            last_closes=self.prices.last_closes,
            rejected_signals=self.refused,
        )
