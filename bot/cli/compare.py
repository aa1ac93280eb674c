"""What the daemon did against what a backtest of the same time would have done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bot.cli import trading
from bot.cli.shared import EXIT_USAGE, AccountName, AsJson, application, fail, show

if TYPE_CHECKING:
    from bot.backtest.compare import Candles, Outline, Stretch
    from bot.backtest.data import MarketData
    from bot.backtest.session import Progress
    from bot.timeframes import Timeframe


@application.command("compare")
def compare_verb(
    ledger: Annotated[Path, typer.Argument(metavar="LEDGER", help="What the daemon recorded, in use or not.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            "-d",
            metavar="DATA",
            help="Candles to backtest on: a file of them (csv, csv.gz, parquet), SYMBOL=FILE, a folder, or the word"
            " simulated; repeat for several symbols. Left out: the ledger's own tape.",
        ),
    ] = None,
    timeframe: Annotated[
        str | None,
        typer.Option("--timeframe", "-t", metavar="1m", help="What strategies on ticks decide on in the backtest."),
    ] = None,
    timerange: trading.Timerange = None,
    account: AccountName = None,
    fee_rate: trading.FeeRate = None,
    slippage_bps: trading.SlippageBps = None,
    fill: trading.Fill = None,
    repair: trading.Repairs = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="How far apart the fills of one decision may be; else a bar of the strategy, on ticks a poll.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="How many gaps are shown, the first ones.")] = 20,
    as_json: AsJson = False,
) -> None:
    """A recorded ledger against a backtest of the same time: trades matched, each gap explained. Exit 1 if any.

    On its own tape there must be none. Against candles of the exchange (--data), gaps are what polls, outages and
    quotes cost.
    """
    execution = {"fee_rate": fee_rate, "slippage_bps": slippage_bps, "fill": fill and fill.value}
    changed = {key: text for key, text in execution.items() if text is not None}
    if not data and (changed or timeframe or repair):
        fail("--timeframe, --fee-rate, --slippage-bps, --fill and --repair go with --data", EXIT_USAGE)
    from bot.backtest.compare import compared, document, outline_of, recording_of, text
    from bot.backtest.compare.candles import within
    from bot.backtest.data import DataError
    from bot.compose import tune_collector

    tune_collector()
    tolerance_ms = None if tolerance is None else round(tolerance * 1000)
    try:
        with trading.progress(wanted=not as_json) as progress:
            outline = asyncio.run(outline_of(ledger))
            notes = list(outline.notes)
            stretches = _asked_for(outline, account, timerange)
            candles: Candles | None = None
            if data and stretches:
                ticks_as = _timeframe(timeframe)
                stretches = _on_candles(stretches, ticks_as, notes)
                market_data = _opened(outline, stretches, data, ticks_as, repair)
                candles = _candles(market_data, stretches, ticks_as, changed, progress)
                notes += trading.notes(market_data)
                stretches, cut = within(stretches, candles)
                notes += cut
            recording = asyncio.run(recording_of(ledger, outline, stretches))
            found = list(compared(recording, candles, tolerance_ms=tolerance_ms, progress=progress))
    except DataError as error:
        fail(str(error), error.exit_code)
    told = document(found, ledger=str(ledger), against=data or (), notes=notes, limit=limit)
    show(told, as_json, lambda: text(told))
    if not told["ok"]:
        raise typer.Exit(1)


def _asked_for(outline: Outline, account: str | None, timerange: str | None) -> list[Stretch]:
    """The stretches, or the parts of them, of the account and the time that are asked for."""
    from bot.clock import SystemClock
    from bot.history.errors import HistoryError
    from bot.history.ranges import parsed

    stretches = outline.stretches
    if account is not None:
        names = sorted({plan.account for stretch in stretches for plan in stretch.plans})
        if account not in names:
            fail(f"{account}: the ledger has no such account; it has {', '.join(names) or 'none yet'}", EXIT_USAGE)
        stretches = [part for stretch in stretches if (part := stretch.only({account}))]
    if timerange is not None:
        try:
            first_ms, end_ms = parsed(timerange, SystemClock().now_ms())
        except HistoryError as error:
            fail(str(error), error.exit_code)
        stretches = [part for stretch in stretches if (part := stretch.within(first_ms or 0, end_ms))]
    return stretches


def _timeframe(name: str | None) -> Timeframe | None:
    from bot.timeframes import TIMEFRAMES

    if name is not None and name not in TIMEFRAMES:
        fail(f"--timeframe must be one of {', '.join(TIMEFRAMES)}, got {name!r}", EXIT_USAGE)
    return None if name is None else TIMEFRAMES[name]


def _on_candles(stretches: Sequence[Stretch], ticks_as: Timeframe | None, notes: list[str]) -> list[Stretch]:
    """Without the accounts that decide on ticks, unless they are to decide on candles instead."""
    plans = [plan for stretch in stretches for plan in stretch.plans]
    on_ticks = list(dict.fromkeys(plan.account for plan in plans if plan.timeframe is None))
    if not on_ticks:
        return list(stretches)
    names = ", ".join(on_ticks)
    if ticks_as is not None:
        notes.append(f"{names}: decided on ticks live, and in the backtest on candles of {ticks_as.name}")
        return list(stretches)
    found = []
    for stretch in stretches:
        kept = {plan.account for plan in stretch.plans if plan.timeframe is not None}
        if part := stretch.only(kept):
            found.append(part)
    advice = "candles cannot repeat that; --timeframe 1m, say, lets them decide on candles"
    if not found:
        fail(f"{names}: decided on ticks, and {advice}", EXIT_USAGE)
    notes.append(f"{names}: left out, decided on ticks, and {advice}")
    return found


def _opened(
    outline: Outline,
    stretches: Sequence[Stretch],
    data: list[str],
    ticks_as: Timeframe | None,
    repair: list[trading.RepairRule] | None,
) -> MarketData:
    """The data for all of the stretches, which are of whole days to it. Raises DataError."""
    from bot.backtest.data import DataError
    from bot.domain import iso8601
    from bot.settings import Settings
    from bot.timeframes import DAY_MS, TICK

    symbols = list(dict.fromkeys(symbol for stretch in stretches for symbol in stretch.settings.feed.symbols))
    entries = [entry for stretch in stretches for entry in stretch.settings.strategy]
    if ticks_as is not None:
        update = {"timeframe": ticks_as.name}
        entries = [entry.model_copy(update=update) if entry.timeframe == TICK else entry for entry in entries]
    newest = stretches[-1].settings
    feed: dict[str, Any] = newest.feed.model_dump() | {"symbols": symbols, "simulated": outline.simulated}
    settings = Settings(feed=type(newest.feed).model_validate(feed)).model_copy(update={"strategy": tuple(entries)})
    first_ms, end_ms = min(each.start_ms for each in stretches), max(each.end_ms for each in stretches)
    days = "-".join(iso8601(time)[:10].replace("-", "") for time in (first_ms, end_ms - 1 + DAY_MS))
    try:
        return trading.opened(settings, data, symbols, None, days, repair)
    except DataError as error:
        # It is not for the user to say which symbols.
        raise DataError(str(error).replace("--symbol:", "--data:"), error.exit_code) from None


def _candles(
    data: MarketData,
    stretches: Sequence[Stretch],
    ticks_as: Timeframe | None,
    changed: dict[str, str],
    progress: Progress,
) -> Candles:
    from bot.backtest.compare.candles import candles_of
    from bot.settings import load_settings

    # Judged as settings are. Raises SettingsError.
    given = load_settings((), [f"execution.{key}={text}" for key, text in changed.items()], {}, None).execution
    execution = {key: getattr(given, key) for key in changed}
    return candles_of(data, stretches, ticks_as=ticks_as, execution=execution, progress=progress)
