"""Backtests: the whole of the past at once over arrays, or bar by bar through the loop itself."""

from bot.backtest.result import Result
from bot.backtest.run import run_backtest
from bot.backtest.trades import Trade, Trades

__all__ = ["Result", "Trade", "Trades", "run_backtest"]
