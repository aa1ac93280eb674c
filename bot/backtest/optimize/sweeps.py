"""Many strategies over the same bars: what indicators have in common is worked out once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from bot.backtest.result import Result
from bot.backtest.run import setup_of
from bot.backtest.setup import Setup, times_of
from bot.domain import Bars
from bot.ports import Strategy

# As many strategies take turns at each chunk of bars as see so many bars in all: the changes of target of all of them
# are in memory at once, 16 bytes each.
_BARS_TOGETHER = 20_000_000
_TOGETHER_MIN, _TOGETHER_MAX = 8, 256


def sweep(bars: Bars | Mapping[str, Bars], strategies: Iterable[Strategy], **options: Any) -> Iterator[Result]:
    """What ``run_backtest`` says of each of the strategies, in their order, in two thirds of the time.

    ``options`` are those of ``run_backtest``. Results come as they are asked for: whoever keeps none of them, but a
    number or two of each, needs no more memory for a million of them. Raises ValueError as it does.
    """
    setup = setup_of(bars, **options)
    waiting = iter(strategies)
    while batch := list(islice(waiting, together(setup))):
        yield from setup.results(batch)


def together(setup: Setup) -> int:
    """How many strategies are to be tried at once."""
    count = sum(len(times_of(source)) for source in setup.sources.values())
    return max(_TOGETHER_MIN, min(_BARS_TOGETHER // max(1, count), _TOGETHER_MAX))
