"""A ledger as it was at a moment: from the last seal before it, and the decisions since."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from decimal import localcontext
from itertools import takewhile

from bot.domain import MONEY, Account
from bot.repositories import Database, RunRepository, TickRepository, decisions, digest, seals
from bot.repositories.books import ACCOUNTS, POSITIONS, Books, accounts_of
from bot.repositories.cursor import Cursor
from bot.repositories.decisions import ORDER_ID, POLL, WIDTH


@dataclass(frozen=True, slots=True)
class Moment:
    """``prices`` are the last ones of each symbol; ``cursor.timestamp`` is their time."""

    cursor: Cursor
    digest: str
    accounts: dict[str, Account]
    prices: dict[str, float]


async def at(database: Database, timestamp: int) -> Moment:
    """The ledger as it was at a time in UTC milliseconds, that moment's own poll included."""

    def work(connection: sqlite3.Connection) -> tuple[Cursor, str, dict[str, Account]]:
        return _folded(connection, timestamp, database.cursor.decisions)

    cursor, told, accounts = await database.run(work)
    tape = TickRepository(database)
    # The last tick that is not later, and with it how far the ledger was.
    cursor.ticks = max(cursor.ticks, await tape.first_at_or_after(timestamp + 1) - 1)
    rows = await tape.read(cursor.ticks - 1, 1, cursor.ticks)
    if len(rows):
        cursor.polls, cursor.timestamp = int(rows[0, 0]), int(rows[0, 2])
    opened = set()
    for run in await RunRepository(database).all():
        if run[2] <= max(cursor.polls, 1):
            opened |= {entry["account"] for entry in RunRepository.config_of(run)["settings"]["strategy"]}
    known = {name: accounts[name] for name in sorted(accounts) if accounts[name].currency and name in opened}
    for account in known.values():
        account.positions = dict(sorted(account.positions.items()))
    return Moment(cursor, told, known, await tape.last_prices(cursor.ticks))


def _folded(connection: sqlite3.Connection, timestamp: int, last: int) -> tuple[Cursor, str, dict[str, Account]]:
    seal = seals.newest(connection, timestamp)
    running = digest.of_decisions(WIDTH, seal.seed, seal.cursor.decisions)
    deposits, _ = accounts_of(connection.execute(ACCOUNTS), connection.execute(POSITIONS))
    books = Books(deposits.values(), *seals.state(connection, seal))
    cursor = Cursor(*seal.cursor.values())
    with localcontext(MONEY):
        rows = decisions.stored(connection, running.count, last)
        for row in takewhile(lambda row: row[2] <= timestamp, rows):
            running.add(row)
            if row[0] <= cursor.decisions:
                continue
            books.add(row)
            cursor.decisions = row[0]
            cursor.signals += row[POLL] is not None
            cursor.orders += row[ORDER_ID] is not None
            cursor.trades += row[ORDER_ID] is not None
    return cursor, running.digest, books.accounts
