"""The ledger file: one writer connection, one transaction a block, one thread hop a transaction.

Repositories append rows to buffers that the database owns; ``commit`` writes all of them, and the cursor, in one
function on aiosqlite's thread. A transaction that is spread over several awaits can be cut in half by a cancellation
or joined by another task; one function cannot.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bot.domain import Position
from bot.repositories import connect, decisions
from bot.repositories.digest import RunningDigest
from bot.repositories.errors import LedgerError, translate
from bot.repositories.insert import Insert
from bot.repositories.lock import LedgerLock
from bot.repositories.worker import ThreadWorker, Worker

Row = tuple[Any, ...]
T = TypeVar("T")


@dataclass(slots=True)
class Cursor:
    """How far the ledger is. ``decisions`` is the last number given out; a new decision takes the next one."""

    polls: int = 0
    timestamp: int = 0
    ticks: int = 0
    decisions: int = 0
    signals: int = 0
    orders: int = 0
    trades: int = 0

    def values(self) -> tuple[int, ...]:
        return (self.polls, self.timestamp, self.ticks, self.decisions, self.signals, self.orders, self.trades)


class Database:
    """Made by ``open_database``. Rows wait in buffers until ``commit``; ``discard`` forgets them."""

    def __init__(self, path: Path, worker: Worker, cursor: Cursor, digest: RunningDigest) -> None:
        self.path = path
        self.cursor = cursor
        self.decisions: list[Any] = []
        # Positions of orders that are made without a loop, by account: one cache for all executors of this ledger.
        self.positions: dict[str, dict[str, Position]] = {}
        self.lock = asyncio.Lock()
        self._owner: asyncio.Task[Any] | None = None
        self._committed = cursor.values()
        self._digest = digest
        self._worker = worker
        self._file = _file_at(path)
        self._buffers: dict[Insert, list[Any]] = {}

    def buffer(self, insert: Insert) -> list[Any]:
        """The list that collects the values of one INSERT's rows, one row's after the other's, until the commit."""
        return self._buffers.setdefault(insert, [])

    @property
    def digest(self) -> str:
        """One string for the whole ledger: equal for two ledgers exactly if their signals, orders and trades are."""
        return self._digest.digest

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        return await self._run(lambda connection: connection.execute(sql, parameters).fetchall())

    async def write(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """One statement that stands for itself, outside any block."""

        def work(connection: sqlite3.Connection) -> None:
            with connect.transaction(connection):
                connection.execute(sql, parameters)

        await self._run(work)

    async def insert(self, insert: Insert, values: list[Any]) -> None:
        """Rows that stand for themselves, outside any block."""

        def work(connection: sqlite3.Connection) -> None:
            with connect.transaction(connection):
                insert.execute(connection, values)

        await self._run(work)

    async def commit(self) -> None:
        """Writes what waits as one transaction; on an error nothing is written and nothing waits any more."""
        try:
            await self._write_waiting()
        finally:
            self.discard()

    async def _write_waiting(self) -> None:
        if _file_at(self.path) != self._file:
            # SQLite would go on writing into a file that has no name any more, and call it success.
            raise LedgerError(f"{self.path} was removed or replaced while it was in use")
        digest = self._digest
        batches = [(insert, values) for insert, values in self._buffers.items() if values]
        spread: tuple[str, ...] = ()
        if self.decisions:
            digest = digest.copy()
            digest.add(self.decisions)
            signals, orders = decisions.counted(self.decisions)
            self.cursor.signals += signals
            self.cursor.orders += orders
            self.cursor.trades += orders
            batches.append((decisions.INSERT, self.decisions))
            spread = decisions.SPREAD
        cursor = (*self.cursor.values(), digest.digest, digest.seed)
        written = False

        def work(connection: sqlite3.Connection) -> None:
            nonlocal written
            with connect.transaction(connection):
                for insert, values in batches:
                    insert.execute(connection, values)
                for statement in spread:
                    connection.execute(statement)
                connection.execute(_WRITE_CURSOR, cursor)
            written = True

        try:
            await self._run(work)
        finally:
            # A cancelled commit may have been written all the same: what counts is what the file holds.
            if written:
                self._committed = self.cursor.values()
                self._digest = digest

    def discard(self) -> None:
        """Forgets what waits; the cursor is again where the file is."""
        self.decisions.clear()
        for values in self._buffers.values():
            values.clear()
        # In place: the loop and the repositories hold on to this object.
        for name, value in zip(Cursor.__slots__, self._committed, strict=True):
            setattr(self.cursor, name, value)

    @property
    def is_mine(self) -> bool:
        """Whether the task that asks has a transaction open."""
        return self._owner is not None and self._owner is asyncio.current_task()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Rows added inside are committed together at its end, or not at all. One at a time."""
        if self.is_mine:
            raise RuntimeError("this task has a transaction open already")
        async with self.lock:
            self._owner = asyncio.current_task()
            try:
                yield
            except BaseException:
                self.discard()
                raise
            else:
                await self.commit()
            finally:
                self._owner = None

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs ``work`` on the connection's thread. A cancellation waits for its outcome: cancelling only the wait
        would leave a transaction that commits after its caller believes it did not."""
        try:
            return await self._worker.call(work)
        except asyncio.CancelledError:
            # Work is done in order: when it comes to this, it is done with what was cancelled.
            done = self._worker.call(lambda _: None)
            while not done.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({done})
            raise
        except sqlite3.Error as error:
            raise translate(error, self.path) from error


_WRITE_CURSOR = f"UPDATE cursor SET {', '.join(f'{name} = ?' for name in Cursor.__slots__)}, digest = ?, seed = ?"  # noqa: S608


@asynccontextmanager
async def open_database(
    path: str | os.PathLike[str],
    *,
    read_only: bool = False,
    worker: type[Worker] = ThreadWorker,
    synchronous: connect.Synchronous = "FULL",
) -> AsyncIterator[Database]:
    """Opens a ledger, creating it and its folder where needed, and closes it at the end of the block.

    A writer holds the lock file beside the ledger: raises LedgerLocked if another process has it. Raises ForeignFile
    for a file that is not a ledger, SchemaNewer for one of a later version, LedgerMissing for a reader of nothing.
    ``worker`` and ``synchronous`` are for simulations; with less than FULL a power cut can take trades back.
    """
    # The lock stands beside the file itself, whatever links lead to it.
    path = connect.real_path(path)
    if read_only:
        async with _opened(path, worker, connect.reader) as database:
            yield database
        return
    connect.create(path)
    with LedgerLock(path):
        async with _opened(path, worker, partial(connect.writer, synchronous=synchronous)) as database:
            try:
                yield database
            finally:
                await database._run(connect.checkpoint)


@asynccontextmanager
async def _opened(
    path: Path, kind: type[Worker], opener: Callable[[Path], sqlite3.Connection]
) -> AsyncIterator[Database]:
    try:
        worker = await kind.start(partial(opener, path))
    except BaseException as error:
        raise translate(error, path) from error
    try:
        cursor, digest = await worker.call(_restore)
        database = Database(path, worker, cursor, digest)
    except BaseException as error:
        await worker.close()
        raise translate(error, path) from error
    try:
        yield database
    finally:
        await worker.close()


def _restore(connection: sqlite3.Connection) -> tuple[Cursor, RunningDigest]:
    """The cursor, and the running hash brought up to it; it must come to what was stored with the last block."""
    with connect.snapshot(connection):
        stored = connection.execute("SELECT * FROM cursor").fetchone()
        if stored is None:
            raise LedgerError("the ledger's cursor is gone: it was deleted from outside")
        *counts, expected, seed = stored[1:]
        cursor = Cursor(*counts)
        digest = RunningDigest(decisions.WIDTH, seed, cursor.decisions)
        digest.add([value for row in decisions.stored(connection, digest.count) for value in row])
    if (digest.digest, digest.count) != (expected, cursor.decisions):
        raise LedgerError("the last rows of signals, orders and trades are not those that were written")
    return cursor, digest


def _file_at(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
