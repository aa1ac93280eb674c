"""The vectorised backtester: a strategy's targets for all of the past at once, and the fills that follow from them.

It keeps to the loop's rules, and where fills depend on each other to the loop's own code, so that both give the same
trades: same bars, sides, prices and quantities.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bot.backtest.at_once import Asked, Booked
from bot.backtest.booking import booked
from bot.backtest.source import Decisions, Source
from bot.domain import Account, FloatArray, IntArray
from bot.engine import Plan, targets_of
from bot.fills import Terms
from bot.strategies.sharing import Series, Sharer, pool_of

# Bars decided on at a time: their targets stay in the processor's cache until the changes are found.
CHUNK = 32_768


def simulated(
    plan: Plan,
    account: Account,
    sources: Mapping[str, Source],
    terms: Terms,
    targets: Mapping[str, float] | None = None,
) -> Booked:
    """All that a plan does with its account over the sources, by symbol; ``targets`` is what it wanted before them.

    The account is left as it was, unless its fills depend on it: then it is moved as the loop would move it.
    """
    return booked(plan, account, sources, next(asked_by([plan], sources, targets)), terms)


def asked_by(
    plans: Sequence[Plan], sources: Mapping[str, Source], targets: Mapping[str, float] | None = None
) -> Iterator[Asked]:
    """What each of some plans, all of one timeframe, asks for over all of the sources."""
    decisions = {symbol: source.decisions(plans[0].timeframe) for symbol, source in sources.items()}
    turns = {symbol: [_Turns((targets or {}).get(symbol, 0.0)) for _ in plans] for symbol in sources}
    for symbol in sources:
        _decide(plans, decisions[symbol], turns[symbol])
    for plan in range(len(plans)):
        parts = []
        for number, (symbol, source) in enumerate(sources.items()):
            rows, wanted = turns[symbol][plan].found()
            quotes = source.quotes(decisions[symbol].place(rows))
            parts.append(Asked(np.full(len(rows), number), wanted, quotes))
        yield Asked.merged(parts)


def changes(plan: Plan, decisions: Decisions, before: float = 0.0) -> tuple[IntArray, FloatArray]:
    """The bars at which a plan's target becomes another one, and these targets; shapes [K]."""
    turns = _Turns(before)
    _decide([plan], decisions, [turns])
    return turns.found()


def _decide(plans: Sequence[Plan], decisions: Decisions, turns: Sequence[_Turns]) -> None:
    """Many plans take turns at each chunk, so that what their indicators have in common is worked out once."""
    pool: list[Series] = []
    lookback = max(plan.strategy.lookback for plan in plans)
    if len(plans) > 1:
        plans = [replace(plan, strategy=Sharer(plan.strategy, pool)) for plan in plans]
    total = decisions.stop - decisions.first
    # A small rest would take as long as a whole chunk: it is shared out among the others.
    size = -(-total // max(1, round(total / CHUNK)))
    for start in range(decisions.first, decisions.stop, max(1, size)):
        stop = min(start + size, decisions.stop)
        if len(plans) > 1:
            pool[:] = pool_of(decisions.bars[max(0, start - lookback + 1) : stop])
        for plan, turn in zip(plans, turns, strict=True):
            turn.add(start, _targets(plan, decisions, start, stop))


class _Turns:
    """Where a target becomes another one, found chunk by chunk."""

    def __init__(self, before: float) -> None:
        self._held = before
        self._rows: list[IntArray] = []
        self._values = [np.array([before])]

    def add(self, start: int, found: FloatArray) -> None:
        """The targets of the bars from ``start`` on."""
        # NaN differs from everything, itself included, so it is always among these, and goes in a second look.
        turned = (found[1:] != found[:-1]).nonzero()[0]
        turned += 1
        if found[0] != self._held:
            turned = np.concatenate((np.zeros(1, np.int64), turned))
        said = found[turned]
        known = said == said
        if not known.all():
            turned, said = turned[known], said[known]
        if len(said):
            self._held = float(said[-1])
            self._rows.append(turned + start)
            self._values.append(said)

    def found(self) -> tuple[IntArray, FloatArray]:
        candidates = np.concatenate(self._values)
        changed = np.flatnonzero(candidates[1:] != candidates[:-1])
        chosen = np.concatenate(self._rows)[changed] if self._rows else np.zeros(0, np.int64)
        # A target of -0.0 is one of 0.0.
        return chosen, candidates[1:][changed] + 0.0


def _targets(plan: Plan, decisions: Decisions, start: int, stop: int) -> FloatArray:
    """The targets of the bars from ``start`` to ``stop``; NaN where nobody asks."""
    window = decisions.bars[max(0, start - plan.strategy.lookback + 1) : stop]
    # They are the data itself: a strategy that writes into its bars raises, as it does live.
    for column in (window.timestamp, window.open, window.high, window.low, window.close, window.volume):
        column.flags.writeable = False
    found = targets_of(plan, window, stop - start)
    return found if decisions.unasked is None else np.where(decisions.unasked[start:stop], np.nan, found)
