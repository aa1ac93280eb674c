"""Whether a target knows anything of the bars before its own ``lookback``."""

from __future__ import annotations

import numpy as np

from bot.backtest.check.case import Asked, Broken, Case, affordable, differing, told
from bot.domain import FloatArray, IntArray
from bot.strategies.invariants import Breach, first_breach

BUDGET_S = 2.0
# To find out which lookback would be enough.
_SEARCH_S = 1.0
# Parts of the bars that are asked for by themselves, as a run in blocks asks for them.
_PIECE_MIN = 64


def warm_up(case: Case) -> str:
    """Each bar's last ``lookback`` bars alone give the target that all bars give, bit for bit; with fewer it holds."""
    lookback = case.asked.lookback
    alone = f"the last {lookback:,} alone give" if lookback > 1 else "it alone gives"
    rows = _rows(case, lookback, BUDGET_S)
    broken = _breach(case, case.asked, np.concatenate((np.arange(lookback - 1), rows)))
    if broken is not None:
        market, breach = broken
        if breach.row < lookback - 1:
            raise Broken(f"a target of {told(breach.found)} before there are {lookback:,} bars", market, breach.row)
        what = f"all bars before it give {told(breach.found)}, {alone} {told(breach.expected)}"
        raise Broken(f"{what}; {_enough(case)}", market, breach.row)
    for size in (max(_PIECE_MIN, lookback), len(case) // 2):
        _look_at_pieces(case, size)
    looked_at = f"{len(rows) + lookback - 1:,} of {len(case):,} bars"
    return f"{looked_at}: {alone} the same target as all before{'; with fewer it holds' if lookback > 1 else ''}"


def _rows(case: Case, lookback: int, budget_s: float) -> IntArray:
    """The bars that have ``lookback`` bars, as far as there is time to ask of each by itself."""
    window = case.bars.row(0)[:lookback]
    each_s = len(case.names) * case.timed(lambda: case.asked.targets(window))
    return affordable(lookback - 1, len(case), each_s, budget_s)


def _breach(case: Case, asked: Asked, rows: IntArray) -> tuple[str, Breach] | None:
    found = [
        (name, breach)
        for row, name in enumerate(case.names)
        if (breach := first_breach(asked, case.bars.row(row), rows.tolist())) is not None
    ]
    return min(found, key=lambda each: each[1].row, default=None)


class _Longer(Asked):
    """A strategy as if its lookback were another one."""

    def __init__(self, asked: Asked, lookback: int) -> None:
        self.name, self.lookback, self.batch = asked.name, lookback, asked.batch
        self.targets = asked.targets  # type: ignore[method-assign]


def _enough(case: Case) -> str:
    """Which lookback would do."""
    now, most = case.asked.lookback, 3 * len(case) // 4
    # To be one short is the commonest slip; what fades away needs a good deal more.
    tried = [now + 1, *(now << doubled for doubled in range(1, most.bit_length()) if now << doubled <= most)]
    for lookback in tried:
        if _breach(case, _Longer(case.asked, lookback), _rows(case, lookback, _SEARCH_S)) is None:
            return f"a lookback of {lookback:,} is enough for these bars"
    return f"no lookback up to {tried[-1]:,} is enough either"


def _look_at_pieces(case: Case, size: int) -> None:
    first = case.asked.lookback - 1
    for start in range(first, len(case), size):
        stop = min(start + size, len(case))
        found: FloatArray = case.asked.of_all(case.bars[start - first : stop])[:, first:]
        other = np.argwhere(differing(found, case.targets[:, start:stop]))
        if len(other):
            row, column = other[np.argmin(other[:, 1])].tolist()
            values = f"{told(case.targets[row, start + column])}, and in a piece of {stop - start} bars"
            raise Broken(f"{values} {told(found[row, column])}", case.names[row], start + column)
