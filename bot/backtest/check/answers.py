"""Whether a strategy answers, with targets, and with the same ones whenever it is asked the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bot.backtest.check.case import Asked, Broken, Case, Raised, Unusable, columns_of, differing, stacked, told
from bot.domain import Bars, FloatArray


def answers(case: Case) -> str:
    """One float64 a bar in [-1, 1], or NaN; no exceptions; nothing on stdout."""
    for row, name in enumerate(case.names):
        bars = case.bars.row(row)
        try:
            case.asked.targets(bars)
        except Raised as error:
            raise _placed(case.asked, bars, name, error) from None
        _look_at(case.asked.answer(bars), bars.close.shape)
    if case.asked.batch:
        _look_at(case.asked.answer(case.bars), case.bars.close.shape)
    outside = np.argwhere(~((np.abs(case.targets) <= 1) | (case.targets != case.targets)))
    if len(outside):
        row, bar = outside[np.argmin(outside[:, 1])].tolist()
        raise Unusable(f"a target of {told(case.targets[row, bar])}, outside [-1, 1]", case.names[row], bar)
    if case.asked.printed:
        first = case.asked.printed.splitlines()[0][:60]
        raise Broken(f"it prints {first!r}, and all that comes out of it should be targets")
    decided = np.count_nonzero(case.targets == case.targets)
    return f"{case.targets.size:,} bars: a target in [-1, 1] for {decided:,} of them, NaN for the others"


def _look_at(answer: object, shape: tuple[int, ...]) -> None:
    if not isinstance(answer, np.ndarray):
        raise Broken(f"answers with a {type(answer).__name__}, not an array of float64")
    if answer.dtype != np.float64:
        raise Broken(f"answers with an array of {answer.dtype}, not of float64")
    if answer.shape != shape:
        raise Unusable(f"answers with shape {answer.shape} for bars of shape {shape}")


def _placed(asked: Asked, bars: Bars, name: str, error: Raised) -> Broken:
    """The same error at the first bar whose own window gives it, if one does."""
    for end in range(asked.lookback, len(bars) + 1):
        try:
            asked.targets(bars[end - asked.lookback : end])
        except Raised as again:
            return Raised(str(again), name, end - 1)
    return Raised(str(error), name)


def purity(case: Case) -> str:
    """Nothing but the bars goes into an answer, and nothing but the answer comes out."""
    for what, asked in _askings(case):
        for row in reversed(range(len(case.names))):
            found = asked.targets(case.bars.row(row))
            _compare(case, found, case.targets[row], row, f"{what}, of the same bars")
    for row, (name, bars) in enumerate(case.markets.items()):
        given = case.bars.row(row)
        if not all(map(np.array_equal, columns_of(given), columns_of(bars))):
            raise Unusable(f"it writes into the bars it is given ({name})")
    if not case.asked.batch:
        return f"{case.targets.size:,} bars: the same answers again, and from another instance"
    for row, found in enumerate(case.asked.of_all(case.bars)):
        _compare(case, found, case.targets[row], row, "in a batch of several symbols")
    _listed_later(case)
    return f"{case.targets.size:,} bars: the same answers again, from another instance, and for symbols in a batch"


def _askings(case: Case) -> Iterator[tuple[str, Asked]]:
    yield "asked again", case.asked
    yield "another instance", case.another()


def _listed_later(case: Case) -> None:
    """In a batch the bars before a symbol's first one are NaN: it holds until it has its window, and then knows of
    nothing else."""
    lookback, missing = case.asked.lookback, len(case) // 4
    first = missing + lookback - 1
    rows = [_without(case.bars.row(row), missing if row % 2 else 0) for row in range(len(case.names))]
    for row, found in enumerate(case.asked.of_all(stacked(rows))):
        expected = case.targets[row].copy()
        if row % 2:
            expected[: min(first, len(expected))] = np.nan
        _compare(case, found, expected, row, f"in a batch whose other symbols are listed {missing} bars later")


def _without(bars: Bars, missing: int) -> Bars:
    columns = [column.copy() for column in columns_of(bars)]
    for column in columns[1:5]:
        column[:missing] = np.nan
    return Bars(bars.timestamp, *columns[1:])


def _compare(case: Case, found: FloatArray, expected: FloatArray, row: int, what: str) -> None:
    other = np.flatnonzero(differing(found, expected))
    if len(other):
        bar = int(other[0])
        raise Broken(f"{told(expected[bar])}, and {what}, {told(found[bar])}", case.names[row], bar)
