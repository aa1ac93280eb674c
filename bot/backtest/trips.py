"""Round trips, which are what the field's reports call trades: from flat to flat, worked out from the fills.

A round trip of a symbol begins where its position leaves zero and ends where it comes back to it; increases and
decreases on the way stay inside. A fill that turns the position round ends one and begins the next: it is taken as two,
its fee shared by quantity. Costs are average costs, so profits are those of the fills' own ``pnl``, and

    capital + sum of all profits, of closed and of open round trips = equity at the last prices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bot.backtest.positions import Held
from bot.backtest.trades import BoolArray, Trades
from bot.domain import FLAT_BELOW, FloatArray, IntArray

REASONS = ("signal", "reversal", "end of data")
SIGNAL, REVERSAL, END_OF_DATA = range(len(REASONS))
# A position is none below this, or below this part of the largest one that there was of its symbol. One of FLAT_BELOW
# itself is one, also where its sum was rounded down.
_FLAT_BELOW = 0.999 * float(FLAT_BELOW)
_FLAT_BELOW_RATIO = 1e-9


class RoundTrip(NamedTuple):
    """One of RoundTrips, where its columns are explained."""

    symbol: str
    opened_ms: int
    closed_ms: int
    short: bool
    quantity: float
    held: float
    entry_price: float
    exit_price: float
    fees: float
    profit: float
    profit_ratio: float
    reason: str


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Round trips of one account, each array of shape [R].

    ``symbol`` is an index into ``symbols``, ``reason`` one into REASONS: it ended because the target became 0, because
    it became the other side, or not at all. Times are UTC milliseconds. ``quantity`` is the largest that was held and
    ``held`` (signed) what still is, both in the base currency; the prices are averages over all entries and all exits.
    ``fees`` and ``profit``, which is after fees, are in the quote currency; ``profit_ratio`` is the profit by what all
    entries cost, before fees.
    """

    symbols: tuple[str, ...]
    symbol: IntArray
    opened_ms: IntArray
    closed_ms: IntArray
    short: BoolArray
    quantity: FloatArray
    held: FloatArray
    entry_price: FloatArray
    exit_price: FloatArray
    fees: FloatArray
    profit: FloatArray
    profit_ratio: FloatArray
    reason: IntArray

    def __len__(self) -> int:
        return len(self.symbol)

    def __getitem__(self, row: int) -> RoundTrip:
        return next(iter(self.where(np.array([row]))))

    def __iter__(self) -> Iterator[RoundTrip]:
        rows = zip(*(column.tolist() for column in self._columns()), strict=True)
        return (RoundTrip._make((self.symbols[symbol], *cells, REASONS[reason])) for symbol, *cells, reason in rows)

    @property
    def duration_ms(self) -> IntArray:
        return self.closed_ms - self.opened_ms

    def where(self, chosen: BoolArray | IntArray) -> RoundTrips:
        """Those of a mask, or of row numbers in their order."""
        return RoundTrips(self.symbols, *(column[chosen] for column in self._columns()))

    def _columns(self) -> tuple[npt.NDArray[Any], ...]:
        return (
            *(self.symbol, self.opened_ms, self.closed_ms, self.short, self.quantity, self.held),
            *(self.entry_price, self.exit_price, self.fees, self.profit, self.profit_ratio, self.reason),
        )


def round_trips(trades: Trades, last_prices: FloatArray, end_ms: int) -> tuple[RoundTrips, RoundTrips]:
    """The closed ones in the order in which they closed, and those still open in the order in which they began.

    An open one is taken as if what is held of it were sold, without a fee, at its symbol's of ``last_prices`` [S] at
    ``end_ms``.
    """
    parts = _Parts.of(trades)
    first, last = parts.first, parts.last
    top, bottom = np.maximum.reduceat(parts.position, first), np.minimum.reduceat(parts.position, first)
    short = -bottom > top
    closed = parts.ends[last]
    symbol = trades.symbol[parts.fill[first]]
    held = np.where(closed, 0.0, parts.position[last])
    entry = trades.buy[parts.fill] != np.repeat(short, last - first + 1)
    bought, paid = _totals(parts, trades, entry)
    sold, received = _totals(parts, trades, ~entry)
    open_value = np.zeros(len(first))
    open_value[~closed] = np.abs(held[~closed]) * last_prices[symbol[~closed]]
    fees, pnl = np.add.reduceat(parts.fee, first), np.add.reduceat(parts.pnl, first)
    gross = received + open_value - paid
    profit = np.where(closed, pnl, np.where(short, -gross, gross)) - fees
    peak = np.maximum(top, -bottom)
    trips = RoundTrips(
        trades.symbols,
        symbol,
        opened_ms=trades.timestamp[parts.fill[first]],
        closed_ms=np.where(closed, trades.timestamp[parts.fill[last]], end_ms),
        short=short,
        # All that was bought, as it was booked, unless part of it was sold before the rest came.
        quantity=np.where(np.abs(bought - peak) <= _FLAT_BELOW_RATIO * peak, bought, peak),
        held=held,
        entry_price=_quotient(paid, bought),
        exit_price=_quotient(received + open_value, sold + np.abs(held)),
        fees=fees,
        profit=profit,
        profit_ratio=_quotient(profit, paid),
        reason=np.where(closed, np.where(parts.turns[last], REVERSAL, SIGNAL), END_OF_DATA),
    )
    if len(trades.symbols) == 1:
        return trips.where(closed), trips.where(~closed)
    ended, left = np.nonzero(closed)[0], np.nonzero(~closed)[0]
    in_order = ended[np.argsort(parts.fill[last[ended]], kind="stable")]
    return trips.where(in_order), trips.where(left[np.argsort(parts.fill[first[left]], kind="stable")])


