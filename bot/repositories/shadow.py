"""A ledger's double: takes what a loop would write, and holds it against what the ledger has written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from bot.domain import Block, iso8601
from bot.repositories import decisions
from bot.repositories.books import STANDALONE
from bot.repositories.cursor import Cursor
from bot.repositories.database import Database
from bot.repositories.decisions import ACCOUNT, COLUMNS, ORDER_ID, WIDTH, Decision
from bot.repositories.standing import Standing
from bot.repositories.ticks import TickRepository
from bot.repositories.worker import Worker


class Difference(Exception):
    """The first decision that a replay makes differently; None where one side has none."""

    def __init__(self, stored: Decision | None, replayed: Decision | None) -> None:
        super().__init__(stored, replayed)
        self.stored, self.replayed = stored, replayed

    def document(self) -> dict[str, Any]:
        """Both sides by the names of their columns."""
        return {
            "stored": self.stored and dict(zip(COLUMNS, self.stored, strict=True)),
            "replayed": self.replayed and dict(zip(COLUMNS, self.replayed, strict=True)),
        }

    def __str__(self) -> str:
        row = self.stored or self.replayed
        missing = "" if self.stored and self.replayed else f" (not in the {'replay' if self.stored else 'ledger'})"
        return f"decision {row[0]} at {iso8601(row[2])}{missing}" if row else "no decision"


class Shadow(Database):
    """Keeps accounts and positions in scratch books; decisions and ticks are compared and not kept."""

    def __init__(self, source: Database, scratch: Worker, standing: Standing) -> None:
        super().__init__(source.path, scratch, standing)
        self._source = source
        self._stored: Iterator[Decision] = iter(())
        # Over the decisions as they are stored, from the last whole span before the first one that is compared.
        self.stored_digest = standing.digest.copy()

    async def begin(self) -> None:
        """Compares from the decision that follows the cursor's on."""
        until = self._source.cursor.decisions
        self._stored = await self._source.run(lambda connection: self._rows(connection, self.cursor.decisions, until))

    def _rows(self, connection: sqlite3.Connection, after: int, until: int) -> Iterator[Decision]:
        for row in decisions.stored(connection, self.stored_digest.count, until):
            self.stored_digest.add(row)
            if row[0] > after and row[ACCOUNT] != STANDALONE:
                yield row

    async def following(self, count: int) -> list[Decision]:
        """The next stored decisions; fewer at the end."""
        return await self._source.run(lambda connection: list(islice(self._stored, count)))

    def _check_files(self) -> None:
        """The scratch books are no files, and what a daemon does to the ledger's meanwhile is its own affair."""

    async def _write_waiting(self) -> None:
        made = list(zip(*[iter(self.decisions)] * WIDTH, strict=True))
        if made:
            await self._compare(made)
        self.decisions.clear()
        if any(self._buffers.values()):
            await super()._write_waiting()
        else:
            self._standing = replace(self._standing, counts=self.cursor.values())

    async def _compare(self, made: list[tuple[Any, ...]]) -> None:
        stored = await self.following(len(made))
        for mine, row in zip(made, stored, strict=False):
            # The number, and the order's id that ends in it, also count orders that were made from Python between those
            # of the loop; that the numbers have no gaps is for the audit to say.
            if mine[1:ORDER_ID] != row[1:ORDER_ID] or mine[ORDER_ID + 1 :] != row[ORDER_ID + 1 :]:
                raise Difference(row, mine)
        if len(stored) < len(made):
            raise Difference(None, made[len(stored)])
        self.cursor.decisions = stored[-1][0]


class SourceTape(TickRepository):
    """The tape of a ledger as it was at the moment that is being replayed; adding to it moves that moment on."""

    def __init__(self, source: Database, shadow: Cursor) -> None:
        super().__init__(source)
        self._shadow = shadow

    async def register(self, decimals: Mapping[str, int]) -> None:
        """They are on the tape."""

    async def add(self, block: Block, first_poll: int) -> None:
        self._shadow.ticks += block.ticks
        self._database.cursor.ticks += block.ticks
