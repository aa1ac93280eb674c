"""What an account was worth at each bar: its cash and its positions at the last closes.

Everything goes block by block, so that the arrays at work stay in the processor's cache and memory is that of a block.
A bar counts from the moment at which its close is known, and a fill from its own moment on: equity at t has all fills
with a timestamp of t or before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bot.backtest.positions import Held
from bot.backtest.trades import Trades
from bot.domain import FloatArray, IntArray

# A few arrays of so many numbers fit into a processor's second cache.
BLOCK = 32_768


class Closes(NamedTuple):
    """One symbol's bars, shape [N]: when each close is known (UTC ms, increasing), and what it is (no NaN)."""

    times: IntArray
    closes: FloatArray


class Panel(NamedTuple):
    """Bars of several symbols on one axis of time: ``times`` [N], and for each symbol its last close at each of them,
    NaN before its first."""

    times: IntArray
    closes: tuple[FloatArray, ...]


def equity_of(capital: float, trades: Trades, bars: Sequence[Closes]) -> FloatArray:
    """Equity at each bar, shape [N]; where the symbols' bars are not the same, at each moment that has one."""
    found, count = np.empty(sum(len(one.times) for one in bars)), 0
    for _, equity in equities(capital, trades, bars):
        found[count : count + len(equity)] = equity
        count += len(equity)
    return found[:count]


def equities(
    capital: float, trades: Trades, bars: Sequence[Closes], block: int = BLOCK
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Times and equity, shapes [n], a block at a time; ``bars`` are in the order of the trades' symbols.

    Raises ValueError if they are not as many, or if the trades are not in the order of time.
    """
    if len(bars) != len(trades.symbols):
        raise ValueError(f"{len(trades.symbols)} symbols need as many series of closes, got {len(bars)}")
    return valued(capital, trades, panels([cut(one, block) for one in bars]))


def valued(capital: float, trades: Trades, axis: Iterable[Panel]) -> Iterator[tuple[IntArray, FloatArray]]:
    """Times and equity of each panel. Raises ValueError if the trades are not in the order of time."""
    valuation = Valuation.of(capital, trades)
    return ((panel.times, valuation.at(panel)) for panel in axis)


def cut(bars: Closes, block: int = BLOCK) -> Iterator[Closes]:
    """Closes in memory as blocks of them."""
    firsts = range(0, len(bars.times), block)
    return (Closes(bars.times[first : first + block], bars.closes[first : first + block]) for first in firsts)


def panels(streams: Sequence[Iterable[Closes]]) -> Iterator[Panel]:
    """All symbols' bars on one axis of time, in blocks as the streams have them, each of which is a symbol's."""
    waiting = [_Waiting(iter(stream)) for stream in streams]
    while ends := [int(each.bars.times[-1]) for each in waiting if each.filled()]:
        until = min(ends)
        parts = [each.taken(until) for each in waiting]
        axis = _joined([part.times for part, _ in parts])
        yield Panel(axis, tuple(_filled(part, before, axis) for part, before in parts))


@dataclass(slots=True)
class _Waiting:
    """What was read of one symbol's bars and not taken yet, and the last close that was."""

    stream: Iterator[Closes]
    bars: Closes = field(default_factory=lambda: Closes(np.zeros(0, np.int64), np.zeros(0)))
    last: float = math.nan

    def filled(self) -> bool:
        """Whether there are bars, read now if need be."""
        while not len(self.bars.times):
            following = next(self.stream, None)
            if following is None:
                return False
            self.bars = following
        return True

    def taken(self, until: int) -> tuple[Closes, float]:
        """The bars up to a moment, and the close before them."""
        times, closes = self.bars
        end, before = int(np.searchsorted(times, until, side="right")), self.last
        if end:
            self.bars, self.last = Closes(times[end:], closes[end:]), float(closes[end - 1])
        return Closes(times[:end], closes[:end]), before


def _joined(parts: Sequence[IntArray]) -> IntArray:
    """All times once, in order. Most symbols have no time that those before them have not."""
    joined = parts[0]
    for times in parts[1:]:
        if np.array_equal(times, joined):
            continue
        places = np.searchsorted(joined, times)
        new = places == len(joined)
        new[~new] = joined[places[~new]] != times[~new]
        if new.any():
            joined = np.insert(joined, places[new], times[new])
    return joined


def _filled(bars: Closes, before: float, axis: IntArray) -> FloatArray:
    """The last close at each time of an axis, on which all times of the bars are; ``before`` until the first."""
    if len(bars.times) == len(axis):
        return bars.closes
    rows = np.searchsorted(bars.times, axis, side="right")
    return np.append(before, bars.closes)[rows]


class _Line(NamedTuple):
    """One symbol's fills: their rows in the trades [k], the position before and after each [k + 1], and the first
    price, which is the last one known until there is a close."""

    symbol: int
    rows: IntArray
    position: FloatArray
    first_price: float


@dataclass(frozen=True, slots=True)
class Valuation:
    """An account's fills as steps: the cash before and after each [K + 1], and the positions of each symbol that it
    traded."""

    timestamp: IntArray
    cash: FloatArray
    lines: tuple[_Line, ...]

    @classmethod
    def of(cls, capital: float, trades: Trades) -> Valuation:
        if (trades.timestamp[1:] < trades.timestamp[:-1]).any():
            raise ValueError("trades must be in the order of time")
        cost = trades.price * trades.quantity
        cash = np.empty(len(trades) + 1)
        cash[0] = 0.0
        np.cumsum(np.where(trades.buy, -cost, cost) - trades.fee, out=cash[1:])
        held = Held.of(trades)
        lines = []
        for symbol in range(len(trades.symbols)):
            part = slice(held.edges[symbol], held.edges[symbol + 1])
            rows = held.rows[part]
            if len(rows):
                position = np.append(0.0, held.quantity[part])
                lines.append(_Line(symbol, rows, position, float(trades.price[rows[0]])))
        return cls(trades.timestamp, capital + cash, tuple(lines))

    def at(self, panel: Panel) -> FloatArray:
        """Equity at each time of a panel, shape [n]."""
        times = panel.times
        first, end = np.searchsorted(self.timestamp, (times[0], times[-1]), side="right")
        # Where those fills are that come after the first time; all before it are in the first level.
        places = np.searchsorted(times, self.timestamp[first:end])
        equity = _steps(self.cash[first : end + 1], places, len(times))
        for line in self.lines:
            start, stop = np.searchsorted(line.rows, (first, end))
            position = line.position[start : stop + 1]
            if not position.any():
                continue
            closes = panel.closes[line.symbol]
            if closes[0] != closes[0]:
                closes = np.where(closes == closes, closes, line.first_price)
            value = _steps(position, places[line.rows[start:stop] - first], len(times))
            value *= closes
            equity += value
        return equity


def _steps(levels: FloatArray, places: IntArray, count: int) -> FloatArray:
    """``count`` values, the first of the levels until the first place, then the next."""
    return np.repeat(levels, np.diff(places, prepend=0, append=count))
