"""A backtest as it is asked for on the command line: settings and data in, a result for each account out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bot.backtest.data import MarketData, Series
from bot.backtest.equity import Closes, Panel, panels
from bot.backtest.event import lived, on_candles
from bot.backtest.result import PricesInMemory, Result
from bot.backtest.setup import traded
from bot.backtest.source import NEXT_OPEN, CandleSource, Quotes, Source, TickSource
from bot.backtest.vectorised import asked_by
from bot.compose import Failed, plans_of
from bot.domain import Bars, FloatArray
from bot.engine import Plan, lookbacks_of
from bot.fills import Terms
from bot.settings import Settings, SettingsError
from bot.timeframes import Timeframe


def on_data(settings: Settings, data: MarketData) -> Settings:
    """The settings with the symbols of the data; on candles, a strategy on ticks takes these. Raises SettingsError for
    bars that the candles do not add up to."""
    if data.timeframe is not None:
        settings = on_candles(settings, data.timeframe)
    elif settings.execution.fill != NEXT_OPEN:
        raise SettingsError([f'execution.fill = "{settings.execution.fill}" is for candles: a ledger has ticks'])
    feed = settings.feed.model_copy(update={"symbols": data.symbols})
    return settings.model_copy(update={"feed": feed})


# The part of the work that reading is taken for.
_READING = 0.8
# Of what is going on, and the part of all of it that is done.
Progress = Callable[[str, float], None]


def vectorised(
    settings: Settings,
    data: MarketData,
    *,
    failed: Failed | None = None,
    progress: Progress = lambda what, part: None,
) -> list[Result]:
    """A result for each strategy of ``on_data``'s settings, all at once over arrays. Raises DataError."""
    plans = plans_of(settings, failed, polled=False)
    rows = 0 if data.timeframe is None else looked_back_on(plans, data.timeframe)
    sources = sources_of(settings, data, rows, progress)
    prices = PricesInMemory(sources)
    terms = Terms(settings.execution.fee_rate, settings.execution.slippage_bps)
    found = []
    for number, (plan, entry) in enumerate(zip(plans, settings.strategy, strict=True)):
        progress(entry.account, _READING + (1 - _READING) * number / len(plans))
        (asked,) = asked_by([plan], sources)
        found.append(traded(plan, entry.capital, sources, terms, asked, prices))
    return found


async def event_driven(
    settings: Settings,
    data: MarketData,
    *,
    persist: Path | None = None,
    failed: Failed | None = None,
    progress: Progress = lambda what, part: None,
) -> list[Result]:
    """The same by the trading loop, candle by candle, every fill durable; memory is that of a block of candles.

    Raises DataError, LedgerError, and SettingsError for what the loop cannot do.
    """
    if data.timeframe is None:
        raise SettingsError(
            ["--event-driven is for candles: a ledger is played through the loop by run --set feed.kind=replay"]
        )
    plans = plans_of(settings, failed, polled=False)
    rows = looked_back_on(plans, data.timeframe)
    watched = [_Watched(each, progress) for each in data.series.values()]
    streams = {each.series.symbol: each.bars(rows) for each in watched}
    run = await lived(
        settings,
        streams,
        data.timeframe,
        data.markets,
        start_ms=data.start_ms or None,
        plans=plans,
        persist=persist,
    )
    prices = PricesOnDisk(watched)
    return [
        Result(plan, entry.capital, run.trades[entry.account], run.refused[entry.account], prices)
        for plan, entry in zip(plans, settings.strategy, strict=True)
    ]


def sources_of(settings: Settings, data: MarketData, lookback: int | None, progress: Progress) -> dict[str, Source]:
    """The data in memory, with so many candles before the range; None: all that there are. Raises DataError."""
    sources: dict[str, Source] = {}
    for symbol, ticks in data.ticks.items():
        sources[symbol] = TickSource(
            ticks.market, Quotes(ticks.timestamp, ticks.bid, ticks.ask, ticks.last), ticks.history
        )
    if data.timeframe is not None:
        for number, (symbol, series) in enumerate(data.series.items()):

            def read(count: int, number: int = number, symbol: str = symbol, series: Series = series) -> None:
                part = min(1.0, count / max(1, series.source.rows_about))
                progress(f"reading {symbol}", _READING * (number + part) / len(data.series))

            bars = series.whole(lookback, read)
            sources[symbol] = CandleSource(series.market, bars, data.timeframe, data.start_ms, settings.execution.fill)
    return sources


def looked_back_on(plans: list[Plan], base: Timeframe) -> int:
    """How many candles before the range hold the bars that strategies look back on, and the one that is open."""
    return max(((count + 2) * -(-timeframe.ms // base.ms) for timeframe, count in lookbacks_of(plans)), default=0)


@dataclass(slots=True)
class _Watched:
    """A series, and what was seen of its range when it was traded."""

    series: Series
    progress: Progress
    start_ms: int = 0
    rows: int = 0
    first_open: float = np.nan
    last_close: float = np.nan

    def bars(self, lookback: int) -> Iterator[Bars]:
        """The candles, those before the range included; how far they are is told when the next ones are asked for."""
        for bars in self.series.blocks(lookback=lookback):
            self.progress("trading", min(1.0, self.rows / max(1, self.series.source.rows_about)))
            live = bars[int(np.searchsorted(bars.timestamp, self.series.start_ms)) :]
            if len(live):
                if not self.rows:
                    self.start_ms, self.first_open = int(live.timestamp[0]), float(live.open[0])
                self.rows, self.last_close = self.rows + len(live), float(live.close[-1])
            yield bars

    def closes(self) -> Iterator[Closes]:
        ends = self.series.timeframe.ends
        return (Closes(ends(bars.timestamp) - 1, bars.close) for bars in self.series.blocks(lookback=0))


@dataclass(frozen=True, slots=True)
class PricesOnDisk:
    """Implements ``Prices`` for series that were traded once and are read anew, block by block."""

    series: Sequence[_Watched]

    @property
    def start_ms(self) -> int:
        return min(each.start_ms for each in self.series)

    @property
    def bars(self) -> int:
        return sum(each.rows for each in self.series)

    @property
    def first_opens(self) -> FloatArray:
        return np.array([each.first_open for each in self.series])

    @property
    def last_closes(self) -> FloatArray:
        return np.array([each.last_close for each in self.series])

    def panels(self) -> Iterator[Panel]:
        return panels([each.closes() for each in self.series])
