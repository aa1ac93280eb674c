"""Adds a ledger up again, from its last seal or from its first row, and holds the result against what is stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from decimal import localcontext
from itertools import chain, islice

import numpy as np

from bot.domain import MONEY, IntArray
from bot.repositories import decisions, digest, seals
from bot.repositories.books import ACCOUNTS, POSITIONS, Books, accounts_of
from bot.repositories.cursor import Cursor
from bot.repositories.digest import SPAN, RunningDigest
from bot.repositories.errors import LedgerError, RowsAltered
from bot.repositories.seals import Seal
from bot.repositories.standing import Aside, Head, Standing

TICKS_AT_ONCE = 65_536
DECISIONS_AT_ONCE = 8_192

_TICKS = "SELECT id, poll, symbol_id, timestamp, bid, ask, last, warmup FROM ticks"


def since_seal(connection: sqlite3.Connection) -> Standing:
    """What a start checks: all that follows the last seal, whatever the size of the ledger."""
    return _audited(connection, seals.newest(connection), [])[0]


def whole(connection: sqlite3.Connection) -> Books:
    """All of it: SQLite's own structure, every row, every seal. What the entries come to."""
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise LedgerError(f"SQLite's integrity check: {' '.join(found.split())}")
    standing, books = _audited(connection, seals.GENESIS, seals.all_after(connection, 0))
    cursor = Cursor(*standing.counts)
    for table, wanted in (("signals", cursor.signals), ("orders", cursor.orders), ("trades", cursor.trades)):
        rows = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 # nosec B608 # the three names above
        if rows != wanted:
            raise LedgerError(f"{table} has {rows} rows, {wanted} were written")
    return books


def _audited(connection: sqlite3.Connection, start: Seal, stops: list[Seal]) -> tuple[Standing, Books]:
    try:
        return _added_up(connection, start, stops)
    except (ArithmeticError, TypeError, ValueError) as error:
        # A damaged row may hold anything: text that is no number, bytes that are no text.
        raise LedgerError(f"a row cannot be read: {error}") from error


def _added_up(connection: sqlite3.Connection, start: Seal, stops: list[Seal]) -> tuple[Standing, Books]:
    head = Head.read(connection)
    with localcontext(MONEY):
        running, books = _decisions(connection, start, stops, head)
    tape = _tape(connection, start, stops, head)
    head.check(connection)
    last = (stops[-1] if stops else start).cursor
    sealed = (last.decisions, last.ticks)
    return Standing(head.cursor.values(), running, tape, sealed, Aside.read(connection)), books


def sign(connection: sqlite3.Connection) -> None:
    """Hashes a ledger as it is: one that is new, or from a version that did not hash all of it."""
    head = Head.read(connection)
    tape = digest.of_ticks()
    _hash_ticks(connection, tape, head.cursor.ticks, (0, 0))
    running = digest.of_decisions(decisions.WIDTH, head.seed, head.cursor.decisions)
    _enter(connection, running, head.cursor.decisions, None)
    Standing(head.cursor.values(), running, tape, (0, 0), Aside.read(connection)).write(connection)


def _decisions(
    connection: sqlite3.Connection, start: Seal, stops: list[Seal], head: Head
) -> tuple[RunningDigest, Books]:
    deposits, targets = accounts_of(connection.execute(ACCOUNTS), connection.execute(POSITIONS))
    books = Books(deposits.values(), *seals.state(connection, start))
    running = digest.of_decisions(decisions.WIDTH, start.seed, start.cursor.decisions)
    before = running.count
    for seal in (start, *stops):
        # The last span of a seal is hashed again, the sums begin at the seal.
        _enter(connection, running, seal.cursor.decisions, books if seal.id > start.id else None)
        if running.digest != seal.digest:
            raise RowsAltered(before + 1, seal.cursor.decisions)
        if seal.id:
            books.compare(*seals.state(connection, seal), f" at seal {seal.id}")
        before = seal.cursor.decisions
    last = stops[-1] if stops else start
    signals, orders = _enter(connection, running, head.cursor.decisions, books)
    if (running.digest, running.count) != (head.digest, head.cursor.decisions):
        raise RowsAltered(before + 1, max(before + 1, head.cursor.decisions))
    added = (head.cursor.signals - last.cursor.signals, head.cursor.orders - last.cursor.orders)
    if added != (signals, orders) or head.cursor.trades != head.cursor.orders:
        raise LedgerError(f"the cursor counts {added[0]} signals and {added[1]} orders since decision {before}")
    _nothing_beyond(connection, head.cursor.decisions)
    books.compare(deposits, targets)
    return running, books


