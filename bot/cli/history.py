"""Candles of the past."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bot.cli.shared import AsJson, ConfigFiles, Overrides, application, fail, settings_of, show

if TYPE_CHECKING:
    from bot.history.download import File, Wanted
    from bot.settings import Settings

EXIT_INTERRUPTED = 130


@application.command("download")
def download_verb(
    timeframe: Annotated[str, typer.Option("--timeframe", "-t", metavar="1m", help="How long a candle is.")] = "1m",
    symbol: Annotated[
        list[str] | None,
        typer.Option("--symbol", metavar="SYMBOL", help="Repeat for several; left out: those of the settings."),
    ] = None,
    timerange: Annotated[
        str | None,
        typer.Option(
            "--timerange",
            metavar="FROM-TO",
            help="UTC days: 20240101-20240201, 20240101- or -20240201; the end is left out. Else the last 30 days.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the files go, below the exchange's name.")
    ] = Path("data/history"),
    config: ConfigFiles = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Candles of an exchange as Parquet, a file for each symbol. Run it again to go on, or to fetch what is new."""
    settings = settings_of(config, overrides)
    from bot.history.errors import HistoryError

    files: list[File] = []
    interrupted = False
    try:
        wanted = _wanted(settings, symbol, timeframe, timerange, output)
        _fetch(settings, wanted, files)
    except HistoryError as error:
        if files:
            _show(files, as_json)
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        interrupted = True
    if files or not interrupted:
        _show(files, as_json)
    if interrupted:
        fail("interrupted; the same command goes on where it was", EXIT_INTERRUPTED)
    if not all(file.ok for file in files):
        raise typer.Exit(1)


def _wanted(
    settings: Settings, symbols: list[str] | None, timeframe: str, timerange: str | None, output: Path
) -> Wanted:
    from bot.clock import SystemClock
    from bot.exchange.library import exchange_class, problems_of
    from bot.history.errors import HistoryError
    from bot.history.ranges import parsed, step_ms
    from bot.settings import SettingsError

    first, end = parsed(timerange, SystemClock().now_ms())
    given = settings.feed.ccxt
    if problems := problems_of(given.exchange, given.options):
        raise SettingsError(problems)
    try:
        from bot.history.download import Wanted
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        raise HistoryError("Parquet needs pyarrow, which is not installed: pip install '.[parquet]'") from None
    client = exchange_class(given.exchange)({})
    has = list(client.timeframes or ()) if client.has.get("fetchOHLCV") else []
    if timeframe not in has:
        raise HistoryError(f"--timeframe {timeframe}: {given.exchange} has {', '.join(has) or 'no candles'}")
    named = tuple(dict.fromkeys(name.strip().upper().replace("-", "/") for name in symbols or settings.feed.symbols))
    return Wanted(named, timeframe, step_ms(timeframe), first, end, output)


def _fetch(settings: Settings, wanted: Wanted, files: list[File]) -> None:
    from bot.clock import SystemClock
    from bot.exchange.client import Access, Client
    from bot.history.download import download
    from bot.service.progress import Bar, Lines

    given = settings.feed.ccxt

    async def fetch() -> None:
        clock = SystemClock()
        client = Client(Access(given.exchange, given.base_url, given.options, wanted.symbols), clock)
        with Bar() if sys.stderr.isatty() else Lines(clock.monotonic) as progress:
            await download(client, clock, wanted, progress, files)

    asyncio.run(fetch())


def _show(files: list[File], as_json: bool) -> None:
    from bot.history.download import document
    from bot.service import render

    rows = [document(file) for file in files]
    whole: dict[str, Any] = {"ok": all(row["ok"] for row in rows), "files": rows}
    show(whole, as_json, lambda: render.downloaded(rows))
