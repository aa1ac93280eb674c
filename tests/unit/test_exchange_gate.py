"""The gate in front of an exchange, by a clock that is set by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.clock import SystemClock
from bot.exchange.faults import ExchangeFault, Kind
from bot.exchange.gate import SILENCE_MAX_S, USED_WEIGHT_HALF, Gate
from bot.ports import Clock

NOW_MS = 1_800_000_000_000
SPACING_S = 0.05
LONG_S = 2.0


class HandClock:
    """Time passes by what is slept, and stands still otherwise; the wall clock may be anywhere."""

    waits, missed_beats, steps, polls_ahead = True, 0, 0, 1

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.wall_ms = NOW_MS
        self.slept: list[float] = []
        self.stopped = False

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic(self) -> float:
        return self.now_s

    def stop(self) -> None:
        self.stopped = True

    @asynccontextmanager
    async def _unlimited(self) -> AsyncIterator[None]:
        yield

    def limit(self, seconds: float | None) -> AbstractAsyncContextManager[None]:
        return self._unlimited()

    async def sleep(self, seconds: float) -> bool:
        self.slept.append(seconds)
        self.now_s += seconds
        return self.stopped

    async def next_beat(self, interval_ms: int, after_ms: int) -> int | None:
        return after_ms + interval_ms


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def gate(clock: HandClock) -> Gate:
    return Gate(clock, SPACING_S)


def test_the_clock_is_one(clock: HandClock) -> None:
    assert isinstance(clock, Clock)


class TestSpacing:
    async def test_the_first_waits_for_nothing(self, gate: Gate, clock: HandClock) -> None:
        await gate.pass_through(16)
        assert clock.slept == []

    async def test_a_request_costs_the_one_behind_it(self, gate: Gate, clock: HandClock) -> None:
        for cost in (16, 1, 0.4, 1):
            await gate.pass_through(cost)
        assert clock.slept == pytest.approx([0.8, 0.05, 0.02])

    async def test_rest_is_not_forgotten_and_not_saved_up(self, gate: Gate, clock: HandClock) -> None:
        await gate.pass_through(16)
        clock.now_s += 60
        await gate.pass_through(1)
        await gate.pass_through(1)
        assert clock.slept == pytest.approx([0.05])

    async def test_the_wall_clock_is_nothing_to_it(self, gate: Gate, clock: HandClock) -> None:
        await gate.pass_through(1)
        clock.wall_ms -= 3_600_000
        await gate.pass_through(1)
        clock.wall_ms += 7_200_000
        await gate.pass_through(1)
        assert clock.slept == pytest.approx([0.05, 0.05])

    async def test_none_wanted(self, clock: HandClock) -> None:
        gate = Gate(clock)
        for _ in range(100):
            await gate.pass_through(16)
        assert clock.slept == []

    async def test_used_weight_slows_down(self, gate: Gate, clock: HandClock) -> None:
        for used in (USED_WEIGHT_HALF, USED_WEIGHT_HALF + 1, USED_WEIGHT_HALF):
            gate.heard(200, {"X-MBX-USED-WEIGHT-1M": str(used)}, "")
            await gate.pass_through(1)
        await gate.pass_through(1)
        assert clock.slept == pytest.approx([0.05, 0.10, 0.05])

    @pytest.mark.parametrize("text", ["", "many", "-1", "1e9", "²", "٣", "9" * 5000, "3001.5"])
    async def test_a_weight_that_is_no_number_is_none(self, gate: Gate, clock: HandClock, text: str) -> None:
        gate.heard(200, {"x-mbx-used-weight-1m": text}, "")
        await gate.pass_through(1)
        await gate.pass_through(1)
        assert clock.slept == pytest.approx([0.05])


class TestWhoIsNotSentPaysNothing:
    async def test_cancelled_while_waiting(self) -> None:
        clock = SystemClock()
        gate = Gate(clock, 0.2)
        await gate.pass_through(1)
        begun = clock.monotonic()
        for _ in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await gate.pass_through(10)
        await gate.pass_through(1)
        # The five of them would have had to be waited for, ten seconds.
        assert clock.monotonic() - begun < 5

    async def test_stopped_while_waiting(self, gate: Gate, clock: HandClock) -> None:
        await gate.pass_through(1)
        clock.stopped = True
        with pytest.raises(ExchangeFault) as caught:
            await gate.pass_through(100)
        assert caught.value.kind is Kind.STOPPED
        clock.stopped = False
        await gate.pass_through(1)
        assert clock.slept == pytest.approx([0.05])

    async def test_one_behind_another_keeps_its_turn(self) -> None:
        clock = SystemClock()
        gate = Gate(clock, 0.2)
        begun = clock.monotonic()
        await gate.pass_through(1)
        passed: list[float] = []

        async def give_up() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await gate.pass_through(1)

        async def wait() -> None:
            await gate.pass_through(1)
            passed.append(clock.monotonic() - begun)

        async with asyncio.TaskGroup() as group:
            for job in (give_up(), wait(), wait()):
                group.create_task(job)
        assert passed[0] >= 0.4
        assert passed[1] >= 0.6


async def test_stop_ends_a_wait_at_once() -> None:
    clock = SystemClock()
    gate = Gate(clock, 3600)
    await gate.pass_through(1)
    begun = clock.monotonic()
    asyncio.get_running_loop().call_later(0.01, clock.stop)
    with pytest.raises(ExchangeFault) as caught:
        await gate.pass_through(1)
    assert caught.value.kind is Kind.STOPPED
    assert clock.monotonic() - begun < LONG_S


DAY_S = 86_400.0
RETRY_AFTER: list[tuple[str, float]] = [
    ("7", 7.0),
    ("7.5", 7.5),
    (" 120 ", 120.0),
    ("0", 1.0),
    ("-30", 1.0),
    ("", 1.0),
    ("soon", 1.0),
    ("nan", 1.0),
    ("inf", 1.0),
    ("-inf", 1.0),
    ("1e400", 1.0),
    ("0x10", 1.0),
    ("9" * 5000, 1.0),
    ("1e9", SILENCE_MAX_S),
    (str(SILENCE_MAX_S + 1), SILENCE_MAX_S),
    ("Mon, 99 Foo 2027 00:00:00 GMT", 1.0),
    ("Mon, 01 Jan 99999 00:00:00 GMT", 1.0),
    ("Mon, 01 Jan 99999999999999999999999 00:00:00 GMT", 1.0),
    ("Mon, 01 Jan 0001 00:00:00 +2300", 1.0),
    ("Mon, 01 Jan 2027 99:99:99 GMT", 1.0),
    ("Thu, 01 Jan 1970 00:00:00 GMT", 1.0),
    ("Fri, 31 Dec 9999 23:59:59 GMT", SILENCE_MAX_S),
    ("Fri, 31 Dec 9999 23:59:59 -2300", SILENCE_MAX_S),
]


class TestSilence:
    @pytest.mark.parametrize("status", [418, 429])
    @pytest.mark.parametrize(("text", "seconds"), RETRY_AFTER, ids=lambda value: str(value)[:50])
    def test_retry_after(self, gate: Gate, status: int, text: str, seconds: float) -> None:
        gate.heard(status, {"Retry-After": text}, "")
        assert gate.closed_s == pytest.approx(seconds)

    @pytest.mark.parametrize("name", ["Retry-After", "retry-after", "RETRY-AFTER"])
    def test_retry_after_as_a_date(self, gate: Gate, name: str) -> None:
        when = datetime.fromtimestamp(NOW_MS / 1000, UTC) + timedelta(seconds=90)
        gate.heard(429, {name: format_datetime(when, usegmt=True)}, "")
        assert gate.closed_s == pytest.approx(90)

    def test_banned_until(self, gate: Gate) -> None:
        gate.heard(418, {}, f'{{"code":-1003,"msg":"Way too much; IP banned until {NOW_MS + 45_000}."}}')
        assert gate.closed_s == pytest.approx(45)

    def test_the_longest_counts(self, gate: Gate) -> None:
        gate.heard(418, {"Retry-After": "60"}, f"banned until {NOW_MS + 45_000}")
        assert gate.closed_s == pytest.approx(60)
        gate.heard(429, {"Retry-After": "1"}, "")
        assert gate.closed_s == pytest.approx(60)

    @pytest.mark.parametrize("text", ["until tomorrow", f"until {NOW_MS - 1}", "until 123", f"until {'9' * 13}"])
    def test_a_ban_until_nonsense_is_short_or_bounded(self, gate: Gate, text: str) -> None:
        gate.heard(418, {}, text)
        assert 1 <= gate.closed_s <= SILENCE_MAX_S

    @pytest.mark.parametrize("status", [200, 400, 403, 500, 503])
    def test_other_answers_ask_for_none(self, gate: Gate, status: int) -> None:
        gate.heard(status, {}, f"banned until {NOW_MS + 45_000}")
        assert gate.closed_s == 0

    @pytest.mark.parametrize("status", [403, 500, 503])
    def test_any_failure_may_ask_for_it(self, gate: Gate, status: int) -> None:
        gate.heard(200, {"Retry-After": "60"}, "")
        assert gate.closed_s == 0
        gate.heard(status, {"Retry-After": "60"}, "")
        assert gate.closed_s == 60

    def test_what_is_asked_for_counts_more_than_what_a_text_says(self, gate: Gate) -> None:
        gate.heard(418, {"Retry-After": "60"}, f"banned until {NOW_MS + 3_600_000}")
        assert gate.closed_s == 60

    def test_without_a_header_it_doubles(self, gate: Gate, clock: HandClock) -> None:
        waits = []
        for _ in range(9):
            gate.heard(429, {}, "")
            waits.append(gate.closed_s)
            clock.now_s += gate.closed_s
        assert waits == pytest.approx([1, 2, 4, 8, 16, 32, 64, 64, 64])

    def test_a_success_begins_anew(self, gate: Gate, clock: HandClock) -> None:
        for _ in range(4):
            gate.limited()
        clock.now_s += 60
        gate.answered()
        gate.limited()
        assert gate.closed_s == pytest.approx(1)

    def test_an_answer_that_says_too_many_requests_with_a_200_is_no_success(self, gate: Gate, clock: HandClock) -> None:
        """As Kraken does."""
        waits = []
        for _ in range(4):
            gate.heard(200, {}, '{"error":["EGeneral:Too many requests"]}')
            gate.limited(text="EGeneral:Too many requests")
            waits.append(gate.closed_s)
            clock.now_s += gate.closed_s
        assert waits == pytest.approx([1, 2, 4, 8])

    async def test_nobody_passes_until_it_is_over(self, gate: Gate, clock: HandClock) -> None:
        gate.heard(429, {"Retry-After": "7"}, "")
        clock.now_s += 3
        with pytest.raises(ExchangeFault) as caught:
            gate.check()
        assert caught.value.kind is Kind.RATE_LIMIT
        assert caught.value.retry_s == pytest.approx(4)
        with pytest.raises(ExchangeFault) as caught:
            await gate.pass_through(1)
        assert caught.value.retry_s == pytest.approx(4)
        clock.now_s += 4
        gate.check()
        await gate.pass_through(1)
        assert clock.slept == []

    async def test_it_counts_for_those_who_wait_already(self) -> None:
        class Closing(HandClock):
            async def sleep(self, seconds: float) -> bool:
                closing.close(30)
                return await super().sleep(seconds)

        hand = Closing()
        closing = Gate(hand, SPACING_S)
        await closing.pass_through(1)
        with pytest.raises(ExchangeFault) as caught:
            await closing.pass_through(1)
        assert caught.value.kind is Kind.RATE_LIMIT

    @given(
        st.integers(100, 599),
        st.dictionaries(st.sampled_from(["Retry-After", "X-MBX-USED-WEIGHT-1M", "Date"]), st.text(max_size=40)),
        st.text(max_size=60),
    )
    def test_no_answer_breaks_it(self, status: int, headers: dict[str, str], body: str) -> None:
        gate = Gate(HandClock(), SPACING_S)
        gate.heard(status, headers, body)
        assert (gate.closed_s >= 1) is (status in {418, 429})
        assert gate.closed_s <= SILENCE_MAX_S
