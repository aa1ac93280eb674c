"""Beats, waits and times."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from bot.clock import SystemClock, VirtualClock, parse_time
from bot.ports import Clock

NOON = 1_735_732_800_000  # 2025-01-01T12:00:00Z
ELAPSED_S_MAX = 10.0


@pytest.mark.parametrize("clock", [SystemClock(), VirtualClock(NOON)], ids=lambda clock: type(clock).__name__)
class TestEveryClock:
    def test_is_one(self, clock: Clock) -> None:
        assert isinstance(clock, Clock)
        assert clock.polls_ahead == 1

    async def test_beats_increase(self, clock: Clock) -> None:
        beat = clock.now_ms()
        for _ in range(20):
            following = await clock.next_beat(10, beat)
            assert following is not None
            assert following > beat
            beat = following

    async def test_stop_is_for_ever(self, clock: Clock) -> None:
        clock.stop()
        assert await clock.sleep(3600)
        assert await clock.sleep(0)
        assert await clock.next_beat(3_600_000, 0) is None


class TestSystemClock:
    async def test_beats_are_whole_multiples_of_the_interval(self) -> None:
        clock = SystemClock()
        beats = []
        last = 0
        for _ in range(6):
            beat = await clock.next_beat(20, last)
            assert beat is not None
            assert 0 <= clock.now_ms() - beat <= 1000
            beats.append(beat)
            last = beat
        assert all(beat % 20 == 0 for beat in beats)
        assert beats == sorted(set(beats))

    async def test_the_first_beat_is_the_one_that_runs(self) -> None:
        clock = SystemClock()
        begun = clock.monotonic()
        beat = await clock.next_beat(86_400_000, 0)
        assert beat is not None
        assert beat <= clock.now_ms()
        assert clock.monotonic() - begun < ELAPSED_S_MAX

    async def test_a_beat_is_not_given_twice(self) -> None:
        """A daemon that is started again within the beat it has polled waits for the next one."""
        first = await SystemClock().next_beat(50, 0)
        assert first is not None
        again = await SystemClock().next_beat(50, first)
        assert again is not None
        assert again > first
        assert again % 50 == 0

    async def test_missed_beats_are_skipped_and_counted(self) -> None:
        clock = SystemClock()
        first = await clock.next_beat(20, 0)
        assert first is not None
        await clock.sleep(0.13)
        second = await clock.next_beat(20, first)
        assert second is not None
        assert second - first >= 140
        assert clock.missed_beats == (second - first) // 20 - 1
        third = await clock.next_beat(20, second)
        assert third is not None
        assert clock.now_ms() >= third

    async def test_beats_stay_aligned_after_another_interval(self) -> None:
        """The last poll was at an odd second; with an interval of a minute the next one is on the full minute."""
        clock = SystemClock()
        interval_ms = 200
        while not 20 <= clock.now_ms() % interval_ms <= 100:
            await clock.sleep(0.01)
        last = clock.now_ms() // interval_ms * interval_ms + 7
        beats = []
        for _ in range(2):
            beat = await clock.next_beat(interval_ms, last)
            assert beat is not None
            beats.append(beat)
            last = beat
        assert [beat % interval_ms for beat in beats] == [0, 0]

    async def test_a_beat_follows_a_ledger_that_is_ahead(self) -> None:
        clock = SystemClock()
        ahead = (clock.now_ms() // 20 + 50) * 20
        assert await clock.next_beat(20, ahead) == ahead + 20

    @pytest.mark.parametrize("wait", ["sleep", "next_beat"])
    async def test_stop_ends_a_wait_at_once(self, wait: str) -> None:
        clock = SystemClock()
        begun = clock.monotonic()
        asyncio.get_running_loop().call_later(0.02, clock.stop)
        if wait == "sleep":
            assert await clock.sleep(3600)
        else:
            day_ms = 86_400_000
            assert await clock.next_beat(day_ms, clock.now_ms() // day_ms * day_ms) is None
        assert clock.monotonic() - begun < ELAPSED_S_MAX

    async def test_sleeps_no_less_than_asked(self) -> None:
        clock = SystemClock()
        begun = clock.monotonic()
        assert not await clock.sleep(0.03)
        assert clock.monotonic() - begun >= 0.029
        assert not await clock.sleep(-1)

    async def test_a_cancelled_wait_is_cancelled(self) -> None:
        clock = SystemClock()
        waiting = asyncio.create_task(clock.sleep(3600))
        asyncio.get_running_loop().call_soon(waiting.cancel)
        with pytest.raises(asyncio.CancelledError):
            await waiting


class TestLimit:
    async def test_ends_after_so_long(self) -> None:
        clock = SystemClock()
        begun = clock.monotonic()
        with pytest.raises(TimeoutError):
            async with clock.limit(0.02):
                await asyncio.Event().wait()
        assert 0.019 <= clock.monotonic() - begun < ELAPSED_S_MAX

    async def test_what_is_in_time_is_left_alone(self) -> None:
        clock = SystemClock()
        for seconds in (None, 3600.0):
            async with clock.limit(seconds):
                await clock.sleep(0.001)
        clock.stop()

    @pytest.mark.parametrize("seconds", [None, 3600.0])
    async def test_stop_ends_it_at_once(self, seconds: float | None) -> None:
        clock = SystemClock()
        begun = clock.monotonic()
        asyncio.get_running_loop().call_later(0.01, clock.stop)
        with pytest.raises(TimeoutError):
            async with clock.limit(seconds):
                await asyncio.Event().wait()
        with pytest.raises(TimeoutError):
            async with clock.limit(seconds):
                await asyncio.Event().wait()
        assert clock.monotonic() - begun < ELAPSED_S_MAX

    async def test_stop_ends_one_within_another(self) -> None:
        clock = SystemClock()
        asyncio.get_running_loop().call_later(0.01, clock.stop)
        with pytest.raises(TimeoutError):
            async with clock.limit(None), clock.limit(3600.0):
                await asyncio.Event().wait()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    async def test_stop_while_what_took_too_long_is_cleaned_up(self) -> None:
        """The outer one is ended, too, whatever the inner one is at."""
        clock = SystemClock()
        stopped = []

        async def slow_to_end() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                clock.stop()
                clock.stop()
                stopped.append(True)

        async def one_after_the_other() -> None:
            with suppress(TimeoutError):
                async with clock.limit(0.01):
                    await slow_to_end()
            await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            async with clock.limit(None):
                await one_after_the_other()
        assert stopped == [True]

    async def test_a_cancellation_from_outside_stays_one(self) -> None:
        clock = SystemClock()

        async def wait() -> None:
            async with clock.limit(3600.0):
                await asyncio.Event().wait()

        waiting = asyncio.create_task(wait())
        asyncio.get_running_loop().call_later(0.01, waiting.cancel)
        with pytest.raises(asyncio.CancelledError):
            await waiting


class TestVirtualClock:
    async def test_every_beat_is_reached_at_once(self) -> None:
        clock = VirtualClock(NOON, polls_ahead=7)
        assert clock.polls_ahead == 7
        beats = [0]
        for _ in range(3):
            beat = await clock.next_beat(60_000, beats[-1])
            assert beat is not None
            assert clock.now_ms() == beat
            beats.append(beat)
        assert beats[1:] == [NOON, NOON + 60_000, NOON + 120_000]

    async def test_goes_on_where_a_ledger_ends(self) -> None:
        assert await VirtualClock(NOON).next_beat(1000, NOON + 5000) == NOON + 6000

    async def test_sleep_takes_virtual_time(self) -> None:
        clock = VirtualClock(NOON)
        assert not await clock.sleep(1.5)
        assert clock.now_ms() == NOON + 1500
        assert clock.monotonic() == (NOON + 1500) / 1000

    async def test_never_goes_back(self) -> None:
        clock = VirtualClock(NOON)
        beat = await clock.next_beat(1000, 0)
        assert beat is not None
        await clock.sleep(10)
        before = clock.monotonic()
        await clock.next_beat(1000, beat)
        assert clock.monotonic() >= before


class TestParseTime:
    NOW = NOON + 1234

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("now", NOW),
            (" now ", NOW),
            ("2025-01-01T12:00:00Z", NOON),
            ("2025-01-01T12:00:00", NOON),
            ("2025-01-01 12:00", NOON),
            ("2025-01-01T14:00:00+02:00", NOON),
            ("2025-01-01T12:00:00.250Z", NOON + 250),
            ("2025-01-01", NOON - 12 * 3_600_000),
            ("12:00", NOON),
            ("12:00:00.5", NOON + 500),
            ("09:30:00", NOON - 9_000_000),
            (str(NOON), NOON),
        ],
    )
    def test_what_people_write(self, text: str, expected: int) -> None:
        assert parse_time(text, self.NOW) == expected

    @pytest.mark.parametrize("text", ["", "soon", "25:00", "2025-13-01", "12", "-5", "12:00:00 tomorrow", "1e12"])
    def test_anything_else_is_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(ValueError, match="is no time: write 2025-01-01T12:00:00Z"):
            parse_time(text, self.NOW)
