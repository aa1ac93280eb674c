"""The ledger as a file: who may open it, what is in it, and what is left of a transaction cut short."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.clock import VirtualClock
from bot.domain import Account, Block, FloatArray, Market, OrderSide
from bot.engine import Engine, LoopState, Plan, Sizing, SizingKind
from bot.execution import MockExecutor
from bot.loop import Ledger, Pace, TradingLoop
from bot.ports import Status, Window
from bot.repositories import (
    AccountRepository,
    LedgerError,
    LedgerLocked,
    LedgerMissing,
    RunRepository,
    SignalRepository,
    TickRepository,
    TradeRepository,
    lock_owner,
    open_database,
)
from bot.repositories.errors import ForeignFile, LedgerTaken, SchemaNewer
from bot.repositories.ticks import block_of
from bot.strategies import build

BTC = "BTC/USDT"
APPLICATION_ID = 0x50504C50
MIGRATIONS = Path(sys.modules[open_database.__module__].__file__ or "").parent / "migrations"


def read(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        return reader.execute(sql).fetchall()


def count(path: Path, table: str = "ticks") -> int:
    return int(read(path, f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - constants


def inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def one_tick(number: int, price: float = 100.5) -> Block:
    prices = np.array([[price]])
    return Block((BTC,), np.array([number * 1_000]), prices, prices, prices)


async def write_ticks(path: Path, ticks: int = 1) -> None:
    async with open_database(path) as database:
        tape = TickRepository(database)
        for number in range(1, ticks + 1):
            async with database.transaction():
                await tape.add(one_tick(number), number)
                database.cursor.polls, database.cursor.timestamp = number, number * 1_000


async def turns(number: int) -> None:
    """Lets the event loop go round ``number`` times."""
    running = asyncio.get_running_loop()
    for _ in range(number):
        turned = running.create_future()
        running.call_soon(turned.set_result, None)
        await turned


def connection_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "_connection_worker" in thread.name]


async def refusal(path: Path, *, read_only: bool = False) -> Exception:
    """Why a ledger cannot be opened."""
    try:
        async with open_database(path, read_only=read_only):
            pytest.fail(f"{path} was opened")
    except (LedgerError, sqlite3.Error) as error:
        return error
    finally:
        for thread in connection_threads():
            thread.join(5)


# Other processes


@contextmanager
def child(script: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs ``script``; it is gone at the end of the block."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    """The next line that a child prints."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line and process.stderr is not None:
        pytest.fail(process.stderr.read())
    return line


HOLDER = """
import asyncio, sys
from bot.domain import OrderSide
from bot.execution import MockExecutor
from bot.repositories import TradeRepository, open_database

async def main():
    async with open_database(sys.argv[1]) as database:
        await MockExecutor(TradeRepository(database)).execute_order("BTC/USDT", OrderSide.BUY, 2)
        print("holding", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

asyncio.run(main())
"""


def test_a_second_process_is_told_who_writes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with child(HOLDER, path) as holder:
        assert said(holder) == "holding"
        error = asyncio.run(refusal(path))
        assert isinstance(error, LedgerLocked)
        assert error.exit_code == 73
        assert str(holder.pid) in str(error)
        assert lock_owner(path) == holder.pid

        async def position() -> dict[str, Any]:
            async with open_database(path, read_only=True) as database:
                return await MockExecutor(TradeRepository(database)).get_position(BTC)

        assert asyncio.run(position())["net_quantity"] == 2.0, "reading goes on beside the writer"
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.wait(timeout=10) == 0
    assert lock_owner(path) is None
    assert not list(tmp_path.glob("ledger.db-*")), "a writer that ends leaves one file"


def test_a_killed_writer_leaves_the_ledger_free_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with child(HOLDER, path) as holder:
        assert said(holder) == "holding"
        holder.send_signal(signal.SIGKILL)
        holder.wait(timeout=10)
    assert lock_owner(path) is None

    async def go_on() -> tuple[float, int]:
        async with open_database(path) as database:
            executor = MockExecutor(TradeRepository(database))
            await executor.execute_order(BTC, OrderSide.SELL, 0.5)
            return (await executor.get_position(BTC))["net_quantity"], database.cursor.trades

    assert asyncio.run(go_on()) == (1.5, 2)
    assert read(path, "PRAGMA integrity_check") == [("ok",)]


