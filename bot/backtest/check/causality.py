"""Whether a target knows anything of the bars after its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from bot.backtest.check.case import Broken, Case, columns_of, differing, stacked, told
from bot.backtest.check.markets import futures_of
from bot.domain import Bars

BUDGET_S = 4.0
# To find out how far ahead it looks, once it is known to look ahead.
_DISTANCE_S = 1.0
# Where there is no time to ask about all bars each time, it is about the lookback and half as many before it and after.
_AROUND_MIN = 16
# One bar of so many first.
_COARSELY = 64


class _Change(NamedTuple):
    """A target that is another one where the bars after ``cut`` are."""

    cut: int
    market: int
    bar: int
    expected: float
    found: float


def causality(case: Case) -> str:
    """All bars after a bar are replaced, and every target up to it must stay as it was; for one bar after the other.

    The replacements are ``markets.futures_of``, and there being no bars at all. Each bar takes a call with all
    markets and all futures, and one without a future: with all bars, or as many around it as there is time for.
    """
    futures = _Futures(case)
    span = _Span.affordable(case, futures.count)
    looked_at, change = _in_time(case, futures, span, _evenly(len(case)))
    if change is not None:
        passed = max((cut for cut in looked_at if cut < change.cut), default=-1)
        change = _in_time(case, futures, span, [range(passed + 1, change.cut + 1)])[1] or change
    if change is None:
        what = "bars" if span.after == len(case) else f"{span.after:,} bars"
        return f"{len(looked_at):,} of {len(case):,} bars: whatever {what} come after one, no target up to it changes"
    what = f"{told(change.expected)} becomes {told(change.found)} with other bars after it"
    raise Broken(f"{what}; {_distance(case, futures, change)}", case.names[change.market], change.bar)


def _evenly(length: int) -> Iterator[range]:
    """All bars in a few runs, each from the first to the last bar, so that one may stop anywhere."""
    step = _COARSELY
    yield range(0, length, step)
    while step > 1:
        yield range(step // 2, length, step)
        step //= 2


def _in_time(case: Case, futures: _Futures, span: _Span, runs: Iterable[range]) -> tuple[list[int], _Change | None]:
    """The bars that there was time for, and the first change in one of the runs."""
    elapsed, looked_at = case.elapsed(), list[int]()
    for cuts in runs:
        futures.rewind()
        for cut in cuts:
            looked_at.append(cut)
            change = _change(case, futures, span, cut)
            if change is not None or elapsed() > BUDGET_S:
                return looked_at, change
    return looked_at, None


class _Span(NamedTuple):
    """How many bars are asked about: up to a bar, that one included, and after it."""

    before: int
    after: int

    @classmethod
    def affordable(cls, case: Case, futures: int) -> _Span:
        """All bars, or as many around each of them as there is time for."""
        length, lookback = len(case), case.asked.lookback
        # Without a future it is half of the bars that are asked about.
        all_s = (futures + 0.5) * length * case.timed(lambda: case.asked.of_all(case.bars))
        if all_s <= BUDGET_S:
            return cls(length, length)
        around = max(_AROUND_MIN, int(length * BUDGET_S / 2 / all_s) - lookback)
        return cls(lookback + around // 2, around - around // 2)


class _Futures:
    """All markets with each of the futures, shape [F * M, N]: first their own one, then the first other one, and so
    on."""

    def __init__(self, case: Case) -> None:
        own = [case.bars.row(row) for row in range(len(case.names))]
        others = [futures_of(bars, case.seed) for bars in own]
        self.count = 1 + len(others[0])
        self.bars = stacked([*own, *(future for futures in zip(*others, strict=True) for future in futures)])
        self._past = columns_of(case.bars)
        self.rewind()

    def rewind(self) -> None:
        """Begins with the first bar again."""
        self._now = [column.copy() for column in columns_of(self.bars)]
        self._cut = -1

    def after(self, cut: int, bars: slice) -> Bars:
        """The markets as they are up to a bar, with their futures after it; bar after bar, since only what is new is
        written."""
        new = slice(self._cut + 1, cut + 1)
        self._cut = cut
        shown = []
        for now, past in zip(self._now, self._past, strict=True):
            now.reshape(self.count, *past.shape)[:, :, new] = past[:, new]
            view = now[:, bars]
            view.flags.writeable = False
            shown.append(view)
        return Bars(*shown)


def _change(case: Case, futures: _Futures, span: _Span, cut: int) -> _Change | None:
    """The first target up to a bar that depends on which bars come after that one."""
    lookback, start = case.asked.lookback, max(0, cut + 1 - span.before)
    past = cut + 1 - start
    # Fewer bars than its lookback nobody ever asks about.
    stop = max(cut + 1 + span.after, lookback)
    found = case.asked.of_all(futures.after(cut, slice(start, stop)))[:, :past]
    if past >= lookback:
        found = np.concatenate((found, case.asked.of_all(case.bars[start : cut + 1])))
    by_future = found.reshape(-1, len(case.names), past)
    changed = differing(by_future, by_future[0])
    if not changed.any():
        return None
    column = int(changed.any(axis=(0, 1)).argmax())
    future, market = np.argwhere(changed[:, :, column])[0].tolist()
    values = by_future[[0, future], market, column].tolist()
    return _Change(cut, market, start + column, *values)


def _distance(case: Case, futures: _Futures, change: _Change) -> str:
    """How far ahead it looks, from changing one later bar at a time."""
    rows = range(change.market, len(futures.bars.close), len(case.names))
    bars, *others = [futures.bars.row(row) for row in rows]
    found = []
    elapsed, more = case.elapsed(), ""
    for bar in range(change.bar + 1, len(case)):
        targets = case.asked.of_all(stacked([_with(bars, other, bar) for other in others]))[:, change.bar]
        if differing(targets, case.targets[change.market, change.bar]).any():
            found.append(bar - change.bar)
        if elapsed() > _DISTANCE_S:
            more = " or more"
            break
    if not found:
        return "not by a change of one of them: it looks at several, or at how many there are"
    farthest = found[-1]
    return f"it looks {'up to ' if len(found) > 1 else ''}{farthest} bar{'' if farthest == 1 else 's'} ahead{more}"


def _with(bars: Bars, other: Bars, bar: int) -> Bars:
    """One bar taken from another market."""
    columns = [column.copy() for column in columns_of(bars)[1:]]
    for column, theirs in zip(columns, columns_of(other)[1:], strict=True):
        column[bar] = theirs[bar]
    return Bars(bars.timestamp, *columns)
