"""What each gap between two accounts did to the profit, so that all of them add up to the whole difference.

What a gap changes in cash at once (another price, another fee) is its own. A fill that only one side made, or that was
larger on one side, makes a difference in position: what that earns until later gaps take it back belongs to the gap
that opened it, first in, first out. What was never taken back is worth something at the end, and that is nobody's.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bot.backtest.trades import Trade
from bot.domain import OrderSide


class Effects(NamedTuple):
    """In the quote currency, what the live side earned more: by each gap, and by differences in position that are left
    over at the last prices."""

    gaps: list[float]
    left: float


@dataclass(slots=True)
class _Lot:
    """A difference in position, below zero where the backtest holds more, and the gap that made it."""

    gap: int
    quantity: float
    price: float


def effects_of(gaps: Sequence[tuple[Trade | None, Trade | None]], prices: Mapping[str, float]) -> Effects:
    """Of fills that differ, as (live, backtest), in the order of time; ``prices`` are the last ones by symbol."""
    found = []
    lots: defaultdict[str, deque[_Lot]] = defaultdict(deque)
    for number, (live, backtest) in enumerate(gaps):
        found.append(at_once(live, backtest))
        fill = live or backtest
        if fill is None:
            continue
        change = _signed(live) - _signed(backtest)
        waiting = lots[fill.symbol]
        while change and waiting and (waiting[0].quantity > 0) is not (change > 0):
            lot = waiting[0]
            taken = min(abs(change), abs(lot.quantity)) * (1 if lot.quantity > 0 else -1)
            found[lot.gap] += taken * (fill.price - lot.price)
            lot.quantity -= taken
            change += taken
            if not lot.quantity:
                waiting.popleft()
        if change:
            waiting.append(_Lot(number, change, fill.price))
    left = [lot.quantity * (prices[symbol] - lot.price) for symbol, open_lots in lots.items() for lot in open_lots]
    return Effects(found, sum(left))


def at_once(live: Trade | None, backtest: Trade | None) -> float:
    """What a gap changes in cash, besides what it pays for a difference in position."""
    effect = (backtest.fee if backtest else 0.0) - (live.fee if live else 0.0)
    if live and backtest:
        effect += _signed(backtest) * (backtest.price - live.price)
    return effect


def _signed(fill: Trade | None) -> float:
    if fill is None:
        return 0.0
    return fill.quantity if fill.side is OrderSide.BUY else -fill.quantity
