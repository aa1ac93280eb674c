"""Ticks built into bars: the same bars, bit for bit, whether ticks come one at a time or by the ten thousand.

A bar is open, high, low and close of those ticks of one symbol that lie in it, without volume. The first tick that lies
in another bar closes it, or, where that is asked for, the tick in its own last millisecond. Where there were no ticks
there is no bar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bot.domain import Block, FloatArray, IntArray
from bot.timeframes import Timeframe

BoolArray = npt.NDArray[np.bool_]
OPEN, HIGH, LOW, CLOSE = range(4)
# Of which timeframe how many closed bars are looked back on.
Lookback = tuple[Timeframe, int]


class Closed(NamedTuple):
    """Symbols that share the number of bars a block closed for them, with the bars before: ``times`` has the shape
    [R, N] and ``prices`` (open, high, low, close) [4, R, N].

    The last ``columns.shape[1]`` bars are to be decided on, each in a column of the block; -1: not at all.
    """

    rows: IntArray
    times: IntArray
    prices: FloatArray
    columns: IntArray


@dataclass(frozen=True, slots=True)
class Candles:
    """The last closed bars of S symbols in one timeframe, shapes [S, W] and [4, S, W], aligned at their end and NaN
    where there are fewer; and the bar that is still open, shapes [S] and [4, S].

    A bar is decided on at the tick that closes it, or, where that tick is history, at the first one that is not: such a
    symbol's newest bar is ``due``. After a start all are: to be asked again of the same bar changes no target.
    ``at_close``: a tick in a bar's last millisecond closes it, and none is open then; as candles have one, prices that
    are polled have none. ``span`` is the newest bar of all, from its open to its end.
    """

    timeframe: Timeframe
    times: IntArray
    prices: FloatArray
    open_times: IntArray
    open_prices: FloatArray
    due: BoolArray
    at_close: bool = False
    span: tuple[int, int] = (0, 0)

    @classmethod
    def empty(cls, timeframe: Timeframe, symbols: int, count: int, *, at_close: bool = False) -> Candles:
        return cls(
            timeframe,
            np.zeros((symbols, count), np.int64),
            np.full((4, symbols, count), np.nan),
            np.zeros(symbols, np.int64),
            np.full((4, symbols), np.nan),
            np.ones(symbols, np.bool_),
            at_close,
        )

    @property
    def count(self) -> int:
        """How many closed bars of each symbol are kept."""
        return int(self.times.shape[1])

    def after(self, block: Block) -> tuple[Candles, list[Closed]]:
        """The bars after a block's ticks, and those that are to be decided on."""
        return self._within_a_bar(block) or self._over_bars(block)

    def _within_a_bar(self, block: Block) -> tuple[Candles, list[Closed]] | None:
        """One poll that closes nothing, as nearly all are when it is live; None if it is none of these."""
        if len(block) != 1 or block.warmup or not self.span[0] <= block.timestamp[0] < self.span[1] - self.at_close:
            return None
        last = block.last[:, 0]
        seen = last == last
        if (seen & (self.due | (self.open_times != self.span[0]))).any():
            return None
        prices = self.open_prices.copy()
        np.fmax(prices[HIGH], last, out=prices[HIGH])
        np.fmin(prices[LOW], last, out=prices[LOW])
        np.copyto(prices[CLOSE], last, where=seen)
        candles = Candles(
            self.timeframe, self.times, self.prices, self.open_times, prices, self.due, self.at_close, self.span
        )
        return candles, []

    def _over_bars(self, block: Block) -> tuple[Candles, list[Closed]]:
        seen = block.last == block.last
        rows, columns = np.nonzero(seen)
        if not len(rows):
            return self, []
        opens = self.timeframe.floor(block.timestamp)
        pieces = _Pieces.of(rows, columns, opens[columns], block.last[seen]).behind(self)
        closed_at = pieces.closed_at(self.timeframe.floor(block.timestamp + 1) != opens if self.at_close else None)
        closed = np.nonzero(closed_at >= 0)[0]
        traded = np.nonzero(seen.any(axis=1))[0]
        newest = np.searchsorted(pieces.row, traded, side="right") - 1
        open_times, open_prices = self.open_times.copy(), self.open_prices.copy()
        open_times[traded] = pieces.open[newest]
        open_prices[:, traded] = np.where(closed_at[newest] < 0, pieces.prices[:, newest], np.nan)
        symbols = len(self.due)
        counts = np.bincount(pieces.row[closed], minlength=symbols)
        at = closed_at[closed]
        early = np.bincount(pieces.row[closed][at < block.warmup], minlength=symbols)
        due = self.due | (early > 0)
        first_live = _firsts(seen, block.warmup)
        asked = due & (first_live >= 0)
        times, prices = self.times.copy(), self.prices.copy()
        found = []
        for count in np.unique(counts).tolist():
            same = counts == count
            if not count and not (asked & same).any():
                continue
            group = np.nonzero(same)[0]
            chosen = slice(None) if same.all() else same[pieces.row[closed]]
            mine = _as_slice(closed[chosen])
            shape = (len(group), count)
            joined = np.concatenate((self.times[group], pieces.open[mine].reshape(shape)), axis=1)
            table = np.empty((4, len(group), self.count + count))
            table[:, :, : self.count] = self.prices[:, group]
            table[:, :, self.count :] = pieces.prices[:, mine].reshape(4, *shape)
            times[group], prices[:, group] = joined[:, count:], table[:, :, count:]
            # All strategies look at these: one that writes into its bars raises.
            joined.flags.writeable = table.flags.writeable = False
            places = _places(at[chosen].reshape(shape), first_live, early, asked, group, block.warmup)
            if places.shape[1]:
                found.append(Closed(group, joined, table, places))
        start = int(opens[-1])
        span = self.span if start == self.span[0] else (start, self.timeframe.back(start, -1))
        after = Candles(self.timeframe, times, prices, open_times, open_prices, due & ~asked, self.at_close, span)
        return after, found


