"""What holding would have made of the same money, as a line beside the equity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bot.backtest.report.prices import PricePoints
from bot.domain import FloatArray, IntArray

LINE_MAX = 4_000


def held(prices: Sequence[PricePoints], end_ms: int) -> tuple[IntArray, FloatArray]:
    """Times and worth of each unit of capital, shapes [H], H <= LINE_MAX: equal parts in all symbols from the first
    open of each, without fees. A price point counts from its end, which is where the next one begins."""
    known = [points for points in prices if len(points)]
    if not known:
        return np.empty(0, np.int64), np.empty(0)
    lines = [(np.append(points.timestamp, end_ms), np.append(points.open[0], points.close)) for points in known]
    times = np.unique(np.concatenate([line for line, _ in lines]))
    if len(times) > LINE_MAX:
        times = times[np.linspace(0, len(times) - 1, LINE_MAX).astype(np.int64)]
    worth = np.zeros(len(times))
    for line, values in lines:
        rows = np.searchsorted(line, times, side="right") - 1
        worth += values[np.maximum(rows, 0)] / values[0]
    return times, worth / len(known)
