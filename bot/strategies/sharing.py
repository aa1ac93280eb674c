"""What indicators find, worked out once for all strategies that look at the same bars: for sweeps over parameters.

An indicator's value is an expression of its own window, whatever came before it. So those of a part of a series are,
bit for bit, a part of those of all of it. A part is told by where in memory it is. Nobody shares but within ``shared``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from bot.domain import Bars, FloatArray
from bot.ports import Strategy

T = TypeVar("T")


class Series:
    """Values whose parts are looked at, shape [N], with what was found for all of them."""

    def __init__(self, values: FloatArray) -> None:
        self.values = np.ascontiguousarray(values)
        self.address = _address(self.values)
        self._found: dict[Hashable, FloatArray] = {}

    def windows(self, key: Hashable, work: Callable[..., FloatArray], *arguments: Any) -> FloatArray:
        """``work(*arguments)``, which has a value for each window of the values; ``key`` tells works apart."""
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = work(*arguments).view()
            found.flags.writeable = False
        return found


class Part(NamedTuple):
    """So many values of a series, from ``start`` on."""

    series: Series
    start: int
    length: int

    def of(self, windows: FloatArray) -> FloatArray:
        """Those of the series' windows that are the part's."""
        lost = len(self.series.values) - windows.shape[-1]
        return windows[..., self.start : self.start + self.length - lost]


pool: Sequence[Series] = ()


def shared(series: Sequence[Series], work: Callable[..., T], *arguments: Any) -> T:
    """``work(*arguments)``, where indicators of parts of these series are parts of theirs, which nobody writes to."""
    global pool  # noqa: PLW0603
    before, pool = pool, series
    try:
        return work(*arguments)
    finally:
        pool = before


def part_of(values: FloatArray) -> Part | None:
    """Where values are a part of what is shared, if they are."""
    address, length = _address(values), values.shape[-1]
    for series in pool:
        start, rest = divmod(address - series.address, series.values.itemsize)
        if rest or not 0 <= start <= len(series.values) - length:
            continue
        if values.dtype == series.values.dtype and values.strides == series.values.strides:
            return Part(series, start, length)
    return None


def pool_of(bars: Bars) -> list[Series]:
    """The prices of one symbol's bars; those of ticks, which are one array, once."""
    found: dict[int, Series] = {}
    for values in (bars.close, bars.open, bars.high, bars.low):
        series = Series(values)
        found.setdefault(series.address, series)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Sharer:
    """A strategy that shares with all others that have the same pool. It may take an indicator for its own and write
    to it, which fails: then it is asked again, alone."""

    strategy: Strategy
    pool: Sequence[Series]

    @property
    def name(self) -> str:
        return self.strategy.name

    @property
    def lookback(self) -> int:
        return self.strategy.lookback

    def targets(self, bars: Bars) -> FloatArray:
        with suppress(Exception):
            return shared(self.pool, self.strategy.targets, bars)
        return self.strategy.targets(bars)


def _address(values: FloatArray) -> int:
    address: int = values.__array_interface__["data"][0]
    return address
