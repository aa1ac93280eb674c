"""What a search compares: single numbers of a backtest's metrics, by name."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import fields

from bot.backtest.metrics import Metrics
from bot.backtest.optimize.grid import GridError

MAX_DRAWDOWN = "max_drawdown"
# Told of every combination, besides the one that they are ranked by.
ALWAYS = (
    "trades",
    "total_profit",
    "total_profit_ratio",
    MAX_DRAWDOWN,
    "sharpe",
    "sortino",
    "calmar",
    "profit_factor",
    "win_rate",
    "exposure",
    "fees_paid",
)
LESS_IS_BETTER = frozenset({MAX_DRAWDOWN, "longest_under_water_ms", "longest_losing_run", "losses", "fees_paid"})
# The same for all parameters.
_GIVEN = {"start_ms", "end_ms", "days", "starting_balance", "buy_and_hold"}
_NUMBERS = {"int", "float", "float | None", "int | None"}

# Those that are counts, or milliseconds.
WHOLE = frozenset(each.name for each in fields(Metrics) if each.type == "int")
KNOWN = (
    *(each.name for each in fields(Metrics) if each.type in _NUMBERS and each.name not in _GIVEN),
    MAX_DRAWDOWN,
)


def chosen(by: str) -> tuple[str, ...]:
    """All figures that are told. Raises GridError for one to rank by that there is not."""
    if by not in KNOWN:
        near = difflib.get_close_matches(by, KNOWN, n=1)
        raise GridError(f"--by {by}: {f'did you mean {near[0]}? ' if near else ''}there is {', '.join(KNOWN)}")
    return tuple(dict.fromkeys((*ALWAYS, by)))


def row(metrics: Metrics, names: Sequence[str]) -> list[float]:
    """One number each; NaN where it is not defined."""
    found = []
    for name in names:
        if name == MAX_DRAWDOWN:
            value = metrics.drawdown.ratio if metrics.drawdown else 0.0
        else:
            value = getattr(metrics, name)
        found.append(math.nan if value is None else float(value))
    return found
