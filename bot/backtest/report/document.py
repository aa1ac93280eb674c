"""A backtest as one plain document: what ``--json`` prints and what the terminal's tables and the page are made of.

Numbers are numbers, ratios too (0.01 is one percent), times are ISO 8601 in UTC, durations milliseconds, and what is
undefined is None.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from bot.backtest.curve import Curve
from bot.backtest.report.given import Figures, Outcome, Report
from bot.backtest.report.months import monthly_returns
from bot.backtest.trips import RoundTrips
from bot.domain import FloatArray, iso8601

Document = dict[str, Any]
# Fields that are moments: "start_ms" becomes "start". All others that end like these are durations.
TIMES = {f"{name}_ms" for name in ("start", "end", "opened", "closed", "peak", "trough", "recovered")}


def document(report: Report) -> Document:
    """The whole of it: the summary, each trade, and some 4,000 points of each equity curve."""
    found = summary(report)
    for strategy, outcome in zip(found["strategies"], report.outcomes, strict=True):
        strategy["trades"] = _trips(outcome.trips, report.run.symbols, report.reasons)
        strategy["equity_curve"] = _curve(outcome.curve)
    return found


def summary(report: Report) -> Document:
    """All that is shown without a list of trades or a chart."""
    return {**_plain(report.run), "strategies": [_strategy(report, outcome) for outcome in report.outcomes]}


def _strategy(report: Report, outcome: Outcome) -> Document:
    curve = outcome.curve
    return {
        "account": outcome.account,
        "strategy": outcome.strategy,
        "params": _plain(outcome.params),
        "timeframe": outcome.timeframe,
        "sizing": outcome.sizing,
        "metrics": _plain(outcome.metrics),
        "symbols": [_row(row, curve.capital) for row in outcome.by_symbol],
        "total": _row(outcome.total, curve.capital),
        "exit_reasons": [_row(row, curve.capital) for row in outcome.by_reason],
        "monthly_returns": monthly_returns(curve.day_ms, curve.daily, curve.capital),
        "open_trades": _open_trips(outcome.open_trips, report),
    }


def _row(row: Figures, capital: float) -> Document:
    """With the profit as a ratio of the starting balance."""
    found: Document = _plain(row)
    return {**found, "total_profit_ratio": found["total_profit"] / capital}


def _plain(value: Any) -> Any:
    """As JSON has it: objects as dictionaries, what is not finite as None."""
    if is_dataclass(value):
        return _plain({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return dict(_entry(str(key), item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        # A file's name may hold bytes that are no text.
        return value.encode(errors="replace").decode()
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _entry(key: str, value: Any) -> tuple[str, Any]:
    if key not in TIMES:
        return key, _plain(value)
    return key.removesuffix("_ms"), None if value is None else iso8601(int(value))


def _trips(trips: RoundTrips, symbols: Sequence[str], reasons: Sequence[str]) -> list[Document]:
    columns: dict[str, Iterable[Any]] = {
        "symbol": [symbols[place] for place in trips.symbol.tolist()],
        "side": ["short" if short else "long" for short in trips.short.tolist()],
        "opened": map(iso8601, trips.opened_ms.tolist()),
        "closed": map(iso8601, trips.closed_ms.tolist()),
        "quantity": trips.quantity.tolist(),
        "entry_price": trips.entry_price.tolist(),
        "exit_price": trips.exit_price.tolist(),
        "fees": trips.fees.tolist(),
        "profit": trips.profit.tolist(),
        "profit_ratio": trips.profit_ratio.tolist(),
        "reason": [reasons[place] for place in trips.reason.tolist()],
    }
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _open_trips(trips: RoundTrips, report: Report) -> list[Document]:
    """With what is still held, below zero for a short one; they count as closed at the last price."""
    rows = _trips(trips, report.run.symbols, report.reasons)
    return [{**row, "held": held} for row, held in zip(rows, trips.held.tolist(), strict=True)]


def _curve(curve: Curve) -> list[Document]:
    rows = zip(map(iso8601, curve.times.tolist()), curve.values.tolist(), drawdowns(curve.values).tolist(), strict=True)
    return [{"time": time, "equity": equity, "drawdown": drawdown} for time, equity, drawdown in rows]


def drawdowns(equity: FloatArray) -> FloatArray:
    """How far each value is below the highest one up to it, as a ratio of that: zero or above."""
    return 1 - equity / np.maximum.accumulate(equity)
