"""The paper executor: fills every order at once and books it.

Used alone, each order is a transaction of its own, for an account without cash or fees. Inside the loop the executor
trades for one account of the loop's state, with fees and cash, and leaves the commit to the block it is part of.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, localcontext
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

from bot.clock import SystemClock
from bot.domain import (
    AMOUNT_LIMIT,
    DECIMALS_MAX,
    FLAT_BELOW,
    MONEY,
    ZERO,
    Account,
    Market,
    OrderSide,
    OrderType,
    Position,
    Signal,
    iso8601,
    plain,
    quote_currency,
    to_decimal,
)
from bot.execution.standard import simulated_price
from bot.fills import Terms, settle, touch_price
from bot.ports import Clock, OrderRefused
from bot.repositories import AccountRepository, SignalRepository, TradeRepository
from bot.repositories.books import STANDALONE
from bot.repositories.decisions import Decision, order_id

# Looked up, because an enum's value is a computed property.
_TEXT: dict[OrderSide | OrderType, str] = {member: member.value for kind in (OrderSide, OrderType) for member in kind}
_LAST_DECIMAL = Decimal(1).scaleb(-DECIMALS_MAX)


class MockExecutor:
    """Executor on paper. ``account`` and ``terms`` come from the loop; without them it stands alone."""

    def __init__(
        self,
        trades: TradeRepository,
        signals: SignalRepository | None = None,
        *,
        account: Account | None = None,
        terms: Terms | None = None,
        markets: Mapping[str, Market] | None = None,
        last_prices: Mapping[str, float] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._database = trades.database
        self._trades = trades
        self._signals = signals
        self._accounts = AccountRepository(trades.database)
        self._alone = account is None
        cache = trades.database.positions.setdefault(STANDALONE, {})
        self._account = account or Account(STANDALONE, "", ZERO, ZERO, cache)
        self._terms = terms or Terms()
        self._markets = markets or {}
        self._last_prices = {} if last_prices is None else last_prices
        self._clock = clock or SystemClock()

    async def execute_order(
        self,
        symbol: str,
        side: OrderSide,
        quantity: float | Decimal,
        order_type: OrderType = OrderType.MARKET,
        price: float | Decimal | None = None,
        *,
        signal: Signal | None = None,
        told: bool = True,
    ) -> dict[str, Any]:
        """Fills one order and books it; see ``ports.Executor``.

        The price is the one given, else the quote that the signal was seen at, else the last price in the loop's
        state, else a fixed one (``simulated_price``).
        """
        if type(side) is not OrderSide or type(order_type) is not OrderType:
            side, order_type = OrderSide(side), OrderType(order_type)
        _check_symbol(symbol)
        amount = _positive("quantity", quantity)
        limit = None if price is None else _positive("price", price)
        if not self._alone:
            return self._fill(symbol, side, amount, order_type, limit, signal, told)
        _check_decimals("quantity", amount)
        if limit is not None:
            _check_decimals("price", limit)
        with localcontext(MONEY):
            try:
                async with self._database.transaction():
                    await self._load(symbol)
                    order = self._fill(symbol, side, amount, order_type, limit, signal, told)
                    self._accounts.save_position(self._account.name, self._account.positions[symbol])
            except BaseException:
                # Whatever the file holds now, the cache must not lead it.
                self.reset_position_cache()
                raise
        return order

    async def get_position(self, symbol: str) -> dict[str, Any]:
        if self._alone and not self._database.is_mine:
            # An order in flight is in the cache but not yet in the file: wait until its fate is known.
            async with self._database.lock:
                await self._load(symbol)
        else:
            await self._load(symbol)
        position = self._account.positions[symbol]
        return {
            "symbol": symbol,
            "net_quantity": float(position.quantity),
            "total_buys": float(position.total_buys),
            "total_sells": float(position.total_sells),
            "is_flat": abs(position.quantity) < FLAT_BELOW,
        }

    def reset_position_cache(self) -> None:
        """Inside the loop this does nothing: there the positions are the loop's, which reads them again by itself."""
        if self._alone:
            self._account.positions.clear()

    async def _load(self, symbol: str) -> None:
        """Fills a gap in the cache from the file."""
        if symbol not in self._account.positions:
            stored = await self._accounts.position(self._account.name, symbol)
            self._account.positions[symbol] = stored or Position(symbol)

    def _fill(
        self,
        symbol: str,
        side: OrderSide,
        amount: Decimal,
        order_type: OrderType,
        limit: Decimal | None,
        signal: Signal | None,
        told: bool,
    ) -> dict[str, Any]:
        price = self._price(symbol, side, signal) if limit is None else limit
        cost = price * amount
        rate = self._terms.fee_rate_of(self._markets.get(symbol), order_type)
        fee = cost * rate
        pnl = self._book(symbol, side, amount, price, cost, fee)
        head = self._numbered(symbol, side, price, signal) if signal is None or self._alone else (*signal, None)
        identity = order_id(head[0])
        currency = self._account.currency or quote_currency(symbol)
        is_limit = order_type is OrderType.LIMIT
        row = (
            *head,
            identity,
            _TEXT[side],
            _TEXT[order_type],
            plain(amount),
            plain(price) if is_limit else None,
            plain(price),
            plain(cost),
            plain(fee),
            currency,
            plain(pnl),
        )
        self._trades.add(row)
        if not told:
            return {}
        paid = {"currency": currency, "cost": float(fee), "rate": float(rate)}
        return self._ccxt_order(row, float(price), float(amount), float(cost), paid, float(pnl))

    def _numbered(self, symbol: str, side: OrderSide, price: Decimal, signal: Signal | None) -> tuple[Any, ...]:
        """The head of a decision that is not the loop's; without a signal, as if one asked for all long or short."""
        cursor = self._database.cursor
        cursor.decisions += 1
        if signal is not None:
            return (cursor.decisions, *signal[1:3], self._account.name, *signal[4:], None)
        timestamp = self._clock.now_ms()
        if self._signals is None:
            return (cursor.decisions, None, timestamp, self._account.name, symbol, None, None, None, None)
        target, quote = 1.0 if side is OrderSide.BUY else -1.0, float(price)
        return (cursor.decisions, cursor.polls, timestamp, self._account.name, symbol, target, quote, quote, None)

    def _price(self, symbol: str, side: OrderSide, signal: Signal | None) -> Decimal:
        if signal is not None:
            step = self._markets[symbol].price_step if self._terms.slippage_bps else ZERO
            return touch_price(side, signal.bid, signal.ask, self._terms.slippage_bps, step)
        last = self._last_prices.get(symbol)
        return simulated_price(symbol) if last is None else to_decimal(last)

    def _book(
        self, symbol: str, side: OrderSide, amount: Decimal, price: Decimal, cost: Decimal, fee: Decimal
    ) -> Decimal:
        if self._alone:
            return self._account.position(symbol).apply_fill(side, amount, price)
        outcome = settle(self._account, symbol, side, amount, price, cost, fee)
        if isinstance(outcome, str):
            raise OrderRefused(outcome)
        return outcome

    def _ccxt_order(
        self, row: Decision, price: float, amount: float, cost: float, paid: dict[str, Any], pnl: float
    ) -> dict[str, Any]:
        """The order in ccxt's unified shape: amounts as floats, time in milliseconds and as ISO 8601."""
        identity, timestamp, account, symbol = row[0], row[2], row[3], row[4]
        order, side, kind = row[9], row[10], row[11]
        when = iso8601(timestamp)
        trade = {
            "id": str(identity),
            "order": order,
            "symbol": symbol,
            "side": side,
            "type": kind,
            "price": price,
            "amount": amount,
            "cost": cost,
            "fee": paid,
            "timestamp": timestamp,
            "datetime": when,
        }
        return {
            "id": order,
            "clientOrderId": order,
            "symbol": symbol,
            "side": side,
            "type": kind,
            "price": price,
            "average": price,
            "amount": amount,
            "filled": amount,
            "remaining": 0.0,
            "cost": cost,
            "status": "closed",
            "timestamp": timestamp,
            "datetime": when,
            "fee": paid,
            "trades": [trade],
            "info": {"trade_db_id": identity, "simulated": True, "account": account, "pnl": pnl},
        }


