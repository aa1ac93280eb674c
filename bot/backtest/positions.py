"""What an account held after each of its fills."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from bot.backtest.trades import Trades
from bot.domain import FloatArray, IntArray

_EPSILON = float(np.finfo(np.float64).eps)


class Held(NamedTuple):
    """Fills by symbol, in their order within each: ``rows`` [K] of the trades, of which those from ``edges[s]`` to
    ``edges[s + 1]`` are symbol s's. ``quantity`` [K] is the signed position after each of them, ``largest`` [S] the
    largest one of each symbol, without its sign."""

    rows: IntArray
    edges: IntArray
    quantity: FloatArray
    largest: FloatArray

    @classmethod
    def of(cls, trades: Trades) -> Held:
        symbols = len(trades.symbols)
        # As small whole numbers they are sorted by their digits, in one pass or two.
        rows = np.argsort(trades.symbol.astype(np.min_scalar_type(symbols)), kind="stable")
        edges = np.zeros(symbols + 1, np.int64)
        np.cumsum(np.bincount(trades.symbol, minlength=symbols), out=edges[1:])
        quantity = np.where(trades.buy, trades.quantity, -trades.quantity)[rows]
        largest = np.zeros(symbols)
        for symbol, (first, end) in enumerate(pairwise(edges.tolist())):
            if first < end:
                largest[symbol] = _sum(quantity[first:end])
        return cls(rows, edges, quantity, largest)


def _sum(quantity: FloatArray) -> float:
    """The running sums of one symbol's signed quantities, in place; returns the largest. What is within the rounding
    of such a sum is zero: buying and selling 0.1 a thousand times leaves nothing."""
    np.cumsum(quantity, out=quantity)
    sizes = np.abs(quantity)
    largest = float(sizes.max())
    quantity[sizes <= _EPSILON * len(quantity) * largest] = 0.0
    return largest
