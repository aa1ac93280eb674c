"""With the move: buy what leaves the range it was in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bot.domain import Bars, FloatArray
from bot.strategies.indicators import highest, lowest, moments
from bot.strategies.parameters import Deviations, Length, Period, StrategyError
from bot.strategies.windowed import DEAD_BAND, Windowed, either, side


@dataclass(frozen=True, slots=True)
class BollingerBreakout(Windowed):
    """1 when the close is above the upper band; 0, or -1 if ``short``, when below the lower one; hold inside.

    The bands are mean +- ``deviations`` * population standard deviation of the last ``period`` closes, the
    current one included. Source: Bollinger 2001, "Bollinger on Bollinger Bands", method I (volatility
    breakout).
    """

    name: ClassVar[str] = "bollinger_breakout"
    period: Period = 20
    deviations: Deviations = 2.0
    short: bool = False

    def check(self) -> None:
        # Samuelson 1968: no value of n lies further than sqrt(n - 1) deviations from their mean.
        reach = math.sqrt(self.period - 1)
        if self.deviations >= reach:
            raise StrategyError(
                f"{self.name}: deviations must be below sqrt(period - 1) = {reach:.4g}, or no close is ever "
                f"outside the bands, got deviations={self.deviations:g} and period={self.period}."
            )

    @property
    def lookback(self) -> int:
        return self.period

    def decide(self, bars: Bars) -> FloatArray:
        mean, deviation = moments(bars.close, self.period)
        margin = self.deviations * deviation + DEAD_BAND * np.abs(mean)
        return side(bars.close[..., self.period - 1 :] - mean, margin, self.short)


@dataclass(frozen=True, slots=True)
class DonchianBreakout(Windowed):
    """1 when the close is above the highest high of the last ``period`` bars, 0 when below their lowest low.

    The bar itself is not among them. The lowest low is that of ``exit_period`` bars (None: half the period).
    Between the two it holds.

    If ``short``: -1 when it is below the lowest low of ``period`` bars, the four-week rule, always in the
    market. An earlier exit would have to know which side is held, so ``exit_period`` is refused there. Highs
    and lows are exact and need no dead band. Source: Donchian's rule in Murphy 1999, ch. 9; the shorter exit,
    Faith 2003, "The Original Turtle Trading Rules".
    """

    name: ClassVar[str] = "donchian_breakout"
    period: Length = 20
    exit_period: Length | None = None
    short: bool = False

    def check(self) -> None:
        if self.short and self.exit_period is not None:
            raise StrategyError(
                f"{self.name}: exit_period must be left out when short is true, as the opposite breakout is "
                f"then the exit, got exit_period={self.exit_period}."
            )

    @property
    def lookback(self) -> int:
        return max(self.period, self._exit) + 1

    @property
    def _exit(self) -> int:
        if self.short:
            return self.period
        return self.exit_period or (self.period + 1) // 2

    def decide(self, bars: Bars) -> FloatArray:
        window = self.lookback - 1
        close = bars.close[..., window:]
        high = highest(bars.high[..., window - self.period : -1], self.period)
        low = lowest(bars.low[..., window - self._exit : -1], self._exit)
        # A price that is missing from the longer window only must not let the shorter one decide alone.
        whole = low <= high
        return either((close > high) & whole, (close < low) & whole, self.short)
