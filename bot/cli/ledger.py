"""What a ledger says: accounts, trades, signals, and why."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bot.cli.shared import (
    EXIT_USAGE,
    AccountName,
    AsJson,
    ConfigFiles,
    Limit,
    Overrides,
    Symbol,
    application,
    fail,
    known,
    read,
    settings_of,
    show,
)

if TYPE_CHECKING:
    from bot.repositories import Database
    from bot.settings import Settings


@application.command()
def status(
    config: ConfigFiles = None,
    overrides: Overrides = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="As it was then: 2025-01-01T12:00:00Z, 12:00 of today.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Accounts, positions, open orders and the age of the data; with --at, as they were."""
    from bot.clock import SystemClock
    from bot.service import inspect, render

    settings = settings_of(config, overrides)
    if at is None:
        stale_after_s = settings.stale_after_ms / 1000
        document = read(settings, lambda database: inspect.status(database, SystemClock().now_ms(), stale_after_s))
    else:
        timestamp = _time(at)
        if timestamp > SystemClock().now_ms():
            fail(f"{at} is in the future", EXIT_USAGE)
        document = read(settings, lambda database: inspect.status_at(database, timestamp))
    show(document, as_json, lambda: render.status(document))


@application.command()
def trades(
    config: ConfigFiles = None,
    overrides: Overrides = None,
    limit: Limit = 20,
    symbol: Symbol = None,
    account: AccountName = None,
    as_json: AsJson = False,
) -> None:
    """The newest trades."""
    _list("trades", settings_of(config, overrides), limit, symbol, account, as_json)


@application.command()
def signals(
    config: ConfigFiles = None,
    overrides: Overrides = None,
    limit: Limit = 20,
    symbol: Symbol = None,
    account: AccountName = None,
    as_json: AsJson = False,
) -> None:
    """The newest signals, each with its verdict."""
    _list("signals", settings_of(config, overrides), limit, symbol, account, as_json)


@application.command()
def why(
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="For example BTC/USDT.")],
    time: Annotated[
        str, typer.Argument(metavar="TIME", help="UTC: 2025-01-01T12:00:00Z, 12:00:00 of today, milliseconds, or now.")
    ] = "now",
    config: ConfigFiles = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Why it traded, or did not, at a moment: the prices, the target, the verdict and its reason."""
    from bot.service import inspect, render

    settings = settings_of(config, overrides)
    timestamp = _time(time)

    async def ask(database: Database) -> inspect.Document:
        wanted, _ = await known(database, symbol, None)
        return await inspect.why(database, str(wanted), timestamp)

    document = read(settings, ask)
    show(document, as_json, lambda: render.why(document))


class ExportFormat(StrEnum):
    CSV = "csv"
    PARQUET = "parquet"


@application.command("export")
def export_verb(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the files go; it is made if need be.")
    ],
    form: Annotated[
        ExportFormat, typer.Option("--format", "-f", help="Parquet needs: pip install '.[parquet]'.")
    ] = ExportFormat.CSV,
    table: Annotated[
        list[str] | None, typer.Option("--table", "-t", metavar="NAME", help="Only this table; repeat for several.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replaces files that are there.")] = False,
    config: ConfigFiles = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Writes every table of the ledger to a CSV or Parquet file, all of them from one moment."""
    from bot.service import render
    from bot.service.export import ExportError, export

    settings = settings_of(config, overrides)
    try:
        files = read(settings, lambda database: export(database, output, form.value, table or (), force=force))
    except ExportError as error:
        fail(str(error), error.exit_code)
    written = [file._asdict() for file in files]
    document = {"ledger": settings.storage.path, "format": form, "files": written}
    show(document, as_json, lambda: render.exported(written))


def _list(
    kind: Literal["trades", "signals"],
    settings: Settings,
    limit: int,
    symbol: str | None,
    account: str | None,
    as_json: bool,
) -> None:
    """The newest rows of a table, narrowed to a symbol or an account that the ledger knows."""
    from bot.service import inspect, render

    rows_of, text = (inspect.trades, render.trades) if kind == "trades" else (inspect.signals, render.signals)

    async def ask(database: Database) -> list[inspect.Document]:
        return await rows_of(database, limit, *await known(database, symbol, account))

    rows = read(settings, ask)
    show(rows, as_json, lambda: text(rows))


def _time(text: str) -> int:
    """UTC milliseconds; ends with exit code 2 for what is no time."""
    from bot.clock import SystemClock, parse_time

    try:
        return parse_time(text, SystemClock().now_ms())
    except ValueError as error:
        fail(str(error), EXIT_USAGE)
