"""Fills all at once, over arrays, where no fill depends on another one.

The same quantities and prices as one by one, as float64, and money to some 1e-12 of it. It says no (None) wherever the
two could differ: an order that could be refused, a size that depends on the account, a position that is only partly
closed, or a number so close to a rounding edge that a float cannot tell on which side it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from bot.backtest.source import BoolArray, Quotes
from bot.backtest.trades import Trades
from bot.domain import Account, FloatArray, IntArray, Market, OrderSide, OrderType, to_decimal
from bot.engine import BELOW_MIN_AMOUNT, NO_CHANGE, Sizing, SizingKind
from bot.fills import BASIS_POINT, Terms, touch_price

# Whole numbers up to here are exact as float64.
_EXACT = 2**53
# A float that is nearer to a whole number than this share of it may be on its wrong side: a product and a quotient
# of numbers that are each rounded once are off by less.
_EDGE = 2e-15
# Less than this share of the money at stake is no cash to be sure of.
_SPARE = 1e-9
# Costs up to here, and what is worked out from them, are off by less than 1e-9: by five roundings of 2**-53.
_COST_MAX = 1e6
# Of few different targets the size is worked out once each; of more of them, each one by itself.
_TARGETS_MAX = 64


class Asked(NamedTuple):
    """The changes of target of one account in the order in which they happened, arrays of shape [K], with the quotes
    at which their orders are filled; ``symbol`` is an index into its symbols."""

    symbol: IntArray
    target: FloatArray
    quotes: Quotes

    @classmethod
    def merged(cls, parts: Sequence[Asked]) -> Asked:
        """Those of several symbols in the order of time, and of symbols at one time."""
        if len(parts) == 1:
            return parts[0]
        symbol, target = (np.concatenate([part[column] for part in parts]) for column in (0, 1))
        quotes = Quotes(*map(np.concatenate, zip(*(part.quotes for part in parts), strict=True)))
        order = np.lexsort((symbol, quotes.timestamp))
        return cls(symbol[order], target[order], quotes.at(order))


class Booked(NamedTuple):
    """What became of the signals of an account: the fills, and by reason the rows of those that were refused."""

    trades: Trades
    refusals: Mapping[str, IntArray]

    @property
    def refused(self) -> dict[str, int]:
        """How many were refused for which reason."""
        return {reason: len(rows) for reason, rows in self.refusals.items()}


def booked_at_once(
    sizing: Sizing, account: Account, markets: Sequence[Market], asked: Asked, terms: Terms
) -> Booked | None:
    """All fills of a new account over arrays; None where a fill depends on another one, or a float is not enough."""
    sizes = _sizes(sizing, markets, asked)
    if sizes is None:
        return None
    before = _held_before(asked.symbol, sizes)
    change = sizes - before
    # A position that is made larger or smaller has an average cost, and that is a sum in order.
    same_side = (before ^ sizes) >= 0
    if (same_side & (before != 0) & (sizes != 0) & (change != 0)).any():
        return None
    refusals: dict[str, IntArray] = {}
    symbol, quotes, after = asked.symbol, asked.quotes, sizes
    placed = change != 0
    if not placed.all():
        refusals = _without_orders(asked, sizes, placed)
        symbol, quotes = symbol[placed], quotes.at(placed)
        before, after, change = before[placed], after[placed], change[placed]
    buy = change > 0
    quote = np.where(buy, quotes.ask, quotes.bid)
    price = _prices(quotes, quote, buy, symbol, markets, terms)
    steps = np.abs(change)
    if not _taken(markets, symbol, steps, quote):
        return None
    quantity, held = _amounts(markets, symbol, steps), _amounts(markets, symbol, before)
    cost = price * quantity
    if (cost > _COST_MAX).any():
        return None
    fee = cost * _rates(markets, symbol, terms)
    # What is closed was opened as a whole by the symbol's fill before.
    closes = before != 0
    paid = _opened_at(symbol, price)
    pnl: FloatArray = np.where(closes, held * (price - paid), 0.0)
    spare = float(account.capital) + np.cumsum(np.where(buy, -cost, cost) - fee)
    if (after < 0).any():
        opened = -_amounts(markets, symbol, after)
        spare -= 2 * np.cumsum(np.maximum(opened, 0.0) * price - np.maximum(-held, 0.0) * paid)
    opens = after != 0
    if (opens & (spare <= _SPARE * (float(account.capital) + cost))).any():
        return None
    symbols = tuple(market.symbol for market in markets)
    return Booked(Trades(symbols, quotes.timestamp, symbol, buy, price, quantity, fee, pnl), refusals)


class _Steps(NamedTuple):
    """A decimal step as the quotient of two whole numbers that float64 holds exactly: so is any multiple of it that is
    rounded once."""

    numerator: int
    denominator: int

    @classmethod
    def of(cls, step: Decimal) -> _Steps:
        return cls(*step.as_integer_ratio())

    def times(self, count: IntArray | FloatArray) -> FloatArray:
        return count.astype(np.float64) * float(self.numerator) / float(self.denominator)


def _sizes(sizing: Sizing, markets: Sequence[Market], asked: Asked) -> IntArray | None:
    """How many steps of its market each signal wants to hold, below zero for short; None if that is not for floats."""
    if sizing.kind is SizingKind.EQUITY_FRACTION:
        return None
    targets = _distinct(asked.target)
    if targets is None or not all(-1 <= target <= 1 for target in targets):
        return None
    sizes = np.zeros(len(asked.target))
    for number, market in enumerate(markets):
        for target in filter(None, targets):
            mine = asked.target == target
            if len(markets) > 1:
                mine &= asked.symbol == number
            size = sizing.value * to_decimal(target)
            if sizing.kind is SizingKind.QUANTITY:
                sizes[mine] = float(size // market.amount_step)
            else:
                quotes = (asked.quotes.ask if target > 0 else asked.quotes.bid)[mine]
                sizes[mine] = _whole(quotes, size, market.amount_step)
        if (np.abs(sizes) * float(_Steps.of(market.amount_step).numerator) >= _EXACT / 2).any():
            return None
    return sizes.astype(np.int64)


def _distinct(targets: FloatArray) -> list[float] | None:
    """The different targets, None for too many; to pick a few out takes a tenth of sorting them."""
    found: list[float] = []
    while len(targets):
        if len(found) == _TARGETS_MAX:
            return None
        found.append(float(targets[0]))
        targets = targets[targets != targets[0]]
    return found


def _whole(quotes: FloatArray, size: Decimal, step: Decimal) -> FloatArray:
    """How many whole steps so much money pays for at each quote, towards zero."""
    exactly = float(size) / (float(step) * quotes)
    whole = np.trunc(exactly)
    for row in np.flatnonzero(np.abs(exactly - np.rint(exactly)) <= np.abs(exactly) * _EDGE).tolist():
        whole[row] = float(size // (step * to_decimal(quotes[row])))
    return whole


def _held_before(symbol: IntArray, sizes: IntArray) -> IntArray:
    """What is held of a signal's symbol before it, if every signal gets what it wants."""
    if not symbol.any():
        only: IntArray = _shifted(sizes)
        return only
    rows = np.argsort(symbol, kind="stable")
    held = _shifted(sizes[rows])
    held[np.flatnonzero(np.diff(symbol[rows], prepend=-1))] = 0
    before = np.empty_like(sizes)
    before[rows] = held
    return before


