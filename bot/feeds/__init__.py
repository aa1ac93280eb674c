"""Where prices come from: the implementations of ``ports.PriceFeed``."""

from bot.feeds.replay import ArrayFeed, ReplayFeed, SessionFeed, TapePart
from bot.feeds.simulated import SimulatedFeed

__all__ = ["ArrayFeed", "ReplayFeed", "SessionFeed", "SimulatedFeed", "TapePart"]
