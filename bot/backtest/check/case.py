"""What is checked: somebody else's code, the bars it is asked about, and how much time that may take."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, redirect_stdout
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bot.domain import Bars, FloatArray, IntArray
from bot.ports import Strategy

BoolArray = npt.NDArray[np.bool_]
# A user's strategy may raise anything, sys.exit() included.
_ANYTHING = (Exception, SystemExit)
# So few are looked at even where each takes its time.
_LOOKED_AT_LEAST = 2


class Broken(Exception):
    """A promise that is not kept: where, as a sentence, with the market and bar if it is at one of them."""

    def __init__(self, detail: str, market: str | None = None, bar: int | None = None) -> None:
        place = "" if bar is None else f"bar {bar}" + (f" ({market})" if market else "") + ": "
        super().__init__(place + detail)
        self.market, self.bar = market, bar


class Unusable(Broken):
    """No answer, or none that there could be anything to say about."""


class Raised(Unusable):
    """The strategy raised."""


class Hung(BaseException):
    """A time limit's word that it is over; it passes every ``except Exception`` of a strategy or an engine."""


class Asked:
    """A strategy that every question goes through: exceptions and nonsense become ``Unusable``, and a limit holds."""

    def __init__(self, strategy: Strategy, limit: Callable[[], AbstractContextManager[object]]) -> None:
        self._strategy, self._limit, self._stdout = strategy, limit, StringIO()
        self.name, self.lookback = strategy.name, strategy.lookback
        self.batch = bool(getattr(strategy, "batch", False))

    @property
    def printed(self) -> str:
        """What it wrote to stdout, which is nobody's."""
        return self._stdout.getvalue()

    def answer(self, bars: Bars) -> Any:
        """Whatever it answers."""
        try:
            with self._limit(), redirect_stdout(self._stdout):
                return self._strategy.targets(bars)
        except _ANYTHING as error:
            raise Raised(f"raises {self._described(error)}") from error

    def targets(self, bars: Bars) -> FloatArray:
        """As the engine takes them, and a copy: what it answers next may be the same array."""
        answer = self.answer(bars)
        try:
            targets = np.array(answer, dtype=np.float64)
        except (TypeError, ValueError):
            raise Unusable(f"answers with {_short(answer)}, which are no numbers") from None
        if targets.shape != bars.close.shape:
            raise Unusable(f"answers with shape {targets.shape} for bars of shape {bars.close.shape}")
        return targets

    def of_all(self, bars: Bars) -> FloatArray:
        """Targets of several symbols' bars, shape [S, N]: in one call, if it takes them so."""
        if self.batch:
            return self.targets(bars)
        return np.stack([self.targets(bars.row(row)) for row in range(len(bars.close))])

    def _described(self, error: BaseException) -> str:
        """What was raised, and in which line of the strategy's own file."""
        own = Path(self._strategy.targets.__code__.co_filename) if hasattr(self._strategy.targets, "__code__") else None
        lines = [each.lineno for each in traceback.extract_tb(error.__traceback__) if Path(each.filename) == own]
        where = f" ({own.name} line {lines[-1]})" if own and lines else ""
        return f"{type(error).__name__}: {error}".rstrip(".: ") + where


class Case:
    """A strategy and what it is asked about. ``bars`` are those of all markets, shape [M, N]."""

    def __init__(
        self,
        build: Callable[[], Strategy],
        asked: Asked,
        markets: Mapping[str, Bars],
        seed: int,
        monotonic: Callable[[], float],
        limit: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.asked, self.seed = asked, seed
        self.markets, self.names = markets, tuple(markets)
        self.bars = stacked(list(markets.values()))
        self._build, self._monotonic, self._limit = build, monotonic, limit

    def __len__(self) -> int:
        return len(self.bars)

    def another(self) -> Asked:
        """The same strategy, built anew."""
        return Asked(self._build(), self._limit)

    @cached_property
    def targets(self) -> FloatArray:
        """What it answers for each market by itself, shape [M, N]."""
        return np.stack([self.asked.targets(self.bars.row(row)) for row in range(len(self.names))])

    def timed(self, work: Callable[[], object]) -> float:
        """The seconds that it takes, when it is not the first time."""
        work()
        elapsed = self.elapsed()
        work()
        return elapsed()

    def elapsed(self) -> Callable[[], float]:
        """Seconds from now on."""
        began_s = self._monotonic()
        return lambda: self._monotonic() - began_s


def stacked(rows: list[Bars]) -> Bars:
    """Bars of several symbols as those of shape [S, N]; whoever writes into them raises."""
    columns = [np.stack(column) for column in zip(*map(columns_of, rows), strict=True)]
    for column in columns:
        column.flags.writeable = False
    return Bars(*columns)


def columns_of(bars: Bars) -> tuple[npt.NDArray[Any], ...]:
    return (bars.timestamp, bars.open, bars.high, bars.low, bars.close, bars.volume)


def affordable(first: int, stop: int, seconds_each: float, budget_s: float) -> IntArray:
    """All numbers from ``first`` to ``stop``, or as many of them as there is time for, evenly spread."""
    total = stop - first
    if seconds_each * total <= budget_s:
        return np.arange(first, stop)
    count = min(total, max(_LOOKED_AT_LEAST, int(budget_s / seconds_each)))
    return np.unique(np.rint(np.linspace(first, stop - 1, count)).astype(np.int64))


def differing(found: FloatArray, expected: FloatArray) -> BoolArray:
    """Where two targets are not the same; to hold is the same as to hold."""
    different: BoolArray = (found != expected) & ((found == found) | (expected == expected))
    return different


def told(target: float) -> str:
    """A target as it is read."""
    return "hold" if target != target else repr(float(target))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
