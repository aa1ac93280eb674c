"""What several tests trade on: parts of a tape, and a strategy of the kind that users write."""

from __future__ import annotations

import numpy as np

from bot.domain import Bars, Block, FloatArray


def part(block: Block, start: int, end: int, warmup: int = 0) -> Block:
    bid, ask, last = (column[:, start:end] for column in (block.bid, block.ask, block.last))
    return Block(block.symbols, block.timestamp[start:end], bid, ask, last, warmup)


class Momentum:
    """One symbol at a time, nothing about batches."""

    name, lookback = "momentum", 4

    def targets(self, bars: Bars) -> FloatArray:
        found = np.full(len(bars), np.nan)
        change = bars.close[3:] - bars.close[:-3]
        found[3:] = np.where(change > 0.02, 1.0, np.where(change < -0.02, -1.0, np.nan))
        return found
