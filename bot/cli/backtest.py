"""What strategies would have made of the prices of the past."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bot.cli import trading
from bot.cli.shared import EXIT_USAGE, AsJson, ConfigFiles, Overrides, Params, application, fail, params_of, show

if TYPE_CHECKING:
    from bot.backtest.data import MarketData
    from bot.backtest.result import Result
    from bot.backtest.session import Progress
    from bot.settings import Settings


@application.command("backtest")
def backtest_verb(
    data: trading.DataSpecs,
    strategy: trading.StrategyNames = None,
    param: Params = None,
    timeframe: trading.Timeframe = None,
    timerange: trading.Timerange = None,
    symbol: trading.Symbols = None,
    capital: trading.Capital = None,
    quantity: trading.Quantity = None,
    quote_amount: trading.QuoteAmount = None,
    equity_fraction: trading.EquityFraction = None,
    fee_rate: trading.FeeRate = None,
    slippage_bps: trading.SlippageBps = None,
    fill: trading.Fill = None,
    repair: trading.Repairs = None,
    event_driven: Annotated[
        bool, typer.Option("--event-driven", help="Through the trading loop, candle by candle, every fill durable.")
    ] = False,
    persist: Annotated[
        Path | None, typer.Option("--persist", metavar="LEDGER", help="The same, and keeps its ledger: a new file.")
    ] = None,
    report: Annotated[
        list[Path] | None, typer.Option("--report", metavar="FILE", help="Writes FILE.html or FILE.png; repeatable.")
    ] = None,
    config: ConfigFiles = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Trades strategies on candles of the past, or on a recorded ledger, and reports what came of it."""
    sizes = {"quantity": quantity, "quote_amount": quote_amount, "equity_fraction": equity_fraction}
    asked = trading.Trading(
        strategies=strategy or [],
        params=params_of(param),
        timeframe=timeframe,
        account={"capital": capital, **sizes},
        execution={"fee_rate": fee_rate, "slippage_bps": slippage_bps, "fill": fill and fill.value},
    )
    settings = asked.settings(config, overrides)
    from bot.backtest.data import DataError
    from bot.backtest.report import ReportError, checked, document, summary, text, write
    from bot.backtest.reported import report_of
    from bot.backtest.session import on_data

    through_loop = event_driven or persist is not None
    try:
        for file in report or ():
            checked(file)
        with trading.progress() as progress:
            market_data = trading.opened(settings, data, symbol, timeframe, timerange, repair)
            settings = on_data(settings, market_data)
            results = _results(settings, market_data, through_loop, persist, progress)
            engine = "event-driven" if through_loop else "vectorised"
            found = report_of(settings, market_data, results, sources=data, engine=engine, prices=bool(report))
            for file in report or ():
                write(file, found)
    except DataError as error:
        fail(str(error), error.exit_code)
    except ReportError as error:
        fail(str(error), EXIT_USAGE)
    # With a range, what lies before it is looked back on.
    short = trading.too_short(results) if timerange is None else []
    for line in (*trading.notes(market_data), *short):
        typer.echo(f"paperloop: {line}", err=True)
    show(document(found) if as_json else None, as_json, lambda: text(summary(found)))


def _results(
    settings: Settings, data: MarketData, through_loop: bool, persist: Path | None, progress: Progress
) -> Sequence[Result]:
    from bot.backtest.session import event_driven, vectorised
    from bot.compose import tune_collector

    failures: dict[str, str] = {}

    def failed(name: str, error: Exception | SystemExit) -> None:
        failures.setdefault(name, " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": "))

    tune_collector()
    if through_loop:
        results = asyncio.run(event_driven(settings, data, persist=persist, failed=failed, progress=progress))
    else:
        results = vectorised(settings, data, failed=failed, progress=progress)
    for name, told in failures.items():
        sys.stderr.write(f"paperloop: {name} raised, and held where it did: {told}\n")
    return results
