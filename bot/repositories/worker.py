"""Where a ledger's SQL runs: on aiosqlite's thread, or in the event loop itself where nothing may happen meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Protocol, Self, TypeVar

from aiosqlite.core import Connection

THREAD_STOP_S = 1.0
T = TypeVar("T")
Connect = Callable[[], sqlite3.Connection]
Work = Callable[[sqlite3.Connection], T]


class Worker(Protocol):
    """Runs functions on one SQLite connection, one after the other, in the order in which they were handed in."""

    @classmethod
    async def start(cls, connect: Connect) -> Self: ...
    def call(self, work: Work[T]) -> asyncio.Future[T]:
        """Hands a function in at once; whoever stops waiting for the answer does not stop the function."""

    async def close(self) -> None: ...


class ThreadWorker:
    """aiosqlite's connection and its thread: the event loop goes on while the disk works."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    async def start(cls, connect: Connect) -> Self:
        connection = Connection(connect, iter_chunk_size=64)
        # A connection that some path forgot to close must not hold the process at exit.
        connection._thread.daemon = True
        try:
            await connection
        except BaseException:
            # aiosqlite only asks its thread to stop; one that outlives the event loop complains on stderr.
            connection._thread.join(THREAD_STOP_S)
            raise
        return cls(connection)

    def call(self, work: Work[T]) -> asyncio.Future[T]:
        # Into aiosqlite's own queue: its coroutine for that would need a task to outlive its caller.
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._connection._tx.put_nowait((answer, partial(work, self._connection._conn)))
        return answer

    async def close(self) -> None:
        await self._connection.close()


class InlineWorker:
    """The same without a thread: for simulations, whose time must not pass while SQLite works, and scratch books."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    async def start(cls, connect: Connect) -> Self:
        return cls(connect())

    def call(self, work: Work[T]) -> asyncio.Future[T]:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            answer.set_result(work(self._connection))
        except Exception as error:  # noqa: BLE001 - whatever it was, it is the answer
            answer.set_exception(error)
        return answer

    async def close(self) -> None:
        self._connection.close()
