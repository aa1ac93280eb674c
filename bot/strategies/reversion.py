"""Against the move: buy what has fallen too far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bot.domain import Bars, FloatArray
from bot.strategies.indicators import memory, rsi
from bot.strategies.parameters import Percent, Period, StrategyError
from bot.strategies.windowed import Windowed, either


@dataclass(frozen=True, slots=True)
class RsiReversion(Windowed):
    """1 while RSI is below ``oversold``; 0, or -1 if ``short``, while above ``overbought``; hold between.

    RSI = 100 * G / (G + L), with G and L the exponential averages of gains and losses, a = 1 / period. A flat
    market has no RSI and holds. Source: Wilder 1978, "New Concepts in Technical Trading Systems", section VI.
    """

    name: ClassVar[str] = "rsi_reversion"
    period: Period = 14
    oversold: Percent = 30.0
    overbought: Percent = 70.0
    short: bool = False

    def check(self) -> None:
        if self.oversold >= self.overbought:
            raise StrategyError(
                f"{self.name}: oversold must be below overbought, "
                f"got oversold={self.oversold:g} and overbought={self.overbought:g}."
            )

    @property
    def lookback(self) -> int:
        return memory(1 / self.period) + 1

    def decide(self, bars: Bars) -> FloatArray:
        strength = rsi(bars.close, self.period)
        return either(strength < self.oversold, strength > self.overbought, self.short)