class _Pieces(NamedTuple):
    """Runs of one symbol's ticks in one bar, by symbol and time: in which columns each begins and ends (-1: before the
    block), and its prices, shape [4, M]."""

    row: IntArray
    first: IntArray
    last: IntArray
    open: IntArray
    prices: FloatArray

    @classmethod
    def of(cls, rows: IntArray, columns: IntArray, opens: IntArray, prices: FloatArray) -> _Pieces:
        starts = _starts(rows, opens)
        if len(starts) == len(rows):
            # A tick a bar: closes of candles, as they are replayed.
            return cls(rows, columns, columns, opens, np.tile(prices, (4, 1)))
        ends = np.append(starts[1:], len(rows)) - 1
        high, low = np.maximum.reduceat(prices, starts), np.minimum.reduceat(prices, starts)
        table = np.stack((prices[starts], high, low, prices[ends]))
        return cls(rows[starts], columns[starts], columns[ends], opens[starts], table)

    def behind(self, candles: Candles) -> _Pieces:
        """With the bars that were open before: joined to the first pieces that go on with them, or put before them."""
        heads = np.nonzero(np.diff(self.row, prepend=-1))[0]
        row = self.row[heads]
        before = candles.open_prices[:, row]
        had = before[CLOSE] == before[CLOSE]
        goes_on = had & (candles.open_times[row] == self.open[heads])
        head, known = heads[goes_on], before[:, goes_on]
        prices = self.prices
        prices[OPEN, head] = known[OPEN]
        prices[HIGH, head] = np.maximum(known[HIGH], prices[HIGH, head])
        prices[LOW, head] = np.minimum(known[LOW], prices[LOW, head])
        apart = had & ~goes_on
        if not apart.any():
            return self
        where, row = heads[apart], row[apart]
        return _Pieces(
            np.insert(self.row, where, row),
            np.insert(self.first, where, -1),
            np.insert(self.last, where, -1),
            np.insert(self.open, where, candles.open_times[row]),
            np.insert(prices, where, before[:, apart], axis=1),
        )

    def closed_at(self, ended: BoolArray | None) -> IntArray:
        """The column in which each is closed, -1 where it stays open: that in which the next one of its symbol begins,
        or its own last one, where that is one of the columns that have ``ended`` a bar."""
        found = np.full(len(self.row), -1)
        followed = self.row[1:] == self.row[:-1]
        found[:-1][followed] = self.first[1:][followed]
        if ended is None:
            return found
        return np.where((self.last >= 0) & ended[self.last], self.last, found)


