"""The formulas of a backtest's report. Each is None where it is not defined, never infinite and never NaN.

Ratios are plain numbers: 0.05 is 5 %. A year has 365 days, because these markets have no other. ``profits`` [R] are
those of closed round trips after fees, in the quote currency, in the order in which they closed; ``returns`` [D] those
of the equity day by day, days without trades included. What describes a sample needs two of it.
"""

from __future__ import annotations

import math

import numpy as np

from bot.backtest.trades import BoolArray
from bot.domain import FloatArray, IntArray

DAYS_A_YEAR = 365
_SAMPLE_MIN = 2
# Returns are differences of numbers near 1, good to 16 digits: a deviation below this is what rounding makes of none.
_NO_DEVIATION = 1e-14
# The same of profits, as a part of the largest one.
_NO_DEVIATION_RATIO = 1e-12


def quotient(above: float, below: float) -> float | None:
    """above / below; None where that is no number."""
    if not below:
        return None
    found = above / below
    return found if math.isfinite(found) else None


def mean(values: FloatArray | IntArray) -> float | None:
    return float(values.mean()) if len(values) else None


def cagr(start: float, final: float, days: float) -> float | None:
    """Compound annual growth rate, (final / start)^(365 / days) - 1, per year. None of a debt.

    Source: Bacon 2008.
    """
    if days <= 0 or start <= 0 or final < 0:
        return None
    try:
        return math.pow(final / start, DAYS_A_YEAR / days) - 1.0
    except OverflowError:
        return None


def sharpe(returns: FloatArray) -> float | None:
    """mean(r) / std(r) * sqrt(365) of the daily returns, the riskless rate being 0; per square root of a year.

    The deviation is that of a sample (divided by D - 1): the mean it is measured from is estimated from the same days.
    Source: Sharpe 1994.
    """
    if len(returns) < _SAMPLE_MIN:
        return None
    deviation = float(returns.std(ddof=1))
    if not deviation > _NO_DEVIATION:
        return None
    return quotient(float(returns.mean()) * math.sqrt(DAYS_A_YEAR), deviation)


def sortino(returns: FloatArray) -> float | None:
    """mean(r) / sqrt(mean(min(r, 0)^2)) * sqrt(365) of the daily returns, the target being 0; in the units of Sharpe.

    The mean is over all D days and not over D - 1 of them, nor over those that lost: the target is given and not
    estimated, and a day that gained is one with a shortfall of 0. Source: Sortino and Price 1994.
    """
    if len(returns) < _SAMPLE_MIN:
        return None
    downside = math.sqrt(float(np.square(np.minimum(returns, 0.0)).mean()))
    if not downside > _NO_DEVIATION:
        return None
    return quotient(float(returns.mean()) * math.sqrt(DAYS_A_YEAR), downside)


def calmar(growth: float | None, drawdown_ratio: float) -> float | None:
    """Compound annual growth rate / largest drawdown as a ratio, over the whole range.

    Source: Young 1991, who took the last 36 months.
    """
    return None if growth is None else quotient(growth, drawdown_ratio)


def sqn(profits: FloatArray) -> float | None:
    """System quality number, sqrt(R) * mean(profits) / std(profits), the deviation that of a sample (divided by R - 1).

    Of profits and not of multiples of the risk taken, since there is no stop to tell that; R is not cut off at 100.
    Source: Tharp 2008.
    """
    if len(profits) < _SAMPLE_MIN:
        return None
    deviation = float(profits.std(ddof=1))
    if not deviation > _NO_DEVIATION_RATIO * float(np.abs(profits).max()):
        return None
    return quotient(math.sqrt(len(profits)) * float(profits.mean()), deviation)


def profit_factor(profits: FloatArray) -> float | None:
    """Sum of the profits above 0 / sum of those below, without its sign. None without a loss.

    Source: Dormeier 2011; after fees, as freqtrade and TradeStation report it.
    """
    if len(profits) < _SAMPLE_MIN:
        return None
    return quotient(float(profits[profits > 0].sum()), -float(profits[profits < 0].sum()))


def expectancy(profits: FloatArray) -> float | None:
    """Win rate * average win - loss rate * average loss, which is the mean profit of a trade, in the quote currency.

    Source: Tharp 1998.
    """
    return mean(profits) if len(profits) >= _SAMPLE_MIN else None


def expectancy_ratio(profits: FloatArray) -> float | None:
    """Expectancy / average loss: what a trade brings for each unit that a losing one loses. None without a loss.

    Without draws this is freqtrade's (1 + average win / average loss) * win rate - 1. Source: Tharp 1998.
    """
    expected, lost = expectancy(profits), mean(profits[profits < 0])
    return None if expected is None or lost is None else quotient(expected, -lost)


def win_rate(profits: FloatArray) -> float | None:
    """Trades with a profit above 0 / all trades, draws among them."""
    return quotient(float(np.count_nonzero(profits > 0)), len(profits))


def longest_run(chosen: BoolArray) -> int:
    """The largest number of neighbours that are all chosen."""
    others = np.nonzero(~chosen)[0]
    return int(np.diff(others, prepend=-1, append=len(chosen)).max()) - 1


def buy_and_hold(first_opens: FloatArray, last_closes: FloatArray) -> float | None:
    """Mean over the symbols of last close / first open, less 1: equal parts of the capital in each, without fees.

    A symbol without prices is left out; None if all are.
    """
    known = (first_opens > 0) & np.isfinite(last_closes)
    grown = mean(last_closes[known] / first_opens[known])
    return None if grown is None else grown - 1.0
