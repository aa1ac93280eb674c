"""Trend following on two averages: long while the quick one is above the slow one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bot.domain import Bars, FloatArray
from bot.strategies.indicators import ema, memory, sums
from bot.strategies.parameters import Length, StrategyError
from bot.strategies.windowed import DEAD_BAND, Windowed, side


@dataclass(frozen=True, slots=True)
class SmaCross(Windowed):
    """1 while the mean of ``fast`` closes is above that of ``slow``; 0, or -1 if ``short``, while below.

    A tie, up to the dead band, holds. Source: the double crossover method, Murphy 1999, "Technical Analysis
    of the Financial Markets", ch. 9.
    """

    name: ClassVar[str] = "sma_cross"
    fast: Length = 10
    slow: Length = 30
    short: bool = False

    def check(self) -> None:
        _check_order(self.name, self.fast, self.slow)

    @property
    def lookback(self) -> int:
        return self.slow

    def decide(self, bars: Bars) -> FloatArray:
        # Both means times ``slow``: a comparison of averages can do without the divisions.
        fast, slow = sums(bars.close, self.fast, self.slow)
        gap = fast[..., self.slow - self.fast :] * (self.slow / self.fast)
        gap -= slow
        return side(gap, DEAD_BAND * np.abs(slow), self.short)


@dataclass(frozen=True, slots=True)
class EmaCross(Windowed):
    """1 while EMA(``fast``) of the closes is above EMA(``slow``); 0, or -1 if ``short``, while it is below.

    EMA(n)[t] = a * close[t] + (1 - a) * EMA(n)[t - 1] with a = 2 / (n + 1). A tie, up to the dead band,
    holds. Source: Murphy 1999, "Technical Analysis of the Financial Markets", ch. 9.
    """

    name: ClassVar[str] = "ema_cross"
    fast: Length = 12
    slow: Length = 26
    short: bool = False

    def check(self) -> None:
        _check_order(self.name, self.fast, self.slow)

    @property
    def lookback(self) -> int:
        return _ema_window(self.slow)

    def decide(self, bars: Bars) -> FloatArray:
        gap, slow = _ema_gap(bars.close, self.fast, self.slow)
        return side(gap, DEAD_BAND * np.abs(slow), self.short)


@dataclass(frozen=True, slots=True)
class Macd(Windowed):
    """1 while the MACD line is above its signal line; 0, or -1 if ``short``, while it is below.

    The line is EMA(``fast``) - EMA(``slow``) of the closes, the signal line is EMA(``signal``) of that line.
    A tie, up to the dead band, holds; the band is relative to the price, as the line itself passes through
    zero. Source: Appel 1979, "The Moving Average Convergence-Divergence Method".
    """

    name: ClassVar[str] = "macd"
    fast: Length = 12
    slow: Length = 26
    signal: Length = 9
    short: bool = False

    def check(self) -> None:
        _check_order(self.name, self.fast, self.slow)

    @property
    def lookback(self) -> int:
        return _ema_window(self.slow) + _ema_window(self.signal) - 1

    def decide(self, bars: Bars) -> FloatArray:
        line, slow = _ema_gap(bars.close, self.fast, self.slow)
        tail = _ema_window(self.signal) - 1
        histogram = line[..., tail:] - ema(line, self.signal)
        return side(histogram, DEAD_BAND * np.abs(slow[..., tail:]), self.short)


def _check_order(name: str, fast: int, slow: int) -> None:
    if fast >= slow:
        raise StrategyError(f"{name}: fast must be below slow, got fast={fast} and slow={slow}.")


def _ema_window(period: int) -> int:
    return memory(2 / (period + 1))


def _ema_gap(closes: FloatArray, fast: int, slow: int) -> tuple[FloatArray, FloatArray]:
    """EMA(fast) - EMA(slow), and EMA(slow)."""
    slow_ema = ema(closes, slow)
    fast_ema = ema(closes[..., _ema_window(slow) - _ema_window(fast) :], fast)
    return fast_ema - slow_ema, slow_ema