def _starts(*keys: IntArray) -> IntArray:
    """Where a run of equal keys begins."""
    changed = np.ones(len(keys[0]), np.bool_)
    changed[1:] = False
    for key in keys:
        changed[1:] |= key[1:] != key[:-1]
    return np.nonzero(changed)[0]


def _as_slice(places: IntArray) -> slice | IntArray:
    """The same places as a slice, which copies nothing, where one follows the other."""
    together = len(places) and places[-1] - places[0] == len(places) - 1
    return slice(int(places[0]), int(places[-1]) + 1) if together else places


def _firsts(seen: BoolArray, warmup: int) -> IntArray:
    """The column of each symbol's first tick that is not history; -1 if there is none."""
    live = seen[:, warmup:]
    return np.where(live.any(axis=1), warmup + live.argmax(axis=1), -1) if live.size else np.full(len(seen), -1)


def _places(
    at: IntArray, first_live: IntArray, early: IntArray, asked: BoolArray, group: IntArray, warmup: int
) -> IntArray:
    """The columns in which bars are decided on, -1 where not: of the newest bar before, and of those that were closed
    in columns ``at``, shape [R, count]. The oldest ones that nobody is asked of are left out."""
    places = np.full((len(group), at.shape[1] + 1), -1)
    places[:, 1:] = np.where(at < warmup, -1, at)
    late = np.nonzero(asked[group])[0]
    places[late, early[group[late]]] = first_live[group[late]]
    # One tick may close two bars, or a bar where an older one is due: the newest is decided on.
    places[:, :-1][places[:, :-1] == places[:, 1:]] = -1
    wanted = (places >= 0).any(axis=0)
    return places[:, int(np.argmax(wanted)) :] if wanted.any() else places[:, :0]


def needed(times: IntArray, prices: FloatArray, ticks: int, lookbacks: Sequence[Lookback]) -> BoolArray:
    """Which of one symbol's ticks make its last ``ticks`` ones, and its last closed bars and the open one.

    Of a bar, four ticks at most give the same four prices as all of them.
    """
    kept = np.zeros(len(times), np.bool_)
    kept[max(0, len(times) - ticks) :] = True
    for timeframe, count in lookbacks if len(times) else ():
        starts = _starts(timeframe.floor(times))[-count - 1 :]
        first = int(starts[0])
        part, heads = prices[first:], starts - first
        lengths = np.diff(np.append(heads, len(part)))
        place = np.arange(len(part))
        kept[starts] = True
        kept[np.append(starts[1:], len(times)) - 1] = True
        for best in (np.maximum.reduceat(part, heads), np.minimum.reduceat(part, heads)):
            reached = np.where(part == np.repeat(best, lengths), place, len(part))
            kept[first + np.minimum.reduceat(reached, heads)] = True
    return kept


def bars_in(times: IntArray, lookbacks: Sequence[Lookback]) -> bool:
    """Whether ticks, the oldest of which may lie in the middle of a bar, hold all the bars that are looked back on."""
    return all(len(times) and len(_starts(timeframe.floor(times))) >= count + 2 for timeframe, count in lookbacks)
