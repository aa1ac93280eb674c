"""Strategies: pure functions from a price window to target positions, built by name."""

from bot.strategies.parameters import StrategyError
from bot.strategies.registry import build, known, load, names_in

__all__ = ["StrategyError", "build", "known", "load", "names_in"]