def exposure(closed: RoundTrips, left: RoundTrips, start_ms: int, end_ms: int) -> float | None:
    """The share of the time from ``start_ms`` to ``end_ms`` in which any position was held; None if there was no
    time."""
    if end_ms <= start_ms:
        return None
    opened = np.concatenate((closed.opened_ms, left.opened_ms))
    if not len(opened):
        return 0.0
    order = np.argsort(opened, kind="stable")
    until = np.maximum.accumulate(np.concatenate((closed.closed_ms, left.closed_ms))[order])
    without = np.maximum(opened[order][1:] - until[:-1], 0).sum()
    return float(until[-1] - opened[order[0]] - without) / (end_ms - start_ms)


class _Parts(NamedTuple):
    """Fills by symbol and time, those that turn a position round as two parts: each with its row in the trades, what
    it moves, and the signed position after it; whether it ends a round trip, and whether by turning. ``first`` and
    ``last`` are the rows of each round trip's parts."""

    fill: IntArray
    quantity: FloatArray
    fee: FloatArray
    pnl: FloatArray
    position: FloatArray
    ends: BoolArray
    turns: BoolArray
    first: IntArray
    last: IntArray

    @classmethod
    def of(cls, trades: Trades) -> _Parts:
        held = Held.of(trades)
        position, fill = held.quantity, held.rows
        ends, turns = _ends(held, trades.symbol[fill])
        quantity, fee, pnl = trades.quantity[fill], trades.fee[fill], trades.pnl[fill]
        turning = np.nonzero(turns)[0]
        if len(turning):
            closing = np.abs(position[turning - 1])
            share = fee[turning] * (closing / quantity[turning])
            doubled = np.repeat(np.arange(len(fill)), turns + 1)
            fill, quantity, fee, pnl = fill[doubled], quantity[doubled], fee[doubled], pnl[doubled]
            position, ends, turns = position[doubled], ends[doubled], turns[doubled]
            old = turning + np.arange(len(turning))
            new = old + 1
            quantity[old], fee[old], position[old] = closing, share, 0.0
            quantity[new] -= closing
            fee[new] -= share
            pnl[new], ends[new], turns[new] = 0.0, False, False
        begins = np.ones(len(fill), np.bool_)
        symbol = trades.symbol[fill]
        begins[1:] = ends[:-1] | (symbol[1:] != symbol[:-1])
        first = np.nonzero(begins)[0]
        last = np.nonzero(np.roll(begins, -1))[0]
        return cls(fill, quantity, fee, pnl, position, ends, turns, first, last)


def _ends(held: Held, symbol: IntArray) -> tuple[BoolArray, BoolArray]:
    """Which fills end a round trip, and which of these begin another one."""
    limits = np.maximum(_FLAT_BELOW, _FLAT_BELOW_RATIO * held.largest)[symbol]
    # A symbol's first fill finds it flat, whatever the symbol before it was left with.
    after = np.where(np.abs(held.quantity) < limits, 0.0, np.sign(held.quantity))
    before = np.zeros_like(after)
    before[1:] = after[:-1]
    before[held.edges[:-1][held.edges[:-1] < len(before)]] = 0.0
    ends = (before != 0) & (after != before)
    return ends, ends & (after != 0)


def _totals(parts: _Parts, trades: Trades, chosen: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Quantity and cost of the chosen parts of each round trip."""
    quantity = np.where(chosen, parts.quantity, 0.0)
    return np.add.reduceat(quantity, parts.first), np.add.reduceat(quantity * trades.price[parts.fill], parts.first)


def _quotient(above: FloatArray, below: FloatArray) -> FloatArray:
    """Zero where nothing is divided by: of dust, which is no position, there may be an entry without an exit."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
