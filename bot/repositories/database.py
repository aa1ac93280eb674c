"""The ledger file: one writer connection, one transaction a block, one thread hop a transaction.

Repositories append rows to buffers that the database owns; ``commit`` writes all of them, and the cursor, in one
function on aiosqlite's thread. A transaction that is spread over several awaits can be cut in half by a cancellation
or joined by another task; one function cannot.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from aiosqlite.core import Connection

from bot.domain import Position
from bot.repositories import decisions
from bot.repositories.digest import RunningDigest
from bot.repositories.errors import ForeignFile, LedgerError, LedgerMissing, LedgerPath, SchemaNewer, translate
from bot.repositories.insert import Insert
from bot.repositories.lock import LedgerLock

APPLICATION_ID = 0x50504C50  # "PPLP"
MIGRATIONS = sorted((Path(__file__).parent / "migrations").glob("*.sql"))
# Short enough that a stop is not held up by somebody's forgotten transaction; the loop tries again by itself.
BUSY_TIMEOUT_S = 2.0
THREAD_STOP_S = 1.0
SQLITE_NEEDED = (3, 37, 0)

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

    def __init__(self, path: Path, connection: Connection, cursor: Cursor, digest: RunningDigest) -> None:
        self.path = path
        self.cursor = cursor
        self.decisions: list[Any] = []
        # Positions of orders that are made without a loop, by account: one cache for all executors of this ledger.
        self.positions: dict[str, dict[str, Position]] = {}
        self.lock = asyncio.Lock()
        self._owner: asyncio.Task[Any] | None = None
        self._committed = cursor.values()
        self._digest = digest
        self._connection = connection
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
            with _transaction(connection):
                connection.execute(sql, parameters)

        await self._run(work)

    async def insert(self, insert: Insert, values: list[Any]) -> None:
        """Rows that stand for themselves, outside any block."""

        def work(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
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
            with _transaction(connection):
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
            return await self._queued(partial(work, self._connection._conn))
        except asyncio.CancelledError:
            # The thread works in order: when it gets to this, it is done with what was cancelled.
            done = self._queued(lambda: None)
            while not done.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({done})
            raise
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    def _queued(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Puts ``work`` into aiosqlite's own queue. Its coroutine for that would need a task to outlive its caller."""
        call: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._connection._tx.put_nowait((call, work))
        return call


_WRITE_CURSOR = f"UPDATE cursor SET {', '.join(f'{name} = ?' for name in Cursor.__slots__)}, digest = ?, seed = ?"  # noqa: S608


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk has rolled back by itself; a second ROLLBACK would hide the first error.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@asynccontextmanager
async def open_database(path: str | os.PathLike[str], *, read_only: bool = False) -> AsyncIterator[Database]:
    """Opens a ledger, creating it and its folder where needed, and closes it at the end of the block.

    A writer holds the lock file beside the ledger: raises LedgerLocked if another process has it. Raises ForeignFile
    for a file that is not a ledger, SchemaNewer for one of a later version, LedgerMissing for a reader of nothing.
    """
    if os.fspath(path) == ":memory:":
        raise ValueError("a ledger is a file: memory cannot prove anything tomorrow")
    # The lock stands beside the file itself, whatever links lead to it.
    path = _real_path(path)
    if read_only:
        async with _opened(path, _connect_reader) as database:
            yield database
        return
    _create(path)
    with LedgerLock(path):
        async with _opened(path, _connect_writer) as database:
            try:
                yield database
            finally:
                # All of it in one file, for whoever copies it while nothing runs.
                await database._run(_checkpoint)


def _real_path(path: str | os.PathLike[str]) -> Path:
    real = Path(path).resolve()
    if real.is_dir() or real.parent.is_file():
        raise LedgerPath(f"storage.path: {real} cannot be a ledger, it is a folder or below a file")
    return real


def _checkpoint(connection: sqlite3.Connection) -> None:
    # Somebody reads: then the next writer does it.
    connection.execute("PRAGMA busy_timeout = 0")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@asynccontextmanager
async def _opened(path: Path, connect: Callable[[Path], sqlite3.Connection]) -> AsyncIterator[Database]:
    connection = Connection(lambda: connect(path), iter_chunk_size=64)
    # A connection that some path forgot to close must not hold the process at exit.
    connection._thread.daemon = True
    try:
        await connection
    except BaseException as error:
        # aiosqlite only asks its thread to stop; one that outlives the event loop complains on stderr.
        connection._thread.join(THREAD_STOP_S)
        raise translate(error, path) from error
    try:
        cursor, digest = await connection._execute(_restore, connection._conn)  # type: ignore[no-untyped-call]
        database = Database(path, connection, cursor, digest)
    except BaseException as error:
        await connection.close()
        raise translate(error, path) from error
    try:
        yield database
    finally:
        await connection.close()


def _restore(connection: sqlite3.Connection) -> tuple[Cursor, RunningDigest]:
    """The cursor, and the running hash brought up to it; it must come to what was stored with the last block."""
    connection.execute("BEGIN")
    try:
        stored = connection.execute("SELECT * FROM cursor").fetchone()
        if stored is None:
            raise LedgerError("the ledger's cursor is gone: it was deleted from outside")
        *counts, expected, seed = stored[1:]
        cursor = Cursor(*counts)
        digest = RunningDigest(decisions.WIDTH, seed, cursor.decisions)
        digest.add([value for row in decisions.stored(connection, digest.count) for value in row])
    finally:
        connection.execute("ROLLBACK")
    if (digest.digest, digest.count) != (expected, cursor.decisions):
        raise LedgerError("the last rows of signals, orders and trades are not those that were written")
    return cursor, digest


def _file_at(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _create(path: Path) -> None:
    """The folder and the file for their owner's eyes only; SQLite gives its side files the same rights."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise translate(error, path) from error


def _connect_writer(path: Path) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < SQLITE_NEEDED:
        raise LedgerError(f"Python has SQLite {sqlite3.sqlite_version}, a ledger needs 3.37 or newer")
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        _check_file(connection, path)
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        # FULL: at NORMAL a power cut takes back trades that were reported.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        _migrate(connection)
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(decisions.STAGE)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_reader(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", timeout=BUSY_TIMEOUT_S, isolation_level=None, uri=True
    )
    try:
        connection.execute("PRAGMA query_only = ON")
        _check_file(connection, path, reading=True)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_file(connection: sqlite3.Connection, path: Path, *, reading: bool = False) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != APPLICATION_ID and (application or tables):
        raise ForeignFile(f"{path} is a database of another program, not a ledger")
    if not version and reading:
        raise LedgerMissing(f"there is no ledger in {path} yet: it is an empty file")
    if version > len(MIGRATIONS):
        raise SchemaNewer(
            f"{path} was written by a later version (schema {version}, this version knows {len(MIGRATIONS)}):"
            " update Paperloop or choose another storage.path"
        )


def _migrate(connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        with _transaction(connection):
            for statement in _statements(script.read_text(encoding="utf-8")):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")


def _statements(script: str) -> list[str]:
    """The statements of a script one by one: executescript would commit the transaction they belong to."""
    statements, part = [], ""
    for line in script.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            statements.append(part.strip())
            part = ""
    return statements
