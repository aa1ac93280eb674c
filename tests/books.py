"""Fills as an account books them: exactly, by the domain's own arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from bot.backtest.trades import Trades
from bot.domain import OrderSide, Position


class Fill(NamedTuple):
    """``change`` is the signed quantity."""

    timestamp: int
    symbol: int
    change: Decimal
    price: Decimal


def booked(symbols: Sequence[str], fills: Iterable[Fill], fee_rate: Decimal = Decimal(0)) -> Trades:
    """The trades of an account that made these fills, with the fees it paid and the profit that each realised."""
    positions = [Position(symbol) for symbol in symbols]
    rows = []
    for timestamp, symbol, change, price in fills:
        side = OrderSide.BUY if change > 0 else OrderSide.SELL
        pnl = positions[symbol].apply_fill(side, abs(change), price)
        fee = abs(change) * price * fee_rate
        rows.append((timestamp, symbol, change > 0, *map(float, (price, abs(change), fee, pnl))))
    columns = list(zip(*rows, strict=True)) or [()] * 7
    kinds = (np.int64, np.int64, np.bool_, *[np.float64] * 4)
    return Trades(tuple(symbols), *(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))


def towards(targets: Iterable[tuple[int, int, Decimal, Decimal]]) -> list[Fill]:
    """The fills that take each symbol to its targets, given as (timestamp, symbol, quantity, price)."""
    held: dict[int, Decimal] = {}
    fills = []
    for timestamp, symbol, wanted, price in targets:
        change = wanted - held.get(symbol, Decimal(0))
        held[symbol] = wanted
        if change:
            fills.append(Fill(timestamp, symbol, change, price))
    return fills
