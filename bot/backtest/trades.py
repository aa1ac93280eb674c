"""The fills of a backtest, as a struct of arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bot.domain import FloatArray, IntArray, OrderSide

BoolArray = npt.NDArray[np.bool_]


class Trade(NamedTuple):
    """One fill, as a row of the ledger's table ``trades``: ``pnl`` is the realised profit of the part that it closed,
    at average cost and before fees; price, fee and pnl in the quote currency, quantity in the base currency."""

    timestamp: int
    symbol: str
    side: OrderSide
    price: float
    quantity: float
    fee: float
    pnl: float


@dataclass(frozen=True, slots=True, repr=False)
class Trades:
    """All fills of one account in the order in which they happened, each array of shape [K].

    ``timestamp`` is int64 UTC milliseconds, ``symbol`` an index into ``symbols``, ``buy`` tells the side; prices,
    fees and pnl are float64 in the quote currency, quantities in the base currency.
    """

    symbols: tuple[str, ...]
    timestamp: IntArray
    symbol: IntArray
    buy: BoolArray
    price: FloatArray
    quantity: FloatArray
    fee: FloatArray
    pnl: FloatArray

    def __repr__(self) -> str:
        return f"Trades({len(self)} of {', '.join(self.symbols)})"

    def __len__(self) -> int:
        return len(self.timestamp)

    def __getitem__(self, row: int) -> Trade:
        return Trade(
            int(self.timestamp[row]),
            self.symbols[int(self.symbol[row])],
            OrderSide.BUY if self.buy[row] else OrderSide.SELL,
            float(self.price[row]),
            float(self.quantity[row]),
            float(self.fee[row]),
            float(self.pnl[row]),
        )

    def __iter__(self) -> Iterator[Trade]:
        return (self[row] for row in range(len(self)))

    @property
    def net_pnl(self) -> float:
        """Realised profit of all fills after their fees, in the quote currency."""
        return float(self.pnl.sum() - self.fee.sum())

    def of(self, symbol: int) -> Trades:
        """The fills of one symbol."""
        mine = self.symbol == symbol
        columns = (self.timestamp, self.symbol, self.buy, self.price, self.quantity, self.fee, self.pnl)
        return Trades(self.symbols, *(column[mine] for column in columns))
