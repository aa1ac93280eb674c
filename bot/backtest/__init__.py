"""Backtests: the whole of the past at once over arrays, or bar by bar through the loop itself."""
