"""Orders, keyed by the id that the client gave them."""

from __future__ import annotations

from bot.repositories.database import Database, Row


class OrderRepository:
    """Reads orders; each is written with its trade."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def open_orders(self) -> list[Row]:
        """Orders that are not done; the mock executor fills at once, so it leaves none."""
        return await self.database.fetch("SELECT * FROM orders WHERE status = 'open' ORDER BY timestamp")
