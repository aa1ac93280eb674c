"""What the journal makes of what it hears."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import structlog
from structlog.testing import LogCapture

from bot.domain import Signal
from bot.ports import FeedError
from bot.service.journal import LOG_BYTES_MAX, Journal


@dataclass
class Seen:
    """A loop's status."""

    log_bytes: int = 0
    polls = ticks = signals = trades = timestamp = 1
    digest = ""

    def clock_events(self) -> dict[str, int]:
        return {"missed_beats": 0}

    def equity(self) -> dict[str, float]:
        return {"one": 5.0}


@pytest.mark.parametrize(("size", "warned"), [(LOG_BYTES_MAX, False), (LOG_BYTES_MAX + 1, True)])
def test_a_log_that_grows_without_end_is_told_of(size: int, warned: bool) -> None:
    now, lines = [0.0], LogCapture()
    log = structlog.wrap_logger(None, processors=[lines], wrapper_class=structlog.make_filtering_bound_logger(0))
    journal = Journal(log, lambda: now[0], 60.0)
    journal.stepped(Seen(size))
    now[0] = 61.0
    journal.stepped(Seen(size))
    assert [line["event"] for line in lines.entries][:2] == ["first prices are in the ledger", "heartbeat"]
    assert ("the ledger's log grows" in lines.entries[-1]["event"]) is warned


def test_an_outage_is_a_line_when_it_begins_and_one_when_it_ends() -> None:
    lines = LogCapture()
    log = structlog.wrap_logger(None, processors=[lines], wrapper_class=structlog.make_filtering_bound_logger(0))
    now = iter(range(0, 100_000, 100))
    journal = Journal(log, lambda: float(next(now)), 60.0)
    for _ in range(2):
        for failures in range(1, 4):
            journal.interrupted(FeedError(f"try {failures}"), 2.0**failures)
        journal.interrupted(OSError("disk"), 1.0)
        journal.resumed(14.04, 4)
    told = [(line["log_level"], line["event"]) for line in lines.entries]
    once = [("warning", "no prices"), ("debug", "no prices"), ("debug", "no prices")]
    once += [("warning", "cannot write the ledger"), ("info", "trading again")]
    assert told == once * 2
    assert lines.entries[0] == {"error": "try 1", "retry_s": 2.0, "event": "no prices", "log_level": "warning"}


def test_the_same_outage_again_and_again_is_told_once_a_minute() -> None:
    lines = LogCapture()
    log = structlog.wrap_logger(None, processors=[lines], wrapper_class=structlog.make_filtering_bound_logger(0))
    now = [0.0]
    journal = Journal(log, lambda: now[0], 60.0)
    for second in range(0, 130, 2):
        now[0] = float(second)
        journal.interrupted(FeedError("reset"), 1.0)
        journal.resumed(1.0, 1)
    told = [line for line in lines.entries if line["log_level"] != "debug"]
    assert [line["event"] for line in told] == ["no prices", "trading again"] * 3
    assert [line.get("repeated") for line in told[::2]] == [None, 30, 30]


def test_an_outage_that_was_held_back_and_stays_is_told_after_all() -> None:
    lines = LogCapture()
    log = structlog.wrap_logger(None, processors=[lines], wrapper_class=structlog.make_filtering_bound_logger(0))
    now = [0.0]
    journal = Journal(log, lambda: now[0], 60.0)
    journal.interrupted(FeedError("refused"), 1.0)
    journal.resumed(1.0, 1)
    for failures in range(1, 100):
        now[0] = 5.0 + failures
        journal.interrupted(FeedError("refused"), 1.0)
    journal.resumed(99.0, 99)
    told = [line for line in lines.entries if line["log_level"] != "debug"]
    assert [line["event"] for line in told] == ["no prices", "trading again"] * 2


def test_outages_that_each_say_something_else_are_no_flood() -> None:
    lines = LogCapture()
    log = structlog.wrap_logger(None, processors=[lines], wrapper_class=structlog.make_filtering_bound_logger(0))
    now = [0.0]
    journal = Journal(log, lambda: now[0], 60.0)
    for second in range(0, 3600, 4):
        now[0] = float(second)
        journal.interrupted(FeedError(f"request {second} has failed"), 1.0)
        journal.resumed(1.0, 1)
    told = [line for line in lines.entries if line["log_level"] != "debug"]
    assert [line["event"] for line in told] == ["no prices", "trading again"] * (len(told) // 2)
    assert len(told) <= 2 * 10 * 6
    assert sum(line.get("repeated", 0) for line in told) >= 700


def test_refusals_of_a_kind_are_told_once_a_minute() -> None:
    """An account without cash refuses hundreds an hour; the ledger has them all."""
    lines = LogCapture()
    log = structlog.wrap_logger(None, processors=[lines], wrapper_class=structlog.make_filtering_bound_logger(0))
    now = [0.0]
    journal = Journal(log, lambda: now[0], 60.0)
    for second in range(0, 121, 10):
        now[0] = float(second)
        for account in ("one", "two"):
            journal.refused(Signal(1, 1, 0, account, "BTC/USDT", 1.0, 1.0, 2.0), "insufficient_cash")
    told = [line for line in lines.entries if line["log_level"] == "info"]
    assert [(line["account"], line.get("repeated")) for line in told] == [
        *[("one", None), ("two", None)],
        *[("one", 5), ("two", 5)],
        *[("one", 5), ("two", 5)],
    ]
