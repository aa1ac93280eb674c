"""What a backtest's report says in figures: the summary, and the same of each symbol and of each reason to leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bot.backtest import formulas
from bot.backtest.curve import Curve, Drawdown
from bot.backtest.trades import Trades
from bot.backtest.trips import REASONS, RoundTrip, RoundTrips, exposure
from bot.domain import FloatArray


@dataclass(frozen=True, slots=True)
class Metrics:
    """The summary. ``trades`` are closed round trips, as in the field's reports; what is said of them leaves out the
    open ones, which are in the balance at the last prices.

    Money is in the quote currency, ratios are plain numbers (0.05 is 5 %), times are UTC milliseconds and durations
    milliseconds. None: not defined, which a report shows as "-". The formulas are those of ``formulas``.
    """

    start_ms: int
    end_ms: int
    days: float
    trades: int
    trades_per_day: float | None
    fills: int
    starting_balance: float
    final_balance: float
    total_profit: float
    total_profit_ratio: float
    cagr: float | None
    sharpe: float | None
    sortino: float | None
    calmar: float | None
    sqn: float | None
    profit_factor: float | None
    expectancy: float | None
    expectancy_ratio: float | None
    win_rate: float | None
    wins: int
    draws: int
    losses: int
    average_profit_ratio: float | None
    median_profit_ratio: float | None
    average_duration_ms: float | None
    average_winner_duration_ms: float | None
    average_loser_duration_ms: float | None
    best: RoundTrip | None
    worst: RoundTrip | None
    drawdown: Drawdown | None
    drawdown_absolute: Drawdown | None
    longest_under_water_ms: int
    longest_winning_run: int
    longest_losing_run: int
    fees_paid: float
    volume: float
    exposure: float | None
    buy_and_hold: float | None
    rejected_signals: Mapping[str, int]
    open_trades: int
    open_value: float
    open_profit: float


@dataclass(frozen=True, slots=True)
class Row:
    """Some round trips in one line of a table, in the units of Metrics."""

    name: str
    trades: int
    average_profit_ratio: float | None
    total_profit: float
    wins: int
    draws: int
    losses: int
    average_duration_ms: float | None

    @classmethod
    def of(cls, name: str, trips: RoundTrips) -> Row:
        return cls(
            name,
            len(trips),
            formulas.mean(trips.profit_ratio),
            float(trips.profit.sum()),
            int(np.count_nonzero(trips.profit > 0)),
            int(np.count_nonzero(trips.profit == 0)),
            int(np.count_nonzero(trips.profit < 0)),
            formulas.mean(trips.duration_ms),
        )


def metrics_of(
    trades: Trades,
    closed: RoundTrips,
    left: RoundTrips,
    curve: Curve,
    *,
    first_opens: FloatArray,
    last_closes: FloatArray,
    rejected_signals: Mapping[str, int] | None = None,
) -> Metrics:
    """The figures of one account: its fills, the round trips they make (``trips.round_trips``) and its equity curve.

    ``first_opens`` and ``last_closes`` [S] are each symbol's in the range, NaN for one without bars;
    ``rejected_signals`` how many were refused, by reason. ``best`` and ``worst`` are by ratio, the first of equal ones.
    A draw is a profit of exactly 0. ``open_value`` is what all that is still held is worth, below 0 for shorts.
    """
    profits, ratios, durations = closed.profit, closed.profit_ratio, closed.duration_ms
    wins, losses, total = profits > 0, profits < 0, Row.of("TOTAL", closed)
    growth = formulas.cagr(curve.capital, curve.last, curve.days)
    returns = curve.daily_returns
    return Metrics(
        start_ms=curve.start_ms,
        end_ms=curve.end_ms,
        days=curve.days,
        trades=total.trades,
        trades_per_day=formulas.quotient(len(closed), curve.days),
        fills=len(trades),
        starting_balance=curve.capital,
        final_balance=curve.last,
        total_profit=curve.last - curve.capital,
        total_profit_ratio=curve.last / curve.capital - 1.0,
        cagr=growth,
        sharpe=formulas.sharpe(returns),
        sortino=formulas.sortino(returns),
        calmar=formulas.calmar(growth, 0.0 if curve.drawdown is None else curve.drawdown.ratio),
        sqn=formulas.sqn(profits),
        profit_factor=formulas.profit_factor(profits),
        expectancy=formulas.expectancy(profits),
        expectancy_ratio=formulas.expectancy_ratio(profits),
        win_rate=formulas.win_rate(profits),
        wins=total.wins,
        draws=total.draws,
        losses=total.losses,
        average_profit_ratio=total.average_profit_ratio,
        median_profit_ratio=float(np.median(ratios)) if len(ratios) else None,
        average_duration_ms=total.average_duration_ms,
        average_winner_duration_ms=formulas.mean(durations[wins]),
        average_loser_duration_ms=formulas.mean(durations[losses]),
        best=closed[int(ratios.argmax())] if len(ratios) else None,
        worst=closed[int(ratios.argmin())] if len(ratios) else None,
        drawdown=curve.drawdown,
        drawdown_absolute=curve.drawdown_absolute,
        longest_under_water_ms=curve.longest_under_water_ms,
        longest_winning_run=formulas.longest_run(wins),
        longest_losing_run=formulas.longest_run(losses),
        fees_paid=float(trades.fee.sum()),
        volume=float((trades.price * trades.quantity).sum()),
        exposure=exposure(closed, left, curve.start_ms, curve.end_ms + 1),
        buy_and_hold=formulas.buy_and_hold(first_opens, last_closes),
        rejected_signals=dict(rejected_signals or {}),
        open_trades=len(left),
        open_value=float((left.held * last_closes[left.symbol]).sum()),
        open_profit=float(left.profit.sum()),
    )


def by_symbol(trips: RoundTrips) -> list[Row]:
    """A row for each symbol, also for those that were not traded."""
    return [Row.of(name, trips.where(trips.symbol == number)) for number, name in enumerate(trips.symbols)]


def by_reason(trips: RoundTrips) -> list[Row]:
    """A row for each reason that there is."""
    found = [Row.of(name, trips.where(trips.reason == number)) for number, name in enumerate(REASONS)]
    return [row for row in found if row.trades]
