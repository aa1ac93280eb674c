"""From signals to fills, one by one: the loop's own arithmetic, exact and in order.

The engine gives the sizes, ``bot.fills`` prices and cash. Where no fill depends on another one, all at once gives the
same in a hundredth of the time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import localcontext

import numpy as np

from bot.backtest.at_once import Asked, Booked, booked_at_once
from bot.backtest.source import Source
from bot.backtest.trades import Trades
from bot.domain import MONEY, Account, FloatArray, IntArray, OrderSide, OrderType, Signal
from bot.engine import Engine, Plan
from bot.fills import Terms, settle, touch_price


def booked(
    plan: Plan,
    account: Account,
    sources: Mapping[str, Source],
    asked: Asked,
    terms: Terms,
    last_prices: Mapping[str, float] | None = None,
) -> Booked:
    """The fills of one account, which is new and empty, or else is booked one by one. ``last_prices`` are those of what
    it holds that no source has seen yet."""
    markets = {symbol: source.market for symbol, source in sources.items()}
    with localcontext(MONEY):
        found = None
        if not account.positions and account.cash == account.capital:
            found = booked_at_once(plan.sizing, account, list(markets.values()), asked, terms)
        return found or booked_one_by_one(plan, account, sources, asked, terms, last_prices)


def booked_one_by_one(
    plan: Plan,
    account: Account,
    sources: Mapping[str, Source],
    asked: Asked,
    terms: Terms,
    last_prices: Mapping[str, float] | None = None,
) -> Booked:
    symbols = tuple(sources)
    markets = {symbol: source.market for symbol, source in sources.items()}
    engine = Engine([plan], markets, terms)
    rates = {symbol: terms.fee_rate_of(market, OrderType.MARKET) for symbol, market in markets.items()}
    marks = _Seen(sources, asked.quotes.timestamp, last_prices or {})
    refusals: defaultdict[str, list[int]] = defaultdict(list)
    rows: list[tuple[int, bool]] = []
    money: list[tuple[float, float, float, float]] = []
    columns = (asked.quotes.timestamp, asked.symbol, asked.target, asked.quotes.bid, asked.quotes.ask)
    for number, (time, index, target, bid, ask) in enumerate(zip(*(each.tolist() for each in columns), strict=True)):
        symbol = symbols[index]
        signal = Signal(number, number, time, plan.account, symbol, target, bid, ask)
        order = engine.order_for(signal, account, marks)
        if isinstance(order, str):
            refusals[order].append(number)
            continue
        filled_at = touch_price(order.side, bid, ask, terms.slippage_bps, markets[symbol].price_step)
        cost = filled_at * order.quantity
        paid = cost * rates[symbol]
        outcome = settle(account, symbol, order.side, order.quantity, filled_at, cost, paid)
        if isinstance(outcome, str):
            refusals[outcome].append(number)
            continue
        rows.append((number, order.side is OrderSide.BUY))
        money.append((float(filled_at), float(order.quantity), float(paid), float(outcome)))
    chosen, buy = np.array(rows, np.int64).reshape(-1, 2).T
    price, quantity, fee, pnl = np.array(money).reshape(-1, 4).T
    filled = asked.quotes.timestamp[chosen], asked.symbol[chosen], buy.astype(np.bool_)
    refused = {reason: np.array(numbers) for reason, numbers in refusals.items()}
    return Booked(Trades(symbols, *filled, price, quantity, fee, pnl), refused)


class _Seen:
    """What every symbol was last seen at when each signal was asked for, worked out when first asked for."""

    def __init__(self, sources: Mapping[str, Source], times: IntArray, before: Mapping[str, float]) -> None:
        self._sources, self._times, self._before = sources, times, before
        self._prices: dict[str, list[float]] = {}

    def at(self, number: int, /) -> _Moment:
        return _Moment(self, number)

    def price(self, symbol: str, number: int) -> float:
        prices = self._prices.get(symbol)
        if prices is None:
            prices = self._prices[symbol] = self._known(symbol).tolist()
        return prices[number]

    def _known(self, symbol: str) -> FloatArray:
        before = np.full(len(self._times), self._before.get(symbol, np.nan))
        if symbol not in self._sources:
            return before
        seen = self._sources[symbol].last_before(self._times)
        return np.where(np.isnan(seen), before, seen)


@dataclass(frozen=True, slots=True)
class _Moment:
    seen: _Seen
    number: int

    def __getitem__(self, symbol: str, /) -> float:
        return self.seen.price(symbol, self.number)
