"""Backtests to report on: made up, but of the shape that the engines' results have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from bot.backtest.curve import Curve, Drawdown
from bot.backtest.metrics import Row
from bot.backtest.report import Outcome, PricePoints, Report, Run
from bot.backtest.trades import Trades
from bot.backtest.trips import REASONS, RoundTrip, RoundTrips
from bot.domain import Bars
from bot.timeframes import DAY_MS, HOUR_MS

START_MS = 1_672_531_200_000  # 2023-01-01
FEE_RATE = 0.001


@dataclass(frozen=True, slots=True)
class Metrics:
    """By default of a backtest that did nothing: whatever can be None is None."""

    start_ms: int = START_MS
    end_ms: int = START_MS + DAY_MS
    trades: int = 0
    trades_per_day: float | None = None
    starting_balance: float = 10_000.0
    final_balance: float = 10_000.0
    total_profit: float = 0.0
    total_profit_ratio: float = 0.0
    cagr: float | None = None
    sharpe: float | None = None
    sortino: float | None = None
    calmar: float | None = None
    sqn: float | None = None
    profit_factor: float | None = None
    expectancy: float | None = None
    expectancy_ratio: float | None = None
    win_rate: float | None = None
    average_profit_ratio: float | None = None
    median_profit_ratio: float | None = None
    average_duration_ms: float | None = None
    average_winner_duration_ms: float | None = None
    average_loser_duration_ms: float | None = None
    best: RoundTrip | None = None
    worst: RoundTrip | None = None
    drawdown: Drawdown | None = None
    drawdown_absolute: Drawdown | None = None
    longest_under_water_ms: int = 0
    longest_winning_run: int = 0
    longest_losing_run: int = 0
    fees_paid: float = 0.0
    volume: float = 0.0
    exposure: float | None = None
    buy_and_hold: float | None = None
    rejected_signals: Mapping[str, int] = field(default_factory=dict)
    open_trades: int = 0
    open_profit: float = 0.0


def walk(seed: int, count: int, price: float = 30_000.0) -> Bars:
    """Hourly bars of a random walk."""
    rng = np.random.default_rng(seed)
    close = price * np.exp(np.cumsum(rng.normal(0, 0.01, count)))
    opens = np.append(price, close[:-1])
    away = np.abs(rng.normal(0, 0.004, (2, count)))
    high, low = np.maximum(opens, close) * (1 + away[0]), np.minimum(opens, close) * (1 - away[1])
    return Bars.from_arrays(START_MS + HOUR_MS * np.arange(count), opens, high, low, close)


def traded(seed: int, symbols: tuple[str, ...], bars: tuple[Bars, ...], trades: int) -> RoundTrips:
    """Long and short by turns, each symbol's round trips one after the other, in the order in which they closed."""
    rng = np.random.default_rng(seed)
    columns = []
    for symbol, mine in enumerate(bars):
        at = np.sort(rng.choice(len(mine), 2 * trades, replace=False)) if trades else np.zeros(0, np.int64)
        opened, closed = at[::2], at[1::2]
        short, quantity = np.arange(trades) % 2 == 1, 1_000 / mine.open[opened]
        entry, exits = mine.open[opened], mine.open[closed]
        fees = FEE_RATE * quantity * (entry + exits)
        profit = np.where(short, entry - exits, exits - entry) * quantity - fees
        times = mine.timestamp[opened], mine.timestamp[closed]
        numbers = quantity, np.zeros(trades), entry, exits, fees, profit, profit / (quantity * entry)
        columns.append((np.full(trades, symbol), *times, short, *numbers, short.astype(np.int64)))
    trips = RoundTrips(symbols, *(np.concatenate(parts) for parts in zip(*columns, strict=True)))
    return trips.where(np.argsort(trips.closed_ms, kind="stable"))


