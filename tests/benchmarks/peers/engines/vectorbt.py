"""vectorbt: compiled by numba when first called, or, with the argument ``rust``, by its optional Rust engine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import vectorbt
from vectorbt.portfolio.enums import TradeStatus

from tests.benchmarks.peers.engines.serving import (
    CAPITAL,
    FAST,
    FASTS,
    FEE_RATE,
    PAIRS,
    SLOW,
    SLOWS,
    BoolArray,
    FloatArray,
    Outcome,
    Tape,
    serve,
)


def _closes(tape: Tape) -> pd.Series:
    return pd.Series(tape.prices, index=pd.to_datetime(tape.timestamp, unit="ms"))


def _means(closes: pd.Series, periods: int | list[int]) -> FloatArray:
    means: FloatArray = vectorbt.MA.run(closes, periods).ma.to_numpy()
    return means


def _portfolio(closes: pd.Series, entries: BoolArray, exits: BoolArray) -> Any:
    options = {"size": 1, "fees": FEE_RATE, "init_cash": CAPITAL, "freq": "1min"}
    return vectorbt.Portfolio.from_signals(closes, entries, exits, **options)


def cross(closes: pd.Series) -> Any:
    # Comparing arrays is quicker than its own ma_above and ma_below.
    fast, slow = _means(closes, FAST), _means(closes, SLOW)
    return _portfolio(closes, fast > slow, fast < slow)


def outcome(portfolio: Any, columns: int = 1) -> Outcome:
    """Of a trade that is still open, only the fee that was paid to open it."""
    fills = np.bincount(portfolio.orders.records["col"], minlength=columns)
    trades = portfolio.trades.records
    gains = np.where(trades["status"] == TradeStatus.Open, -trades["entry_fees"], trades["pnl"])
    return Outcome(fills.tolist(), np.bincount(trades["col"], gains, minlength=columns).tolist())


def vectorised(tape: Tape) -> Callable[[], Outcome]:
    closes = _closes(tape)
    return lambda: outcome(cross(closes))


def equity(tape: Tape) -> Callable[[], Outcome]:
    closes = _closes(tape)

    def run() -> Outcome:
        portfolio = cross(closes)
        portfolio.value()
        return outcome(portfolio)._replace(max_drawdown=-float(portfolio.max_drawdown()))

    return run


def sweep(tape: Tape) -> Callable[[], Outcome]:
    closes = _closes(tape)

    def run() -> Outcome:
        # Each mean once, every pair compared: half the time of handing it a hundred pairs of periods.
        fast = _means(closes, list(FASTS))[:, :, None]
        slow = _means(closes, list(SLOWS))[:, None, :]
        shape = len(closes), len(PAIRS)
        portfolio = _portfolio(closes, (fast > slow).reshape(shape), (fast < slow).reshape(shape))
        return outcome(portfolio, len(PAIRS))

    return run


if __name__ == "__main__":
    vectorbt.settings["engine"] = sys.argv[1] if sys.argv[1:] else "numba"
    serve(vectorbt.__version__, {"vectorised": vectorised, "equity": equity, "sweep": sweep})
