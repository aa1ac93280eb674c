"""What the machine can do: the same work with nothing around it, to hold the project's figures against."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import numpy as np

from bot.domain import Block, FloatArray


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def bulk_insert_s(path: Path, rows: Sequence[tuple[Any, ...]], batch: int) -> float:
    """Seconds that executemany takes for rows of seven integers, one durable commit a batch."""
    with closing(connect(path)) as connection:
        connection.execute("CREATE TABLE t (a, b, c, d, e, f, g)")
        start = time.perf_counter()
        for first in range(0, len(rows), batch):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?)", rows[first : first + batch])
            connection.execute("COMMIT")
        return time.perf_counter() - start


def block_loop(block: Block, fast: int, slow: int, ahead: int, path: Path) -> tuple[float, int]:
    """Seconds and fills of a sketch that does the SMA cross, the fee, integer cash and one durable row a fill."""
    return asyncio.run(_block_loop(block, fast, slow, ahead, path))


async def _block_loop(block: Block, fast: int, slow: int, ahead: int, path: Path) -> tuple[float, int]:
    async with aiosqlite.connect(path, isolation_level=None) as connection:
        await connection.execute("PRAGMA journal_mode = WAL")
        await connection.execute("PRAGMA synchronous = FULL")
        await connection.execute("CREATE TABLE fills (id INTEGER PRIMARY KEY, time, symbol, side, price, fee, cash)")
        start = time.perf_counter()
        cents = np.rint(block.last * 100)
        cash, fills = 10**18, 0
        targets = np.zeros((len(block.symbols), 1))

        async def execute(row: int, column: int, target: float) -> tuple[Any, ...]:
            nonlocal cash, fills
            price = int(cents[row, column])
            fee = price // 1000
            cash += (-price if target else price) - fee
            fills += 1
            return (
                fills,
                int(block.timestamp[column]),
                block.symbols[row],
                "buy" if target else "sell",
                price,
                fee,
                cash,
            )

        for first in range(0, len(block), ahead):
            last = min(first + ahead, len(block))
            begin = max(0, first - slow + 1)
            held = _crosses(cents[:, begin:last], fast, slow, last - first, targets)
            rows, columns = np.nonzero(held[:, 1:] != held[:, :-1])
            order = np.lexsort((rows, columns))
            places = zip(rows[order].tolist(), columns[order].tolist(), strict=True)
            written = [await execute(row, first + column, held[row, column + 1]) for row, column in places]
            targets = held[:, -1:]
            await connection.execute("BEGIN IMMEDIATE")
            await connection.executemany("INSERT INTO fills VALUES (?, ?, ?, ?, ?, ?, ?)", written)
            await connection.execute("COMMIT")
        return time.perf_counter() - start, fills


def _crosses(cents: FloatArray, fast: int, slow: int, fresh: int, before: FloatArray) -> FloatArray:
    """Targets of the last ``fresh`` columns behind those from before; a tie holds."""
    sums = np.concatenate((np.zeros((len(cents), 1)), np.cumsum(cents, axis=1)), axis=1)
    target = np.full((len(cents), fresh), np.nan)
    usable = min(fresh, cents.shape[1] - slow + 1)
    if usable > 0:
        quick = (sums[:, fast:] - sums[:, :-fast])[:, -usable:] * slow
        calm = (sums[:, slow:] - sums[:, :-slow])[:, -usable:] * fast
        target[:, -usable:] = np.where(quick > calm, 1.0, np.where(quick < calm, 0.0, np.nan))
    led = np.concatenate((before, target), axis=1)
    known = np.where(led == led, np.arange(fresh + 1), 0)
    filled: FloatArray = np.take_along_axis(led, np.maximum.accumulate(known, axis=1), 1)
    return filled


class BareCommits:
    """Durable commits of so many rows, one at a time, as plain sqlite3 makes them."""

    def __init__(self, path: Path, rows: int) -> None:
        self._connection = connect(path)
        self._connection.execute("CREATE TABLE t (a, b, c, d, e, f, g)")
        self._rows = [(n, 1, 1_735_689_600_000, 5_000_012, "BTC/USDT", "50000.12", "0.001") for n in range(rows)]

    def commit(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?)", self._rows)
        self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()
