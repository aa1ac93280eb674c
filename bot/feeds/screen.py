"""The gate between what a venue says and what is traded on: every quote is taken as it is, or refused with a reason.

Of one symbol it keeps what it took last, so that a price nobody could have traded at does not get through, and a price
that stays does. It reads no clock: what is old or early is measured against the beat that the quote is for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from bot.domain import AMOUNT_LIMIT, Block
from bot.repositories.ticks import PRICE_DECIMALS_MAX

MISSING = "missing"
NOT_A_NUMBER = "not_a_number"
NOT_POSITIVE = "not_positive"
OUT_OF_RANGE = "out_of_range"
CROSSED = "crossed"
LAST_OFF = "last_off"
FROM_THE_FUTURE = "from_the_future"
STALE = "stale"
OUT_OF_ORDER = "out_of_order"
FROZEN = "frozen"
JUMP = "jump"
UNCONFIRMED = "unconfirmed"

REASONS = {
    MISSING: "the venue gave no bid or no ask",
    NOT_A_NUMBER: "a price or the time is not a finite number",
    NOT_POSITIVE: "a price is zero or below",
    OUT_OF_RANGE: "a price is larger, or has more digits, than the tape can hold exactly",
    CROSSED: "the bid is not below the ask",
    LAST_OFF: "the last trade is far outside of bid and ask: it is left out, the quote is taken",
    FROM_THE_FUTURE: "it is from later than the moment it was seen",
    STALE: "it is older than stale_after",
    OUT_OF_ORDER: "it is older than one that was taken before",
    FROZEN: "it has been the very same for longer than a market that lives would stand still",
    JUMP: "bid or ask is far from where it was, and not enough quotes have confirmed that yet",
    UNCONFIRMED: "it is the first of its symbol, or the first after a gap, and no second one has confirmed it yet",
}

# A poll may come a whole timeout after its beat, and clocks that nobody keeps are seconds off. What is let through
# from the future shuts out all older quotes until that time has come: this is also the longest that one wrong stamp
# can silence a symbol.
AHEAD_MAX_MS = 60_000
LAST_OFF_MAX = 0.05
# Five times the price from one quote to the next, or a fifth, is a unit or a comma gone wrong far more often than a
# market: it takes so many times the confirmations.
ABSURD = 5.0
ABSURD_CONFIRMATIONS = 10
# What a double holds for sure. A price with more digits is the rest of somebody's division, and it would leave the
# symbol's step so fine that its later prices are too large to be counted in it.
_DIGITS_MAX = 15
_LIMIT = float(AMOUNT_LIMIT)


class Quote(NamedTuple):
    """What a venue says of a symbol, whatever that is; ``timestamp`` is the venue's, in UTC milliseconds."""

    bid: Any
    ask: Any
    last: Any
    timestamp: int | None


class _Prices(NamedTuple):
    bid: float
    ask: float
    last: float | None
    timestamp: int | None


class _Touch(NamedTuple):
    bid: float
    ask: float


@dataclass(slots=True)
class _Memory:
    """What is known of one symbol. ``candidate`` is a level that ``agreed`` quotes have confirmed so far; ``doubted``
    are the prices of before a gap; ``answer`` is what the venue said last, for the first time at ``since_ms``."""

    touch: _Touch | None = None
    last: float | None = None
    timestamp: int | None = None
    taken_ms: int | None = None
    doubted: bool = False
    candidate: _Prices | None = None
    agreed: int = 0
    reason: str | None = None
    answer: _Prices | None = None
    since_ms: int = 0


def _ignored(symbol: str, reason: str, quote: Quote) -> None:
    """Nobody listens."""


