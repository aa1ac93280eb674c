"""Backtests: the whole of the past at once over arrays, or bar by bar through the loop itself."""

from bot.backtest.outcome import Result
from bot.backtest.result import Trade, Trades
from bot.backtest.run import run_backtest

__all__ = ["Result", "Trade", "Trades", "run_backtest"]