async def test_the_same_process_is_a_second_writer_too(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with open_database(path):
        with pytest.raises(LedgerLocked, match=str(os.getpid())):
            async with open_database(path):
                pytest.fail("two writers")
        with pytest.raises(LedgerLocked):
            async with open_database(f"{tmp_path}/./ledger.db"):
                pytest.fail("two writers")
    async with open_database(path):
        assert lock_owner(path) == os.getpid()
    assert lock_owner(path) is None


async def test_a_link_to_a_ledger_is_that_ledger(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "ledger.db")
    async with open_database(tmp_path / "ledger.db"):
        with pytest.raises(LedgerLocked):
            async with open_database(tmp_path / "link.db"):
                pass


LEAVING = """
import asyncio, sys
from bot.domain import OrderSide
from bot.execution import MockExecutor
from bot.repositories import TradeRepository, open_database

kept = []

async def main():
    how, path = sys.argv[1:]
    opened = open_database(path)
    if how in ("forget", "abandon"):
        kept.append((opened, await opened.__aenter__()))
        await MockExecutor(TradeRepository(kept[0][1])).execute_order("BTC/USDT", OrderSide.BUY, 2)
        print("leaving", flush=True)
        return
    async with opened as database:
        await MockExecutor(TradeRepository(database)).execute_order("BTC/USDT", OrderSide.BUY, 2)
        print("leaving", flush=True)
        if how == "exit":
            sys.exit(3)
        raise RuntimeError("on purpose")

if sys.argv[1] == "abandon":
    asyncio.new_event_loop().run_until_complete(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize(("how", "code"), [("exit", 3), ("raise", 1), ("forget", 0), ("abandon", 0)])
def test_a_process_that_leaves_early_ends_at_once(tmp_path: Path, how: str, code: int) -> None:
    path = tmp_path / "ledger.db"
    with child(LEAVING, how, path) as process:
        assert said(process) == "leaving"
        assert process.wait(timeout=3) == code
    assert count(path, "trades") == 1
    assert lock_owner(path) is None


# What a new ledger is


async def test_folder_and_files_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state" / "ledger.db"
    async with open_database(path) as database:
        async with database.transaction():
            await TickRepository(database).add(one_tick(1), 1)
        assert rights(path.parent) == 0o700
        files = inside(path.parent)
        assert {file.name for file in files} >= {"ledger.db", "ledger.db-wal", "ledger.db-shm"}
        assert {rights(file) for file in files} == {0o600}
    assert rights(path) == 0o600


async def test_a_new_ledger_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with open_database(path) as database:
        assert await database.fetch("PRAGMA synchronous") == [(2,)], "FULL"
        assert await database.fetch("PRAGMA journal_mode") == [("wal",)]
        assert database.path == path
    assert read(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert read(path, "PRAGMA user_version") == [(len(list(MIGRATIONS.glob("*.sql"))),)]
    tables = read(path, "SELECT name, strict FROM pragma_table_list WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    assert {name for name, _ in tables} >= {"ticks", "signals", "orders", "trades", "runs"}
    assert [name for name, strict in tables if not strict] == []


async def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await write_ticks(path)
    before = path.read_bytes()
    async with open_database(path) as database:
        cursor, digest = database.cursor, database.digest
        assert (cursor.ticks, cursor.trades) == (1, 0)
    async with open_database(path, read_only=True) as database:
        assert (database.cursor, database.digest) == (cursor, digest)
    assert path.read_bytes() == before


# What is no ledger


def sqlite_file(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as other:
        for statement in ("CREATE TABLE notes (text TEXT)", "INSERT INTO notes VALUES ('mine')", *statements):
            other.execute(statement)
        other.commit()


STRANGERS: dict[str, bytes | tuple[str, ...]] = {
    "text": b"Dear diary, this is not a database.\n" * 50,
    "a few bytes": b"hello",
    "zeros": bytes(8_192),
    "sqlite": (),
    "sqlite of a named program": ("DROP TABLE notes", "PRAGMA application_id = 252006674"),
    "sqlite with a later schema of its own": ("PRAGMA user_version = 7",),
}


@pytest.mark.parametrize("read_only", [False, True], ids=["write", "read"])
@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=list(STRANGERS))
async def test_a_foreign_file_is_left_alone(tmp_path: Path, stranger: bytes | tuple[str, ...], read_only: bool) -> None:
    path = tmp_path / "other.db"
    if isinstance(stranger, bytes):
        path.write_bytes(stranger)
    else:
        sqlite_file(path, *stranger)
    before = path.read_bytes()
    error = await refusal(path, read_only=read_only)
    assert isinstance(error, ForeignFile)
    assert error.exit_code == 65
    assert str(path) in str(error)
    assert path.read_bytes() == before
    assert {file.name for file in inside(tmp_path)} <= {"other.db", "other.db.lock"}


@pytest.mark.parametrize("read_only", [False, True], ids=["write", "read"])
async def test_a_ledger_of_a_later_version_is_left_alone(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "ledger.db"
    await write_ticks(path)
    with closing(sqlite3.connect(path)) as later:
        later.execute("PRAGMA user_version = 999")
        later.commit()
    before = path.read_bytes()
    error = await refusal(path, read_only=read_only)
    assert isinstance(error, SchemaNewer)
    assert error.exit_code == 78
    assert "999" in str(error)
    assert path.read_bytes() == before


async def test_a_reader_of_nothing_is_told_so_and_creates_nothing(tmp_path: Path) -> None:
    error = await refusal(tmp_path / "none" / "ledger.db", read_only=True)
    assert isinstance(error, LedgerMissing)
    assert error.exit_code == 1
    assert inside(tmp_path) == []


async def test_a_folder_is_no_ledger(tmp_path: Path) -> None:
    error = await refusal(tmp_path)
    assert isinstance(error, LedgerError)
    assert str(tmp_path) in str(error)


async def test_rows_that_were_tampered_with_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with open_database(path) as database:
        await MockExecutor(TradeRepository(database)).execute_order(BTC, OrderSide.BUY, 1)
    for change in ("UPDATE trades SET price = '1'", "DELETE FROM trades", "DELETE FROM orders"):
        kept = path.read_bytes()
        with closing(sqlite3.connect(path)) as other:
            other.execute(change)
            other.commit()
        error = await refusal(path)
        assert isinstance(error, LedgerError)
        assert error.exit_code == 65
        path.write_bytes(kept)


@pytest.mark.parametrize("how", ["removed", "replaced", "overwritten"])
async def test_a_ledger_that_is_taken_away_during_a_transaction(tmp_path: Path, how: str) -> None:
    """What came while it was written to is not taken for what the writer left."""
    ledger, backup = tmp_path / "ledger.db", tmp_path / "backup.db"
    async with open_database(ledger) as database:
        await database.fetch(f"VACUUM INTO '{backup}'")

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE cursor SET polls = polls")
            if how == "removed":
                ledger.unlink()
            elif how == "replaced":
                backup.replace(ledger)
            else:
                ledger.write_bytes(backup.read_bytes())

        await database.change(work)
        for _ in range(2):
            with pytest.raises(LedgerTaken):
                await database.change(lambda _: None)


async def test_a_truncated_ledger_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await write_ticks(path)
    path.write_bytes(path.read_bytes()[: -3 * 4_096])
    error = await refusal(path)
    assert isinstance(error, LedgerError)
    assert error.exit_code == 65


@pytest.mark.parametrize("table", ["cursor", "trades"])
async def test_a_ledger_with_a_broken_page_is_damaged(tmp_path: Path, table: str) -> None:
    path = tmp_path / "ledger.db"
    async with open_database(path) as database:
        await MockExecutor(TradeRepository(database)).execute_order(BTC, OrderSide.BUY, 1)
    ((page,),) = read(path, f"SELECT rootpage FROM sqlite_schema WHERE name = '{table}'")  # noqa: S608
    with path.open("r+b") as file:
        file.seek((page - 1) * 4_096)
        file.write(b"\xff" * 4_096)
    error = await refusal(path)
    assert isinstance(error, LedgerError)
    assert error.exit_code == 65


async def test_a_reader_of_an_empty_file_finds_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    assert isinstance(await refusal(tmp_path / "ledger.db", read_only=True), LedgerError)


REFUSED = """
import asyncio, sys
from bot.repositories import open_database
from bot.repositories.errors import ForeignFile

async def main():
    async with open_database(sys.argv[1]):
        pass

refused = 0
for _ in range(100):
    try:
        asyncio.run(main())
    except ForeignFile:
        refused += 1
print(refused, flush=True)
"""


def test_a_refusal_is_quiet(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    sqlite_file(path)
    with child(REFUSED, path) as process:
        output, errors = process.communicate(timeout=30)
    assert output.strip() == "100"
    assert errors == ""


async def test_a_closed_ledger_leaves_no_thread(tmp_path: Path) -> None:
    await write_ticks(tmp_path / "ledger.db")
    for thread in connection_threads():
        thread.join(5)  # it has answered, and is on its way out
        assert not thread.is_alive()


# Readers


async def test_a_reader_beside_the_writer_sees_what_was_committed_and_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with open_database(path) as writer:
        tape = TickRepository(writer)
        async with writer.transaction():
            await tape.add(one_tick(1), 1)
        async with open_database(path, read_only=True) as reader:
            assert reader.cursor == writer.cursor
            async with writer.transaction():
                await tape.add(one_tick(2), 2)
                assert await reader.fetch("SELECT count(*) FROM ticks") == [(1,)]
            assert await reader.fetch("SELECT count(*) FROM ticks") == [(2,)]
            for statement in ("DELETE FROM ticks", "CREATE TABLE mine (x)", "PRAGMA user_version = 5"):
                with pytest.raises((LedgerError, sqlite3.Error)):
                    await reader.write(statement)
            with pytest.raises((LedgerError, sqlite3.Error)):
                await MockExecutor(TradeRepository(reader)).execute_order(BTC, OrderSide.BUY, 1)
        async with writer.transaction():
            await tape.add(one_tick(3), 3)
        assert (count(path), count(path, "trades")) == (3, 0)


async def test_a_reader_without_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await write_ticks(path, ticks=2)
    before = path.read_bytes()
    async with open_database(path, read_only=True) as reader:
        assert reader.cursor.ticks == 2
        tail = await TickRepository(reader).tail((BTC,), 5)
        assert tail is not None
        assert tail.timestamp.tolist() == [1_000, 2_000]
    assert path.read_bytes() == before


# Transactions


async def test_two_transactions_at_once_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with open_database(path) as database:
        tape = TickRepository(database)
        await tape.register({BTC: 2})
        first_may_end = asyncio.Event()
        story: list[str] = []

        async def first() -> None:
            async with database.transaction():
                story.append("first in")
                await tape.add(one_tick(1), 1)
                await first_may_end.wait()
            story.append("first out")

        async def second() -> None:
            async with database.transaction():
                story.append("second in")
                await tape.add(one_tick(2), 2)
                raise RuntimeError("on purpose")

        tasks = [asyncio.ensure_future(first()), asyncio.ensure_future(second())]
        await turns(50)
        assert story == ["first in"]
        assert count(path) == 0
        first_may_end.set()
        assert [type(outcome) for outcome in await asyncio.gather(*tasks, return_exceptions=True)] == [
            type(None),
            RuntimeError,
        ]
        assert sorted(story) == ["first in", "first out", "second in"]
        assert read(path, "SELECT timestamp FROM ticks") == [(1_000,)]
        assert database.cursor.ticks == 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, asyncio.CancelledError, SystemExit])
async def test_an_exception_inside_a_transaction_discards_all_of_it(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "ledger.db"
    async with open_database(path) as database:
        tape, accounts = TickRepository(database), AccountRepository(database)
        async with database.transaction():
            await tape.add(one_tick(1), 1)
            database.cursor.polls, database.cursor.timestamp = 1, 1_000

        async def fail() -> None:
            async with database.transaction():
                await tape.add(one_tick(2), 2)
                accounts.save(Account("main", "USDT", Decimal(5), Decimal(5)))
                database.cursor.polls, database.cursor.timestamp = 2, 2_000
                raise error

        with pytest.raises(error):
            await fail()
        assert (database.cursor.polls, database.cursor.timestamp, database.cursor.ticks) == (1, 1_000, 1)
        async with database.transaction():
            await tape.add(one_tick(3), 2)
        assert read(path, "SELECT timestamp FROM ticks ORDER BY rowid") == [(1_000,), (3_000,)]
        assert (count(path, "accounts"), database.cursor.ticks) == (0, 2)


async def test_a_transaction_that_the_file_rejects_is_gone_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with open_database(path) as database:
        tape, accounts = TickRepository(database), AccountRepository(database)
        await tape.register({BTC: 2})
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TRIGGER refuse BEFORE INSERT ON accounts BEGIN SELECT RAISE(ABORT, 'rejected'); END")
            other.commit()

        async def fail() -> None:
            async with database.transaction():
                await tape.add(one_tick(1), 1)
                accounts.save(Account("main", "USDT", Decimal(5), Decimal(5)))

        for _ in range(2):
            with pytest.raises((sqlite3.Error, LedgerError), match="rejected"):
                await fail()
            assert (count(path), database.cursor.ticks) == (0, 0)
        async with database.transaction():
            await tape.add(one_tick(1), 1)
        assert (count(path), database.cursor.ticks) == (1, 1)


async def one_tick_cancelled_after(path: Path, *pauses: int) -> None:
    """Cancels a transaction after so many turns, and again after each further pause; memory follows the file."""
    async with open_database(path) as database:
        tape = TickRepository(database)
        await tape.register({BTC: 2})

        async def step(number: int) -> None:
            async with database.transaction():
                await tape.add(one_tick(number), number)
                database.cursor.polls, database.cursor.timestamp = number, number * 1_000
                database.cursor.polls = number

        task = asyncio.ensure_future(step(1))
        for pause in pauses:
            await turns(pause)
            task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        written = count(path)
        assert outcome is None or isinstance(outcome, asyncio.CancelledError)
        assert written == 1 or outcome is not None
        assert (database.cursor.ticks, database.cursor.polls) == (written, written)
        await step(2)
        assert (count(path), database.cursor.ticks) == (written + 1, written + 1)
        assert await database.fetch("SELECT ticks, polls FROM cursor") == [(written + 1, 2)]


@pytest.mark.parametrize("pause", range(16))
async def test_after_a_cancelled_commit_memory_is_where_the_file_is(tmp_path: Path, pause: int) -> None:
    await one_tick_cancelled_after(tmp_path / "ledger.db", pause)


async def test_after_a_commit_cancelled_twice_memory_is_where_the_file_is(tmp_path: Path) -> None:
    for pause in range(10):
        await one_tick_cancelled_after(tmp_path / f"ledger-{pause}.db", pause, 1)


async def test_runs_are_recorded_with_what_they_decided_by(tmp_path: Path) -> None:
    async with open_database(tmp_path / "ledger.db") as database:
        runs = RunRepository(database)
        assert await runs.last() is None
        first = await runs.start(1_000, "1.0", {"feed": {"symbols": [BTC]}})
        await runs.stop(first, 2_000, "stopped")
        second = await runs.start(3_000, "1.1", {"b": 1, "a": 2})
        assert second > first
        last = await runs.last()
        assert last is not None
        assert last[:4] == (second, 3_000, 1, "1.1")
        assert RunRepository.config_of(last) == {"a": 2, "b": 1}
    assert read(tmp_path / "ledger.db", "SELECT stopped_at, stop_reason FROM runs") == [
        (2_000, "stopped"),
        (None, None),
    ]


# The tape


@st.composite
def tapes(draw: st.DrawFn) -> tuple[list[Block], Block]:
    """Blocks of tick-like prices with gaps, the first one led by history, and all of them as one."""
    symbols = tuple(f"S{number}/USDT" for number in range(draw(st.integers(1, 3))))
    polls, warmup = draw(st.integers(1, 20)), draw(st.integers(0, 5))
    size = polls + warmup
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    prices = np.empty((3, len(symbols), size))
    for row in range(len(symbols)):
        decimals = draw(st.integers(0, 8))
        high = draw(st.sampled_from([10, 10**6, 10 ** (decimals + 6)]))
        prices[:, row] = rng.integers(1, high, (3, size), endpoint=True) / 10.0**decimals
    missing = rng.random((len(symbols), size)) < draw(st.sampled_from([0.0, 0.1, 0.6]))
    missing[0, missing.all(axis=0)] = False  # a poll without any price is no poll
    prices[:, missing] = np.nan
    times = np.cumsum(rng.integers(1, 100_000, size))
    whole = Block(symbols, times, prices[0], prices[1], prices[2], warmup)
    cuts = sorted({warmup, size, *draw(st.lists(st.integers(warmup + 1, size), max_size=3))} - {0})
    starts = [0, *cuts[1:-1]] if warmup else [0, *cuts[:-1]]
    parts = []
    for start, end in zip(starts, [*starts[1:], size], strict=True):
        rows = slice(start, end)
        bid, ask, last = prices[:, :, rows]
        parts.append(Block(symbols, times[rows], bid, ask, last, 0 if start else warmup))
    return parts, whole


def bits(prices: FloatArray) -> list[list[str]]:
    return [["-" if math.isnan(price) else price.hex() for price in row] for row in prices.tolist()]


@settings(max_examples=60)
@given(tape=tapes())
def test_the_tape_gives_back_every_bit(tape: tuple[list[Block], Block]) -> None:
    parts, whole = tape

    async def play(path: Path) -> None:
        async with open_database(path) as database:
            ticks, first_poll = TickRepository(database), 1
            for part in parts:
                async with database.transaction():
                    await ticks.add(part, first_poll)
                first_poll += part.polls
            assert database.cursor.ticks == whole.ticks
        async with open_database(path, read_only=True) as database:
            ticks = TickRepository(database)
            rows = await ticks.read(0, whole.ticks)
            assert rows.shape == (whole.ticks, 8)
            again = block_of(rows, whole.symbols, await ticks.symbols())
            tail = await ticks.tail(whole.symbols, len(whole))
            assert tail is not None
            assert (again.warmup, tail.warmup) == (whole.warmup, len(whole))
            for block in (again, tail):
                assert block.symbols == whole.symbols
                assert block.timestamp.tolist() == whole.timestamp.tolist()
                for name in ("bid", "ask", "last"):
                    assert bits(getattr(block, name)) == bits(getattr(whole, name))
        polls = np.maximum(np.arange(len(whole)) - whole.warmup, 0) + 1
        expected = [
            (
                int(polls[column]),
                whole.symbols[row],
                int(whole.timestamp[column]),
                *quote,
                int(column < whole.warmup),
            )
            for column in range(len(whole))
            for row in range(len(whole.symbols))
            if (quote := [prices[row, column] for prices in (whole.bid, whole.ask, whole.last)])
            and quote[2] == quote[2]
        ]
        shown = read(path, "SELECT poll, symbol, timestamp, bid, ask, last, warmup FROM quotes ORDER BY id")
        assert shown == expected, "the view that a shell reads shows the same prices"

    with TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder) / "ledger.db"))


@pytest.mark.parametrize(
    "price", [1e-9, 123_456_789.12345679, 16_666.666666666668, 0.30000000000000004 + 50_000, 2.0**52]
)
async def test_prices_that_no_venue_quotes_are_kept_too(tmp_path: Path, price: float) -> None:
    async with open_database(tmp_path / "ledger.db") as database:
        tape = TickRepository(database)
        async with database.transaction():
            await tape.add(one_tick(1, price), 1)
        tail = await tape.tail((BTC,), 1)
        assert tail is not None
        assert tail.last[0, 0] == price


@pytest.mark.parametrize("price", [1 / 3, 1e-17])
async def test_a_price_is_kept_or_refused_but_never_changed(tmp_path: Path, price: float) -> None:
    async with open_database(tmp_path / "ledger.db") as database:
        tape = TickRepository(database)
        try:
            async with database.transaction():
                await tape.add(one_tick(1, price), 1)
        except (ValueError, LedgerError):
            return
        tail = await tape.tail((BTC,), 1)
        assert tail is not None
        assert tail.last[0, 0] == price


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
async def test_a_price_that_was_refused_does_not_spoil_the_next(tmp_path: Path) -> None:
    async with open_database(tmp_path / "ledger.db") as database:
        tape = TickRepository(database)
        with pytest.raises((ValueError, LedgerError)):
            await tape.add(one_tick(1, 1e-17), 1)
        database.discard()
        async with database.transaction():
            await tape.add(one_tick(2, 50_000.12), 1)
        tail = await tape.tail((BTC,), 1)
        assert tail is not None
        assert tail.last[0, 0] == 50_000.12


@pytest.mark.parametrize("beats", range(1, 8))
async def test_the_tail_has_the_last_beats(tmp_path: Path, beats: int) -> None:
    prices = np.arange(12.0).reshape(2, 6)
    async with open_database(tmp_path / "ledger.db") as database:
        tape = TickRepository(database)
        assert await tape.tail(("A/U", "B/U"), beats) is None
        async with database.transaction():
            await tape.add(Block(("A/U", "B/U"), np.arange(6), prices, prices, prices), 1)
        tail = await tape.tail(("A/U", "B/U"), beats)
        assert tail is not None
        assert tail.timestamp.tolist() == list(range(6))[-beats:]
        np.testing.assert_array_equal(tail.last, prices[:, -beats:])


class GappyFeed:
    """A market in which A has a price at every beat and B at every fifth."""

    def __init__(self, symbols: tuple[str, ...]) -> None:
        self.symbols = symbols
        self.markets = {symbol: Market(symbol, Decimal("0.01")) for symbol in symbols}

    async def history(self, before_ms: int, window: Window) -> Block | None:
        return None

    async def poll(self, beat_ms: int, polls: int) -> Block | None:
        beats = beat_ms // 1_000 + np.arange(polls)
        prices = {
            "A/USDT": np.round(100 + 10 * np.sin(beats / 3), 2),
            "B/USDT": np.where(beats % 5 == 0, np.round(100 + 10 * np.cos(beats / 40), 2), np.nan),
        }
        last = np.stack([prices[symbol] for symbol in self.symbols])
        return Block(self.symbols, beats * 1_000, last, last, last)

    async def close(self) -> None: ...


class Onlooker:
    """An observer that asks for the equity after every step, as a status line does."""

    def filled(self, *_: object) -> None: ...
    def refused(self, *_: object) -> None: ...
    def interrupted(self, *_: object) -> None: ...
    def resumed(self, *_: object) -> None: ...

    def stepped(self, status: Status) -> None:
        assert math.isfinite(status.equity()["main"])


async def trade_until(path: Path, poll: int, symbols: tuple[str, ...] = ("A/USDT", "B/USDT")) -> str:
    """Trades the gappy market from where the ledger is until a poll, and returns the ledger's digest."""
    feed = GappyFeed(symbols)
    plans = [Plan(build("sma_cross", fast=3, slow=10), "main", Sizing(SizingKind.QUANTITY, Decimal(1)))]
    async with open_database(path) as database:
        accounts, tape = AccountRepository(database), TickRepository(database)
        opened = await accounts.open([Account("main", "USDT", Decimal(100_000), Decimal(100_000))])
        state = LoopState.empty(feed.symbols, plans, opened)
        state.restore_targets(plans, await accounts.targets())
        trades, signals = TradeRepository(database), SignalRepository(database)
        executors = {"main": MockExecutor(trades, signals, account=opened["main"], markets=feed.markets)}
        await TradingLoop(
            feed,
            Engine(plans, feed.markets),
            executors,
            state,
            Ledger(database, signals, accounts, tape),
            VirtualClock(1_000, 7),
            Pace(1_000, until_poll=poll),
            Onlooker(),
        ).run()
        assert database.cursor.trades > 0
        return database.digest


async def test_a_symbol_that_is_held_can_be_dropped(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await trade_until(path, 230)
    assert count(path, "positions WHERE symbol = 'B/USDT' AND CAST(quantity AS REAL) > 0") == 1
    await trade_until(path, 240, ("A/USDT",))


async def test_a_restart_reads_back_the_windows_whole_in_a_market_with_gaps(tmp_path: Path) -> None:
    uninterrupted = await trade_until(tmp_path / "one.db", 600)
    for poll in range(97, 600, 97):
        await trade_until(tmp_path / "many.db", poll)
    assert await trade_until(tmp_path / "many.db", 600) == uninterrupted
