"""Whether the backtest over arrays trades as the loop does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import isclose
from typing import Any

from bot.backtest.check.case import Broken
from bot.backtest.run import run_backtest
from bot.backtest.trades import Trade, Trades
from bot.domain import Bars, Market, iso8601
from bot.engine import Sizing, SizingKind
from bot.ports import Strategy
from bot.timeframes import Timeframe

CAPITAL = Decimal(1_000_000)
FEE_RATE, SLIPPAGE_BPS = Decimal("0.001"), Decimal(2)
SIZINGS = (
    Sizing(SizingKind.QUANTITY, Decimal("1.5")),
    Sizing(SizingKind.QUOTE_AMOUNT, Decimal(5_000)),
    Sizing(SizingKind.EQUITY_FRACTION, Decimal("0.2")),
)
_CLOSE_TO = 1e-9


@dataclass(frozen=True, slots=True)
class Trial:
    """What both are to trade: candles by symbol, all of one timeframe, for one account in the timeframe of its
    strategy."""

    strategy: Strategy
    timeframe: Timeframe
    sizing: Sizing
    fill: str
    candles: Mapping[str, Bars]
    candle: Timeframe
    markets: Mapping[str, Market]
    capital: Decimal = CAPITAL
    fee_rate: Decimal = FEE_RATE
    slippage_bps: Decimal = SLIPPAGE_BPS


EventDriven = Callable[[Trial], Trades]


def trials(
    strategy: Strategy, timeframe: Timeframe, candles: Mapping[str, Bars], candle: Timeframe, fills: Sequence[str]
) -> Iterator[Trial]:
    """Every sizing with every rule of fills."""
    by_symbol = {f"{name.upper()}/USDT": bars for name, bars in candles.items()}
    markets = {symbol: Market(symbol, Decimal("0.01"), Decimal("0.0001"), min_cost=Decimal(5)) for symbol in by_symbol}
    for fill in fills:
        for sizing in SIZINGS:
            yield Trial(strategy, timeframe, sizing, fill, by_symbol, candle, markets)


def parity(given: Iterator[Trial], event_driven: EventDriven) -> str:
    """The same trades from both, to the last digit of price and quantity."""
    counts = []
    for trial in given:
        found, expected = vectorised(trial), event_driven(trial)
        difference = first_difference(found, expected)
        if difference:
            raise Broken(f"with {trial.sizing.kind} and fills at {trial.fill}, {difference}")
        counts.append(len(found))
    return f"{sum(counts):,} trades in {len(counts)} runs: the backtest over arrays has the very trades of the loop"


def vectorised(trial: Trial) -> Trades:
    sizing = {trial.sizing.kind.value: trial.sizing.value}
    return run_backtest(
        trial.candles,
        trial.strategy,
        capital=trial.capital,
        fee_rate=trial.fee_rate,
        slippage_bps=trial.slippage_bps,
        fill=trial.fill,
        timeframe=trial.timeframe.name,
        markets=trial.markets,
        **sizing,  # type: ignore[arg-type]
    ).trades


def first_difference(found: Trades, expected: Trades) -> str | None:
    """Where the trades of a backtest part from those of the loop, in words; None if they do not.

    Times, symbols, sides, prices and quantities are the same exactly; fees and profits to 1e-9.
    """
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=False)):
        for column in Trade._fields:
            if not _same(column, getattr(ours, column), getattr(theirs, column)):
                return f"trade {number} has another {column}: {_told(ours)} over arrays, {_told(theirs)} in the loop"
    if len(found) == len(expected):
        return None
    number = min(len(found), len(expected))
    where, extra = ("over arrays", found) if len(found) > number else ("in the loop", expected)
    return f"{len(found)} trades over arrays and {len(expected)} in the loop: {_told(extra[number])} is only {where}"


def _same(column: str, mine: Any, other: Any) -> bool:
    if column in {"fee", "pnl"}:
        return isclose(mine, other, rel_tol=_CLOSE_TO, abs_tol=_CLOSE_TO)
    return bool(mine == other)


def _told(trade: Trade) -> str:
    money = f"fee {trade.fee!r}, pnl {trade.pnl!r}"
    return f"{trade.side} {trade.quantity!r} {trade.symbol} at {trade.price!r} on {iso8601(trade.timestamp)}, {money}"
