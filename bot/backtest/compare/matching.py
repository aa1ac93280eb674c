"""Which fill of one side is which of the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bot.backtest.trades import Trades
from bot.domain import IntArray


class Matched(NamedTuple):
    """Rows of the fills: those that are each other's, shapes [P], and those that only one side has."""

    live: IntArray
    backtest: IntArray
    only_live: IntArray
    only_backtest: IntArray


def matched(live: Trades, backtest: Trades, tolerance_ms: int) -> Matched:
    """Fills of one symbol and side, in the order of time: those of the same moment, and of the others the nearest
    within the tolerance. Both sides have the same symbols."""
    pairs = [np.zeros((2, 0), np.int64)]
    for symbol in range(len(live.symbols)):
        for buy in (True, False):
            mine, other = (np.flatnonzero((each.symbol == symbol) & (each.buy == buy)) for each in (live, backtest))
            rows = _pairs(live.timestamp[mine], backtest.timestamp[other], tolerance_ms)
            pairs.append(np.stack((mine[rows[0]], other[rows[1]])))
    first, second = np.concatenate(pairs, axis=1)
    order = np.argsort(first)
    only_live, only_backtest = np.ones(len(live), np.bool_), np.ones(len(backtest), np.bool_)
    only_live[first], only_backtest[second] = False, False
    return Matched(first[order], second[order], np.flatnonzero(only_live), np.flatnonzero(only_backtest))


def _pairs(live: IntArray, backtest: IntArray, tolerance_ms: int) -> IntArray:
    """Of two lists of increasing times; shape [2, P]."""
    _, same, twin = np.intersect1d(live, backtest, assume_unique=True, return_indices=True)
    left, right = (np.ones(len(each), np.bool_) for each in (live, backtest))
    left[same], right[twin] = False, False
    mine, other = np.flatnonzero(left), np.flatnonzero(right)
    near = _nearest(live[mine].tolist(), backtest[other].tolist(), tolerance_ms)
    found = np.array(near, np.int64).reshape(-1, 2).T
    return np.concatenate((np.stack((same, twin)), np.stack((mine[found[0]], other[found[1]]))), axis=1)


def _nearest(left: list[int], right: list[int], tolerance_ms: int) -> list[tuple[int, int]]:
    """Each with the nearest one that is not nearer to its own neighbour; neither goes back in time."""
    found = []
    row = column = 0
    while row < len(left) and column < len(right):
        apart = abs(left[row] - right[column])
        if column + 1 < len(right) and abs(left[row] - right[column + 1]) < apart:
            column += 1
        elif row + 1 < len(left) and abs(left[row + 1] - right[column]) < apart:
            row += 1
        elif apart <= tolerance_ms:
            found.append((row, column))
            row, column = row + 1, column + 1
        elif left[row] < right[column]:
            row += 1
        else:
            column += 1
    return found
