"""From results to what a report shows."""

from __future__ import annotations

from collections.abc import Sequence

from bot import __version__
from bot.backtest.data import MarketData
from bot.backtest.metrics import Row, by_reason, by_symbol
from bot.backtest.report import Outcome, PricePoints, Report, Run, points_of_each
from bot.backtest.result import Result
from bot.backtest.trips import REASONS
from bot.domain import Bars, OrderType, plain
from bot.fills import Terms
from bot.settings import Settings, StrategySettings


def report_of(
    settings: Settings,
    data: MarketData,
    results: Sequence[Result],
    *,
    sources: Sequence[str],
    engine: str,
    prices: bool = False,
) -> Report:
    """``sources`` names the data, ``engine`` how it was run; with ``prices`` there is a chart of them."""
    curve = results[0].curve
    terms = Terms(settings.execution.fee_rate)
    rates = {terms.fee_rate_of(market, OrderType.MARKET) for market in data.markets.values()}
    run = Run(
        version=__version__,
        engine=engine,
        data=tuple(sources),
        symbols=data.symbols,
        currency=next(iter(data.markets.values())).quote,
        timeframe="tick" if data.timeframe is None else data.timeframe.name,
        bars=results[0].prices.bars,
        start_ms=curve.start_ms,
        end_ms=curve.end_ms,
        fill=settings.execution.fill,
        fee_rate=float(rates.pop()) if len(rates) == 1 else None,
        slippage_bps=float(settings.execution.slippage_bps),
        files=tuple(series.report.document() for series in data.series.values() if series.report is not None),
    )
    outcomes = tuple(_outcome(entry, result) for entry, result in zip(settings.strategy, results, strict=True))
    return Report(run, outcomes, REASONS, _points(data) if prices else ())


def _outcome(entry: StrategySettings, result: Result) -> Outcome:
    closed, left = result.round_trips
    sizing = result.plan.sizing
    return Outcome(
        account=entry.account,
        strategy=entry.name,
        params=entry.params,
        timeframe=entry.timeframe,
        sizing=f"{sizing.kind} {plain(sizing.value)}",
        metrics=result.metrics,
        by_symbol=by_symbol(closed),
        by_reason=by_reason(closed),
        total=Row.of("TOTAL", closed),
        trips=closed,
        open_trips=left,
        fills=result.trades,
        curve=result.curve,
    )


def _points(data: MarketData) -> tuple[PricePoints, ...]:
    most = points_of_each(len(data.symbols))
    found = []
    for series in data.series.values():
        points = PricePoints.empty(most)
        for bars in series.blocks(lookback=0):
            points = points.after(bars)
        found.append(points)
    for ticks in data.ticks.values():
        live = ~ticks.history
        found.append(PricePoints.empty(most).after(Bars.from_ticks(ticks.timestamp[live], ticks.last[live])))
    return tuple(found)
