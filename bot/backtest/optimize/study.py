"""A search: what is tried, on which bars, and what the figures of a part of it are. A part depends on nothing else: any
process may work it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bot.backtest.optimize import figures
from bot.backtest.optimize.grid import Combinations
from bot.backtest.optimize.sweeps import together
from bot.backtest.optimize.windows import Window, check
from bot.backtest.setup import Setup, times_of
from bot.domain import FloatArray
from bot.ports import Strategy
from bot.strategies import StrategyError
from bot.strategies.registry import Factory

IN_SAMPLE, OUT_OF_SAMPLE = range(2)


class Status(IntEnum):
    """What became of a combination."""

    NOT_TRIED = 0
    TRIED = 1
    # The strategy cannot be built of it: fast=20 slow=10.
    REFUSED = 2
    # The strategy failed on some bar.
    FAILED = 3


class Part(NamedTuple):
    """Combinations from ``first`` to before ``stop`` in one window."""

    window: int
    first: int
    stop: int


class Worked(NamedTuple):
    """``values`` [2, stop - first, figures] are in sample and out of sample, NaN for what is not defined; ``status``
    [stop - first]; ``failures`` say by combination what a strategy raised."""

    part: Part
    values: FloatArray
    status: list[Status]
    failures: dict[int, str]


class _Failed(Exception):
    pass


@dataclass(frozen=True)
class Study:
    """``strategy`` is a name, of ``folder`` if it is the user's own.

    Raises GridError if there is nothing to trade on in some window.
    """

    setup: Setup
    strategy: str
    folder: Path | None
    combinations: Combinations
    windows: Sequence[Window]
    figures: tuple[str, ...]

    def __post_init__(self) -> None:
        check(self.windows, [times_of(source) for source in self.setup.sources.values()])

    @cached_property
    def factory(self) -> Factory:
        return Factory.of(self.strategy, self.folder)

    def parts(self, jobs: int) -> list[Part]:
        """As many as keep so many processes busy to the end."""
        count = len(self.combinations)
        size = max(1, min(together(self.setup), -(-count * len(self.windows) // (4 * jobs))))
        return [
            Part(window, first, min(first + size, count))
            for window in range(len(self.windows))
            for first in range(0, count, size)
        ]

    def work(self, part: Part) -> Worked:
        count = part.stop - part.first
        values = np.full((2, count, len(self.figures)), np.nan)
        status = [Status.TRIED] * count
        strategies: dict[int, Strategy] = {}
        for number in range(part.first, part.stop):
            try:
                strategies[number] = self.factory.build(self.combinations[number])
            except StrategyError:
                status[number - part.first] = Status.REFUSED
        failures: dict[int, str] = {}
        for side, setup in enumerate(self._setups(self.windows[part.window])):
            for number, row in self._rows(setup, strategies, failures):
                values[side, number - part.first] = row
        for number in failures:
            status[number - part.first] = Status.FAILED
            values[:, number - part.first] = np.nan
        return Worked(part, values, status, failures)

    def _setups(self, window: Window) -> Iterator[Setup]:
        """In sample, and out of sample if there is that."""
        yield self.setup.between(window.start_ms, window.split_ms)
        if window.has_out_of_sample:
            yield self.setup.between(window.split_ms, window.end_ms)

    def _rows(
        self, setup: Setup, strategies: Mapping[int, Strategy], failures: dict[int, str]
    ) -> Iterator[tuple[int, list[float]]]:
        """The figures of all that do not fail. Where one does, each is run by itself."""
        sound = {number: strategy for number, strategy in strategies.items() if number not in failures}
        if not sound:
            return
        try:
            results = setup.results(list(sound.values()), _fail)
            for number, result in zip(sound, results, strict=True):
                yield number, figures.row(result.metrics, self.figures)
        except _Failed as error:
            if len(sound) == 1:
                failures[next(iter(sound))] = str(error)
                return
            for number, strategy in sound.items():
                yield from self._rows(setup, {number: strategy}, failures)


def example(factory: Factory, combinations: Combinations) -> dict[str, Any]:
    """The first combination that the strategy takes. Raises StrategyError if it takes none of them."""
    factory.expect(combinations.names)
    refusal: StrategyError | None = None
    for params in combinations:
        try:
            factory.build(params)
        except StrategyError as error:
            refusal = refusal or error
        else:
            return params
    raise refusal or StrategyError("there is nothing to try")


def _fail(error: Exception | SystemExit) -> None:
    raise _Failed(f"{type(error).__name__}: {error}".rstrip(": ")) from error
