"""What each signal led to, written as one row that the tables signals, orders and trades are projections of.

A decision has one number, which is the id of its signal and of its trade and the tail of its order's id. Staging it
once and letting SQLite spread it over the three tables costs half of binding three rows from Python.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from bot.domain import Signal
from bot.repositories.errors import LedgerError
from bot.repositories.insert import Insert

FILLED, REFUSED = "filled", "refused"
# Order ids are UUIDs (version 8) that end in the number of the decision: a function of what led to it, never given out
# twice, and in the order of time.
ORDER_ID_PREFIX = "7061706c-6f6f-8000-8000-"

COLUMNS = (
    "id", "poll", "timestamp", "account", "symbol", "target", "bid", "ask", "reason",
    "order_id", "side", "type", "quantity", "limit_price", "price", "cost", "fee", "fee_currency", "pnl",
)  # fmt: skip
WIDTH = len(COLUMNS)
STAGE = f"CREATE TEMP TABLE decisions ({', '.join(COLUMNS)})"
INSERT = Insert("INSERT INTO temp.decisions VALUES", WIDTH)
SPREAD = (
    f"""INSERT INTO signals SELECT id, poll, timestamp, account, symbol, target, bid, ask,
        CASE WHEN order_id IS NULL THEN '{REFUSED}' ELSE '{FILLED}' END, reason
        FROM temp.decisions WHERE poll IS NOT NULL""",  # noqa: S608 # nosec B608 # constants
    """INSERT INTO orders SELECT order_id, CASE WHEN poll IS NOT NULL THEN id END, account, symbol, side, type,
        quantity, limit_price, 'closed', timestamp FROM temp.decisions WHERE order_id IS NOT NULL""",
    """INSERT INTO trades SELECT id, order_id, account, symbol, side, price, quantity, cost, fee, fee_currency, pnl,
        timestamp FROM temp.decisions WHERE order_id IS NOT NULL""",
    "DELETE FROM temp.decisions",
)
# SPREAD turned round, for a range of numbers, with what the three tables disagree on as the last column.
_JOIN = f"""
WITH RECURSIVE numbers (id) AS (
    SELECT :after + 1 WHERE :after < :until UNION ALL SELECT id + 1 FROM numbers WHERE id < :until
)
SELECT
    numbers.id, s.poll, ifnull(s.timestamp, t.timestamp), ifnull(s.account, t.account), ifnull(s.symbol, t.symbol),
    s.target, s.bid, s.ask, s.reason,
    o.id, o.side, o.type, o.quantity, o.price, t.price, t.cost, t.fee, t.fee_currency, t.pnl,
    CASE
        WHEN s.id IS NULL AND t.id IS NULL AND o.id IS NULL THEN 'its rows are gone'
        WHEN (o.id IS NULL) <> (t.id IS NULL) THEN 'its order and its trade are not both there'
        WHEN s.verdict <> iif(t.id IS NULL, '{REFUSED}', '{FILLED}') THEN 'its signal has another verdict'
        WHEN t.id IS NULL THEN NULL
        WHEN o.signal_id IS NOT s.id THEN 'its order and its signal are not one another''s'
        WHEN (o.id, o.account, o.symbol, o.side, o.quantity, o.timestamp, o.status)
            <> (t.order_id, t.account, t.symbol, t.side, t.quantity, t.timestamp, 'closed')
            THEN 'its order and its trade differ'
        WHEN (s.timestamp, s.account, s.symbol) <> (t.timestamp, t.account, t.symbol)
            THEN 'its signal and its trade differ'
    END
FROM numbers
LEFT JOIN signals s ON s.id = numbers.id
LEFT JOIN trades t ON t.id = numbers.id
LEFT JOIN orders o ON o.id = printf('{ORDER_ID_PREFIX}%012x', numbers.id)
"""  # noqa: S608 # nosec B608 # constants

Decision = tuple[Any, ...]
_REFUSED_TAIL = (None,) * 10
POLL, ACCOUNT, ORDER_ID = 1, 3, 9


def order_id(decision: int) -> str:
    return f"{ORDER_ID_PREFIX}{decision:012x}"


def refused(signal: Signal, reason: str) -> Decision:
    """The row of a signal that led to no order."""
    return (*signal, reason, *_REFUSED_TAIL)


def counted(values: list[Any]) -> tuple[int, int]:
    """How many signals, and how many orders (which are as many trades), rows hold whose values stand one by one."""
    rows = len(values) // WIDTH
    return rows - values[POLL::WIDTH].count(None), rows - values[ORDER_ID::WIDTH].count(None)


def stored(connection: sqlite3.Connection, after: int, until: int) -> Iterator[Decision]:
    """The decisions after one number and up to another, put together again from the three tables.

    Raises LedgerError for the first one that is not there, or on which the tables disagree.
    """
    for row in connection.execute(_JOIN, {"after": after, "until": until}):
        if row[WIDTH] is not None:
            raise LedgerError(f"decision {row[0]}: {row[WIDTH]}")
        yield row[:WIDTH]
