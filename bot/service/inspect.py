"""What a ledger says, as documents that JSON can hold. Read-only, beside a running daemon or without one."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from bot.domain import Account, iso8601
from bot.repositories import (
    AccountRepository,
    Database,
    OrderRepository,
    RunRepository,
    SignalRepository,
    TickRepository,
    TradeRepository,
    lock_owner,
    seals,
)
from bot.repositories import signals as signal_rows
from bot.repositories import trades as trade_rows
from bot.repositories.decisions import REFUSED
from bot.service import past
from bot.service.past import Moment

Document = dict[str, Any]
_MONEY_COLUMNS = ("price", "quantity", "cost", "fee", "pnl")

REASONS = {
    "no_change": "the account already holds what the target asks for",
    "below_min_amount": "the order would be smaller than the market's least amount or its smallest step",
    "below_min_cost": "the order would be worth less than the market's least cost",
    "above_max_amount": "the order would be larger than the market takes at once",
    "above_max_cost": "the order would be worth more than the market takes at once",
    "insufficient_cash": "the account has not enough cash for it and its fee",
    "insufficient_margin": "the account's own money does not cover the short position",
    "invalid_target": "the strategy asked for a target outside -1 to 1",
    "no_equity": "the account has no equity left",
}


async def status(database: Database, now_ms: int, stale_after_s: float) -> Document:
    """Accounts with their positions at the last prices, open orders, counts, and how old the data is."""
    cursor = database.cursor
    accounts, tape = await AccountRepository(database).load(), TickRepository(database)
    prices = await tape.last_prices()
    held = {name for account in accounts.values() for name, held in account.positions.items() if held.quantity}
    for symbol in sorted(held - prices.keys()):
        # No longer polled: worth what it was last seen at.
        if (price := await tape.last_price(symbol)) is not None:
            prices[symbol] = price
    document = await _status(database, Moment(cursor, database.digest, accounts, prices))
    age_s = round(max(0, now_ms - cursor.timestamp) / 1000, 3) if cursor.polls else None
    return {
        **document,
        "data_age_s": age_s,
        "stale": age_s is None or age_s > stale_after_s,
        "open_orders": [list(order) for order in await OrderRepository(database).open_orders()],
    }


async def status_at(database: Database, timestamp: int) -> Document:
    """The same as it was at a moment."""
    moment = await past.at(database, timestamp)
    age_s = round((timestamp - moment.cursor.timestamp) / 1000, 3) if moment.cursor.polls else None
    document = await _status(database, moment)
    return {
        **document,
        "at": iso8601(timestamp),
        "ticks_deleted": moment.deleted,
        "data_age_s": age_s,
        "stale": False,
        "open_orders": [],
    }


async def _status(database: Database, moment: Moment) -> Document:
    cursor = moment.cursor
    strategies = await RunRepository(database).strategies(cursor.polls)
    pid = lock_owner(database.path)
    return {
        "ledger": str(database.path),
        "running": pid is not None,
        "pid": pid,
        "polls": cursor.polls,
        "ticks": cursor.ticks,
        "signals": cursor.signals,
        "orders": cursor.orders,
        "trades": cursor.trades,
        "digest": moment.digest,
        "last_price_at": iso8601(cursor.timestamp) if cursor.polls else None,
        "prices": moment.prices,
        "accounts": [
            account_document(account, strategies.get(account.name), moment.prices)
            for account in moment.accounts.values()
        ],
    }


def account_document(account: Account, strategy: str | None, prices: Mapping[str, float]) -> Document:
    """An account with its positions; equity and profit are None as long as one of them has no price."""
    positions: list[Document] = []
    for position in account.positions.values():
        if not position.quantity:
            continue
        quantity, basis = float(position.quantity), float(position.basis)
        price = prices.get(position.symbol)
        value = None if price is None else quantity * price
        positions.append(
            {
                "symbol": position.symbol,
                "quantity": quantity,
                "average_price": basis / quantity,
                "price": price,
                "value": value,
                "unrealised_pnl": None if value is None else value - basis,
            }
        )
    unpriced = any(position["price"] is None for position in positions)
    equity = None if unpriced else account.equity(prices)
    return {
        "account": account.name,
        "strategy": strategy,
        "currency": account.currency,
        "capital": float(account.capital),
        "cash": float(account.cash),
        "equity": equity,
        "profit": None if equity is None else equity - float(account.capital),
        "positions": positions,
    }


async def trades(database: Database, limit: int, symbol: str | None, account: str | None) -> list[Document]:
    """The newest trades, oldest of them first."""
    rows = await TradeRepository(database).latest(limit, symbol, account)
    return [trade(row) for row in reversed(rows)]


async def signals(database: Database, limit: int, symbol: str | None, account: str | None) -> list[Document]:
    """The newest signals with their verdicts, oldest of them first."""
    rows = await SignalRepository(database).latest(limit, symbol, account)
    return [signal(row) for row in reversed(rows)]


async def why(database: Database, symbol: str, timestamp: int) -> Document:
    """What was known and decided of a symbol around a moment, account by account."""
    signal_store, trade_store = SignalRepository(database), TradeRepository(database)
    names = await known_accounts(database)
    deleted = timestamp < (await database.run(seals.base)).cursor.timestamp
    quotes = [] if deleted else await TickRepository(database).around(symbol, timestamp)
    accounts = []
    for name in names:
        before = await signal_store.around(name, symbol, timestamp, after=False)
        after = await signal_store.around(name, symbol, timestamp, after=True)
        last = None if before is None else signal(before)
        if last is not None:
            last["trades"] = [trade(row) for row in await trade_store.of_signal(last["id"])]
        following = None if after is None else signal(after)
        accounts.append(
            {
                "account": name,
                "explanation": _explanation(last, following, timestamp),
                "last_signal": last,
                "next_signal": following,
            }
        )
    return {
        "symbol": symbol,
        "time": iso8601(timestamp),
        "ticks_deleted": deleted,
        "quotes": [
            {"timestamp": row[0], "datetime": iso8601(row[0]), "bid": row[1], "ask": row[2], "last": row[3]}
            for row in quotes
        ],
        "accounts": accounts,
    }


def _explanation(last: Document | None, following: Document | None, timestamp: int) -> str:
    if last is None:
        until = f" until {following['datetime']}" if following else ""
        return f"no signal yet{until}: the strategy had not asked for a position"
    target = f"target {last['target']:g}"
    if last["verdict"] == REFUSED:
        reason = f"{last['reason']} ({REASONS.get(last['reason'], 'a reason of the executor')})"
        said = f"{target} was refused at {last['datetime']}: {reason}"
    else:
        made = ", ".join(f"{t['side']} {t['quantity']} at {t['price']}" for t in last["trades"])
        said = f"{target} was filled at {last['datetime']}: {made}"
    if last["timestamp"] == timestamp:
        return said
    return f"{said}; the target did not change after that, so there was nothing to trade"


def trade(row: tuple[Any, ...]) -> Document:
    document = dict(zip(trade_rows.COLUMNS, row, strict=True))
    for column in _MONEY_COLUMNS:
        document[column] = float(Decimal(document[column]))
    return {**document, "datetime": iso8601(document["timestamp"])}


def signal(row: tuple[Any, ...]) -> Document:
    document = dict(zip(signal_rows.COLUMNS, row, strict=True))
    return {**document, "datetime": iso8601(document["timestamp"])}


async def known_symbols(database: Database) -> list[str]:
    """All symbols of the ledger: recorded, or traded without a record of their prices."""
    taped = {symbol for symbol, _ in (await TickRepository(database).symbols()).values()}
    return sorted(taped | {row[0] for row in await database.fetch("SELECT DISTINCT symbol FROM positions")})


async def known_accounts(database: Database) -> list[str]:
    """All accounts of the ledger, with those that stand outside the loop."""
    return [row[0] for row in await database.fetch("SELECT name FROM accounts UNION SELECT account FROM positions")]
