"""Where parameters are chosen, and where the chosen ones are tried: stretches of time, the second after the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bot.backtest.optimize.grid import GridError
from bot.domain import IntArray, iso8601
from bot.timeframes import Timeframe

WINDOWS_MAX = 1_000


class Window(NamedTuple):
    """In sample from ``start_ms`` to before ``split_ms``, out of sample from there to before ``end_ms``."""

    start_ms: int
    split_ms: int
    end_ms: int

    @property
    def has_out_of_sample(self) -> bool:
        return self.split_ms < self.end_ms


def split(start_ms: int, end_ms: int, share: float, timeframe: Timeframe) -> Window:
    """One window: ``share`` of the time in sample, up to where a bar of the timeframe opens; a share of 1 is all of it.

    Raises GridError.
    """
    _check_share(share)
    if share == 1:
        return Window(start_ms, end_ms, end_ms)
    return Window(start_ms, timeframe.open_of(start_ms + round((end_ms - start_ms) * share)), end_ms)


def walk_forward(
    start_ms: int, end_ms: int, count: int, share: float, timeframe: Timeframe, *, anchored: bool = False
) -> list[Window]:
    """``count`` windows, each a step later, so that each begins to trade out of sample where the one before it ends.

    They roll: all are of one length, ``share`` of it in sample; or, anchored, they all begin where the first one does.
    Source: Pardo 2008, "The Evaluation and Optimization of Trading Strategies". Raises GridError.
    """
    _check_share(share)
    if share == 1:
        raise GridError("--walk-forward needs something out of sample: --split must be below 1")
    if not 1 <= count <= WINDOWS_MAX:
        raise GridError(f"--walk-forward must be between 1 and {WINDOWS_MAX:,}, got {count}")
    # In steps: a window is one of them out of sample, and so many in sample.
    inside = share / (1 - share)
    step_ms = (end_ms - start_ms) / (inside + count)
    edges = [timeframe.open_of(start_ms + round(step_ms * (inside + number))) for number in range(count)]
    starts = [start_ms, *(timeframe.open_of(start_ms + round(step_ms * number)) for number in range(1, count))]
    return [
        Window(start_ms if anchored else start, edge, end)
        for start, edge, end in zip(starts, edges, [*edges[1:], end_ms], strict=True)
    ]


def check(windows: Sequence[Window], times: Sequence[IntArray]) -> None:
    """Raises GridError if a part of a window has no bar of any symbol; ``times`` are each symbol's, shape [N]."""
    for number, window in enumerate(windows, 1):
        parts = [("in-sample", window.start_ms, window.split_ms)]
        if window.has_out_of_sample:
            parts.append(("out-of-sample", window.split_ms, window.end_ms))
        for name, start_ms, end_ms in parts:
            if not any(_count(each, start_ms, end_ms) for each in times):
                which = f" in window {number} of {len(windows)}" if len(windows) > 1 else ""
                raise GridError(
                    f"there are no {name} bars{which}, from {iso8601(start_ms)} to {iso8601(end_ms)}: take more data,"
                    " or another --split"
                )


def _count(times: IntArray, start_ms: int, end_ms: int) -> int:
    first, end = np.searchsorted(times, (start_ms, end_ms)).tolist()
    return int(end - first)


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise GridError(f"--split must be above 0 and at most 1, got {share:g}")
