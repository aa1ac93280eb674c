"""What a search has found: the figures of every combination, and what can be said of all of them together."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bot.backtest.optimize.figures import LESS_IS_BETTER
from bot.backtest.optimize.study import IN_SAMPLE, OUT_OF_SAMPLE, Status, Study, Worked
from bot.domain import FloatArray, IntArray

PROFIT = "total_profit_ratio"
# Two points are always in line.
_CORRELATED_MIN = 3


class Luck(NamedTuple):
    """How the combinations of one window did out of sample, by the figure that they are ranked by and by profit: the
    medians of all and of the first ones; the place out of sample, from 1, of the one that was first in sample, among
    how many; and the rank correlation of in sample with out of sample. None where it is not defined."""

    median: float | None
    median_of_top: float | None
    median_profit: float | None
    median_profit_of_top: float | None
    place_of_best: int | None
    places: int
    rank_correlation: float | None


class Found:
    """The figures of W windows and C combinations: ``values`` [W, 2, C, figures], in sample and out of sample, NaN for
    what is not defined or not known yet; ``status`` [W, C]; ``ended`` says what ended the search before its end."""

    def __init__(self, study: Study, by: str, min_trades: int = 0) -> None:
        self.study, self.by, self.min_trades = study, by, min_trades
        windows, count = len(study.windows), len(study.combinations)
        self.values = np.full((windows, 2, count, len(study.figures)), np.nan)
        self.status: npt.NDArray[np.int8] = np.full((windows, count), Status.NOT_TRIED, np.int8)
        self._failures: dict[tuple[int, int], str] = {}
        self.ended: str | None = None

    def add(self, worked: Worked) -> None:
        window, first, stop = worked.part
        self.values[window, :, first:stop] = worked.values
        self.status[window, first:stop] = worked.status
        self._failures |= {(number, window): text for number, text in worked.failures.items()}

    @property
    def failures(self) -> dict[int, str]:
        """What a strategy raised in the first window in which it did, by combination."""
        found: dict[int, str] = {}
        for (number, _), text in sorted(self._failures.items()):
            found.setdefault(number, text)
        return found

    def figure(self, name: str, window: int, side: int) -> FloatArray:
        """One figure of all combinations, shape [C]."""
        found: FloatArray = self.values[window, side, :, self.study.figures.index(name)]
        return found

    def count(self, status: Status) -> int:
        """Of how many combinations this became in any window."""
        return int((self.status == status).any(axis=0).sum())

    def too_few(self, window: int) -> int:
        """How many combinations traded, and less than they have to."""
        return int((self.status[window] == Status.TRIED).sum()) - len(self.ranked(window))

    def ranked(self, window: int) -> IntArray:
        """The combinations from the best one on, by what they did in sample; those without the figure last, equal ones
        in the order of their parameters. Those with too few trades are left out."""
        trades = self.figure("trades", window, IN_SAMPLE)
        chosen = np.flatnonzero((self.status[window] == Status.TRIED) & (trades >= self.min_trades))
        return chosen[np.argsort(self._worst_last(window, IN_SAMPLE)[chosen], kind="stable")]

    def best(self, window: int) -> int | None:
        """The combination that is traded out of sample; None if the figure is defined for none."""
        ranked = self.ranked(window)
        if not len(ranked) or math.isnan(self.figure(self.by, window, IN_SAMPLE)[ranked[0]]):
            return None
        return int(ranked[0])

    def luck(self, window: int, top: int) -> Luck:
        ranked = self.ranked(window)
        by, profit = (self.figure(name, window, OUT_OF_SAMPLE)[ranked] for name in (self.by, PROFIT))
        order = self._worst_last(window, OUT_OF_SAMPLE)[ranked]
        place = None
        if self.best(window) is not None and not math.isnan(order[0]):
            place = 1 + int(np.count_nonzero(order < order[0]))
        return Luck(
            _median(by),
            _median(by[:top]),
            _median(profit),
            _median(profit[:top]),
            place,
            int(np.count_nonzero(order == order)),
            _correlation(self._worst_last(window, IN_SAMPLE)[ranked], order),
        )

    def _worst_last(self, window: int, side: int) -> FloatArray:
        """The figure to sort by, ascending; NaN goes to the end by itself."""
        values = self.figure(self.by, window, side)
        return values if self.by in LESS_IS_BETTER else -values


def _median(values: FloatArray) -> float | None:
    known = values[values == values]
    return float(np.median(known)) if len(known) else None


def _correlation(first: FloatArray, second: FloatArray) -> float | None:
    """Spearman's, of ranks: equal values share the mean of theirs. Source: Spearman 1904."""
    known = (first == first) & (second == second)
    if np.count_nonzero(known) < _CORRELATED_MIN:
        return None
    one, other = (_ranks(values[known]) for values in (first, second))
    one, other = one - one.mean(), other - other.mean()
    spread = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / spread if spread else None


def _ranks(values: FloatArray) -> FloatArray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: FloatArray = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks
