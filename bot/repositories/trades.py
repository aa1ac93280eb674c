"""Fills."""

from __future__ import annotations

from bot.repositories.database import Database, Row
from bot.repositories.decisions import Decision
from bot.repositories.signals import ID_MAX, newest

_DEAL = ("order_id", "account", "symbol", "side", "price", "quantity", "cost")
COLUMNS = ("id", *_DEAL, "fee", "fee_currency", "pnl", "timestamp")


class TradeRepository:
    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, decision: Decision) -> None:
        """A fill with the order and, where it came from one, the signal that led to it."""
        self.database.decisions.extend(decision)

    async def latest(
        self, limit: int, symbol: str | None = None, account: str | None = None, after: int = 0, until: int = ID_MAX
    ) -> list[Row]:
        """The newest rows after one id and up to another, newest first, in the order of COLUMNS."""
        return await self.database.fetch(*newest("trades", limit, symbol, account, after, until))

    async def of_signal(self, signal_id: int) -> list[Row]:
        """The fills of a signal."""
        return await self.database.fetch("SELECT * FROM trades WHERE id = ?", (signal_id,))
