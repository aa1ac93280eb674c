"""What a walk forward comes to: the parts out of sample one after the other, each traded with what was best before it
and with the money that the part before it left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

from bot.backtest.curve import CurveFold
from bot.backtest.equity import Valuation
from bot.backtest.metrics import Metrics, metrics_of
from bot.backtest.optimize.found import Found
from bot.backtest.result import Result
from bot.backtest.trades import Trades
from bot.backtest.trips import RoundTrips
from bot.domain import Bars, FloatArray, to_decimal

Columns = TypeVar("Columns", Trades, RoundTrips)


@dataclass(frozen=True, slots=True)
class _Idle:
    """Stays flat."""

    name: str = "idle"
    lookback: int = 1

    def targets(self, bars: Bars) -> FloatArray:
        return np.zeros(len(bars))


def walked(found: Found) -> Metrics | None:
    """All parts out of sample as one account's. What is held at the end of a part is worth its last close, and the next
    part begins flat. Where no combination was best nothing is traded; None if there was none anywhere."""
    study = found.study
    chosen = [found.best(number) for number in range(len(study.windows))]
    if all(best is None for best in chosen):
        return None
    results: list[Result] = []
    money = study.setup.capital
    for window, best in zip(study.windows, chosen, strict=True):
        setup = replace(study.setup.between(window.split_ms, window.end_ms), capital=money)
        strategy = _Idle() if best is None else study.factory.build(study.combinations[best])
        results.append(next(setup.results([strategy])))
        money = to_decimal(results[-1].curve.last)
        if money <= 0:
            break
    return _metrics(results)


def _metrics(results: Sequence[Result]) -> Metrics:
    fold = CurveFold(float(results[0].capital), results[0].prices.start_ms)
    for result in results:
        valuation = Valuation.of(float(result.capital), result.trades)
        for panel in result.prices.panels():
            fold.add(panel.times, valuation.at(panel))
    # What a part left open ended with it, but for the last one's.
    *ended, left = (trips for result in results for trips in result.round_trips)
    return metrics_of(
        _joined([result.trades for result in results]),
        _joined(ended),
        left,
        fold.result(),
        first_opens=results[0].prices.first_opens,
        last_closes=results[-1].prices.last_closes,
    )


def _joined(parts: Sequence[Columns]) -> Columns:
    """Of one account's fills or round trips, which are arrays but for the symbols that they share."""
    names = [each.name for each in fields(parts[0]) if each.name != "symbols"]
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return replace(parts[0], **columns)
