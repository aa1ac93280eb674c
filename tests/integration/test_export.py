"""The ledger as files: every value of every table, from one moment, whole or not at all."""

from __future__ import annotations

import csv
import os
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bot.domain import OrderSide, OrderType, iso8601
from bot.execution import MockExecutor
from bot.repositories import LedgerError, SignalRepository, TradeRepository, open_database
from bot.service.export import MONEY, Kind, Written, export
from tests.integration.daemon import MAIN, Daemon, Result, paperloop, polls_in, rows, settings

SEALS = {"seals", "sealed_accounts", "sealed_positions"}
TABLES = {"accounts", "cursor", "orders", "positions", "runs", "signals", "symbols", "ticks", "trades", *SEALS}
TIMES = {"timestamp": "datetime", "started_at": "started_datetime", "stopped_at": "stopped_datetime"}
KINDS: Sequence[Kind] = ("csv", "parquet")
every_kind = pytest.mark.parametrize("kind", KINDS)

# Tables that are not there today: keys of every sort, and all that a cell can hold.
STRANGE = """
CREATE TABLE notes (id INTEGER PRIMARY KEY, timestamp INTEGER, closed_at INTEGER, text TEXT, seal BLOB) STRICT;
INSERT INTO notes VALUES (1, 0, NULL, 'plain', x'00ff'), (2, NULL, 1735689600123, 'a "b", c' || char(10) || 'd', NULL),
    (-3, 1735689600000, 1, ' =1+1;\u00e9\U0001f40d', x''), (9223372036854775807, 1, 1, NULL, NULL);
CREATE TABLE pairs (b TEXT NOT NULL, a INTEGER NOT NULL, value REAL, PRIMARY KEY (b, a)) STRICT, WITHOUT ROWID;
INSERT INTO pairs VALUES ('x', 2, 0.1), ('x', 1, 1e300), ('A', 3, -0.0), ('A', 10, NULL), ('B', 1, 1e999);
CREATE TABLE heap (value REAL) STRICT;
CREATE TABLE prices (price TEXT) STRICT;
INSERT INTO prices VALUES ('about 1');
CREATE TABLE "order" ("group" TEXT PRIMARY KEY) STRICT;
INSERT INTO "order" VALUES ('a'), ('b');
INSERT INTO heap VALUES (5e-324), (0.30000000000000004), (1.0);
"""


STRANGERS = {"notes", "pairs", "heap", "prices", "order"}


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trades of two accounts, refusals, an interrupted past, and tables of another version."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    strategies = '[{name="sma_cross"}, {name="rsi_reversion", capital=50, quote_amount=700}]'
    for end in ("700", "1500"):
        keys = settings(storage__path=path, strategy=strategies, log__level="error")
        result = paperloop(*keys, "--max-speed", "--until-poll", end, folder=path.parent)
        assert result.code == 0, result
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(STRANGE)
    return path


async def exported(ledger: Path, folder: Path, kind: Kind, *tables: str, force: bool = False) -> list[Written]:
    async with open_database(ledger, read_only=True) as database:
        return await export(database, folder, kind, tables, force=force)


