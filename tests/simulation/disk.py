"""A disk that is slow, full or failing, and what a kill -9 leaves on it."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, cast

from bot.repositories.worker import Connect, InlineWorker, Work
from tests.simulation.chance import Chance, Rates

T = TypeVar("T")

FAILURES = ("busy", "full", "full at commit", "io at insert", "io at commit", "fsync at commit", "torn")
_ERRORS = {
    "busy": ("SQLITE_BUSY", "database is locked"),
    "full": ("SQLITE_FULL", "database or disk is full"),
    "full at commit": ("SQLITE_FULL", "database or disk is full"),
    "io at insert": ("SQLITE_IOERR_WRITE", "disk I/O error"),
    "io at commit": ("SQLITE_IOERR_WRITE", "disk I/O error"),
    "fsync at commit": ("SQLITE_IOERR_FSYNC", "disk I/O error"),
}


class Host(Protocol):
    """The process that the disk belongs to."""

    chance: Chance
    dead: bool
    path: Path

    @property
    def rates(self) -> Rates: ...

    def befall(self, seconds: float, rate: float) -> None: ...
    def note(self, *event: object) -> None: ...
    def killed(self, left: Left) -> None: ...


class Left:
    """The files as they are at a moment; nothing that happens to them later counts."""

    def __init__(self, path: Path) -> None:
        self.path, self._kept = path, path.with_name(f"{path.name}.kept")
        self._wal = wal_of(path)
        if path.exists():
            shutil.copyfile(path, self._kept)

    def torn(self, after: bytes, share: float) -> None:
        """Of what was written to the log since, only a part has got there."""
        before = self._wal
        start = len(before) if after.startswith(before) else 0
        end = start + round(share * (len(after) - start))
        self._wal = after[:end] + before[end:]

    def restore(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        if self._kept.exists():
            self._kept.rename(self.path)
            self.path.with_name(f"{self.path.name}-wal").write_bytes(self._wal)


def wal_of(path: Path) -> bytes:
    wal = path.with_name(f"{path.name}-wal")
    return wal.read_bytes() if wal.exists() else b""


class _Failing:
    """A connection on which one transaction fails at the place that its failure is about."""

    def __init__(self, connection: sqlite3.Connection, failure: str, host: Host) -> None:
        self._connection, self._failure, self._host = connection, failure, host

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        failure, connection = self._failure, self._connection
        if (
            (sql == "BEGIN IMMEDIATE" and failure == "busy")
            or (sql == "COMMIT" and failure in ("full at commit", "io at commit", "fsync at commit"))
            or (sql.startswith("INSERT") and failure in ("full", "io at insert"))
        ):
            self._fail()
        if sql == "COMMIT" and failure == "torn" and not self._host.dead:
            left = Left(self._host.path)
            done = connection.execute(sql)
            left.torn(wal_of(self._host.path), self._host.chance.between(0, 1.2))
            self._host.killed(left)
            return done
        return connection.execute(sql, parameters)

    def _fail(self) -> None:
        name, text = _ERRORS[self._failure]
        if name == "SQLITE_FULL" and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._host.note("failed write", self._failure)
        error = sqlite3.OperationalError(text)
        error.sqlite_errorname, error.sqlite_errorcode = name, getattr(sqlite3, name)
        raise error


class SlowWorker(InlineWorker):
    """Work waits for its turn, takes its time, and its answer may be late: whoever waits can be cancelled meanwhile."""

    host: ClassVar[Host]

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self._free_s = 0.0
        self._waiting: deque[Callable[[], None]] = deque()

    @classmethod
    def on(cls, host: Host) -> type[SlowWorker]:
        return type("SlowWorker", (cls,), {"host": host})

    @classmethod
    async def start(cls, connect: Connect) -> SlowWorker:
        return cls(connect())

    def call(self, work: Work[T]) -> asyncio.Future[T]:
        host = self.host
        chance, rates = host.chance, host.rates
        if host.dead:
            self._flush()
            return super().call(work)
        seconds = chance.between(0.001, 3.0) if chance.hits(rates.slow_write) else 0.0
        failure = chance.one_of(FAILURES) if chance.hits(rates.failed_write) else ""
        if failure:
            connection = cast(sqlite3.Connection, _Failing(self._connection, failure, host))
            whole, work = work, lambda _: whole(connection)
        if not seconds and not self._waiting:
            return super().call(work)
        return self._later(work, seconds)

    def _later(self, work: Work[T], seconds: float) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        done: list[asyncio.Future[T]] = []

        def begin() -> None:
            done.append(super(SlowWorker, self).call(work))

        def end() -> None:
            if answer.done():
                done[0].exception()
            elif error := done[0].exception():
                answer.set_exception(error)
            else:
                answer.set_result(done[0].result())

        start_s = max(self._free_s, loop.time())
        self._free_s = start_s + seconds
        for step, when in ((begin, start_s + seconds * self.host.chance.number()), (end, self._free_s)):
            self._waiting.append(step)
            loop.call_at(when, self._step)
        self.host.befall(2 * seconds, self.host.rates.disturbed_write)
        return answer

    def _step(self) -> None:
        # In the order in which it was handed in, whichever of two timers of one moment comes first.
        if self._waiting:
            self._waiting.popleft()()

    def _flush(self) -> None:
        while self._waiting:
            self._step()
