"""What a backtest of one account found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from bot.backtest.at_once import Booked
from bot.backtest.result import Trades
from bot.backtest.source import Source
from bot.domain import FloatArray, IntArray
from bot.engine import Plan


@dataclass(frozen=True)
class Result:
    """``trades`` are the fills; ``refused`` counts the signals that had none, by reason; ``closes`` are the times at which
    each symbol's closes were known, and these, shapes [N]."""

    plan: Plan
    capital: Decimal
    trades: Trades
    refused: Mapping[str, int]
    closes: Sequence[tuple[IntArray, FloatArray]]

    @classmethod
    def of(cls, plan: Plan, capital: Decimal, sources: Mapping[str, Source], booked: Booked) -> Result:
        return cls(plan, capital, booked.trades, booked.refused, [source.marks for source in sources.values()])
