"""What each signal led to, written as one row that the tables signals, orders and trades are projections of.

A decision has one number, which is the id of its signal and of its trade and the tail of its order's id. Staging it
once and letting SQLite spread it over the three tables costs half of binding three rows from Python.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Any

from bot.domain import Signal
from bot.repositories.errors import LedgerError
from bot.repositories.insert import Insert

FILLED, REFUSED = "filled", "refused"
# Order ids are UUIDs (version 8) that end in the number of the decision: a function of what led to it, never given out
# twice, and in the order of time.
ORDER_ID_PREFIX = "7061706c-6f6f-8000-8000-"

STAGE = """CREATE TEMP TABLE decisions (
    id, poll, timestamp, account, symbol, target, bid, ask, reason,
    order_id, side, type, quantity, limit_price, price, cost, fee, fee_currency, pnl
)"""
WIDTH = 19
INSERT = Insert("INSERT INTO temp.decisions VALUES", WIDTH)
SPREAD = (
    f"""INSERT INTO signals SELECT id, poll, timestamp, account, symbol, target, bid, ask,
        CASE WHEN order_id IS NULL THEN '{REFUSED}' ELSE '{FILLED}' END, reason
        FROM temp.decisions WHERE poll IS NOT NULL""",  # noqa: S608 - two constants
    """INSERT INTO orders SELECT order_id, CASE WHEN poll IS NOT NULL THEN id END, account, symbol, side, type,
        quantity, limit_price, 'closed', timestamp FROM temp.decisions WHERE order_id IS NOT NULL""",
    """INSERT INTO trades SELECT id, order_id, account, symbol, side, price, quantity, cost, fee, fee_currency, pnl,
        timestamp FROM temp.decisions WHERE order_id IS NOT NULL""",
    "DELETE FROM temp.decisions",
)

Decision = tuple[Any, ...]
_REFUSED_TAIL = (None,) * 10
_POLL, _ORDER_ID = 1, 9


def order_id(decision: int) -> str:
    return f"{ORDER_ID_PREFIX}{decision:012x}"


def refused(signal: Signal, reason: str) -> Decision:
    """The row of a signal that led to no order."""
    return (*signal, reason, *_REFUSED_TAIL)


def counted(values: list[Any]) -> tuple[int, int]:
    """How many signals, and how many orders (which are as many trades), rows hold whose values stand one by one."""
    rows = len(values) // WIDTH
    return rows - values[_POLL::WIDTH].count(None), rows - values[_ORDER_ID::WIDTH].count(None)


def stored(connection: sqlite3.Connection, after: int) -> Iterator[Decision]:
    """The decisions that follow number ``after``, put together again from the three tables.

    Raises LedgerError where the tables disagree on what they both hold.
    """
    signals = connection.execute("SELECT id, 0, * FROM signals WHERE id > ? ORDER BY id", (after,))
    found = connection.execute("SELECT * FROM orders WHERE id > ? ORDER BY id", (order_id(after),))
    orders = ((_number(order[0]), 1, *order) for order in found)
    trades = connection.execute("SELECT id, 2, * FROM trades WHERE id > ? ORDER BY id", (after,))
    for number, parts in groupby(merge(signals, orders, trades, key=itemgetter(0, 1)), itemgetter(0)):
        yield _joined(number, {part[1]: part[2:] for part in parts})


def _number(identity: str) -> int:
    try:
        return int(identity.removeprefix(ORDER_ID_PREFIX), 16)
    except ValueError:
        raise LedgerError(f"order {identity!r} has an id that was never given out") from None


def _joined(number: int, parts: dict[int, tuple[Any, ...]]) -> Decision:
    signal, order, trade = parts.get(0), parts.get(1), parts.get(2)
    if order is None or trade is None:
        if signal is None or order is not None or trade is not None or signal[8] != REFUSED:
            raise LedgerError(f"decision {number}: its signal, order and trade are not all there")
        return (*signal[:8], signal[9], *_REFUSED_TAIL)
    identity, signal_id, account, symbol, side, kind, quantity, limit, status, timestamp = order
    same = (trade[1:5], trade[6], trade[11]) == ((identity, account, symbol, side), quantity, timestamp)
    if not same or status != "closed" or identity != order_id(number):
        raise LedgerError(f"decision {number}: its order and its trade differ")
    if signal_id != (None if signal is None else number):
        raise LedgerError(f"decision {number}: its order does not name its signal")
    if signal is None:
        head: tuple[Any, ...] = (number, None, timestamp, account, symbol, None, None, None, None)
    else:
        head = (*signal[:8], signal[9])
        if signal[2:5] != (timestamp, account, symbol) or signal[8] != FILLED:
            raise LedgerError(f"decision {number}: its signal and its order differ")
    return (*head, identity, side, kind, quantity, limit, trade[5], *trade[7:11])
