"""What became of the signals of one account on one side of a comparison: in the ledger, or in a backtest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from bot.backtest.at_once import Asked, Booked
from bot.backtest.trades import Trades
from bot.domain import IntArray


class Signal(NamedTuple):
    """``reason`` is why it was refused; None: it was filled."""

    timestamp: int
    target: float
    reason: str | None


class Side(NamedTuple):
    """``reasons`` are of those rows of what was asked that were refused, ``filled`` has the row of each fill."""

    asked: Asked
    reasons: Mapping[int, str]
    filled: IntArray
    trades: Trades

    @classmethod
    def of(cls, asked: Asked, reasons: Mapping[int, str], trades: Trades) -> Side:
        refused = np.zeros(len(asked.symbol), np.bool_)
        refused[list(reasons)] = True
        return cls(asked, reasons, np.flatnonzero(~refused), trades)

    @classmethod
    def simulated(cls, asked: Asked, booked: Booked) -> Side:
        reasons = {row: reason for reason, rows in booked.refusals.items() for row in rows.tolist()}
        return cls.of(asked, reasons, booked.trades)

    @property
    def refused(self) -> dict[str, int]:
        """How many signals were refused, by reason."""
        counts: dict[str, int] = {}
        for reason in self.reasons.values():
            counts[reason] = counts.get(reason, 0) + 1
        return dict(sorted(counts.items()))

    def refusals(self) -> set[tuple[int, int, float, str]]:
        """Time, symbol, target and reason of each."""
        times, symbols, targets = self.asked.quotes.timestamp, self.asked.symbol, self.asked.target
        return {
            (int(times[row]), int(symbols[row]), float(targets[row]), reason) for row, reason in self.reasons.items()
        }

    def target_of(self, fill: int) -> float:
        return float(self.asked.target[self.filled[fill]])

    def last_signal(self, symbol: int, until_ms: int) -> Signal | None:
        """A symbol's newest one that is not later than a moment."""
        end = int(np.searchsorted(self.asked.quotes.timestamp, until_ms, side="right"))
        # Backwards: it is one of the last of them.
        rows = (row for row in range(end - 1, -1, -1) if self.asked.symbol[row] == symbol)
        row = next(rows, None)
        return None if row is None else self._signal(row)

    def refused_near(self, symbol: int, target: float, around_ms: int, tolerance_ms: int) -> Signal | None:
        """A symbol's first refused one for a target within the tolerance of a moment."""
        times = self.asked.quotes.timestamp
        first = int(np.searchsorted(times, around_ms - tolerance_ms))
        end = int(np.searchsorted(times, around_ms + tolerance_ms, side="right"))
        for row in range(first, end):
            if row in self.reasons and self.asked.symbol[row] == symbol and self.asked.target[row] == target:
                return self._signal(row)
        return None

    def _signal(self, row: int) -> Signal:
        return Signal(int(self.asked.quotes.timestamp[row]), float(self.asked.target[row]), self.reasons.get(row))
