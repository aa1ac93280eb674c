"""The candles that a ledger is compared with, as far as they are of its time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bot.backtest.compare.comparison import Candles
from bot.backtest.compare.recorded import Stretch
from bot.backtest.data import DataError, MarketData, Series
from bot.backtest.data.errors import EXIT_USAGE
from bot.backtest.session import looked_back_on
from bot.domain import Bars, iso8601
from bot.timeframes import Timeframe


def candles_of(
    data: MarketData,
    stretches: Sequence[Stretch],
    *,
    ticks_as: Timeframe | None,
    execution: Mapping[str, object],
    progress: Callable[[str, float], None] = lambda what, part: None,
) -> Candles:
    """Those of the time of the stretches, and what their strategies look back on before. Raises DataError."""
    base = data.timeframe
    if base is None:
        raise DataError("--data: a ledger is compared with candles, and this is another ledger", EXIT_USAGE)
    plans = [replace(plan, timeframe=plan.timeframe or ticks_as) for stretch in stretches for plan in stretch.plans]
    for plan in plans:
        if plan.timeframe is not None and not base.makes(plan.timeframe):
            raise DataError(
                f"--data: candles of {base.name} do not add up to those of {plan.timeframe.name} that {plan.account}"
                " decides on",
                EXIT_USAGE,
            )
    rows = looked_back_on(plans, base)
    start_ms = base.open_of(min(stretch.start_ms for stretch in stretches))
    end_ms = max(stretch.end_ms for stretch in stretches)
    bars = {}
    for number, (symbol, series) in enumerate(data.series.items()):
        progress(f"reading {symbol}", number / len(data.series))
        bars[symbol] = _bars(replace(series, start_ms=start_ms, end_ms=end_ms), rows)
    if not any(map(len, bars.values())):
        raise DataError(
            f"--data: there are no candles from {iso8601(start_ms)} to {iso8601(end_ms)}, which the ledger is of",
            EXIT_USAGE,
        )
    return Candles(bars, base, ticks_as, execution)


def _bars(series: Series, rows: int) -> Bars:
    """None at all where another symbol may have some. A file that cannot be used is another matter."""
    try:
        return series.whole(rows)
    except DataError as error:
        if error.exit_code != EXIT_USAGE:
            raise
    none = np.zeros(0)
    return Bars(np.zeros(0, np.int64), none, none, none, none, none)


def within(stretches: Sequence[Stretch], candles: Candles) -> tuple[list[Stretch], list[str]]:
    """What of the stretches lies between the first and the last candle, and what is to be said of the rest."""
    there = [bars.timestamp for bars in candles.bars.values() if len(bars)]
    first_ms = int(min(opens[0] for opens in there))
    end_ms = int(max(candles.timeframe.ends(opens[-1:])[0] for opens in there))
    notes = []
    if first_ms > min(stretch.start_ms for stretch in stretches):
        notes.append(f"the candles begin at {iso8601(first_ms)}: what was traded before is not compared")
    if end_ms < max(stretch.end_ms for stretch in stretches):
        notes.append(f"the candles end at {iso8601(end_ms)}: what was traded from then on is not compared")
    cut = (stretch.within(first_ms, end_ms) for stretch in stretches)
    return [stretch for stretch in cut if stretch is not None], notes
