"""Signals with their verdicts."""

from __future__ import annotations

from bot.domain import Signal
from bot.repositories.database import Database, Row
from bot.repositories.decisions import refused

COLUMNS = ("id", "poll", "timestamp", "account", "symbol", "target", "bid", "ask", "verdict", "reason")
ID_MAX = 2**63 - 1


class SignalRepository:
    """Every change of target, with its verdict. A filled signal is written with its trade."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add_refused(self, signal: Signal, reason: str) -> None:
        """A signal that led to no order; ``reason`` is the machine-readable cause."""
        self.database.decisions.extend(refused(signal, reason))

    async def latest(
        self, limit: int, symbol: str | None = None, account: str | None = None, after: int = 0, until: int = ID_MAX
    ) -> list[Row]:
        """The newest rows after one id and up to another, newest first, in the order of COLUMNS."""
        return await self.database.fetch(*newest("signals", limit, symbol, account, after, until))

    async def around(self, account: str, symbol: str, timestamp: int, *, after: bool) -> Row | None:
        """An account's last signal for a symbol up to and including a moment, or its first one after it."""
        side, order = (">", "ASC") if after else ("<=", "DESC")
        query = (
            f"SELECT * FROM signals WHERE account = ? AND symbol = ? AND timestamp {side} ? ORDER BY id {order} LIMIT 1"  # noqa: S608 # nosec B608 # names are constants, values parameters
        )
        rows = await self.database.fetch(query, (account, symbol, timestamp))
        return rows[0] if rows else None


def newest(
    table: str, limit: int, symbol: str | None, account: str | None, after: int, until: int
) -> tuple[str, tuple[object, ...]]:
    """The statement for a table's newest rows, narrowed to a symbol or an account where one is given."""
    filters = [(column, value) for column, value in (("symbol", symbol), ("account", account)) if value is not None]
    where = "".join(f" AND {column} = ?" for column, _ in filters)
    # The names are constants of this package; every value is a parameter.
    statement = f"SELECT * FROM {table} WHERE id > ? AND id <= ?{where} ORDER BY id DESC LIMIT ?"  # noqa: S608 # nosec B608 # names are constants, values parameters
    return statement, (after, until, *(value for _, value in filters), limit)
