"""The same work in one loop that numba compiles: what is left where there is neither Python nor memory traffic."""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

from tests.benchmarks.peers.engines.serving import (
    CAPITAL,
    FAST,
    FEE_RATE,
    PAIRS,
    SLOW,
    BoolArray,
    FloatArray,
    IntArray,
    Outcome,
    Tape,
    serve,
)


@numba.njit
def cross(prices: FloatArray, fast: int, slow: int) -> tuple[IntArray, BoolArray, FloatArray, FloatArray, FloatArray]:
    """All fills: row, whether it buys, price, fee and pnl, each of shape [K]."""
    length = len(prices)
    row, buy = np.empty(length, np.int64), np.empty(length, np.bool_)
    price, fee, pnl = np.empty(length), np.empty(length), np.empty(length)
    # In whole cents, which makes ties exact.
    quick, calm = np.int64(0), np.int64(0)
    count, held, bought = 0, False, 0.0
    for now in range(length):
        close = prices[now]
        cents = np.int64(close * 100.0 + 0.5)
        quick += cents
        calm += cents
        if now >= fast:
            quick -= np.int64(prices[now - fast] * 100.0 + 0.5)
        if now >= slow:
            calm -= np.int64(prices[now - slow] * 100.0 + 0.5)
        if now < slow - 1:
            continue
        gap = quick * slow - calm * fast
        if (gap > 0 and not held) or (gap < 0 and held):
            held = not held
            row[count], buy[count], price[count], fee[count] = now, held, close, close * FEE_RATE
            pnl[count] = 0.0 if held else close - bought
            bought = close
            count += 1
    return row[:count], buy[:count], price[:count], fee[:count], pnl[:count]


@numba.njit
def curve(
    prices: FloatArray, row: IntArray, buy: BoolArray, price: FloatArray, fee: FloatArray
) -> tuple[FloatArray, float]:
    """Equity at every close, shape [N], and the largest drawdown."""
    equity = np.empty(len(prices))
    cash, held, after = float(CAPITAL), 0.0, 0
    peak, fall = cash, 0.0
    for now in range(len(prices)):
        if after < len(row) and row[after] == now:
            held = 1.0 if buy[after] else 0.0
            cash += (-price[after] if buy[after] else price[after]) - fee[after]
            after += 1
        value = cash + held * prices[now]
        equity[now] = value
        peak = max(peak, value)
        fall = max(fall, 1 - value / peak)
    return equity, fall


def vectorised(tape: Tape) -> Callable[[], Outcome]:
    def run() -> Outcome:
        row, _, _, fee, pnl = cross(tape.prices, FAST, SLOW)
        return Outcome([len(row)], [float(pnl.sum() - fee.sum())])

    return run


def equity(tape: Tape) -> Callable[[], Outcome]:
    def run() -> Outcome:
        row, buy, price, fee, pnl = cross(tape.prices, FAST, SLOW)
        _, fall = curve(tape.prices, row, buy, price, fee)
        return Outcome([len(row)], [float(pnl.sum() - fee.sum())], fall)

    return run


def sweep(tape: Tape) -> Callable[[], Outcome]:
    def run() -> Outcome:
        found = [cross(tape.prices, fast, slow) for fast, slow in PAIRS]
        return Outcome([len(fills[0]) for fills in found], [float(fills[4].sum() - fills[3].sum()) for fills in found])

    return run


if __name__ == "__main__":
    serve(numba.__version__, {"vectorised": vectorised, "equity": equity, "sweep": sweep})
