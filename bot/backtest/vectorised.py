"""The vectorised backtester: a strategy's targets for all of the past at once, and the fills that follow from them.

It keeps to the loop's rules, and where fills depend on each other to the loop's own code, so that both give the same
trades: same bars, sides, prices and quantities.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bot.backtest.at_once import Asked, Booked
from bot.backtest.booking import booked
from bot.backtest.source import Decisions, Source
from bot.domain import Account, FloatArray, IntArray
from bot.engine import Plan, targets_of
from bot.fills import Terms

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
    found = []
    for number, (symbol, source) in enumerate(sources.items()):
        decisions = source.decisions(plan.timeframe)
        rows, wanted = changes(plan, decisions, (targets or {}).get(symbol, 0.0))
        found.append(Asked(np.full(len(rows), number), wanted, source.quotes(decisions.place(rows))))
    return booked(plan, account, sources, Asked.merged(found), terms)


def changes(plan: Plan, decisions: Decisions, before: float = 0.0) -> tuple[IntArray, FloatArray]:
    """The bars at which a plan's target becomes another one, and these targets; shapes [K]."""
    rows, values = [], [np.array([before])]
    held = before
    for start in range(decisions.first, decisions.stop, CHUNK):
        stop = min(start + CHUNK, decisions.stop)
        found = _targets(plan, decisions, start, stop)
        # NaN differs from everything, itself included, so it is always among these, and goes in a second look.
        turned = np.flatnonzero(found[1:] != found[:-1])
        turned += 1
        if found[0] != held:
            turned = np.concatenate((np.zeros(1, np.int64), turned))
        said = found[turned]
        known = said == said
        turned, said = turned[known], said[known]
        if len(said):
            held = float(said[-1])
            rows.append(turned + start)
            values.append(said)
    candidates = np.concatenate(values)
    changed = np.flatnonzero(candidates[1:] != candidates[:-1])
    chosen = np.concatenate(rows)[changed] if rows else np.zeros(0, np.int64)
    # A target of -0.0 is one of 0.0.
    return chosen, candidates[1:][changed] + 0.0


def _targets(plan: Plan, decisions: Decisions, start: int, stop: int) -> FloatArray:
    """The targets of the bars from ``start`` to ``stop``; NaN where nobody asks."""
    window = decisions.bars[max(0, start - plan.strategy.lookback + 1) : stop]
    found = targets_of(plan, window, stop - start)
    return found if decisions.unasked is None else np.where(decisions.unasked[start:stop], np.nan, found)
