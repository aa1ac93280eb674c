"""Seals: now and then, all that the ledger comes to so far, kept for good."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from bot.domain import Account
from bot.repositories.books import accounts_of
from bot.repositories.cursor import COUNTS, EMPTY, Cursor

# What a start has to add up is bounded by these; a seal costs some bytes a position.
SEAL_DECISIONS = 8_192
SEAL_TICKS = 65_536

_COLUMNS = (*COUNTS, "digest", "seed", "tape_digest", "tape_seed")
# In the transaction of the block that made one due, after the cursor and the sums.
WRITE = (
    f"INSERT INTO seals ({', '.join(_COLUMNS)}) SELECT {', '.join(_COLUMNS)} FROM cursor",  # noqa: S608 # nosec B608 # constants; values are parameters
    "INSERT INTO sealed_accounts SELECT (SELECT max(id) FROM seals), * FROM accounts",
    "INSERT INTO sealed_positions SELECT (SELECT max(id) FROM seals), * FROM positions",
)


@dataclass(frozen=True, slots=True)
class Seal:
    """``cursor``, hashes and seeds as they were when ``id`` was set; 0 is the empty ledger."""

    id: int
    cursor: Cursor
    digest: str
    seed: str
    tape_digest: str
    tape_seed: str


GENESIS = Seal(0, Cursor(), EMPTY, "", EMPTY, "")


def is_due(cursor: Cursor, decisions: int, ticks: int) -> bool:
    """Whether enough has come since a seal at these counts."""
    return cursor.decisions - decisions >= SEAL_DECISIONS or cursor.ticks - ticks >= SEAL_TICKS


def all_after(connection: sqlite3.Connection, seal: int) -> list[Seal]:
    query = f"SELECT id, {', '.join(_COLUMNS)} FROM seals WHERE id > ? ORDER BY id"  # noqa: S608 # nosec B608 # constants; values are parameters
    return [_seal(row) for row in connection.execute(query, (seal,))]


def newest(connection: sqlite3.Connection, before_ms: int | None = None) -> Seal:
    """The last seal, or the last one that is not later than a moment."""
    return _last(connection, "timestamp <= ?", 2**63 - 1 if before_ms is None else before_ms)


def numbered(connection: sqlite3.Connection, seal: int) -> Seal:
    return _last(connection, "id = ?", seal)


def base(connection: sqlite3.Connection) -> Seal:
    """The seal that the tape begins with."""
    return numbered(connection, connection.execute("SELECT base FROM cursor").fetchone()[0])


def after_base(connection: sqlite3.Connection) -> Seal | None:
    """The next seal that the tape could begin with; None if there is none."""
    number = connection.execute("SELECT min(id) FROM seals WHERE id > (SELECT base FROM cursor)").fetchone()[0]
    return None if number is None else numbered(connection, number)


def before_decision(connection: sqlite3.Connection, decision: int) -> Seal:
    """The last seal that does not cover a decision yet."""
    return _last(connection, "decisions < ?", decision)


def _last(connection: sqlite3.Connection, condition: str, value: int) -> Seal:
    query = f"SELECT id, {', '.join(_COLUMNS)} FROM seals WHERE {condition} ORDER BY id DESC LIMIT 1"  # noqa: S608 # nosec B608 # constants; values are parameters
    row = connection.execute(query, (value,)).fetchone()
    return GENESIS if row is None else _seal(row)


def _seal(row: tuple[object, ...]) -> Seal:
    counts, hashes = row[1 : 1 + len(COUNTS)], row[1 + len(COUNTS) :]
    return Seal(row[0], Cursor(*counts), *hashes)  # type: ignore[arg-type]


def state(connection: sqlite3.Connection, seal: Seal) -> tuple[dict[str, Account], dict[tuple[str, str], float]]:
    """The accounts with their positions, and the targets, as they were at a seal."""
    accounts = "SELECT name, currency, capital, cash FROM sealed_accounts WHERE seal = ? ORDER BY name"
    positions = (
        "SELECT account, symbol, quantity, basis, total_buys, total_sells, target FROM sealed_positions"
        " WHERE seal = ? ORDER BY account, symbol"
    )
    found = [connection.execute(query, (seal.id,)).fetchall() for query in (accounts, positions)]
    return accounts_of(*found)
