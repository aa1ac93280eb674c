"""The promise every strategy makes, as a function that finds where it is broken."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from bot.domain import Bars
from bot.ports import Strategy


class Breach(NamedTuple):
    """The first row that breaks a rule. ``expected`` is what the row's own window gives."""

    row: int
    rule: str
    found: float
    expected: float

    def __str__(self) -> str:
        return f"row {self.row}: {self.rule} (found {self.found!r}, expected {self.expected!r})"


def first_breach(strategy: Strategy, bars: Bars, rows: Iterable[int] | None = None) -> Breach | None:
    """The first row of ``bars`` (one symbol, shape [N]) that breaks the promise, or None.

    A row with ``lookback`` bars must have, bit for bit, the target that these bars alone give: what came
    before does not matter (warm-up, restarts, block sizes), nor what comes after (causality). A row with
    fewer bars must hold. Each row costs one call; ``rows`` picks some of them, ascending. Raises ValueError
    if the targets are not one float64 a bar.
    """
    targets = np.asarray(strategy.targets(bars))
    if targets.dtype != np.float64 or targets.shape != bars.close.shape:
        raise ValueError(
            f"{strategy.name}: targets must be float64 of shape {bars.close.shape}, "
            f"got {targets.dtype} of shape {targets.shape}"
        )
    for row in range(len(bars)) if rows is None else rows:
        breach = _breach_at(strategy, bars, row, float(targets[row]))
        if breach:
            return breach
    return None


def _breach_at(strategy: Strategy, bars: Bars, row: int, found: float) -> Breach | None:
    first = row + 1 - strategy.lookback
    if first < 0:
        return None if np.isnan(found) else Breach(row, "a target before lookback bars", found, np.nan)
    if abs(found) > 1:
        return Breach(row, "a target outside [-1, 1]", found, math.copysign(1.0, found))
    expected = float(strategy.targets(bars[first : row + 1])[-1])
    if np.array_equal(found, expected, equal_nan=True):
        return None
    return Breach(row, "depends on more than its last lookback bars", found, expected)
