"""What the built-in strategies share: warm-up, blocks, and the choice between two sides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from bot.domain import Bars, FloatArray
from bot.strategies.parameters import checked

BoolArray = npt.NDArray[np.bool_]

# Two averages of equal prices may differ in their last bits. Without a dead band a flat market would "cross"
# on that noise hundreds of times; a real cross moves at least one tick, far more than a billionth of the
# price.
DEAD_BAND = 1e-9

# Columns x symbols worked on at a time: the intermediate arrays of one block stay in the processor's cache.
BLOCK_VALUES = 16_384


class Windowed(ABC):
    """A strategy whose every target is a fixed expression of the last ``lookback`` bars.

    A subclass is a frozen, slotted dataclass of its parameters, whose hints carry the limits. It says what a
    full window decides; bars without a full window hold, which is seen to here.
    """

    __slots__ = ()
    name: ClassVar[str]
    batch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for key, value in checked(self).items():
            object.__setattr__(self, key, value)
        self.check()

    def check(self) -> None:  # noqa: B027  (most have nothing to add)
        """Raises StrategyError where parameters that are fine one by one contradict each other."""

    @property
    @abstractmethod
    def lookback(self) -> int: ...

    @abstractmethod
    def decide(self, bars: Bars) -> FloatArray:
        """One target for each full window: shape [..., N - lookback + 1]."""

    # Absurd prices overflow and dead markets divide 0 by 0: both end as NaN, which is "hold".
    @np.errstate(all="ignore")
    def targets(self, bars: Bars) -> FloatArray:
        lookback = self.lookback
        warmup = lookback - 1
        targets = np.empty(bars.close.shape)
        targets[..., :warmup] = np.nan
        length = len(bars)
        columns = max(BLOCK_VALUES * length // (targets.size or 1), 4 * lookback)
        if length - warmup > columns:
            # A small rest would cost as many calls as a block: it is shared out among the others.
            columns = -(-(length - warmup) // round((length - warmup) / columns))
        for start in range(warmup, length, columns):
            stop = min(start + columns, length)
            window = bars if stop - start + warmup == length else bars[start - warmup : stop]
            targets[..., start:stop] = self.decide(window)
        return targets


def side(gap: FloatArray, margin: FloatArray, short: bool) -> FloatArray:
    """1 where the gap is above the margin, 0 (-1 if short) where below minus the margin, NaN between."""
    return _choose(gap > margin, np.abs(gap) > margin, short)


def either(enter: BoolArray, leave: BoolArray, short: bool) -> FloatArray:
    """1 where entering, 0 (-1 if short) where leaving, NaN where neither."""
    return _choose(enter, enter | leave, short)


def _choose(enter: BoolArray, decided: BoolArray, short: bool) -> FloatArray:
    # 1/1, 0/1 and 0/0: no branch to mispredict, a quarter of the time of two np.where in a choppy market. Where nothing
    # is to be held, as in most blocks of a cross, a third of that.
    sides: FloatArray = enter.astype(np.float64) if decided.all() else enter / decided
    return 2.0 * sides - 1.0 if short else sides
