"""The same work by hand in numpy and nothing around it: no checks, no types, one strategy, prices known to be cents.

All is done block by block, so that what comes between stays in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

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
    IntArray,
    Outcome,
    Tape,
    serve,
)

BLOCK = 32_768
# The sweep holds 20 means of a block at a time.
SWEEP_BLOCK = 8_192
# Sums of cents differ by a cent or not at all.
HALF_A_CENT = 0.005


class Book(NamedTuple):
    """All fills: buys and sells take turns, the first one buys. Each array of shape [K]."""

    row: IntArray
    buy: BoolArray
    price: FloatArray
    fee: FloatArray
    pnl: FloatArray

    @property
    def net_pnl(self) -> float:
        return float(self.pnl.sum() - self.fee.sum())


def blocks(length: int, lookback: int, size: int) -> Iterator[tuple[int, int]]:
    for first in range(lookback - 1, length, size):
        yield first, min(first + size, length)


def turns(prices: FloatArray) -> IntArray:
    """The rows in which the target changes."""
    assert (FAST, SLOW) == (10, 30)
    pairs, fours, gap = np.empty((3, BLOCK + SLOW))
    above = np.empty(BLOCK + 1, np.bool_)
    held, found = False, []
    for first, stop in blocks(len(prices), SLOW, BLOCK):
        window = prices[first - SLOW + 1 : stop]
        size, fresh = len(window), stop - first
        two = np.add(window[1:], window[:-1], out=pairs[: size - 1])
        four = np.add(two[2:], two[:-2], out=fours[: size - 3])
        eight = np.add(four[4:], four[:-4], out=gap[: size - 7])
        ten = np.add(eight[2:], two[:-8], out=gap[: size - 9])
        # 3 x the sum of 10 less the sum of 30, which is the sum of three sums of 10.
        older = np.add(ten[10:-10], ten[:-20], out=fours[:fresh])
        ahead = np.multiply(ten[20:], 2.0, out=pairs[:fresh])
        ahead -= older
        up = above[: fresh + 1]
        up[0] = held
        np.greater(ahead, HALF_A_CENT, out=up[1:])
        rows = np.flatnonzero(up[1:] != up[:-1])
        if (np.abs(ahead[rows]) < HALF_A_CENT).any():
            rows = hold(up, np.abs(ahead) < HALF_A_CENT)
        found.append(rows + first)
        held = bool(up[-1])
    return np.concatenate(found)


def hold(up: BoolArray, tie: BoolArray) -> IntArray:
    """Lets what was before stand where there is a tie; the rows that are left of the changes."""
    known = np.where(tie, 0, np.arange(1, len(up)))
    up[1:] = up[np.maximum.accumulate(known)]
    return np.flatnonzero(up[1:] != up[:-1])


def book(prices: FloatArray, rows: IntArray) -> Book:
    price = prices[rows]
    buy = np.zeros(len(rows), np.bool_)
    buy[::2] = True
    pnl = np.zeros(len(rows))
    bought = price[0 : len(rows) - 1 : 2]
    np.subtract(price[1::2], bought, out=pnl[1::2])
    return Book(rows, buy, price, price * FEE_RATE, pnl)


def curve(prices: FloatArray, fills: Book) -> tuple[FloatArray, float]:
    """Equity at every close, shape [N], and the largest drawdown."""
    moved = np.where(fills.buy, -fills.price, fills.price) - fills.fee
    cash = np.concatenate(((0.0,), np.cumsum(moved))) + CAPITAL
    equity = np.empty(len(prices))
    peak, lowest = float(CAPITAL), 1.0
    for first, stop in blocks(len(prices), 1, BLOCK):
        before, after = np.searchsorted(fills.row, (first, stop))
        lengths = np.diff(fills.row[before:after], prepend=first, append=stop)
        held = np.arange(before, after + 1) & 1
        part = np.multiply(prices[first:stop], np.repeat(held.astype(np.float64), lengths), out=equity[first:stop])
        part += np.repeat(cash[before : after + 1], lengths)
        peaks = np.maximum.accumulate(part)
        np.maximum(peaks, peak, out=peaks)
        peak = float(peaks[-1])
        np.divide(part, peaks, out=peaks)
        lowest = min(lowest, float(peaks.min()))
    return equity, 1 - lowest


def sweep_turns(prices: FloatArray) -> Iterator[IntArray]:
    """The rows of each pair's changes. Sums of whole cents are exact, so are ties between their quotients."""
    held = np.zeros(len(PAIRS), np.bool_)
    above = np.empty(SWEEP_BLOCK + 1, np.bool_)
    found: list[list[IntArray]] = [[] for _ in PAIRS]
    for first, stop in blocks(len(prices), 1, SWEEP_BLOCK):
        cents = np.rint(prices[max(0, first - max(SLOWS)) : stop] * 100.0)
        sums = np.concatenate(((0.0,), np.cumsum(cents)))
        means = {period: mean(sums, period, stop - first) for period in (*FASTS, *SLOWS)}
        up = above[: stop - first + 1]
        for pair, (fast, slow) in enumerate(PAIRS):
            up[0] = held[pair]
            np.greater(means[fast], means[slow], out=up[1:])
            rows = np.flatnonzero(up[1:] != up[:-1])
            if (means[fast][rows] == means[slow][rows]).any():
                rows = hold(up, means[fast] == means[slow])
            found[pair].append(rows + first)
            held[pair] = up[-1]
    return (np.concatenate(rows) for rows in found)


def mean(sums: FloatArray, period: int, fresh: int) -> FloatArray:
    """The last ``fresh`` means of so many cents, from running sums; NaN where there are not as many yet."""
    means: FloatArray = ((sums[period:] - sums[:-period]) / period)[-fresh:]
    if len(means) < fresh:
        means = np.concatenate((np.full(fresh - len(means), np.nan), means))
    return means


def vectorised(tape: Tape) -> Callable[[], Outcome]:
    def run() -> Outcome:
        fills = book(tape.prices, turns(tape.prices))
        return Outcome([len(fills.row)], [fills.net_pnl])

    return run


def next_open(tape: Tape) -> Callable[[], Outcome]:
    """Decided at a close, filled at the next bar's open, which on this tape is its only price."""

    def run() -> Outcome:
        rows = turns(tape.prices) + 1
        fills = book(tape.prices, rows[rows < len(tape)])
        return Outcome([len(fills.row)], [fills.net_pnl])

    return run


def equity(tape: Tape) -> Callable[[], Outcome]:
    def run() -> Outcome:
        fills = book(tape.prices, turns(tape.prices))
        _, max_drawdown = curve(tape.prices, fills)
        return Outcome([len(fills.row)], [fills.net_pnl], max_drawdown)

    return run


def sweep(tape: Tape) -> Callable[[], Outcome]:
    def run() -> Outcome:
        books = [book(tape.prices, rows) for rows in sweep_turns(tape.prices)]
        return Outcome([len(fills.row) for fills in books], [fills.net_pnl for fills in books])

    return run


if __name__ == "__main__":
    serve(np.__version__, {"vectorised": vectorised, "next open": next_open, "equity": equity, "sweep": sweep})
