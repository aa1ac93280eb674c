"""The ledger file: one writer connection, one transaction a block, one thread hop a transaction.

Repositories append rows to buffers that the database owns; ``commit`` writes all of them, and the cursor, in one
function on the ledger's worker. A transaction that is spread over several awaits can be cut in half by a cancellation
or joined by another task; one function cannot.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bot.domain import IntArray, Position
from bot.repositories import audit, connect, decisions, digest, seals
from bot.repositories.cursor import Cursor
from bot.repositories.errors import (
    LedgerBusy,
    LedgerError,
    LedgerTaken,
    LedgerTouched,
    StorageFailed,
    StorageFull,
    translate,
)
from bot.repositories.insert import Insert
from bot.repositories.lock import LedgerLock
from bot.repositories.standing import Aside, Head, Standing
from bot.repositories.worker import ThreadWorker, Worker

# Where a file's header says how it is to be read and written, and what it says of a ledger in use.
WAL_MODE_AT, WAL_MODE = 18, b"\2\2"
Row = tuple[Any, ...]
T = TypeVar("T")


class Database:
    """Made by ``open_database``. Rows wait in buffers until ``commit``; ``discard`` forgets them."""

    def __init__(self, path: Path, worker: Worker, standing: Standing, handle: int | None = None) -> None:
        """``handle`` is one of the file, which a writer has."""
        self.path = path
        self.cursor = Cursor(*standing.counts)
        self.decisions: list[Any] = []
        # Ticks as they go onto the tape, for its hash.
        self.ticks: list[IntArray] = []
        # Positions of orders that are made without a loop, by account: one cache for all executors of this ledger.
        self.positions: dict[str, dict[str, Position]] = {}
        self.lock = asyncio.Lock()
        self._owner: asyncio.Task[Any] | None = None
        self._standing = standing
        self._worker = worker
        self._files = _Files(path, handle)
        # What the last write came to: one that waits for room, or a disk that is not to be written to any more.
        self._storage: StorageFull | StorageFailed | None = None
        self._buffers: dict[Insert, list[Any]] = {}

    def buffer(self, insert: Insert) -> list[Any]:
        """The list that collects the values of one INSERT's rows, one row's after the other's, until the commit."""
        return self._buffers.setdefault(insert, [])

    @property
    def digest(self) -> str:
        """One string for the whole ledger: equal for two ledgers exactly if their signals, orders and trades are."""
        return self._standing.told

    @property
    def log_bytes(self) -> int:
        """How large the write-ahead log is: it grows as long as somebody reads and does not finish."""
        return connect.size(connect.log_path(self.path))

    @property
    def written_ms(self) -> int:
        """When something was last written to it, by the clock of then; 0 where that cannot be told."""
        try:
            return connect.log_path(self.path).stat().st_mtime_ns // 10**6
        except OSError:
            return 0

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        return await self.run(lambda connection: connection.execute(sql, parameters).fetchall())

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[None]:
        """What is read inside is one state of the ledger, on a read-only connection. Not for long: as long as it
        lasts, the writer's log can only grow."""
        await self.fetch("BEGIN")
        try:
            yield
        finally:
            await self.run(connect.end)

    async def stream(self, sql: str, size: int) -> AsyncGenerator[list[Row], None]:
        """The rows of a query that need not fit into memory, ``size`` of them at a time."""
        cursor = await self.run(lambda connection: connection.execute(sql))
        try:
            while rows := await self.run(lambda connection: cursor.fetchmany(size)):
                yield rows
        finally:
            await self.run(lambda connection: cursor.close())

    async def write(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """One statement that stands for itself, outside any block."""
        await self.change(lambda connection: connection.execute(sql, parameters))

    async def insert(self, insert: Insert, values: list[Any]) -> None:
        """Rows that stand for themselves, outside any block."""
        await self.change(lambda connection: insert.execute(connection, values))

    async def change(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """A transaction of its own for what no block writes: symbols, runs, the start of the tape."""

        def changed(connection: sqlite3.Connection) -> Standing:
            work(connection)
            standing = replace(self._standing, aside=Aside.read(connection))
            standing.write(connection)
            return standing

        await self._transact(changed)

    async def _transact(self, work: Callable[[sqlite3.Connection], Standing]) -> None:
        """One transaction, whose ``work`` tells where the ledger stands with it."""
        self._check_files()
        written: Standing | None = None

        def transact(connection: sqlite3.Connection) -> None:
            nonlocal written
            with connect.transaction(connection):
                standing = work(connection)
            written, self._storage = standing, None
            self._files.left()

        try:
            await self.run(transact)
        finally:
            # A cancelled commit may have been written all the same: what counts is what the file holds.
            if written is not None:
                self._standing = written

    async def finish(self) -> None:
        """Puts all of it into one file, for whoever copies that while nothing runs.

        What does not fit now stays in the log, and is as safe there.
        """
        with suppress(LedgerBusy, LedgerTaken, StorageFull):
            self._check_files()
            if self._storage is None:
                await self.run(connect.checkpoint)

    async def commit(self) -> None:
        """Writes what waits as one transaction; on an error nothing is written and nothing waits any more."""
        try:
            await self._write_waiting()
        finally:
            self.discard()

    def _check_files(self) -> None:
        """Raises LedgerTaken if the files are not as this process left them, and not only looked after by somebody."""
        try:
            self._files.check()
        except LedgerTouched:
            # Another program has put the log back into the file, say: what counts is what it says now. But a copy that
            # was made for keeping is not in WAL mode: somebody wants to go on with that one.
            if self._files.in_wal_mode:
                with suppress(LedgerError):
                    found = _judged(self.path, thorough=True)
                    if found is not None and found.row() == self._standing.row():
                        return self._files.left()
            raise

    async def _write_waiting(self) -> None:
        batches = [(insert, values) for insert, values in self._buffers.items() if values]
        standing = self._standing.after(self.cursor, self.ticks, self.decisions)
        spread = decisions.SPREAD if self.decisions else ()
        if self.decisions:
            batches.append((decisions.INSERT, self.decisions))
        seal = seals.WRITE if standing.sealed != self._standing.sealed else ()

        def write(connection: sqlite3.Connection) -> Standing:
            for insert, values in batches:
                insert.execute(connection, values)
            for statement in spread:
                connection.execute(statement)
            standing.write(connection)
            for statement in seal:
                connection.execute(statement)
            return standing

        await self._transact(write)

    def discard(self) -> None:
        """Forgets what waits; the cursor is again where the file is."""
        self.decisions.clear()
        self.ticks.clear()
        for values in self._buffers.values():
            values.clear()
        self.cursor.set(self._standing.counts)

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

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs ``work`` on the connection's thread. A cancellation waits for its outcome: cancelling only the wait
        would leave a transaction that commits after its caller believes it did not."""
        if isinstance(self._storage, StorageFailed):
            raise self._storage
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
            told = translate(error, self.path)
            if isinstance(told, StorageFull | StorageFailed):
                self._storage = told
            raise told from error


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
        async with _opened(path, worker, connect.reader, _read) as database:
            yield database
        return
    connect.create(path)
    with LedgerLock(path) as handle:
        # A ledger that does not add up is left as it is, byte for byte: it is judged before it is opened for writing.
        standing = _judged(path)
        opener = partial(connect.writer, synchronous=synchronous)
        known = _audited if standing is None else lambda _: standing
        async with _opened(path, worker, opener, known, handle) as database:
            try:
                yield database
            finally:
                await database.finish()


@asynccontextmanager
async def _opened(
    path: Path,
    kind: type[Worker],
    opener: Callable[[Path], sqlite3.Connection],
    standing: Callable[[sqlite3.Connection], Standing],
    handle: int | None = None,
) -> AsyncIterator[Database]:
    try:
        worker = await kind.start(partial(opener, path))
    except BaseException as error:
        raise translate(error, path) from error
    try:
        database = Database(path, worker, await worker.call(standing), handle)
    except BaseException as error:
        await worker.close()
        raise translate(error, path) from error
    try:
        yield database
    finally:
        await worker.close()


def _read(connection: sqlite3.Connection) -> Standing:
    """Where a ledger says that it stands."""
    with connect.snapshot(connection):
        head, aside = Head.read(connection), Aside.read(connection)
    running = digest.of_decisions(decisions.WIDTH, head.seed, head.cursor.decisions)
    tape = digest.of_ticks(head.tape_seed, head.cursor.ticks)
    return Standing(head.cursor.values(), running, tape, (0, 0), aside, head.digest)


def _judged(path: Path, *, thorough: bool = False) -> Standing | None:
    """Where a ledger stands that adds up since its last seal; None for one that is new or from an earlier version.

    ``thorough``: SQLite looks at all of the file's structure, too.
    """
    log = connect.log_path(path)
    left_over = connect.size(log)
    try:
        with closing(connect.unchecked_reader(path)) as connection:
            if thorough and connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise LedgerError(f"{path} is damaged")
            return _audited(connection) if connect.is_current(connection, path) else None
    except LedgerError as error:
        raise _explained(error, path, log if left_over else None) from None
    except sqlite3.Error as error:
        told = translate(error, path)
        broken = isinstance(told, LedgerError) and told.exit_code == LedgerError.exit_code
        raise _explained(told, path, log if left_over and broken else None) from error


def _explained(error: BaseException, path: Path, log: Path | None) -> BaseException:
    """The same error, with the ledger's name and with what may be the cause of it."""
    text = str(error) if str(path) in str(error) else f"{path}: {error}"
    if log is not None:
        text += f" (if this file was restored from a copy, stop everything that uses it and delete {log.name} first)"
    error.args = (text,)
    return error


def _audited(connection: sqlite3.Connection) -> Standing:
    with connect.snapshot(connection):
        return audit.since_seal(connection)


class _Files:
    """The ledger's files as this process left them. SQLite would go on writing into one that has no name any more, and
    over one that somebody has copied a backup into, and call it success."""

    def __init__(self, path: Path, handle: int | None) -> None:
        self._path, self._log, self._handle = path, connect.log_path(path), handle
        self._found = self._now()

    def left(self) -> None:
        """After a transaction of this process: nobody else writes to them until its next one. What somebody did during
        the transaction is not taken for its work: the next check finds it."""
        now = self._now()
        if self.in_wal_mode and all(map(_is_still, self._found, now)):
            self._found = now

    @property
    def in_wal_mode(self) -> bool:
        """As SQLite set the file, and not as a copy is that was made for keeping."""
        try:
            return self._handle is not None and os.pread(self._handle, 2, WAL_MODE_AT) == WAL_MODE
        except OSError:
            return False

    def check(self) -> None:
        for path, found, now in zip((self._path, self._log), self._found, self._now(), strict=True):
            if found != now:
                if found and _is_still(found, now):
                    raise LedgerTouched(f"{path} was changed by another program while it was in use")
                raise LedgerTaken(f"{path} was removed or replaced while it was in use")

    def _now(self) -> tuple[tuple[int, ...] | None, ...]:
        return _identity(self._path, content=True), _identity(self._log)


def _is_still(before: tuple[int, ...] | None, now: tuple[int, ...] | None) -> bool:
    """Whether it is the same file, or one that there was not yet."""
    return before is None or (now is not None and now[:2] == before[:2])


def _identity(path: Path, *, content: bool = False) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns) if content else (found.st_dev, found.st_ino)
