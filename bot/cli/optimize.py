"""The search for the parameters of a strategy."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bot.cli import trading
from bot.cli.shared import EXIT_USAGE, AsJson, ConfigFiles, Overrides, application, fail, show

if TYPE_CHECKING:
    from bot.backtest.optimize.found import Found

EXIT_INTERRUPTED = 130


@application.command("optimize")
def optimize_verb(
    data: trading.DataSpecs,
    strategy: Annotated[str, typer.Option("--strategy", metavar="NAME", help="What is tried.")],
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="NAME=VALUES",
            help="fast=5:50:5 (both ends included), fast=5,10,20 or one value; with --random also fast=5:50; repeat.",
        ),
    ] = None,
    by: Annotated[str, typer.Option("--by", metavar="METRIC", help="What the combinations are ranked by.")] = "sharpe",
    min_trades: Annotated[
        int, typer.Option("--min-trades", min=0, metavar="N", help="Ranks only what closed so many trades in sample.")
    ] = 0,
    split: Annotated[
        float, typer.Option("--split", metavar="PART", help="The part in sample; the rest is out of sample. 1: none.")
    ] = 0.7,
    walk_forward: Annotated[
        int | None,
        typer.Option("--walk-forward", metavar="N", help="N windows of one length, each split, that roll on."),
    ] = None,
    anchored: Annotated[
        bool, typer.Option("--anchored", help="With --walk-forward: all windows begin where the first one does.")
    ] = False,
    random: Annotated[
        int | None, typer.Option("--random", metavar="N", help="Tries N combinations drawn at random, not all.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Other draws.")] = 7,
    top: Annotated[int, typer.Option("--top", min=1, max=10_000, metavar="N", help="How many are shown.")] = 20,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, metavar="N", help="Processes; left out: one a core.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.parquet", help="Writes every combination's figures.")
    ] = None,
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
    config: ConfigFiles = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Tries combinations of a strategy's parameters on all cores, and shows what the best ones did on prices that they
    were not chosen on."""
    sizes = {"quantity": quantity, "quote_amount": quote_amount, "equity_fraction": equity_fraction}
    asked = trading.Trading(
        strategies=[strategy],
        params={},
        timeframe=timeframe,
        account={"capital": capital, **sizes},
        execution={"fee_rate": fee_rate, "slippage_bps": slippage_bps, "fill": fill and fill.value},
    )
    settings = asked.settings(config, overrides, strategies=False)
    from bot.backtest.data import DataError
    from bot.backtest.optimize.document import document
    from bot.backtest.optimize.grid import GridError
    from bot.backtest.optimize.joined import walked
    from bot.backtest.optimize.search import INTERRUPTED, search
    from bot.backtest.optimize.table import text
    from bot.backtest.optimize.wanted import Wanted
    from bot.backtest.optimize.workers import cores
    from bot.strategies import StrategyError

    _check(output)
    if anchored and walk_forward is None:
        fail("--anchored goes with --walk-forward", EXIT_USAGE)
    try:
        wanted = Wanted.of(
            param or (), by, draws=random, seed=seed, share=split, windows=walk_forward, is_anchored=anchored
        )
        # What somebody's strategy prints is no part of the result.
        with redirect_stdout(sys.stderr):
            with trading.progress(wanted=not as_json) as progress:
                market_data = trading.opened(settings, data, symbol, timeframe, timerange, repair)
                study = wanted.study(settings, market_data, progress)
            # Another one: what draws it is a thread, and processes are to be forked without.
            with trading.progress(wanted=not as_json) as progress:
                found = search(study, by, min_trades=min_trades, jobs=jobs or cores(), progress=progress)
            joined = walked(found) if walk_forward and found.ended is None else None
    except (GridError, StrategyError) as error:
        fail(str(error).replace("\n", "\npaperloop: "), EXIT_USAGE)
    except DataError as error:
        fail(str(error), error.exit_code)
    for line in trading.notes(market_data):
        typer.echo(f"paperloop: {line}", err=True)
    problem = None if output is None else _write(found, output)
    whole = document(found, top, joined)
    show(whole, as_json, lambda: text(whole))
    if problem is not None:
        fail(problem, 1)
    if found.ended is not None:
        fail(f"{found.ended}; what was done until then is above", EXIT_INTERRUPTED if found.ended == INTERRUPTED else 1)


def _check(output: Path | None) -> None:
    """Before a search that may take long."""
    if output is None:
        return
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        fail("--output: Parquet needs pyarrow, which is not installed: pip install '.[parquet]'", EXIT_USAGE)
    if output.is_dir():
        fail(f"--output {output} is a folder", EXIT_USAGE)
    if not output.parent.is_dir():
        fail(f"--output {output}: there is no folder {output.parent}", EXIT_USAGE)


def _write(found: Found, output: Path) -> str | None:
    """What was in the way of the file, which is no reason not to show the table."""
    from bot.backtest.optimize.parquet import write

    try:
        write(found, output)
    except OSError as error:
        return f"cannot write {output}: {error.strerror or error}"
    return None
