"""Notifications: what is told and what is not, and that nobody who trades ever waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from bot.domain import Signal
from bot.ports import FeedError, Observer
from bot.repositories import StorageFull
from bot.service.alerts import (
    HOUR_S,
    LINES_MAX,
    QUEUE_MAX,
    STUCK_S,
    AlertRules,
    Alerts,
    message,
)

WAIT_S_MAX = 10.0
NEVER_S = 1000.0


@dataclass
class Inbox:
    """Somebody's telephone. ``answer`` is what a delivery comes to."""

    answer: Callable[[str], bool] = lambda body: True
    messages: list[tuple[str, str]] = field(default_factory=list)
    come: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __call__(self, title: str, body: str) -> bool:
        self.messages.append((title, body))
        self.come.release()
        return self.answer(body)

    @property
    def bodies(self) -> list[str]:
        return [body for _, body in self.messages]


@dataclass
class Now:
    s: float = 0.0

    def __call__(self) -> float:
        return self.s


@dataclass
class Told:
    """A log, and what was written to it."""

    capture: LogCapture = field(default_factory=LogCapture)

    @property
    def log(self) -> Any:
        return structlog.wrap_logger(
            None, processors=[self.capture], wrapper_class=structlog.make_filtering_bound_logger(0)
        )

    @property
    def events(self) -> list[str]:
        return [entry["event"] for entry in self.capture.entries]


def alerts(send: Callable[[str, str], bool], now: Now | None = None, told: Told | None = None, **rules: Any) -> Alerts:
    """Its window never ends by itself: what comes at once stays together however busy the machine is."""
    return Alerts(send, (told or Told()).log, now or Now(), AlertRules(**rules), NEVER_S)


def signal(symbol: str = "BTC/USDT") -> Signal:
    return Signal(1, 1, 1_735_689_600_000, "sma_cross", symbol, 1.0, 100.0, 101.0)


def order(number: int = 0, pnl: float = 0.0) -> dict[str, Any]:
    return {"side": "buy", "amount": 0.5, "price": 50_000.0 + number, "info": {"pnl": pnl}}


class TestTrades:
    def test_one(self) -> None:
        inbox = Inbox()
        with alerts(inbox) as told:
            told.filled(signal(), order(pnl=-1.5))
        line = "2025-01-01T00:00:00.000Z sma_cross: buy 0.5 BTC/USDT at 50000, pnl -1.50"
        assert inbox.messages == [("Paperloop: a trade", line)]

    def test_many_are_one_message(self) -> None:
        inbox = Inbox()
        with alerts(inbox) as told:
            for number in range(3):
                told.filled(signal(), order(number))
        ((title, body),) = inbox.messages
        assert title == "Paperloop: 3 trades"
        assert [line.rpartition(" ")[2] for line in body.splitlines()] == ["50000", "50001", "50002"]

    def test_a_window_ends_by_itself(self) -> None:
        inbox = Inbox()
        with Alerts(inbox, Told().log, Now(), AlertRules(), bundle_s=0.01) as told:
            told.filled(signal(), order())
            assert inbox.come.acquire(timeout=WAIT_S_MAX)
            assert len(inbox.messages) == 1

    def test_a_message_has_an_end(self) -> None:
        title, body = message("trades", [f"line {number} {'x' * 1000}" for number in range(500)], 7)
        assert title == "Paperloop: 500 trades"
        lines = body.splitlines()
        assert lines[LINES_MAX - 1].startswith("line 499 ")
        assert lines[LINES_MAX:] == ["and 480 before them", "not told before this: 7"]
        assert len(body) < 3500

    def test_a_flood_leaves_the_caller_unharmed(self) -> None:
        """Nobody takes the messages; 10,000 trades fit where there is room for some, and what did not is counted."""
        free, inbox = threading.Event(), Inbox(lambda body: free.wait(WAIT_S_MAX))
        with alerts(inbox) as told:
            told.halted("first")
            assert inbox.come.acquire(timeout=WAIT_S_MAX)
            for number in range(10_000):
                told.filled(signal(), order(number))
            told.halted("last")
            assert told.dropped == 10_000 - QUEUE_MAX
            free.set()
        assert [title for title, _ in inbox.messages] == ["Paperloop: halt"] * 2 + [f"Paperloop: {QUEUE_MAX} trades"]
        assert inbox.bodies[1] == "halted: last\nnot told before this: 9000"