def filled(symbols: tuple[str, ...], trips: RoundTrips) -> Trades:
    """Two fills for each round trip."""
    gross = trips.profit + trips.fees
    times, prices = (trips.opened_ms, trips.closed_ms), (trips.entry_price, trips.exit_price)
    pairs = (
        (*times,),
        (trips.symbol, trips.symbol),
        (~trips.short, trips.short),
        (*prices,),
        (trips.quantity, trips.quantity),
        tuple(FEE_RATE * trips.quantity * price for price in prices),
        (np.zeros(len(gross)), gross),
    )
    order = np.argsort(np.concatenate(times), kind="stable")
    return Trades(symbols, *(np.concatenate(pair)[order] for pair in pairs))  # type: ignore[arg-type]


def outcome(
    account: str, seed: int, symbols: tuple[str, ...], bars: tuple[Bars, ...], trades: int, *, left: int = 1
) -> Outcome:
    """A strategy with so many round trips of each symbol; the last ``left`` of all are still open."""
    every = traded(seed, symbols, bars, trades)
    count = max(0, len(every) - left)
    trips, open_trips = every.where(np.arange(count)), every.where(np.arange(count, len(every)))
    capital, times = 10_000.0, bars[0].timestamp + HOUR_MS - 1
    equity = capital + np.append(0.0, np.cumsum(trips.profit))[np.searchsorted(trips.closed_ms, times, side="right")]
    curve = Curve.folded(capital, START_MS, [(times, equity)])
    final = float(equity[-1])
    metrics = Metrics(
        trades=count,
        final_balance=final,
        total_profit=final - capital,
        total_profit_ratio=final / capital - 1,
        sharpe=1.234,
        best=RoundTrip(
            symbols[0], START_MS, START_MS + HOUR_MS, False, 0.1, 0.0, 100.0, 107.89, 0.0, 0.789, 0.0789, "signal"
        ),
        drawdown=Drawdown(123.0, 0.0456, START_MS, START_MS + DAY_MS, None),
        rejected_signals={"insufficient_cash": 2},
        open_trades=left,
    )
    return Outcome(
        account=account,
        strategy="sma_cross",
        params={"fast": 10, "slow": 30},
        timeframe="1h",
        sizing="quote amount 1000",
        metrics=metrics,
        by_symbol=[Row.of(name, trips.where(trips.symbol == place)) for place, name in enumerate(symbols)],
        by_reason=[Row.of(name, trips.where(trips.reason == place)) for place, name in enumerate(REASONS[:2])],
        total=Row.of("TOTAL", trips),
        trips=trips,
        open_trips=replace(open_trips, held=np.where(open_trips.short, -1, 1) * open_trips.quantity),
        fills=filled(symbols, every),
        curve=curve,
    )


def report(
    *,
    accounts: tuple[str, ...] = ("sma_cross",),
    symbols: tuple[str, ...] = ("BTC/USDT",),
    bars: int = 2_000,
    trades: int = 150,
    price: float = 30_000.0,
) -> Report:
    walks = tuple(walk(number, bars, price) for number in range(len(symbols)))
    run = Run(
        version="0.1.0",
        engine="vectorised",
        data=tuple(f"data/{number}.parquet" for number in range(len(symbols))),
        symbols=symbols,
        currency="USDT",
        timeframe="1h",
        bars=bars * len(symbols),
        start_ms=START_MS,
        end_ms=START_MS + bars * HOUR_MS,
        fill="next_open",
        fee_rate=FEE_RATE,
        slippage_bps=0.0,
    )
    outcomes = tuple(outcome(name, number, symbols, walks, trades) for number, name in enumerate(accounts))
    return Report(run, outcomes, REASONS, tuple(PricePoints.empty().after(one) for one in walks))


def idle() -> Report:
    """One that never traded, of one bar."""
    made = report(bars=1, trades=0)
    (only,) = made.outcomes
    return replace(made, outcomes=(replace(only, metrics=Metrics(), by_reason=[], params={}),))
