"""The options of the verbs that trade on the past: what data, which strategies, and on what terms."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bot.cli.shared import EXIT_USAGE, fail, settings_of

if TYPE_CHECKING:
    from bot.backtest.data import MarketData
    from bot.backtest.result import Result
    from bot.backtest.session import Progress
    from bot.settings import Settings


class FillRule(StrEnum):
    NEXT_OPEN = "next_open"
    CLOSE = "close"


class RepairRule(StrEnum):
    SORT = "sort"
    DROP = "drop"
    FILL = "fill"


DataSpecs = Annotated[
    list[str],
    typer.Option(
        "--data",
        "-d",
        metavar="DATA",
        help="A file of candles (csv, csv.gz, parquet), SYMBOL=FILE, a folder of them, a recorded ledger, or the word"
        " simulated; repeat for several symbols.",
    ),
]
StrategyNames = Annotated[
    list[str] | None,
    typer.Option("--strategy", metavar="NAME", help="Repeat for several; left out: those of the configuration."),
]
Timeframe = Annotated[
    str | None, typer.Option("--timeframe", "-t", metavar="1h", help="What strategies decide on; else the data's own.")
]
Timerange = Annotated[
    str | None,
    typer.Option("--timerange", metavar="FROM-TO", help="UTC days: 20240101-20240201, 20240101- or -20240201."),
]
Symbols = Annotated[list[str] | None, typer.Option("--symbol", metavar="SYMBOL", help="Only these of the data.")]
Capital = Annotated[
    str | None, typer.Option("--capital", metavar="AMOUNT", help="Of each account, in the quote currency.")
]
Quantity = Annotated[
    str | None, typer.Option("--quantity", metavar="AMOUNT", help="What a target of 1 means, in the base currency,")
]
QuoteAmount = Annotated[str | None, typer.Option("--quote-amount", metavar="AMOUNT", help="or in the quote currency,")]
EquityFraction = Annotated[
    str | None, typer.Option("--equity-fraction", metavar="PART", help="or as a part of the account.")
]
FeeRate = Annotated[str | None, typer.Option("--fee-rate", metavar="RATE", help="Of each fill's cost, such as 0.001.")]
SlippageBps = Annotated[
    str | None, typer.Option("--slippage-bps", metavar="BPS", help="Basis points against every order.")
]
Fill = Annotated[
    FillRule | None, typer.Option("--fill", help="At the open of the next candle (default), or at the bar's own close.")
]
Repairs = Annotated[
    list[RepairRule] | None,
    typer.Option(
        "--repair",
        help="What may be done to bad rows of files: sort those out of order, drop those that are no candles, fill"
        " gaps with flat candles; repeatable.",
    ),
]


@dataclass(frozen=True, slots=True)
class Trading:
    """What was asked for on the command line of how to trade; None is what the configuration says."""

    strategies: list[str]
    params: Mapping[str, Any]
    timeframe: str | None = None
    account: Mapping[str, str | None] = field(default_factory=dict)
    execution: Mapping[str, str | None] = field(default_factory=dict)

    def settings(self, config: list[Path] | None, overrides: list[str] | None, *, strategies: bool = True) -> Settings:
        """The configuration with all of this on top. Raises SettingsError, with ``strategies`` also for their names and
        parameters."""
        texts = [*(overrides or ()), *(f"execution.{key}={text}" for key, text in self.execution.items() if text)]
        changes = {key: text for key, text in self.account.items() if text is not None}
        if self.timeframe is not None:
            from bot.timeframes import NAMES

            if self.timeframe not in NAMES:
                fail(f"--timeframe {self.timeframe}: must be one of {', '.join(NAMES)}", EXIT_USAGE)
            changes["timeframe"] = self.timeframe
        if self.params and len(self.strategies) != 1:
            fail("--param goes with one --strategy", EXIT_USAGE)
        if not self.strategies and not changes:
            return settings_of(config, texts, strategies=True)
        entries: list[dict[str, Any]] = [{"name": name, "params": self.params} for name in self.strategies]
        if not entries:
            entries = [_entry(given) for given in settings_of(config, texts, strategies=True).strategy]
        sizes = [key for key in changes if key in _SIZES]
        if len(sizes) > 1:
            names = ", ".join(f"--{key}".replace("_", "-") for key in sizes)
            fail(f"only one of {names} may be given", EXIT_USAGE)
        if sizes:
            entries = [{key: value for key, value in entry.items() if key not in _SIZES} for entry in entries]
        texts.append(f"strategy={_toml([{**entry, **changes} for entry in entries])}")
        return settings_of(config, texts, strategies=strategies)


_SIZES = ("quantity", "quote_amount", "equity_fraction")


def _entry(given: Any) -> dict[str, Any]:
    return {key: value for key, value in given.model_dump(mode="json").items() if value is not None}


def _toml(value: Any) -> str:
    """As an inline value."""
    import orjson

    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return orjson.dumps(value, default=str).decode()


def opened(
    settings: Settings,
    specs: list[str],
    symbols: list[str] | None,
    timeframe: str | None,
    timerange: str | None,
    repair: list[RepairRule] | None,
) -> MarketData:
    """The data that is traded on. Raises DataError and LedgerError."""
    from bot.backtest.data import SimulatedMarket, open_data
    from bot.clock import SystemClock
    from bot.timeframes import TICK, TIMEFRAMES

    shortest = min(
        (entry.timeframe for entry in settings.strategy if entry.timeframe != TICK), key=_length, default=None
    )
    name = timeframe if timeframe not in {None, TICK} else shortest
    feed = settings.feed
    simulated = SimulatedMarket(
        feed.symbols, feed.simulated.seed, feed.simulated.volatility, feed.simulated.start_ms, feed.poll_interval_ms
    )
    return open_data(
        specs,
        now_ms=SystemClock().now_ms(),
        symbols=symbols or (),
        timeframe=None if name is None else TIMEFRAMES[name],
        timerange=timerange,
        repair=[each.value for each in repair or ()],
        simulated=simulated,
    )


def _length(name: str) -> int:
    from bot.timeframes import TIMEFRAMES

    return TIMEFRAMES[name].ms


@contextmanager
def progress(*, wanted: bool = True) -> Iterator[Progress]:
    """A bar on a terminal, nothing elsewhere."""
    if not wanted or not sys.stderr.isatty():
        yield lambda what, part: None
        return
    from bot.clock import SystemClock
    from bot.service.progress import Work

    with Work(SystemClock().monotonic) as work:
        yield work.at


def too_short(results: Sequence[Result]) -> list[str]:
    """The accounts that cannot have decided on much: the data is shorter than what they look back on, a line each."""
    found = []
    for result in results:
        plan, curve = result.plan, result.curve
        if plan.timeframe is None or len(result.trades):
            continue
        bars = (curve.end_ms + 1 - curve.start_ms) // plan.timeframe.ms
        if bars < plan.strategy.lookback:
            found.append(
                f"{plan.account} did not trade: it looks back on {plan.strategy.lookback:,} bars of"
                f" {plan.timeframe.name}, and the range has {bars:,}"
            )
    return found


def notes(data: MarketData) -> list[str]:
    """What a user should know of the files that were read, a line each."""
    return [note for series in data.series.values() if series.report is not None for note in series.report.notes()]
