"""Prices that were seen before: from a recorded ledger, or from arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bot.domain import Block, IntArray, Market
from bot.ports import Window
from bot.repositories import TickRepository
from bot.repositories.ticks import ID, beats_of, block_of

POLLS_AT_ONCE = 1024


class ReplayFeed:
    """Plays a tape again, with its own times and its own history.

    A poll returns what lies after the beat before, so a replay that was interrupted goes on where its ledger ends.
    """

    def __init__(
        self,
        tape: TickRepository,
        symbols: tuple[str, ...],
        markets: Mapping[str, Market],
        interval_ms: int,
        after: int = 0,
    ) -> None:
        """Plays what follows the tick ``after``."""
        self.symbols, self.markets = symbols, markets
        self._tape, self._interval_ms, self._after = tape, interval_ms, after
        self._part = TapePart(tape, symbols)
        self._position_ms = -1

    async def first_ms(self) -> int:
        """The time of the first price on the tape."""
        rows = await self._tape.read(self._after, 1)
        return int(rows[0, 2]) if len(rows) else 0

    async def history(self, before_ms: int, window: Window) -> Block | None:
        """The last ticks of each symbol before a moment, and those that its last bars are made of."""
        if not window:
            return None
        return await self._tape.tail(self.symbols, window.ticks, before_ms - self._interval_ms + 1, window.bars)

    async def poll(self, beat_ms: int, polls: int) -> Block | None:
        after_ms = beat_ms - self._interval_ms
        if after_ms != self._position_ms:
            self._part.seek(max(self._after, await self._tape.first_at_or_after(after_ms + 1) - 1))
        block = await self._part.next(polls)
        if block is not None:
            self._position_ms = int(block.timestamp[-1])
        return block

    async def close(self) -> None:
        """The tape belongs to whoever opened it."""


class SessionFeed:
    """Plays a part of a tape as it was recorded, its history included: what one run of the daemon saw."""

    def __init__(self, part: TapePart, markets: Mapping[str, Market]) -> None:
        self.symbols, self.markets = part.symbols, markets
        self._part = part
        self._rest: Block | None = None

    async def history(self, before_ms: int, window: Window) -> Block | None:
        """None: it is on the tape, before the poll that it was asked for."""
        return None

    async def poll(self, beat_ms: int, polls: int) -> Block | None:
        # Read in large parts, whatever is asked for: one poll a query would take longer than to decide on it.
        block = self._rest or await self._part.next(max(polls, POLLS_AT_ONCE))
        if block is None:
            return None
        end = block.warmup + polls
        self._rest = block.columns(slice(end, None)) if end < len(block) else None
        return block.columns(slice(0, end), block.warmup) if self._rest else block

    async def close(self) -> None:
        """The tape belongs to whoever opened it."""


class TapePart:
    """Reads a tape from one tick on, up to another, in whole polls. ``seen`` hears of every row that was read."""

    def __init__(
        self,
        tape: TickRepository,
        symbols: tuple[str, ...],
        after: int = 0,
        until: int = 2**63 - 1,
        seen: Callable[[IntArray], None] = lambda rows: None,
    ) -> None:
        self.symbols = symbols
        self._tape, self._tick, self._until, self._seen = tape, after, until, seen
        self._known: dict[int, tuple[str, int]] = {}

    def seek(self, after: int) -> None:
        self._tick = after

    async def next(self, polls: int) -> Block | None:
        """The next 1 to ``polls`` polls with the history that stands before them; None at the end."""
        self._known = self._known or await self._tape.symbols()
        past: Block | None = None
        while len(rows := await self._rows(polls)):
            self._tick = int(rows[-1, ID])
            self._seen(rows)
            block = block_of(rows, self.symbols, self._known).without_gaps()
            if past is not None:
                block = Block.joined([past, block])
            if block.polls:
                return block
            # These polls were of other symbols: the history before them belongs before the next one.
            past = block
        return None

    async def _rows(self, polls: int) -> IntArray:
        """The next rows of the tape: history, if there is any, then up to ``polls`` whole polls."""
        limit = (polls + 1) * max(1, len(self._known))
        while True:
            rows = await self._tape.read(self._tick, limit, self._until)
            if not len(rows):
                return rows
            beat, live = beats_of(rows), rows[:, 6] == 0
            first = int(np.argmax(live)) if live.any() else len(rows)
            # The end: where history begins again, or the beat after the last poll that is wanted.
            again = np.nonzero(~live[first:])[0]
            end = first + int(again[0]) if len(again) else len(rows)
            if first < len(rows):
                end = min(end, int(np.searchsorted(beat, beat[first] + polls)))
            if end < len(rows):
                return rows[:end]
            if len(rows) < limit:
                return rows if first < len(rows) else rows[:0]
            limit *= 2


class ArrayFeed:
    """Plays a block held in memory: for tests, benchmarks and backtests. ``one_by_one`` gives a poll at a time."""

    def __init__(self, block: Block, markets: Mapping[str, Market], *, one_by_one: bool = False) -> None:
        self.symbols, self.markets = block.symbols, markets
        self._block, self._one_by_one = block, one_by_one
        self._next = 0

    async def history(self, before_ms: int, window: Window) -> Block | None:
        end = int(np.searchsorted(self._block.timestamp, before_ms))
        opens = [timeframe.back(timeframe.open_of(before_ms), count) for timeframe, count in window.bars]
        first = int(np.searchsorted(self._block.timestamp, min(opens, default=before_ms)))
        start = max(0, min(end - window.ticks, first))
        return self._block.columns(slice(start, end), warmup=end - start) if end > start else None

    async def poll(self, beat_ms: int, polls: int) -> Block | None:
        start = self._next
        if start >= len(self._block):
            return None
        if self._block.timestamp[start] < beat_ms:
            start = int(np.searchsorted(self._block.timestamp, beat_ms))
        end = min(len(self._block), start + (1 if self._one_by_one else polls))
        if end <= start:
            return None
        self._next = end
        return self._block.columns(slice(start, end))

    async def close(self) -> None:
        """Nothing is held open."""
