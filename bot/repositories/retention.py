"""Deletes an old tape up to a seal, from which it can still be replayed."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from bot.bars import Lookback, needed
from bot.repositories import audit, seals
from bot.repositories.database import Database
from bot.repositories.digest import SPAN
from bot.repositories.errors import LedgerBusy, StorageFull
from bot.repositories.runs import RunRepository
from bot.repositories.seals import Seal
from bot.timeframes import TIMEFRAMES

DAY_MS = 86_400_000
CHECK_MS = 60_000
# Of a run that was recorded by a version that did not say how far its strategies look back.
WINDOW_UNKNOWN = 1_000

_OLD = "SELECT symbol, ticks.id, timestamp, last, decimals FROM ticks JOIN symbols ON symbols.id = symbol_id"
_DELETE = "DELETE FROM ticks WHERE id <= ? AND id NOT IN (SELECT value FROM json_each(?))"


class Retention:
    """Keeps ``days`` of the tape, 0: all of it; signals, orders and trades stay for good."""

    def __init__(self, database: Database, days: int) -> None:
        self._database, self.days = database, days
        self._next_ms = 0

    async def tidy(self) -> None:
        """Moves the start of the tape by one seal where that is old enough. Little at a time: the loop waits for it."""
        now_ms = self._database.cursor.timestamp
        if not self.days or now_ms < self._next_ms:
            return
        self._next_ms = now_ms + CHECK_MS
        try:
            seal = await self._database.run(seals.after_base)
            if seal is not None and seal.cursor.timestamp <= now_ms - self.days * DAY_MS:
                configs = [RunRepository.config_of(run) for run in await RunRepository(self._database).all()]
                window, lookbacks = _looked_back_on(configs)
                await self._database.change(lambda connection: _retire(connection, seal, window, lookbacks))
                self._next_ms = now_ms
        except (LedgerBusy, StorageFull):
            # It can wait: the next block that cannot be written says so.
            return


def _looked_back_on(configs: Sequence[Mapping[str, Any]]) -> tuple[int, list[Lookback]]:
    """How many ticks, and how many bars of each timeframe, any of the recorded runs looks back on."""
    window = max((config.get("window", WINDOW_UNKNOWN) for config in configs), default=0)
    counts: dict[str, int] = {}
    for config in configs:
        for name, count in config.get("bars", {}).items():
            counts[name] = max(counts.get(name, 0), count)
    return max(window, 1), [(TIMEFRAMES[name], count) for name, count in counts.items()]


def _retire(connection: sqlite3.Connection, base: Seal, window: int, lookbacks: Sequence[Lookback]) -> None:
    """What decisions after the seal look back on stays, and the span in which the hash of the tape goes on."""
    end = base.cursor.ticks // SPAN * SPAN
    kept: list[int] = []
    rows = connection.execute(f"{_OLD} WHERE ticks.id <= ? ORDER BY symbol, ticks.id", (end,))
    for _, group in groupby(rows, itemgetter(0)):
        ids, times, last, decimals = np.array([row[1:] for row in group], np.int64).T
        kept += ids[needed(times, last / 10.0**decimals, window, lookbacks)].tolist()
    connection.execute(_DELETE, (end, str(kept)))
    connection.execute("UPDATE cursor SET base = ?, kept = ?", (base.id, audit.kept_digest(connection, base)))
