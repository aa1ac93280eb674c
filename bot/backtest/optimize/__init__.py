"""The search for parameters: all combinations of a grid on all cores, judged on prices that they were not chosen on."""

from bot.backtest.optimize.sweeps import sweep

__all__ = ["sweep"]