def stored(ledger: Path, table: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names and rows of a table, with the readable times that an export adds."""
    source = "quotes" if table == "ticks" else table
    with closing(sqlite3.connect(ledger)) as connection:
        found = connection.execute(f'SELECT * FROM "{source}"')  # noqa: S608
        names = [column[0] for column in found.description]
        values = found.fetchall()
    times = [place for place, name in enumerate(names) if name.endswith("_at") or name == "timestamp"]
    return [*names, *(TIMES.get(names[place], "closed_datetime") for place in times)], [
        (*row, *(row[place] for place in times)) for row in values
    ]


def read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(encoding="utf-8", newline="") as file:
        names, *found = csv.reader(file)
    return names, found


def cell(name: str, value: Any) -> str:
    """What a value looks like in a CSV file."""
    if value is None:
        return ""
    if name.endswith("datetime"):
        return iso8601(value)
    return value.hex() if isinstance(value, bytes) else str(value)


def typed(table: str, name: str, value: Any) -> Any:
    """What a value is in a Parquet file."""
    if value is None:
        return None
    if name.endswith("datetime"):
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value)
    return Decimal(value) if name in MONEY.get(table, ()) else value


async def order(ledger: Path, quantity: str, price: str) -> None:
    async with open_database(ledger) as database:
        executor = MockExecutor(TradeRepository(database), SignalRepository(database))
        await executor.execute_order("BTC/USDT", OrderSide.BUY, Decimal(quantity), OrderType.LIMIT, Decimal(price))


class TestRoundTrip:
    async def test_csv(self, ledger: Path, tmp_path: Path) -> None:
        written = await exported(ledger, tmp_path, "csv")
        assert {file.table for file in written} == {*TABLES, *STRANGERS}
        for file in written:
            names, values = stored(ledger, file.table)
            found_names, found = read_csv(Path(file.path))
            assert found_names == names
            assert found == [[cell(*pair) for pair in zip(names, row, strict=True)] for row in values]
            assert (file.rows, file.bytes) == (len(values), os.stat(file.path).st_size)
        assert sorted(os.listdir(tmp_path)) == sorted(f"{file.table}.csv" for file in written)

    async def test_parquet(self, ledger: Path, tmp_path: Path) -> None:
        written = await exported(ledger, tmp_path, "parquet")
        assert {file.table for file in written} == {*TABLES, *STRANGERS}
        for file in written:
            names, values = stored(ledger, file.table)
            found = pq.read_table(file.path)
            assert found.column_names == names
            columns = [column.to_pylist() for column in found.columns]
            expected = [[typed(file.table, *pair) for pair in zip(names, row, strict=True)] for row in values]
            assert [list(row) for row in zip(*columns, strict=True)] == expected
            assert (file.rows, file.bytes) == (len(values), os.stat(file.path).st_size)

    async def test_floats_are_the_same_floats(self, ledger: Path, tmp_path: Path) -> None:
        await exported(ledger, tmp_path, "csv", "heap", "pairs")
        _, heap = read_csv(tmp_path / "heap.csv")
        assert [float(text) for (text,) in heap] == [5e-324, 0.30000000000000004, 1.0]
        _, pairs = read_csv(tmp_path / "pairs.csv")
        assert [row[2] for row in pairs] == ["0.0", "", "inf", "1e+300", "0.1"]

    async def test_prices_are_those_of_the_view(self, ledger: Path, tmp_path: Path) -> None:
        await exported(ledger, tmp_path, "parquet", "ticks")
        table = pq.read_table(tmp_path / "ticks.parquet")
        assert table.schema.field("bid").type == pa.float64()
        assert table.column("bid").to_pylist() == [row[0] for row in rows(ledger, "SELECT bid FROM quotes ORDER BY id")]
        assert table.num_rows == rows(ledger, "SELECT ticks FROM cursor")[0][0]

    @every_kind
    async def test_a_ledger_without_anything_in_it(self, tmp_path: Path, kind: Kind) -> None:
        async with open_database(tmp_path / "ledger.db"):
            pass
        written = await exported(tmp_path / "ledger.db", tmp_path / "out", kind)
        assert {file.table: file.rows for file in written} == {table: table == "cursor" for table in TABLES}

    @every_kind
    async def test_some_tables_of_it(self, ledger: Path, tmp_path: Path, kind: Kind) -> None:
        written = await exported(ledger, tmp_path / "a" / "b", kind, "trades", "runs", "trades")
        assert [file.table for file in written] == ["trades", "runs"]
        assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {f"trades.{kind}", f"runs.{kind}"}


class TestMoney:
    async def test_is_an_exact_decimal_with_eighteen_places(self, ledger: Path, tmp_path: Path) -> None:
        await exported(ledger, tmp_path, "parquet", "trades", "accounts")
        trades = pq.read_table(tmp_path / "trades.parquet")
        assert {trades.schema.field(name).type for name in ("price", "quantity", "cost", "fee", "pnl")} == {
            pa.decimal128(38, 18)
        }
        total = sum(map(Decimal, (row[0] for row in rows(ledger, "SELECT pnl FROM trades"))))
        assert sum(trades.column("pnl").to_pylist()) == total

    async def test_has_as_many_places_as_it_needs(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        await order(ledger, "0.000333333333333333", "50000.12")
        await exported(ledger, tmp_path, "parquet", "trades")
        trades = pq.read_table(tmp_path / "trades.parquet")
        assert trades.schema.field("cost").type == pa.decimal128(38, 20)
        assert trades.column("cost").to_pylist() == [Decimal("0.000333333333333333") * Decimal("50000.12")]

    async def test_gives_up_places_for_large_amounts(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        await order(ledger, "999999999999999", "999999999999.5")
        await exported(ledger, tmp_path, "parquet", "trades")
        trades = pq.read_table(tmp_path / "trades.parquet")
        assert trades.schema.field("cost").type == pa.decimal128(38, 11)
        assert trades.column("cost").to_pylist() == [Decimal("999999999999999") * Decimal("999999999999.5")]

    async def test_is_text_where_no_decimal_holds_it(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        await order(ledger, "123456789012.123456789012345678", "1.123456789012345678")
        await exported(ledger, tmp_path, "parquet", "trades")
        trades = pq.read_table(tmp_path / "trades.parquet")
        assert trades.schema.field("cost").type == pa.string()
        assert trades.schema.field("price").type == pa.decimal128(38, 18)
        assert trades.column("cost").to_pylist() == [row[0] for row in rows(ledger, "SELECT cost FROM trades")]

    async def test_that_somebody_wrote_over(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        await order(ledger, "1", "1")
        with closing(sqlite3.connect(ledger)) as connection, connection:
            connection.execute("UPDATE positions SET basis = 'much'")
        with pytest.raises(LedgerError, match="basis is no decimal"):
            await exported(ledger, tmp_path / "out", "parquet")
        assert list((tmp_path / "out").iterdir()) == []


class TestOneMoment:
    async def test_what_comes_later_is_not_seen(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        await order(ledger, "1", "1")
        async with open_database(ledger, read_only=True) as reader, reader.snapshot():
            before = await reader.fetch("SELECT * FROM trades")
            await order(ledger, "2", "2")
            assert await reader.fetch("SELECT * FROM trades") == before
            assert await reader.fetch("SELECT trades FROM cursor") == [(1,)]

    def test_beside_a_daemon(self, tmp_path: Path) -> None:
        """What it counted at that moment is what the files hold."""
        keys = settings(storage__path="ledger.db", feed__poll_interval_s=0.01, strategy='[{name="sma_cross"}]')
        with Daemon(*keys, folder=tmp_path) as daemon:
            daemon.wait_until(lambda: polls_in(tmp_path / "ledger.db") > 0, "a poll")
            for number in range(3):
                result = paperloop(
                    *("export", "--output", f"out{number}"), *settings(storage__path="ledger.db"), folder=tmp_path
                )
                assert result.code == 0, result
                counts = {path.stem: len(read_csv(path)[1]) for path in (tmp_path / f"out{number}").iterdir()}
                names, ((*cursor,),) = read_csv(tmp_path / f"out{number}" / "cursor.csv")
                told = dict(zip(names, cursor, strict=True))
                assert {table: counts[table] for table in ("ticks", "signals", "orders", "trades")} == {
                    table: int(told[table]) for table in ("ticks", "signals", "orders", "trades")
                }
            assert daemon.stop().code == 0


@every_kind
async def test_a_larger_table_takes_no_more_memory(tmp_path: Path, kind: Kind) -> None:
    batch_rows, peaks = 2000, []
    for batches in (3, 4, 15):
        ledger = tmp_path / f"{batches}.db"
        await ticks(ledger, batches * batch_rows - 1)
        async with open_database(ledger, read_only=True) as database:
            tracemalloc.start()
            (file,) = await export(database, tmp_path / f"{batches}", kind, ["ticks"], batch_rows=batch_rows)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert file.rows == batches * batch_rows - 1
    # The first one pays for what is imported.
    assert peaks[2] < 1.5 * peaks[1] < 10e6, peaks


async def ticks(ledger: Path, count: int) -> None:
    """Makes a ledger with so many ticks."""
    async with open_database(ledger):
        pass
    with closing(sqlite3.connect(ledger)) as connection, connection:
        connection.execute("INSERT INTO symbols VALUES (1, 'BTC/USDT', 2, 1)")
        connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO ticks"
            " SELECT i, i, 1, 1735689600000 + i * 1000, 6100000 + i, 6100001 + i, 6100000 + i, 0 FROM n",
            (count,),
        )


def verb(ledger: Path, folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> Result:
    return paperloop("export", *arguments, *settings(storage__path=ledger), folder=folder, environment=environment)


def refused(result: Result, *words: str, code: int = 2) -> None:
    assert result.code == code, result
    assert result.out == ""
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err


class TestTheVerb:
    def test_shows_what_it_wrote(self, ledger: Path, tmp_path: Path) -> None:
        result = verb(ledger, tmp_path, "--output", "out", "--table", "trades", "--table", "ticks")
        assert result.code == 0, result
        assert [line.split()[0] for line in result.out.splitlines()] == ["table", "trades", "ticks"]
        assert result.err == ""

    @every_kind
    def test_as_json(self, ledger: Path, tmp_path: Path, kind: Kind) -> None:
        result = verb(ledger, tmp_path, "-o", "out", "-f", kind, "--json")
        assert result.code == 0, result
        document = result.document
        assert document.keys() == {"ledger", "format", "files"}
        assert document["format"] == kind
        for file in document["files"]:
            assert file == {
                "table": file["table"],
                "path": f"out/{file['table']}.{kind}",
                "rows": file["rows"],
                "bytes": (tmp_path / file["path"]).stat().st_size,
            }

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ([], ["--output"]),
            (["--output", "out", "--format", "xlsx"], ["xlsx", "parquet"]),
            (["--output", "out", "--table", "tradse"], ["tradse", "trades"]),
            (["--output", "out", "--table", "quotes"], ["quotes", "ticks"]),
            (["--output", "out", "--table", "sqlite_schema"], ["sqlite_schema"]),
            (["--output", "out", "--table", ""], ["no such table"]),
            (["--output", "file"], ["file"]),
            (["--output", "file/below"], ["file"]),
            (["--output", "x" * 300], ["xxx", "too long"]),
        ],
        ids=str,
    )
    def test_a_slip_is_named(self, ledger: Path, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
        (tmp_path / "file").write_text("mine")
        refused(verb(ledger, tmp_path, *arguments), *words)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_no_ledger(self, tmp_path: Path) -> None:
        refused(verb(tmp_path / "none.db", tmp_path, "--output", "out"), "no ledger", code=1)
        assert list(tmp_path.iterdir()) == []

    def test_nothing_is_written_over(self, ledger: Path, tmp_path: Path) -> None:
        (tmp_path / "trades.csv").write_text("mine")
        refused(verb(ledger, tmp_path, "--output", "."), "trades.csv", "--force")
        assert [path.name for path in tmp_path.iterdir()] == ["trades.csv"]
        assert (tmp_path / "trades.csv").read_text() == "mine"
        assert verb(ledger, tmp_path, "--output", ".", "--force").code == 0
        assert (tmp_path / "trades.csv").read_text().startswith("id,order_id,")

    def test_not_even_by_force(self, ledger: Path, tmp_path: Path) -> None:
        (tmp_path / "trades.csv").mkdir()
        refused(verb(ledger, tmp_path, "--output", ".", "--force"), "trades.csv is a folder")
        (tmp_path / "ticks.csv").symlink_to(ledger)
        refused(verb(ledger, tmp_path, "--output", ".", "--force", "-t", "ticks"), "the ledger itself")
        assert rows(ledger, "SELECT count(*) FROM trades") != [(0,)]

    def test_without_pyarrow(self, ledger: Path, tmp_path: Path) -> None:
        (tmp_path / "missing").mkdir()
        (tmp_path / "missing" / "pyarrow.py").write_text(
            'raise ModuleNotFoundError("No module named \'pyarrow\'", name="pyarrow")'
        )
        environment = {"PYTHONPATH": "missing", "PYTHONDONTWRITEBYTECODE": "1"}
        result = verb(ledger, tmp_path, "--output", "out", "--format", "parquet", environment=environment)
        refused(result, "pip install '.[parquet]'")
        assert len(result.err.splitlines()) == 1
        assert not (tmp_path / "out").exists()
        assert verb(ledger, tmp_path, "--output", "out", environment=environment).code == 0

    async def test_interrupted(self, tmp_path: Path) -> None:
        ledger, out = tmp_path / "ledger.db", tmp_path / "out"
        await ticks(ledger, 1_000_000)
        out.mkdir()
        (out / "ticks.csv").write_text("old")
        arguments = ("export", "--output", "out", "--force", *settings(storage__path=ledger))
        with Daemon(*arguments, folder=tmp_path) as process:
            process.wait_until(lambda: any(path.stat().st_size for path in out.glob(".export-*/ticks.csv")), "a draft")
            result = process.stop(signal.SIGINT)
        assert (result.code, result.out, result.err) == (130, "", "")
        assert [path.name for path in out.iterdir()] == ["ticks.csv"]
        assert (out / "ticks.csv").read_text() == "old"


@every_kind
def test_a_disk_that_refuses(ledger: Path, tmp_path: Path, kind: Kind) -> None:
    """One line, with the exit code of a ledger's own disk that does."""
    arguments = ["export", "--output", "out", "--format", kind, *settings(storage__path=ledger)]
    process = subprocess.run(
        ["bash", "-c", 'ulimit -f 50; exec "$@"', "bash", sys.executable, str(MAIN), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    refused(Result(process.returncode, process.stdout, process.stderr), "cannot write to out: ", code=74)
    assert len(process.stderr.splitlines()) == 1
    assert list((tmp_path / "out").iterdir()) == []
