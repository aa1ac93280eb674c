"""The candles of one symbol: where they come from, and the part of them that a backtest is about."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

import numpy as np

from bot.backtest.data.checks import Check
from bot.backtest.data.errors import EXIT_USAGE, DataError
from bot.backtest.data.report import Repair, Report
from bot.backtest.data.rows import VALUES, File
from bot.domain import Bars, FloatArray, Market, iso8601
from bot.timeframes import Timeframe

BLOCK_ROWS = 65_536
# Between these many decimals a price step is looked for.
DECIMALS_MIN, DECIMALS_MAX = 2, 8


class Source(Protocol):
    """Candles in the order of time, each time once, as often as they are asked for."""

    @property
    def rows_about(self) -> int:
        """How many there are, more or less; 0: unknown."""

    def bars(self, since_ms: int) -> Iterator[Bars]:
        """All there are; those before ``since_ms`` may be left out where that is cheaper. Raises DataError."""

    @property
    def report(self) -> Report | None:
        """What was found; None before all of it was read, and where there is nothing to find."""


class Checked:
    """Implements ``Source`` for a file."""

    def __init__(self, file: File, timeframe: Timeframe, repair: frozenset[Repair], now_ms: int) -> None:
        self._file, self._timeframe, self._repair, self._now_ms = file, timeframe, repair, now_ms
        self.report: Report | None = None

    @property
    def rows_about(self) -> int:
        return self._file.rows_about

    def bars(self, since_ms: int) -> Iterator[Bars]:
        """All of the file is read and judged, whatever of it is wanted."""
        report = Report(self._file.name, self._file.unit, self._repair)
        yield from Check(self._timeframe, self._now_ms, report).bars(self._file.parts())
        self.report = report
        if (refusal := report.refusal()) is not None:
            report.forget_candles()
            raise DataError(refusal)
        if not report.bars:
            raise DataError("; ".join([f"{report.source} has no candles", *report.notes()]))


class Held:
    """Implements ``Source`` for candles in memory."""

    report = None

    def __init__(self, bars: Bars) -> None:
        self._bars, self.rows_about = bars, len(bars)

    def bars(self, since_ms: int) -> Iterator[Bars]:
        yield self._bars


@dataclass(frozen=True, slots=True)
class Series:
    """The candles of one symbol from ``start_ms`` to before ``end_ms``, and those before that strategies look back on.

    ``timeframe`` is that of the candles; longer ones are for others to build. Each call reads the source anew.
    """

    symbol: str
    timeframe: Timeframe
    market: Market
    source: Source
    start_ms: int
    end_ms: int

    @property
    def report(self) -> Report | None:
        """What was found in the file; None before all of it was read, and where the source is none."""
        return self.source.report

    def whole(self, lookback: int | None = None, read: Callable[[int], None] = lambda rows: None) -> Bars:
        """All candles of the range, and the last ``lookback`` ones before it; None: all that there are.

        Raises DataError for a file that cannot be used, and where the range has no candles.
        """
        gathered = _Gathered(self.source.rows_about)
        for bars in self._wanted(lookback):
            gathered.add(bars)
            read(gathered.rows)
        return gathered.bars()

    def blocks(self, rows: int = BLOCK_ROWS, lookback: int | None = None) -> Iterator[Bars]:
        """The same, ``rows`` candles at a time and the rest at the end, in memory for some blocks. Raises DataError
        when it comes to what is wrong: what came before it is sound."""
        if rows < 1:
            raise ValueError(f"a block has at least one row, got {rows}")
        waiting: list[Bars] = []
        missing = rows
        for bars in filter(len, self._wanted(lookback)):
            rest = bars
            while len(rest) >= missing:
                yield _joined([*waiting, rest[:missing]])
                rest, waiting, missing = rest[missing:], [], rows
            waiting.append(rest)
            missing -= len(rest)
        if missing < rows:
            yield _joined(waiting)

    def _wanted(self, lookback: int | None) -> Iterator[Bars]:
        first = 0 if lookback is None else self.timeframe.back(self.timeframe.open_of(self.start_ms), lookback)
        before = _Tail(lookback or 0)
        seen: list[int] = []
        found = False
        for bars in filter(len, self.source.bars(first)):
            seen = [*seen[:1], int(bars.timestamp[0]), int(bars.timestamp[-1])]
            start, end = np.searchsorted(bars.timestamp, (self.start_ms, self.end_ms)).tolist()
            if lookback is None:
                yield bars[:start]
            else:
                before.add(bars[:start])
            if end > start:
                yield from before.taken()
                yield bars[start:end]
                found = True
        if not found:
            told = f"has them from {iso8601(seen[0])} to {iso8601(seen[-1])}" if seen else "has none at all"
            raise DataError(f"--timerange: {self.symbol} has no candles in it; its source {told}", EXIT_USAGE)


@dataclass(slots=True)
class _Tail:
    """The last ``count`` candles of those that were added."""

    count: int
    _parts: deque[Bars] = field(default_factory=deque)
    _rows: int = 0

    def add(self, bars: Bars) -> None:
        self._parts.append(bars)
        self._rows += len(bars)
        while self._parts and self._rows - len(self._parts[0]) >= self.count:
            self._rows -= len(self._parts.popleft())

    def taken(self) -> Iterator[Bars]:
        excess = max(0, self._rows - self.count)
        while self._parts:
            yield self._parts.popleft()[excess:]
            excess = 0
        self._rows = 0


class _Gathered:
    """Columns that grow in place: to keep the blocks and to join them at the end would take twice the memory."""

    def __init__(self, rows_about: int) -> None:
        size = rows_about + rows_about // 16 + 1
        self._times = np.empty(size, np.int64)
        self._values = [np.empty(size) for _ in VALUES]
        self.rows = 0

    def add(self, bars: Bars) -> None:
        end = self.rows + len(bars)
        if end > len(self._times):
            self._resize(end + end // 4)
        self._times[self.rows : end] = bars.timestamp
        columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
        for values, column in zip(self._values, columns, strict=True):
            values[self.rows : end] = column
        self.rows = end

    def bars(self) -> Bars:
        self._resize(self.rows)
        return Bars(self._times, *self._values)

    def _resize(self, size: int) -> None:
        for column in (self._times, *self._values):
            # Nobody else has these arrays yet.
            column.resize(size, refcheck=False)


def _joined(parts: list[Bars]) -> Bars:
    if len(parts) == 1:
        return parts[0]
    return Bars(
        np.concatenate([part.timestamp for part in parts]),
        np.concatenate([part.open for part in parts]),
        np.concatenate([part.high for part in parts]),
        np.concatenate([part.low for part in parts]),
        np.concatenate([part.close for part in parts]),
        np.concatenate([part.volume for part in parts]),
    )


def market_of(symbol: str, values: FloatArray) -> Market:
    """What prices tell of a market nobody has said anything of; shape [K, N], NaN and infinities left out.

    The price step is the finest decimal that one of them needs, between 0.01 and 0.00000001; there are no limits, and
    the fee is the one of an unknown venue.
    """
    prices = values[np.isfinite(values)]
    for places in range(DECIMALS_MIN, DECIMALS_MAX):
        scale = 10.0**places
        if (np.rint(prices * scale) / scale == prices).all():
            return Market(symbol, Decimal(1).scaleb(-places))
    return Market(symbol, Decimal(1).scaleb(-DECIMALS_MAX))
