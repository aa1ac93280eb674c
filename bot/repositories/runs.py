"""Starts of the daemon, each with the configuration that it decided by."""

from __future__ import annotations

import json
from typing import Any

from bot.repositories.database import Database, Row
from bot.repositories.errors import LedgerError

COLUMNS = ("id", "started_at", "first_poll", "version", "config", "stopped_at", "stop_reason")


class RunRepository:
    def __init__(self, database: Database) -> None:
        self.database = database

    async def start(self, started_at: int, version: str, config: dict[str, Any]) -> int:
        """Records a start and returns its id; its first poll is the next one."""
        first_poll = self.database.cursor.polls + 1
        text = json.dumps(config, sort_keys=True, separators=(",", ":"))
        insert = "INSERT INTO runs (started_at, first_poll, version, config) VALUES (?, ?, ?, ?)"
        await self.database.write(insert, (started_at, first_poll, version, text))
        return int((await self.database.fetch("SELECT max(id) FROM runs"))[0][0])

    async def stop(self, run: int, stopped_at: int, reason: str) -> None:
        await self.database.write(
            "UPDATE runs SET stopped_at = ?, stop_reason = ? WHERE id = ?", (stopped_at, reason, run)
        )

    async def last(self) -> Row | None:
        rows = await self.database.fetch("SELECT * FROM runs ORDER BY id DESC LIMIT 1")
        return rows[0] if rows else None

    async def of_poll(self, poll: int) -> Row | None:
        """The start that a poll belongs to; None before the first one."""
        rows = await self.database.fetch("SELECT * FROM runs WHERE first_poll <= ? ORDER BY id DESC LIMIT 1", (poll,))
        return rows[0] if rows else None

    async def all(self) -> list[Row]:
        """Every start, the first one first."""
        return await self.database.fetch("SELECT * FROM runs ORDER BY id")

    async def strategies(self, polls: int) -> dict[str, str]:
        """The strategy of each account that was opened by the time of a poll."""
        found: dict[str, str] = {}
        for run in await self.all():
            if run[COLUMNS.index("first_poll")] <= max(polls, 1):
                config = self.config_of(run)
                try:
                    found |= {entry["account"]: entry["name"] for entry in config["settings"]["strategy"]}
                except (LookupError, TypeError) as error:
                    raise _altered(run, error) from None
        return found

    @staticmethod
    def config_of(run: Row) -> dict[str, Any]:
        """What ``start`` was given."""
        try:
            config: dict[str, Any] = json.loads(run[COLUMNS.index("config")])
        except (TypeError, ValueError) as error:
            raise _altered(run, error) from None
        return config


def _altered(run: Row, error: Exception) -> LedgerError:
    return LedgerError(f"run {run[0]}: its configuration was altered: {error!r}")
