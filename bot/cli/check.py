"""Whether a strategy keeps its promises."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from bot.cli.shared import (
    EXIT_USAGE,
    AsJson,
    ConfigFiles,
    Overrides,
    Params,
    application,
    fail,
    params_of,
    settings_of,
    show,
)

if TYPE_CHECKING:
    from bot.settings import Settings

# Nobody waits longer for one answer, however many bars it is for.
ANSWER_S_MAX = 10.0
DEFAULT_TIMEFRAME = "1m"


class _Wanted(NamedTuple):
    name: str
    params: dict[str, Any]
    source: Path | None
    timeframe: str


@application.command("check")
def check_verb(
    strategy: Annotated[
        str | None,
        typer.Argument(
            help="A strategy's name, package.module:Class, or a .py file; without: those of the configuration."
        ),
    ] = None,
    param: Params = None,
    timeframe: Annotated[
        str | None, typer.Option("--timeframe", "-t", help=f"How long its bars are; without: {DEFAULT_TIMEFRAME}.")
    ] = None,
    bars: Annotated[
        int | None,
        typer.Option("--bars", min=10, max=100_000, help="Of so many bars a market; without: about 1,000."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Other random markets.")] = 7,
    config: ConfigFiles = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Whether a strategy keeps its promises: it sees no future, needs no more than its lookback, and trades alike in a
    backtest and live. Exit 1 and the bar where it does not."""
    settings = settings_of(config, overrides, strategies=strategy is None)
    from bot.backtest.check import checked
    from bot.clock import SystemClock
    from bot.strategies import StrategyError, load
    from bot.timeframes import TIMEFRAMES

    if timeframe not in {None, *TIMEFRAMES}:
        fail(f"--timeframe {timeframe}: must be one of {', '.join(TIMEFRAMES)}", EXIT_USAGE)
    reports = []
    try:
        # What a file prints when it is imported is no part of the result.
        with redirect_stdout(sys.stderr):
            for wanted in _wanted(settings, strategy, params_of(param)):
                report = checked(
                    partial(load, wanted.name, wanted.params, wanted.source),
                    # Ticks are bars too, and a backtest has candles in their place.
                    timeframe=TIMEFRAMES[timeframe or wanted.timeframe],
                    monotonic=SystemClock().monotonic,
                    bars=bars,
                    seed=seed,
                    limit=partial(deadline, ANSWER_S_MAX),
                )
                reports.append(report.document())
    except StrategyError as error:
        fail("\npaperloop: ".join(error.problems), EXIT_USAGE)
    good = all(report["ok"] for report in reports)
    one = strategy is not None and len(reports) == 1
    show(reports[0] if one else {"ok": good, "strategies": reports}, as_json, lambda: "\n".join(map(_text, reports)))
    if not good:
        raise typer.Exit(1)


def _wanted(settings: Settings, strategy: str | None, params: dict[str, Any]) -> list[_Wanted]:
    from bot.strategies import names_in
    from bot.timeframes import TICK

    folder = Path(settings.strategy_folder) if settings.strategy_folder else None
    if strategy is None:
        if params:
            fail("--param needs the name of a STRATEGY", EXIT_USAGE)
        return [
            _Wanted(entry.name, dict(entry.params), folder, entry.timeframe.replace(TICK, DEFAULT_TIMEFRAME))
            for entry in settings.strategy
        ]
    if strategy.endswith(".py"):
        file = Path(strategy)
        if not file.is_file():
            fail(f"{strategy}: there is no such file", EXIT_USAGE)
        return [_Wanted(name, params, file, DEFAULT_TIMEFRAME) for name in names_in(file)]
    return [_Wanted(strategy, params, folder, DEFAULT_TIMEFRAME)]


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Ends what takes longer, with ``Hung``; Python code that never waits, too, but no library's C code."""
    from bot.backtest.check import Hung

    def over(number: int, frame: FrameType | None) -> None:
        raise Hung(f"no answer within {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, over)
    before = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, handler)


def _text(report: dict[str, Any]) -> str:
    words = {True: "ok     ", False: "FAILED ", None: "-      "}
    lookback = f"{report['lookback']:,} bar{'' if report['lookback'] == 1 else 's'}"
    asked = f"{report['bars']:,} bars of {report['timeframe']} in each market, seed {report['seed']}"
    lines = [f"{report['strategy']}: looks back on {lookback}; asked about {asked}"]
    for check in report["checks"]:
        took = f"  ({check['seconds']:.2f} s)" if check["ok"] is not None else ""
        lines.append(f"{words[check['ok']]}  {check['name']:<9}  {check['detail']}{took}")
    return "\n".join(lines) + "\n"
