"""A ledger as it was at a moment: from the last seal before it, and the decisions since."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from decimal import localcontext

from bot.domain import MONEY, Account
from bot.repositories import Database, RunRepository, TickRepository, decisions, digest, seals
from bot.repositories.books import ACCOUNTS, POSITIONS, STANDALONE, Books, accounts_of
from bot.repositories.cursor import Cursor
from bot.repositories.decisions import ACCOUNT, ORDER_ID, POLL, WIDTH


@dataclass(frozen=True, slots=True)
class Moment:
    """``prices`` are the last ones of each symbol; ``cursor.timestamp`` is their time. ``deleted``: the ticks of that
    time are not kept any more, so nobody knows the prices."""

    cursor: Cursor
    digest: str
    accounts: dict[str, Account]
    prices: dict[str, float]
    deleted: bool = False


async def at(database: Database, timestamp: int) -> Moment:
    """The ledger as it was at a time in UTC milliseconds, that moment's own poll included."""

    def work(connection: sqlite3.Connection) -> tuple[Cursor, str, dict[str, Account]]:
        return _folded(connection, timestamp, database.cursor.decisions)

    cursor, told, accounts = await database.run(work)
    tape = TickRepository(database)
    deleted = timestamp < (await database.run(seals.base)).cursor.timestamp
    if not deleted:
        # The last tick that is not later, and with it how far the ledger was.
        cursor.ticks = max(cursor.ticks, await tape.first_at_or_after(timestamp + 1) - 1)
        for poll, _, time, *_, warmup, _ in (await tape.read(cursor.ticks - 1, 1, cursor.ticks)).tolist():
            # History carries the number of the poll that followed it.
            if poll - warmup > cursor.polls:
                cursor.polls, cursor.timestamp = poll - warmup, time
    opened = await RunRepository(database).strategies(cursor.polls)
    known = {name: accounts[name] for name in sorted(accounts) if accounts[name].currency and name in opened}
    for account in known.values():
        account.positions = dict(sorted(account.positions.items()))
    prices = {} if deleted else await tape.last_prices(cursor.ticks)
    return Moment(cursor, told, known, prices, deleted)


def _folded(connection: sqlite3.Connection, timestamp: int, last: int) -> tuple[Cursor, str, dict[str, Account]]:
    seal = seals.newest(connection, timestamp)
    running = digest.of_decisions(WIDTH, seal.seed, seal.cursor.decisions)
    deposits, _ = accounts_of(connection.execute(ACCOUNTS), connection.execute(POSITIONS))
    books = Books(deposits.values(), *seals.state(connection, seal))
    cursor = Cursor(*seal.cursor.values())
    with localcontext(MONEY):
        for row in decisions.stored(connection, running.count, last):
            by_hand = row[ACCOUNT] == STANDALONE
            # Orders from Python have the clock's time, which need not be the tape's.
            if row[2] > timestamp and not by_hand:
                break
            running.add(row)
            if row[0] <= cursor.decisions:
                continue
            books.add(row)
            cursor.decisions = row[0]
            cursor.signals += row[POLL] is not None
            cursor.orders += row[ORDER_ID] is not None
            cursor.trades += row[ORDER_ID] is not None
            if not by_hand:
                cursor.polls, cursor.timestamp = row[POLL], row[2]
    return cursor, running.digest, books.accounts