class Screen:
    """Turns raw quotes into blocks of one column. All that comes out is finite, positive, uncrossed and in order.

    ``stale_after_ms``: how much older than the moment it is seen (the beat, if none is given) a quote may be; after so
    long without a quote that was taken, or after ``distrust``, two in a row have to agree. ``frozen_after_ms``: how
    long a venue may repeat itself, None for as long as it likes. ``jump_max``: how far, as a part of where it was,
    bid or ask may move from one quote to the next. Further is a jump: it is refused until ``confirmations`` further
    quotes in a row agree with it (ten times as many at five times the price, or a fifth), each within ``jump_max`` of
    the one before and, where it has a time, later. So one absurd price never passes, and a market that has really moved
    is let in. The first quote of a symbol has nothing to be compared with but another quote: one has to agree with it.
    ``levels`` are prices known beforehand (from the tape, from history); with one, the first quote is like any other.
    ``confirmations = 0`` takes all of them at once.

    ``refused`` is told when the reason for refusing a symbol changes, not at every poll; ``counts`` counts each one.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        *,
        stale_after_ms: int,
        jump_max: float = 0.2,
        confirmations: int = 3,
        ahead_max_ms: int = AHEAD_MAX_MS,
        frozen_after_ms: int | None = None,
        levels: Mapping[str, float] | None = None,
        refused: Callable[[str, str, Quote], None] = _ignored,
    ) -> None:
        if stale_after_ms <= 0 or ahead_max_ms < 0:
            raise ValueError("stale_after_ms must be above 0 and ahead_max_ms not below it")
        if not jump_max > 0 or confirmations < 0:
            raise ValueError("jump_max must be above 0 and confirmations not below it")
        self._symbols = tuple(symbols)
        self._stale_after_ms, self._ahead_max_ms = stale_after_ms, ahead_max_ms
        self._jump_max, self._confirmations = jump_max, confirmations
        self._frozen_after_ms = frozen_after_ms
        self._refused = refused
        self._memory = {symbol: _Memory() for symbol in self._symbols}
        self.know(levels or {})
        self.counts: Counter[tuple[str, str]] = Counter()

    def distrust(self) -> None:
        """What was known is from before an outage: of each symbol, two quotes have to agree before one is taken.

        What waits to be confirmed goes on waiting: where every other request fails, it would never be confirmed.
        """
        for memory in self._memory.values():
            memory.doubted = True

    def know(self, levels: Mapping[str, float]) -> None:
        """Prices that were learnt since: of a symbol that has none yet, the next quote is compared with it."""
        for symbol, price in levels.items():
            memory = self._memory.get(symbol)
            if memory is not None and memory.touch is None and math.isfinite(price) and price > 0:
                memory.touch = _Touch(price, price)

    def reasons(self, symbols: Sequence[str]) -> Counter[str]:
        """Why symbols were refused at the last block, each reason with how many there were."""
        found = (self._memory[symbol].reason for symbol in symbols)
        return Counter(reason for reason in found if reason is not None)

    def block(self, beat_ms: int, quotes: Mapping[str, Quote | None], now_ms: int | None = None) -> Block:
        """One column at ``beat_ms``, of quotes that were seen at ``now_ms``: NaN for a symbol whose quote is refused.

        Symbols it does not know are left out.
        """
        seen_ms = beat_ms if now_ms is None else now_ms
        prices = np.full((3, len(self._symbols), 1), np.nan)
        for row, symbol in enumerate(self._symbols):
            memory, quote = self._memory[symbol], quotes.get(symbol) or _NOTHING
            found = self._taken(seen_ms, memory, quote)
            if isinstance(found, str):
                self._refuse(symbol, memory, found, quote)
            else:
                memory.taken_ms = seen_ms
                prices[:, row, 0] = found
                if quote.last is not None and _far(found[:2], quote.last):
                    self._refuse(symbol, memory, LAST_OFF, quote)
                else:
                    memory.reason = None
        return Block(self._symbols, np.array([beat_ms], np.int64), prices[0], prices[1], prices[2])

    def _refuse(self, symbol: str, memory: _Memory, reason: str, quote: Quote) -> None:
        self.counts[symbol, reason] += 1
        if reason != memory.reason:
            memory.reason = reason
            self._refused(symbol, reason, quote)

    def _taken(self, seen_ms: int, memory: _Memory, quote: Quote) -> tuple[float, float, float] | str:
        """Bid, ask and last of a quote that is taken, or the reason why it is not."""
        if memory.taken_ms is not None and abs(seen_ms - memory.taken_ms) > self._stale_after_ms:
            memory.doubted = True
        self._forget_the_future(seen_ms, memory)
        prices = _prices(quote)
        if isinstance(prices, str):
            return prices
        bid, ask, last, timestamp = prices
        reason = (
            self._untimely(seen_ms, timestamp, memory)
            or self._frozen(seen_ms, prices, memory)
            or self._unlikely(prices, memory)
        )
        if reason:
            return reason
        memory.doubted = False
        if last is None:
            # Not the middle, which has decimals that no venue wrote: the last trade, moved to what is offered now.
            last = bid if memory.last is None else min(max(memory.last, bid), ask)
        memory.touch, memory.last = _Touch(bid, ask), last
        memory.candidate, memory.agreed = None, 0
        if timestamp is not None:
            memory.timestamp = timestamp
        return bid, ask, last

    def _forget_the_future(self, seen_ms: int, memory: _Memory) -> None:
        """A clock that was set back must not shut out a symbol until the time that it showed has come again."""
        latest_ms = seen_ms + self._ahead_max_ms
        if memory.timestamp is not None and memory.timestamp > latest_ms:
            memory.timestamp = None
        candidate = memory.candidate
        if candidate is not None and candidate.timestamp is not None and candidate.timestamp > latest_ms:
            memory.candidate = None

    def _frozen(self, seen_ms: int, prices: _Prices, memory: _Memory) -> str | None:
        if prices != memory.answer or seen_ms < memory.since_ms:
            memory.answer, memory.since_ms = prices, seen_ms
        if self._frozen_after_ms is None or seen_ms - memory.since_ms <= self._frozen_after_ms:
            return None
        memory.doubted, memory.candidate = True, None
        return FROZEN

    def _untimely(self, seen_ms: int, timestamp: int | None, memory: _Memory) -> str | None:
        if timestamp is None:
            return None
        if timestamp > seen_ms + self._ahead_max_ms:
            return FROM_THE_FUTURE
        if timestamp < seen_ms - self._stale_after_ms:
            return STALE
        if memory.timestamp is not None and timestamp < memory.timestamp:
            return OUT_OF_ORDER
        return None

    def _unlikely(self, prices: _Prices, memory: _Memory) -> str | None:
        """Why these prices are not believed yet."""
        known = memory.touch is not None and self._near(prices, memory.touch)
        if known and not memory.doubted:
            return None
        # Where the price has been, or where nobody knows yet where it is, one more quote is enough.
        jumped = memory.touch is not None and not known
        needed, reason = (self._confirmations, JUMP) if jumped else (min(1, self._confirmations), UNCONFIRMED)
        if memory.touch is not None and not 1 / ABSURD < prices.bid / memory.touch.bid < ABSURD:
            needed *= ABSURD_CONFIRMATIONS
        candidate = memory.candidate
        if candidate is None or not self._near(prices, candidate):
            memory.agreed = 0
        elif prices.timestamp is None or candidate.timestamp is None or prices.timestamp > candidate.timestamp:
            memory.agreed += 1
        else:
            # The same quote once more confirms nothing.
            return reason
        memory.candidate = prices
        return None if memory.agreed >= needed else reason

    def _near(self, prices: _Prices, other: _Touch | _Prices) -> bool:
        # Each side by itself: a bid of almost nothing and an ask of twice the price have a middle like any other.
        return (
            abs(prices.bid - other.bid) <= self._jump_max * other.bid
            and abs(prices.ask - other.ask) <= self._jump_max * other.ask
        )


_NOTHING = Quote(None, None, None, None)


def _prices(quote: Quote) -> _Prices | str:
    """A quote as numbers, or the reason why it is not one that makes sense by itself."""
    if quote.bid is None or quote.ask is None:
        return MISSING
    bid, ask = _number(quote.bid), _number(quote.ask)
    last = None if quote.last is None else _number(quote.last)
    timestamp = quote.timestamp
    if bid is None or ask is None or (last is None and quote.last is not None) or not _is_time(timestamp):
        return NOT_A_NUMBER
    if last is not None and last > 0 and 0 < bid < ask and _far((bid, ask), last):
        # It says nothing of what is offered now: some venues' last is an old one, or somebody else's.
        last = None
    prices = _Prices(bid, ask, last, None if timestamp is None else int(timestamp))
    return _senseless(prices) or prices


def _senseless(prices: _Prices) -> str | None:
    bid, ask, last, _ = prices
    known = (bid, ask) if last is None else (bid, ask, last)
    if min(known) <= 0:
        return NOT_POSITIVE
    if not all(map(storable, known)):
        return OUT_OF_RANGE
    if bid >= ask:
        return CROSSED
    return None


def _far(touch: Sequence[float], last: Any) -> bool:
    """Whether a last trade is far outside of bid and ask."""
    return not touch[0] * (1 - LAST_OFF_MAX) <= float(last) <= touch[1] * (1 + LAST_OFF_MAX)


def _number(value: Any) -> float | None:
    """The double that a number reads as; None for text, infinities and whatever else is no number."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _is_time(value: Any) -> bool:
    return value is None or type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def storable(price: float) -> bool:
    """Whether the tape, which holds whole numbers of a decimal step, can give back this very price."""
    return (
        math.isfinite(price)
        and price < _LIMIT
        and float(f"{price:.{_DIGITS_MAX}g}") == price
        and round(price, PRICE_DECIMALS_MAX) == price
    )