def _enter(connection: sqlite3.Connection, running: RunningDigest, until: int, books: Books | None) -> tuple[int, int]:
    """Hashes the decisions up to a number, and enters them into the books; how many signals and orders they are."""
    signals = orders = 0
    rows = decisions.stored(connection, running.count, until)
    while part := list(islice(rows, DECISIONS_AT_ONCE)):
        values = list(chain.from_iterable(part))
        if books is not None:
            for row in part:
                books.add(row)
        running.add(values)
        more_signals, more_orders = decisions.counted(values)
        signals, orders = signals + more_signals, orders + more_orders
    return signals, orders


def _nothing_beyond(connection: sqlite3.Connection, last: int) -> None:
    beyond = (
        ("signal", "SELECT max(id) FROM signals WHERE id > ?", last),
        ("trade", "SELECT max(id) FROM trades WHERE id > ?", last),
        ("order", "SELECT max(id) FROM orders WHERE id > ?", decisions.order_id(last)),
    )
    for name, query, number in beyond:
        found = connection.execute(query, (number,)).fetchone()[0]
        if found is not None:
            raise LedgerError(f"{name} {found} was added: the last decision is {last}")


def _tape(connection: sqlite3.Connection, start: Seal, stops: list[Seal], head: Head) -> RunningDigest:
    base = seals.numbered(connection, head.base)
    if base.id > start.id:
        # What is older than the base was deleted on purpose, but for what the windows need.
        start, stops = base, [seal for seal in stops if seal.id > base.id]
    running = digest.of_ticks(start.tape_seed, start.cursor.ticks)
    if base.id and kept_digest(connection, base) != head.kept:
        raise LedgerError("the ticks that are kept from before the tape's base were altered")
    before, clock = running.count, (0, 0)
    for seal in (start, *stops):
        clock = _hash_ticks(connection, running, seal.cursor.ticks, clock)
        if running.digest != seal.tape_digest:
            raise LedgerError(f"one of the ticks {before + 1} to {seal.cursor.ticks} was altered")
        if clock[0] > seal.cursor.polls or clock[1] > seal.cursor.timestamp:
            raise LedgerError(f"seal {seal.id} is older than the tick {seal.cursor.ticks} that it covers")
        before = seal.cursor.ticks
    clock = _hash_ticks(connection, running, head.cursor.ticks, clock)
    if (running.digest, running.count) != (head.tape_digest, head.cursor.ticks):
        raise LedgerError(f"one of the ticks {before + 1} to {head.cursor.ticks} was altered")
    if clock[0] > head.cursor.polls or clock[1] > head.cursor.timestamp:
        raise LedgerError(f"the cursor is at poll {head.cursor.polls}, the tape at poll {clock[0]}")
    least, most = connection.execute("SELECT (SELECT min(id) FROM ticks), (SELECT max(id) FROM ticks)").fetchone()
    found = least if (least or 1) < 1 else most
    if found is not None and not 1 <= found <= head.cursor.ticks:
        raise LedgerError(f"tick {found} was added: the last one is {head.cursor.ticks}")
    return running


def kept_digest(connection: sqlite3.Connection, base: Seal) -> str:
    """A hash over the ticks that are older than the span in which the tape's base lies."""
    running = digest.of_ticks()
    query = f"{_TICKS} WHERE id <= ? ORDER BY id"
    for row in connection.execute(query, (base.cursor.ticks // SPAN * SPAN,)):
        running.add(row[1:])
    return running.digest


def ticks_between(connection: sqlite3.Connection, after: int, until: int) -> Iterator[IntArray]:
    """The tape after one tick and up to another in parts, shape [rows, 8]: the id and the columns of the tape."""
    while after < until:
        query = f"{_TICKS} WHERE id > ? AND id <= ? ORDER BY id LIMIT {TICKS_AT_ONCE}"
        found = connection.execute(query, (after, until)).fetchall()
        if not found:
            return
        after = found[-1][0]
        yield np.fromiter(chain.from_iterable(found), np.int64, len(found) * 8).reshape(-1, 8)


def _hash_ticks(
    connection: sqlite3.Connection, running: RunningDigest, until: int, clock: tuple[int, int]
) -> tuple[int, int]:
    """Hashes the ticks up to one; ``clock`` is the poll and the time of the last one, which must not go back."""
    poll, timestamp = clock
    for rows in ticks_between(connection, running.count, until):
        ids, polls, times = rows[:, 0], rows[:, 1], rows[:, 3]
        wrong = np.nonzero(ids != np.arange(running.count + 1, running.count + 1 + len(rows)))[0]
        if len(wrong):
            raise LedgerError(f"tick {running.count + 1 + int(wrong[0])} is gone")
        back = np.nonzero((np.diff(polls, prepend=poll) < 0) | (np.diff(times, prepend=timestamp) < 0))[0]
        if len(back):
            raise LedgerError(f"tick {int(ids[back[0]])} is older than the one before it")
        running.add(rows[:, 1:].ravel())
        poll, timestamp = int(polls[-1]), int(times[-1])
    if running.count != until:
        raise LedgerError(f"tick {running.count + 1} is gone")
    return poll, timestamp
