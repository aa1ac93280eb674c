"""Time. The only file that reads a clock or sleeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime

STEP_NOTICED_S = 1.0
END_OF_TIME_MS = 253_402_300_800_000


class SystemClock:
    """Beats on whole multiples of the interval since the epoch, paced by the monotonic clock.

    The wall clock is read once and then followed by the monotonic one, so that setting it does not move the cadence.
    When it has been stepped by more than a second, the new time is taken over at the next beat and counted; beats
    never go back.
    """

    polls_ahead = 1
    waits = True

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        """The two clocks, in seconds, are the machine's; a simulation has its own."""
        self._wall, self.monotonic = wall, monotonic
        self._stop = asyncio.Event()
        self._limits: set[asyncio.Timeout] = set()
        self._offset = wall() - monotonic()
        self._last_beat = 0
        self.steps = 0
        self.missed_beats = 0

    def now_ms(self) -> int:
        return int(self._wall() * 1000)

    def stop(self) -> None:
        """Ends every wait, now and later."""
        self._stop.set()
        for scope in self._limits:
            # One whose time is up already ends anyway, and can no longer be changed.
            if not scope.expired():
                scope.reschedule(0)

    @asynccontextmanager
    async def limit(self, seconds: float | None) -> AsyncIterator[None]:
        """A scope that ends with TimeoutError after so long (None: never), or at once when stopped."""
        async with asyncio.timeout(0 if self._stop.is_set() else seconds) as scope:
            self._limits.add(scope)
            try:
                yield
            finally:
                self._limits.discard(scope)

    async def sleep(self, seconds: float) -> bool:
        """Waits, or less if stopped; True once stopped."""
        if seconds > 0 and not self._stop.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._stop.wait()
            except TimeoutError:
                pass
        return self._stop.is_set()

    async def next_beat(self, interval_ms: int, after_ms: int) -> int | None:
        offset = self._wall() - self.monotonic()
        if abs(offset - self._offset) > STEP_NOTICED_S:
            self.steps += 1
            self._offset = offset
        now_ms = (self.monotonic() + self._offset) * 1000
        current = int(now_ms) // interval_ms * interval_ms
        if not self._last_beat and current > after_ms:
            # The first poll is the running beat's: who starts a daemon wants to see a price at once.
            self._last_beat = current
            return None if self._stop.is_set() else current
        beat = current + interval_ms
        if self._last_beat:
            # Missed beats are skipped, not made up for: a burst of old prices helps nobody.
            self.missed_beats += max(0, (beat - self._last_beat) // interval_ms - 1)
        if await self.sleep((beat - now_ms) / 1000):
            return None
        self._last_beat = beat
        # Never before what was already recorded, and still a whole multiple.
        return beat if beat > after_ms else (after_ms // interval_ms + 1) * interval_ms


class VirtualClock:
    """Time that passes only when asked to: every beat is reached at once, the first at ``start_ms``."""

    waits = False
    missed_beats = steps = 0

    def __init__(self, start_ms: int, polls_ahead: int = 1) -> None:
        self.polls_ahead = polls_ahead
        self._start_ms = self._now_ms = start_ms
        self._stopped = False

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic(self) -> float:
        return self._now_ms / 1000

    def stop(self) -> None:
        self._stopped = True

    def limit(self, seconds: float | None) -> AbstractAsyncContextManager[None]:
        """None: what is waited for here takes no time."""
        return nullcontext()

    async def sleep(self, seconds: float) -> bool:
        self._now_ms += int(seconds * 1000)
        return self._stopped

    async def next_beat(self, interval_ms: int, after_ms: int) -> int | None:
        if self._stopped:
            return None
        beat = max(self._start_ms, after_ms + interval_ms)
        if beat < self._now_ms:
            # Somebody slept: what was missed is skipped, here as on the wall.
            beat += -(-(self._now_ms - beat) // interval_ms) * interval_ms
        self._now_ms = beat
        return beat


def parse_time(text: str, now_ms: int) -> int:
    """UTC milliseconds from ISO 8601, a time of today, milliseconds, or "now". Raises ValueError."""
    text = text.strip()
    if text == "now":
        return now_ms
    if text.isascii() and text.isdigit() and 12 <= len(text) <= 14:
        return int(text)
    today = datetime.fromtimestamp(now_ms / 1000, UTC).date().isoformat()
    try:
        moment = datetime.fromisoformat(f"{today}T{text}" if ":" in text and "-" not in text else text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no time: write 2025-01-01T12:00:00Z, 12:00:00 (today), milliseconds, or now"
        ) from None
    timestamp = round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    if not 0 <= timestamp < END_OF_TIME_MS:
        raise ValueError(f"{text!r} is no time between 1970 and 9999")
    return timestamp
