"""What the row of the table cursor says: how far the ledger is, hashes of all its rows, and a checksum over that."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from bot.domain import IntArray
from bot.repositories import decisions, digest
from bot.repositories.cursor import COUNTS, Cursor
from bot.repositories.digest import RunningDigest
from bot.repositories.errors import LedgerError
from bot.repositories.seals import is_due

_HASHES = ("digest", "seed", "tape_digest", "tape_seed")
_WRITE = f"UPDATE cursor SET {', '.join(f'{name} = ?' for name in (*COUNTS, *_HASHES, 'checksum'))}"  # noqa: S608 # nosec B608 # names of columns, constants
_READ = f"SELECT {', '.join((*COUNTS, *_HASHES))}, base, kept, checksum FROM cursor"  # noqa: S608 # nosec B608 # names of columns, constants


@dataclass(frozen=True, slots=True)
class Aside:
    """What is seldom written: the seal that the tape begins with, the hash of the older ticks that were kept, and one
    over the tables symbols and runs."""

    base: int
    kept: str
    rows: str

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> Aside:
        tables = ("SELECT * FROM symbols ORDER BY id", "SELECT * FROM runs ORDER BY id")
        rows = [list(chain.from_iterable(connection.execute(query))) for query in tables]
        base, kept = connection.execute("SELECT base, kept FROM cursor").fetchone()
        return cls(base, kept, digest.checksum(rows))


@dataclass(frozen=True, slots=True)
class Head:
    """The row of the table cursor as it is stored."""

    cursor: Cursor
    digest: str
    seed: str
    tape_digest: str
    tape_seed: str
    base: int
    kept: str
    checksum: str

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> Head:
        row = connection.execute(_READ).fetchone()
        if row is None:
            raise LedgerError("the ledger's cursor is gone: it was deleted from outside")
        return cls(Cursor(*row[: len(COUNTS)]), *row[len(COUNTS) :])

    def check(self, connection: sqlite3.Connection) -> None:
        """Raises LedgerError if this row, or what its checksum covers besides it, is not what was written."""
        hashes = (self.digest, self.seed, self.tape_digest, self.tape_seed)
        if _checksum(self.cursor.values(), hashes, Aside.read(connection)) != self.checksum:
            raise LedgerError("one of the tables cursor, symbols and runs was altered")


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a ledger stands: counts, and running hashes that go on from there. ``sealed`` is how many decisions and
    ticks the last seal covers."""

    counts: tuple[int, ...]
    digest: RunningDigest
    tape: RunningDigest
    sealed: tuple[int, int]
    aside: Aside
    read: str = ""

    @property
    def told(self) -> str:
        """The digest of all decisions; whoever only reads has it as it was read."""
        return self.read or self.digest.digest

    def after(self, cursor: Cursor, ticks: Sequence[IntArray], decided: list[Any]) -> Standing:
        """Where it will stand with these rows."""
        running, tape = self.digest, self.tape
        if decided:
            running = running.copy()
            running.add(decided)
            signals, orders = decisions.counted(decided)
            cursor.signals += signals
            cursor.orders += orders
            cursor.trades += orders
        if ticks:
            tape = tape.copy()
            for rows in ticks:
                tape.add(rows)
        sealed = (cursor.decisions, cursor.ticks) if is_due(cursor, *self.sealed) else self.sealed
        return Standing(cursor.values(), running, tape, sealed, self.aside)

    def row(self) -> tuple[int | str, ...]:
        """What the row of the table cursor says of it."""
        hashes = (self.digest.digest, self.digest.seed, self.tape.digest, self.tape.seed)
        return (*self.counts, *hashes, _checksum(self.counts, hashes, self.aside))

    def write(self, connection: sqlite3.Connection) -> None:
        connection.execute(_WRITE, self.row())


def _checksum(counts: tuple[int, ...], hashes: tuple[str, ...], aside: Aside) -> str:
    return digest.checksum([*counts, *hashes, aside.base, aside.kept, aside.rows])
