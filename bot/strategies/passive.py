"""The yardstick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bot.domain import Bars, FloatArray
from bot.strategies.windowed import Windowed


@dataclass(frozen=True, slots=True)
class BuyAndHold(Windowed):
    """1 from the first bar on: what every other strategy has to beat after costs."""

    name: ClassVar[str] = "buy_and_hold"

    @property
    def lookback(self) -> int:
        return 1

    def decide(self, bars: Bars) -> FloatArray:
        return np.where(np.isnan(bars.close), np.nan, 1.0)