class TestOutages:
    def test_a_blip_is_no_news(self) -> None:
        inbox, now = Inbox(), Now()
        with alerts(inbox, now, outage_after_s=60) as told:
            for _ in range(5):
                told.interrupted(FeedError("timeout"), 10.0)
                now.s += 10
            told.resumed(50.0, 5)
        assert inbox.messages == []

    def test_one_that_lasts_is_told_once_and_its_end_too(self) -> None:
        inbox, now = Inbox(), Now()
        with alerts(inbox, now, outage_after_s=60) as told:
            for _ in range(20):
                told.interrupted(FeedError("timeout"), 10.0)
                now.s += 10
            assert inbox.come.acquire(timeout=WAIT_S_MAX)
            told.resumed(200.0, 20)
        assert inbox.messages == [
            ("Paperloop: outage", "no prices (for 60 s, next try in 10 s): timeout"),
            ("Paperloop: outage", "trading again after 200 s"),
        ]

    def test_the_next_one_is_another(self) -> None:
        inbox, now = Inbox(), Now()
        with alerts(inbox, now, outage_after_s=60) as told:
            told.interrupted(FeedError("timeout"), 61.0)
            told.resumed(61.0, 1)
            now.s += 100
            told.interrupted(FeedError("timeout"), 10.0)
            told.resumed(10.0, 1)
        assert "\n".join(inbox.bodies).count("no prices") == 1

    def test_a_ban_of_a_day_is_told_at_once(self) -> None:
        """Nothing is heard of it again before it is over."""
        inbox = Inbox()
        with alerts(inbox) as told:
            told.interrupted(FeedError("banned"), 86_400.0)
        assert inbox.bodies == ["no prices (for 0 s, next try in 86400 s): banned"]

    def test_a_ledger_that_stays_unwritable_is_a_halt(self) -> None:
        inbox, now = Inbox(), Now()
        with alerts(inbox, now, events=["halts"], outage_after_s=60) as told:
            told.interrupted(FeedError("timeout"), 500.0)
            for _ in range(10):
                told.interrupted(StorageFull("the disk is full"), 10.0)
                now.s += 10
            assert inbox.come.acquire(timeout=WAIT_S_MAX)
            told.resumed(100.0, 10)
        assert inbox.messages == [
            (
                "Paperloop: halt",
                "trading halted, the ledger cannot be written (for 60 s, next try in 10 s): the disk is full",
            ),
            ("Paperloop: halt", "trading again after 100 s"),
        ]

    def test_nobody_elses_words_make_lines_or_colours(self) -> None:
        inbox = Inbox()
        with alerts(inbox) as told:
            told.interrupted(FeedError("x\n\x1b[31m\u202esold everything" + "y" * 100_000), 100.0)
            told.halted("a\r\nb")
        ((_, first), *rest) = inbox.messages
        lines = [line for body in (first, *(body for _, body in rest)) for line in body.split("\n")]
        assert len(lines) == 2
        assert all(line.isprintable() and len(line) <= 1000 for line in lines)


class TestEvents:
    def test_only_what_is_wanted(self) -> None:
        for events in (["trades"], ["outages"], ["halts"]):
            inbox = Inbox()
            with alerts(inbox, events=events) as told:
                told.filled(signal(), order())
                told.interrupted(FeedError("x"), 100.0)
                told.halted("y")
            assert len(inbox.messages) == 1

    def test_it_is_an_observer(self) -> None:
        observer: Observer = alerts(Inbox())
        observer.refused(signal(), "insufficient_cash")


