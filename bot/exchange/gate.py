"""The one gate that every request to an exchange passes: spacing, and the silence that an exchange asks for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from bot.exchange.faults import ExchangeFault, Kind
from bot.ports import Clock

_BANNED_UNTIL = re.compile(r"until (\d{13})")
SILENCE_MAX_S = 3600.0 * 24 * 3
_LIMITED = (418, 429)
# Binance's share of its 6,000 a minute that has been used up, by all clients at this address.
USED_WEIGHT = "x-mbx-used-weight-1m"
USED_WEIGHT_HALF = 3000
_DIGITS_MAX = 9


class Gate:
    """Paces requests by the monotonic clock and keeps still while an exchange wants it.

    ccxt's own throttler follows the wall clock (set back, it stalls for that long), charges for requests that were
    cancelled, and makes the first one after minutes of rest wait; this one lets a request go when its turn has come
    and not sooner than ``spacing_s`` times its cost after the one before. ``close`` may be called from any thread.
    """

    def __init__(self, clock: Clock, spacing_s: float = 0.0) -> None:
        self._clock, self.spacing_s = clock, spacing_s
        self._next_s = self._closed_until_s = 0.0
        self._limited = 0
        self._busy = False
        # The costs of all requests so far, by the exchange's own measure.
        self.spent = 0.0

    @property
    def closed_s(self) -> float:
        """How much longer nothing may be sent."""
        return max(0.0, self._closed_until_s - self._clock.monotonic())

    def check(self) -> None:
        """Raises ExchangeFault while the gate is closed: nobody stands in line for minutes."""
        if self.closed_s:
            raise ExchangeFault(Kind.RATE_LIMIT, "the exchange asked for silence", self.closed_s)

    async def pass_through(self, cost: float) -> None:
        """Waits for the turn of a request; raises ExchangeFault where the gate is closed, or time is up."""
        self.check()
        now, before = self._clock.monotonic(), self._next_s
        turn = max(now, before)
        self._next_s = following = turn + cost * self.spacing_s * (2 if self._busy else 1)
        try:
            if turn > now and await self._clock.sleep(turn - now):
                raise ExchangeFault(Kind.STOPPED, "stopped")
            self.check()
        except BaseException:
            # What is not sent costs nothing, unless another one already stands in line behind it.
            if self._next_s == following:
                self._next_s = before
            raise
        self.spent += cost

    def heard(self, status: int, headers: Mapping[str, str], body: str) -> None:
        """Learns from an answer. What a 429 or 418 asks for holds from this moment on, whoever made the request."""
        low = {name.lower(): value for name, value in headers.items()}
        used = low.get(USED_WEIGHT, "")
        if used.isdecimal() and len(used) <= _DIGITS_MAX:
            self._busy = int(used) > USED_WEIGHT_HALF
        asked_s = _retry_after_s(low.get("retry-after", ""), self._clock)
        if status in _LIMITED:
            self.limited(asked_s, body)
        elif status >= 400 and asked_s:
            # Overloaded, or under maintenance, and it says until when.
            self.close(asked_s)

    def answered(self) -> None:
        """A call got what it wanted. Its status does not say so: Kraken's "too many requests" comes with a 200."""
        self._limited = 0

    def limited(self, asked_s: float = 0.0, text: str = "") -> None:
        """Closes for as long as was asked for, else until what a text names as the end; for 1, 2, 4, ... s at least."""
        self._limited += 1
        banned = _BANNED_UNTIL.search(text)
        if banned and not asked_s:
            asked_s = int(banned[1]) / 1000 - self._clock.now_ms() / 1000
        self.close(max(asked_s, 2.0 ** min(self._limited - 1, 6)))

    def close(self, seconds: float) -> None:
        until = self._clock.monotonic() + min(seconds, SILENCE_MAX_S)
        self._closed_until_s = max(self._closed_until_s, until)


def _retry_after_s(text: str, clock: Clock) -> float:
    """Seconds, or the date, that a Retry-After header names; 0 if it makes no sense."""
    try:
        seconds = float(text)
        return max(0.0, seconds) if math.isfinite(seconds) else 0.0
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - clock.now_ms() / 1000)
