"""The ledger as files for other programs: a CSV or Parquet file for each table, all of them from one moment.

Every time column, which holds milliseconds, has a readable companion at the end of the row: ``datetime`` beside
``timestamp``, as in ccxt's dictionaries and in every ``--json`` document.
"""

from __future__ import annotations

import csv
import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bot.domain import iso8601
from bot.repositories import Database
from bot.repositories.errors import EXIT_STORAGE

# Some ten megabytes as Python objects. A batch is a row group of a Parquet file.
BATCH_ROWS = 32_768
EXIT_USAGE = 2
# Exact decimals, which the ledger holds as text.
MONEY = {
    "accounts": {"capital", "cash"},
    "orders": {"quantity", "price"},
    "positions": {"quantity", "basis", "total_buys", "total_sells"},
    "trades": {"price", "quantity", "cost", "fee", "pnl"},
}
MONEY |= {f"sealed_{table}": MONEY[table] for table in ("accounts", "positions")}
# The tape is exported as prices and names, not as whole steps and numbers.
VIEWS = {"ticks": "quotes"}

Kind = Literal["csv", "parquet"]
Row = tuple[Any, ...]
Write = Callable[[list[Row]], object]


class ExportError(Exception):
    """What stands in the way of an export, as one line for the user."""

    def __init__(self, text: str, exit_code: int = EXIT_USAGE) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Column(NamedTuple):
    """``type`` is one of SQLite's, or MONEY for a decimal, with the most digits that any value has before and after
    the point."""

    name: str
    type: str
    digits: tuple[int, int] = (0, 0)

    @property
    def companion(self) -> str | None:
        """The name of the readable time beside this one where it is a time: ``started_datetime`` for ``started_at``."""
        for ending in ("timestamp", "at"):
            if self.type == "INTEGER" and f"_{self.name}".endswith(f"_{ending}"):
                return f"{self.name.removesuffix(ending)}datetime"
        return None


class Source(NamedTuple):
    """A table, and the query that reads it in the order of its key."""

    table: str
    columns: list[Column]
    query: str

    @property
    def times(self) -> list[tuple[int, str]]:
        """Where the times are in a row, each with the name of its companion."""
        return [(place, column.companion) for place, column in enumerate(self.columns) if column.companion]


class Written(NamedTuple):
    table: str
    path: str
    rows: int
    bytes: int


# Opens a file for a table's rows, and completes it at the end of the block.
Sink = Callable[[Path, Source], AbstractContextManager[Write]]


async def export(
    database: Database,
    folder: Path,
    kind: Kind,
    tables: Sequence[str] = (),
    *,
    force: bool = False,
    batch_rows: int = BATCH_ROWS,
) -> list[Written]:
    """Writes the tables (none named: all) of a ledger that is open for reading to ``<folder>/<table>.<kind>``.

    The files appear under their names together, when all of them are whole; until then nothing there is touched.
    Raises ExportError. Reading and writing take turns on this thread and the ledger's, one batch after the other, so
    it belongs into a process of its own and not into the daemon.
    """
    sink = _sink(kind)
    async with database.snapshot():
        names = await _chosen(database, tables)
        targets = {name: folder / f"{name}.{kind}" for name in names}
        with _storage_errors(folder):
            _check(targets.values(), database.path, force=force)
            with _workshop(folder) as workshop:
                drafts = [workshop / target.name for target in targets.values()]
                counts = [
                    await _draft(
                        database, await _source(database, name, exact=kind == "parquet"), sink, draft, batch_rows
                    )
                    for name, draft in zip(names, drafts, strict=True)
                ]
                _check(targets.values(), database.path, force=force)
                for draft, target in zip(drafts, targets.values(), strict=True):
                    draft.replace(target)
                return [
                    Written(name, str(target), rows, target.stat().st_size)
                    for (name, target), rows in zip(targets.items(), counts, strict=True)
                ]


def _sink(kind: Kind) -> Sink:
    if kind == "csv":
        return csv_sink
    try:
        from bot.service.parquet import parquet_sink
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        raise ExportError(
            "Parquet needs pyarrow, which is not installed: pip install '.[parquet]', or use --format csv"
        ) from None
    return parquet_sink