def _check_symbol(symbol: str) -> None:
    if not isinstance(symbol, str) or not _is_symbol(symbol):
        raise ValueError(f"symbol must look like BTC/USDT, got {symbol!r}")


@lru_cache(maxsize=4096)
def _is_symbol(symbol: str) -> bool:
    base, slash, quote = symbol.partition("/")
    return bool(base and slash and quote) and symbol.isprintable() and not any(map(str.isspace, symbol))


def _positive(name: str, value: float | Decimal) -> Decimal:
    if type(value) is not Decimal:
        if isinstance(value, bool) or not isinstance(value, Real | Decimal):
            raise ValueError(f"{name} must be a number, got {value!r}")
        value = Decimal(int(value)) if isinstance(value, Integral) else _shortened(to_decimal(float(value)))
    if not value.is_finite() or value <= 0:
        raise ValueError(f"{name} must be positive and finite, got {value}")
    if value >= AMOUNT_LIMIT:
        raise ValueError(f"{name} must be below {AMOUNT_LIMIT:,}, got {value}")
    return value


def _shortened(value: Decimal) -> Decimal:
    """A float as it was meant: 0.001 / 3 has digits beyond the last decimal that is booked."""
    if value.is_finite() and value < AMOUNT_LIMIT and value != (short := value.quantize(_LAST_DECIMAL, context=MONEY)):
        return short
    return value


def _check_decimals(name: str, value: Decimal) -> None:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -DECIMALS_MAX:
        raise ValueError(f"{name} must have at most {DECIMALS_MAX} decimals, got {value}")
