"""Ledgers of earlier versions."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from bot.repositories import connect

_COLUMNS = {
    "symbols": "id, symbol, decimals",
    "ticks": "poll, symbol_id, timestamp, bid, ask, last, warmup",
    "cursor": "1, polls, timestamp, ticks, decisions, signals, orders, trades, digest, seed",
}


def of_first_version(ledger: Path, old: Path) -> Path:
    """The same ledger as the first version would have written it."""
    script = connect.MIGRATIONS[0].read_text(encoding="utf-8")
    with closing(sqlite3.connect(old, isolation_level=None)) as connection:
        connection.executescript(script)
        connection.execute("DELETE FROM cursor")
        connection.execute("ATTACH ? AS new", (str(ledger),))
        for table in ("symbols", "runs", "signals", "orders", "trades", "accounts", "positions", "cursor", "ticks"):
            connection.execute(f"INSERT INTO {table} SELECT {_COLUMNS.get(table, '*')} FROM new.{table}")  # noqa: S608
        connection.execute(f"PRAGMA application_id = {connect.APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("PRAGMA journal_mode = WAL")
    return old
