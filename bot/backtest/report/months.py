"""Returns by month and year."""

from __future__ import annotations

import numpy as np

from bot.domain import FloatArray, IntArray

NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def monthly_returns(time: IntArray, equity: FloatArray, capital: float) -> list[dict[str, object]]:
    """A row for each year, oldest first: ``year``, ``months`` (twelve ratios) and ``total``.

    ``equity`` [N] is what the account was worth at the end of the day that ``time`` [N] (UTC milliseconds, increasing)
    lies in. A month's return is its last equity over the last one before it, less one; None for a month without a day,
    and where there was nothing left to lose.
    """
    if not len(time):
        return []
    month = time.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
    lasts = np.append(np.nonzero(np.diff(month))[0], len(month) - 1)
    before = capital
    rows: dict[int, list[float | None]] = {}
    starts: dict[int, float] = {}
    ends: dict[int, float] = {}
    for number, value in zip(month[lasts].tolist(), equity[lasts].tolist(), strict=True):
        year, place = 1970 + number // 12, number % 12
        rows.setdefault(year, [None] * 12)[place] = _return(before, value)
        starts.setdefault(year, before)
        ends[year] = before = value
    return [
        {"year": year, "months": months, "total": _return(starts[year], ends[year])} for year, months in rows.items()
    ]


def _return(before: float, after: float) -> float | None:
    return after / before - 1 if before > 0 else None
