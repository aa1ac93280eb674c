"""Deletes an old tape up to a seal, from which it can still be replayed."""

from __future__ import annotations

import sqlite3

from bot.repositories import audit, seals
from bot.repositories.database import Database
from bot.repositories.digest import SPAN
from bot.repositories.errors import LedgerBusy, StorageFull
from bot.repositories.runs import RunRepository
from bot.repositories.seals import Seal

DAY_MS = 86_400_000
CHECK_MS = 60_000
# Of a run that was recorded by a version that did not say how far its strategies look back.
WINDOW_UNKNOWN = 1_000

_DELETE = """
DELETE FROM ticks WHERE id <= ? AND id NOT IN (
    SELECT id FROM (
        SELECT ticks.id AS id, row_number() OVER (PARTITION BY symbol ORDER BY ticks.id DESC) AS age
        FROM ticks JOIN symbols ON symbols.id = symbol_id WHERE ticks.id <= ?
    ) WHERE age <= ?
)
"""


class Retention:
    """Keeps ``days`` of the tape; signals, orders and trades stay for good."""

    def __init__(self, database: Database, days: int) -> None:
        self._database, self._keep_ms = database, days * DAY_MS
        self._next_ms = 0

    async def tidy(self) -> None:
        """Moves the start of the tape by one seal where that is old enough. Little at a time: the loop waits for it."""
        now_ms = self._database.cursor.timestamp
        if now_ms < self._next_ms:
            return
        self._next_ms = now_ms + CHECK_MS
        try:
            seal = await self._database.run(seals.after_base)
            if seal is not None and seal.cursor.timestamp <= now_ms - self._keep_ms:
                runs = await RunRepository(self._database).all()
                windows = [RunRepository.config_of(run).get("window", WINDOW_UNKNOWN) for run in runs]
                await self._database.change(lambda connection: _retire(connection, seal, max(windows, default=0)))
                self._next_ms = now_ms
        except (LedgerBusy, StorageFull):
            # It can wait: the next block that cannot be written says so.
            return


def _retire(connection: sqlite3.Connection, base: Seal, window: int) -> None:
    """What decisions after the seal look back on stays, and the span in which the hash of the tape goes on."""
    end = base.cursor.ticks // SPAN * SPAN
    connection.execute(_DELETE, (end, end, max(window, 1)))
    connection.execute("UPDATE cursor SET base = ?, kept = ?", (base.id, audit.kept_digest(connection, base)))