@contextmanager
def csv_sink(path: Path, source: Source) -> Iterator[Write]:
    """NULL is an empty field, a BLOB is in hex; floats read back as the same floats, money stands as it is."""
    times = [place for place, _ in source.times]
    blobs = [place for place, column in enumerate(source.columns) if column.type == "BLOB"]

    def write(rows: list[Row]) -> None:
        for place in blobs:
            rows = [(*row[:place], None if row[place] is None else row[place].hex(), *row[place + 1 :]) for row in rows]
        for place in times:
            rows = [(*row, None if row[place] is None else iso8601(row[place])) for row in rows]
        writer.writerows(rows)

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*(column.name for column in source.columns), *(name for _, name in source.times)])
        yield write
        file.flush()
        os.fsync(file.fileno())


async def _draft(database: Database, source: Source, sink: Sink, draft: Path, batch_rows: int) -> int:
    """Writes a table and returns how many rows it has."""
    count = 0
    with sink(draft, source) as write:
        async with aclosing(database.stream(source.query, batch_rows)) as batches:
            async for rows in batches:
                write(rows)
                count += len(rows)
    return count


async def _chosen(database: Database, tables: Sequence[str]) -> list[str]:
    query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    known = [name for (name,) in await database.fetch(query) if name.isidentifier()]
    for table in tables:
        if table not in known:
            raise ExportError(f"--table {table}: the ledger has no such table; it has {', '.join(known)}")
    return list(dict.fromkeys(tables)) or known


async def _source(database: Database, table: str, *, exact: bool) -> Source:
    """``exact``: the digits of money are counted, which takes a look at all of it."""
    relation = VIEWS.get(table, table)
    found = await database.fetch("SELECT name, type, pk FROM pragma_table_info(?)", (relation,))
    # What a view computes is declared as nothing: the prices of the tape.
    columns = [Column(name, "MONEY" if name in MONEY.get(table, ()) else kind or "REAL") for name, kind, _ in found]
    keys = [name for name, _, rank in sorted(found, key=lambda row: row[2]) if rank]
    order = ", ".join(f'"{name}"' for name in keys) or ("id" if relation != table else "rowid")
    if exact and (money := [column.name for column in columns if column.type == "MONEY"]):
        ((*digits,),) = await database.fetch(f'SELECT {", ".join(map(_digits, money))} FROM "{relation}"')  # noqa: S608 # nosec B608 # names from the schema, in quotes
        counted = dict(zip(money, zip(digits[::2], digits[1::2], strict=True), strict=True))
        columns = [column._replace(digits=counted.get(column.name, (0, 0))) for column in columns]
    names = ", ".join(f'"{column.name}"' for column in columns)
    return Source(table, columns, f'SELECT {names} FROM "{relation}" ORDER BY {order}')  # noqa: S608 # nosec B608 # names from the schema, in quotes


def _digits(column: str) -> str:
    """SQL for the most digits of a column of decimals before the point, and after it."""
    bare, point = f"ltrim({column}, '-')", f"instr(ltrim({column}, '-') || '.', '.')"
    return f"coalesce(max({point} - 1), 0), coalesce(max(max(length({bare}) - {point}, 0)), 0)"


def _check(targets: Iterable[Path], ledger: Path, *, force: bool) -> None:
    """Refuses to write over what is there."""
    there = [target for target in targets if target.exists()]
    if there and not force:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise ExportError(f"{there[0]}{more}: there is such a file already; --force replaces it")
    for target in there:
        if target.is_dir():
            raise ExportError(f"{target} is a folder")
        if target.samefile(ledger):
            raise ExportError(f"{target} is the ledger itself")


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """A folder for drafts, on the disk where they will stay, that is gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as path:
        yield Path(path)


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        wrong_path = error.errno in {errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
        text = f"cannot write to {folder}: {error.strerror or error}"
        raise ExportError(text, EXIT_USAGE if wrong_path else EXIT_STORAGE) from error