def _shifted(values: Any) -> Any:
    """Each value's predecessor; 0 for the first."""
    moved = np.zeros_like(values)
    moved[1:] = values[:-1]
    return moved


def _without_orders(asked: Asked, sizes: IntArray, placed: BoolArray) -> dict[str, IntArray]:
    """Why signals had no order, as the engine says it."""
    too_small = (sizes == 0) & (asked.target != 0)
    found = {NO_CHANGE: ~placed & ~too_small, BELOW_MIN_AMOUNT: ~placed & too_small}
    return {reason: np.flatnonzero(rows) for reason, rows in found.items() if rows.any()}


def _rates(markets: Sequence[Market], symbol: IntArray, terms: Terms) -> FloatArray | float:
    rates = [float(terms.fee_rate_of(market, OrderType.MARKET)) for market in markets]
    return np.array(rates)[symbol] if len(rates) > 1 else rates[0]


def _opened_at(symbol: IntArray, price: FloatArray) -> FloatArray:
    """The price of the fill before of the same symbol."""
    if not symbol.any():
        only: FloatArray = _shifted(price)
        return only
    rows = np.argsort(symbol, kind="stable")
    opened = np.empty(len(price))
    opened[rows] = _shifted(price[rows])
    return opened


def _prices(
    quotes: Quotes, quote: FloatArray, buy: BoolArray, symbol: IntArray, markets: Sequence[Market], terms: Terms
) -> FloatArray:
    """What ``touch_price`` gives for every order that takes a quote."""
    if not terms.slippage_bps:
        return quote
    up, down = (float(1 + sign * terms.slippage_bps * BASIS_POINT) for sign in (1, -1))
    slipped: FloatArray = quote * np.where(buy, up, down)
    prices = np.empty_like(quote)
    for number, market in enumerate(markets):
        mine = np.flatnonzero(symbol == number)
        exactly = slipped[mine] / float(market.price_step)
        steps = np.maximum(np.where(buy[mine], np.ceil(exactly), np.floor(exactly)), 1.0)
        step = _Steps.of(market.price_step)
        prices[mine] = step.times(steps)
        unsure = np.abs(exactly - np.rint(exactly)) <= np.abs(exactly) * _EDGE
        for row in mine[unsure | (steps * float(step.numerator) >= _EXACT)].tolist():
            side = OrderSide.BUY if buy[row] else OrderSide.SELL
            quoted = float(quotes.bid[row]), float(quotes.ask[row])
            prices[row] = float(touch_price(side, *quoted, terms.slippage_bps, market.price_step))
    return np.where(buy, prices, np.minimum(prices, quote))


def _amounts(markets: Sequence[Market], symbol: IntArray, steps: IntArray) -> FloatArray:
    """Steps as amounts in the base currency."""
    if len(markets) == 1:
        return _Steps.of(markets[0].amount_step).times(steps)
    amounts = np.empty(len(steps))
    for number, market in enumerate(markets):
        mine = symbol == number
        amounts[mine] = _Steps.of(market.amount_step).times(steps[mine])
    return amounts


def _taken(markets: Sequence[Market], symbol: IntArray, steps: IntArray, quotes: FloatArray) -> bool:
    """Whether no order is anywhere near a limit of its market."""
    for number, market in enumerate(markets):
        limits = (market.min_amount, market.max_amount, market.max_market_amount, market.min_cost, market.max_cost)
        if all(limit is None for limit in limits):
            continue
        mine = symbol == number
        amount = _Steps.of(market.amount_step).times(steps[mine])
        least, most, most_at_market, least_cost, most_cost = limits
        for value, low, high in (
            (amount, least, most),
            (amount, None, most_at_market),
            (amount * quotes[mine], least_cost, most_cost),
        ):
            if low is not None and (value < float(low) * (1 + _SPARE)).any():
                return False
            if high is not None and (value > float(high) * (1 - _SPARE)).any():
                return False
    return True
