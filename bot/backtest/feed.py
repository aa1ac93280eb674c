"""Candles of the past as a price feed: the loop lives through them tick by tick, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from bot.bars import needed
from bot.domain import Bars, Block, FloatArray, IntArray, Market
from bot.feeds.candles import Ticks, block_of_ticks, ticks_of
from bot.ports import Window
from bot.timeframes import Timeframe

# How many candles of all symbols together are turned into ticks at once; each becomes four of them at most.
CANDLES_AT_ONCE = 65_536
_NEVER = 2**63 - 1
_NO_TICKS = Ticks(np.zeros(0, np.int64), np.zeros(0))


class CandleFeed:
    """Implements ``ports.PriceFeed``. A candle becomes the ticks that ``bot.feeds.candles`` makes of it, bid and ask as
    the last price; with ``at_close`` each has one in its last millisecond.

    ``streams`` are each symbol's candles of one timeframe, oldest first, in parts of any size. The next part is asked
    for when the loop comes to its time, and none is kept.
    """

    def __init__(
        self,
        streams: Mapping[str, Iterable[Bars]],
        timeframe: Timeframe,
        markets: Mapping[str, Market],
        *,
        at_close: bool = False,
    ) -> None:
        self.symbols, self.markets = tuple(streams), markets
        size = max(1, CANDLES_AT_ONCE // len(streams))
        self._streams = [_Stream(name, iter(parts), timeframe, size, at_close) for name, parts in streams.items()]
        self._rest: Block | None = None

    def first_ms(self) -> int | None:
        """The time of the next price; None if there is none. Raises ValueError for candles that are out of order."""
        self._rest = self._rest or self._following()
        return None if self._rest is None else int(self._rest.timestamp[0])

    async def history(self, before_ms: int, window: Window) -> Block | None:
        """Of the ticks before a moment those that the window is made of. They are gone through once: what lies before
        them is not offered again."""
        kept = [_NO_TICKS] * len(self.symbols)
        while window and (block := self._taken(0, before_ms)):
            kept = [_kept(each, block.timestamp, last, window) for each, last in zip(kept, block.last, strict=True)]
        past = block_of_ticks(self.symbols, kept)
        return replace(past, warmup=len(past)) if len(past) else None

    async def poll(self, beat_ms: int, polls: int) -> Block | None:
        block = self._taken(beat_ms, _NEVER)
        if block is None or len(block) <= polls:
            return block
        self._rest = block.columns(slice(polls, None))
        return block.columns(slice(0, polls))

    async def close(self) -> None:
        """The candles belong to whoever opened them."""

    def _taken(self, start_ms: int, end_ms: int) -> Block | None:
        """The next ticks that are not before a moment, as far as they are before another; None if there are none."""
        while block := self._rest or self._following():
            first, end = np.searchsorted(block.timestamp, (start_ms, end_ms)).tolist()
            self._rest = block.columns(slice(end, None)) if end < len(block) else None
            if first < end:
                return block.columns(slice(first, end))
            if self._rest is not None:
                break
        return None

    def _following(self) -> Block | None:
        """The next ticks of all symbols, up to where no symbol has an earlier one to come."""
        while True:
            until_ms = min(stream.known_until for stream in self._streams)
            ticks = [stream.taken(until_ms) for stream in self._streams]
            if any(len(each.times) for each in ticks):
                return block_of_ticks(self.symbols, ticks)
            if until_ms == _NEVER:
                return None
            for stream in self._streams:
                if stream.known_until == until_ms:
                    stream.read()


class _Stream:
    """One symbol's candles. Ticks before ``known_until`` have all been read."""

    def __init__(self, symbol: str, parts: Iterator[Bars], timeframe: Timeframe, size: int, at_close: bool) -> None:
        """``size``: how many candles are read at a time."""
        self.known_until = 0
        self._symbol, self._parts, self._timeframe, self._size, self._at_close = (
            symbol,
            parts,
            timeframe,
            size,
            at_close,
        )
        self._part: Bars | None = None
        self._ticks = _NO_TICKS

    def read(self) -> None:
        """The next candles."""
        part = self._part or next(filter(len, self._parts), None)
        if part is None:
            self.known_until = _NEVER
            return
        self._part, part = part[self._size :], part[: self._size]
        opens = part.timestamp
        if opens[0] < self.known_until or (opens[1:] <= opens[:-1]).any():
            raise ValueError(f"the candles of {self._symbol} are not in the order of time")
        if (self._timeframe.floor(opens) != opens).any():
            raise ValueError(f"the candles of {self._symbol} do not all begin where one of {self._timeframe.name} does")
        ends = self._timeframe.ends(opens)
        prices = np.stack((part.open, part.high, part.low, part.close))
        self._ticks = _joined(self._ticks, ticks_of(opens, ends, prices, at_close=self._at_close))
        self.known_until = int(ends[-1])

    def taken(self, until_ms: int) -> Ticks:
        """What was read of the time before a moment, once."""
        times, prices = self._ticks
        end = int(np.searchsorted(times, until_ms))
        self._ticks = Ticks(times[end:], prices[end:])
        return Ticks(times[:end], prices[:end])


def _joined(older: Ticks, newer: Ticks) -> Ticks:
    if not len(older.times):
        return newer
    return Ticks(np.concatenate((older.times, newer.times)), np.concatenate((older.prices, newer.prices)))


def _kept(older: Ticks, times: IntArray, prices: FloatArray, window: Window) -> Ticks:
    """What a window needs of one symbol's ticks, those of a block behind older ones."""
    seen = prices == prices
    joined = _joined(older, Ticks(times[seen], prices[seen]))
    wanted = needed(joined.times, joined.prices, window.ticks, window.bars)
    return Ticks(joined.times[wanted], joined.prices[wanted])