class TestLimit:
    def test_so_many_an_hour_and_what_is_held_back_is_counted(self) -> None:
        """Three: two for whatever comes, and the last for a halt."""
        inbox, now = Inbox(), Now()
        with alerts(inbox, now, per_hour_max=3) as told:
            for sent, held in ((1, 0), (1, 1)):
                told.interrupted(FeedError("timeout"), 100.0)
                wait_until(lambda sent=sent, held=held: (len(inbox.messages), told.unsaid) == (sent + held, held))  # type: ignore[misc]
                told.resumed(100.0, 1)
                wait_until(lambda sent=sent, held=held: (len(inbox.messages), told.unsaid) == (sent + 1, 2 * held))  # type: ignore[misc]
            told.halted("one")
            wait_until(lambda: (len(inbox.messages), told.unsaid) == (3, 0))
            told.halted("two")
            wait_until(lambda: told.unsaid == 1)
            now.s = HOUR_S
            told.halted("three")
        assert [title for title, _ in inbox.messages] == ["Paperloop: outage"] * 2 + ["Paperloop: halt"] * 2
        assert inbox.bodies[2:] == ["halted: one\nnot told before this: 2", "halted: three\nnot told before this: 1"]

    def test_the_next_hour(self) -> None:
        inbox, now = Inbox(), Now()
        with alerts(inbox, now, per_hour_max=1) as told:
            told.halted("one")
            assert inbox.come.acquire(timeout=WAIT_S_MAX)
            now.s = HOUR_S - 1
            told.halted("two")
            wait_until(lambda: told.unsaid == 1)
            now.s = HOUR_S
            told.halted("three")
        assert inbox.bodies == ["halted: one", "halted: three\nnot told before this: 1"]


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("not within ten seconds")


class TestFailures:
    def test_a_service_that_refuses_and_one_that_raises(self) -> None:
        def refuses(body: str) -> bool:
            return False

        def fails(body: str) -> bool:
            raise OSError("no route")

        for answer, why in ((refuses, "the service refused it"), (fails, "OSError: no route")):
            inbox, log = Inbox(answer), Told()
            with alerts(inbox, told=log) as told:
                told.halted("one")
                assert inbox.come.acquire(timeout=WAIT_S_MAX)
                told.halted("two")
            assert log.events == ["a notification was not delivered"] * 2
            assert log.capture.entries[0]["error"] == why
            assert inbox.bodies[1] == "halted: two\nnot told before this: 1"

    def test_one_that_never_answers_is_told_of_and_does_not_hold_the_end(self) -> None:
        never, log, now = threading.Event(), Told(), Now()
        inbox = Inbox(lambda body: never.wait(WAIT_S_MAX))
        try:
            with alerts(inbox, now, log) as told:
                told.halted("one")
                assert inbox.come.acquire(timeout=WAIT_S_MAX)
                told.stepped(None)  # type: ignore[arg-type]
                assert log.events == []
                now.s = STUCK_S + 1
                told.stepped(None)  # type: ignore[arg-type]
                told.stepped(None)  # type: ignore[arg-type]
                told.halted("two")
            assert log.events == ["a notification hangs", "notifications were not delivered before the end"]
        finally:
            never.set()

    def test_an_exception_that_ends_it_is_a_halt(self) -> None:
        for error, bodies in ((ValueError("a\nb"), ["halted: ValueError: a\\x0ab"]), (KeyboardInterrupt(), [])):
            inbox = Inbox()
            with pytest.raises(type(error)), alerts(inbox):
                raise error
            assert inbox.bodies == bodies

    def test_what_waits_at_the_end_is_sent(self) -> None:
        inbox = Inbox()
        with alerts(inbox) as told:
            for number in range(5):
                told.filled(signal(), order(number))
            told.halted("a bug")
        assert sorted(title for title, _ in inbox.messages) == ["Paperloop: 5 trades", "Paperloop: halt"]
