"""What the journal makes of what it hears."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from bot.domain import Signal
from bot.ports import FeedError
from bot.service.journal import LOG_BYTES_MAX, Journal
from bot.service.logs import logging_to
from tests.observed import Seen

DAY_S, STEP_S = 86_400, 4
DAY_BYTES_MAX = 10**6
MESSAGE = "<html>\n\x1b[31m\N{SNOWMAN}" * 1000


def signal_of(number: int, account: str = "one", symbol: str = "BTC/USDT") -> Signal:
    return Signal(number, 1, 0, account, symbol, 1.0, 1.0, 2.0)


def order_of(number: int) -> dict[str, Any]:
    fill = {"trade_db_id": number, "pnl": -12.3456789123}
    return {"side": "buy", "amount": 0.04567, "price": 50_123.45, "fee": {"cost": 2.2891234567}, "info": fill}


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
    assert len(told) <= 2 * 3 * 6
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
            journal.refused(signal_of(1, account), "insufficient_cash")
    told = [line for line in lines.entries if line["log_level"] == "info"]
    assert [(line["account"], line.get("repeated")) for line in told] == [
        *[("one", None), ("two", None)],
        *[("one", 5), ("two", 5)],
        *[("one", 5), ("two", 5)],
    ]


def day_of(happens: Callable[[Journal, int], None], *, accounts: int = 2, level: str = "info") -> list[str]:
    """The lines of a simulated day on which something happens every few seconds, as they are in the log."""
    now, text = [0.0], io.StringIO()
    with logging_to(text, level, "json", lambda: now[0]) as log:
        journal = Journal(log, lambda: now[0], 60.0)
        journal.feed_counts = lambda: {f"refused_for_a_reason_{number}": number for number in range(8)}
        for number in range(1, DAY_S // STEP_S + 1):
            now[0] = float(number * STEP_S)
            journal.stepped(Seen(valued=accounts))
            happens(journal, number)
    return text.getvalue().splitlines(keepends=True)


def trades(journal: Journal, number: int) -> None:
    journal.filled(signal_of(number), order_of(number))


def refusals(journal: Journal, number: int) -> None:
    account, symbol = f"an-account-with-a-name-{number % 50}", f"COIN{number % 1000}/USDT"
    journal.refused(signal_of(number, account, symbol), f"reason_{number % 7}")


def failures(journal: Journal, number: int) -> None:
    journal.strategy_failed(f"strategy-{number % 100}", ValueError(f"{number} {MESSAGE}"))


def outages(journal: Journal, number: int) -> None:
    journal.interrupted((FeedError, OSError)[number % 2](f"request {number}: {MESSAGE}"), 1.0)
    if number % 3 == 0:
        journal.resumed(8.0, 2)


def everything(journal: Journal, number: int) -> None:
    for happens in (trades, refusals, failures, outages):
        happens(journal, number)


def bytes_of(lines: Sequence[str]) -> int:
    return sum(len(line.encode()) for line in lines)


class TestDay:
    """At most a megabyte of log a day, whatever happens on it."""

    @pytest.mark.parametrize("happens", [trades, refusals, failures, outages, everything])
    def test_is_less_than_a_megabyte(self, happens: Callable[[Journal, int], None]) -> None:
        lines = day_of(happens)
        told = Counter(json.loads(line)["event"] for line in lines)
        assert bytes_of(lines) < DAY_BYTES_MAX
        if happens in (outages, everything):
            assert told["no prices"] + told["cannot write the ledger"] > 400, "whatever else there is to tell"
            assert told["heartbeat"] > DAY_S // 120
        else:
            assert told["heartbeat"] == DAY_S // 60

    def test_shows_the_first_trades_and_the_last_ones_and_counts_the_others(self) -> None:
        events = [json.loads(line) for line in day_of(trades)]
        shown = [event["id"] for event in events if event["event"] == "trade"]
        assert shown[:30] == list(range(1, 31))
        assert sum(number > (DAY_S - 3600) // STEP_S for number in shown) > 10
        # The first heartbeat is in the step of the first minute, the last one before the last trade.
        not_shown = sum(event.get("trades_not_shown", 0) for event in events)
        assert len(shown) + not_shown in (DAY_S // STEP_S, DAY_S // STEP_S - 1)

    def test_bad_news_come_through_a_flood_of_trades(self) -> None:
        def happens(journal: Journal, number: int) -> None:
            trades(journal, number)
            if number % 900 == 0:
                journal.interrupted(FeedError("connection refused"), 1.0)
                journal.strategy_failed("dip", ZeroDivisionError("division by zero"))
                journal.resumed(1.0, 1)

        told = Counter(json.loads(line)["event"] for line in day_of(happens))
        assert {told[event] for event in ("no prices", "trading again", "strategy failed, target held")} == {24}

    def test_a_thousand_accounts_are_told_of_together(self) -> None:
        lines = day_of(lambda journal, number: None, accounts=1000)
        heartbeat = next(event for line in lines if (event := json.loads(line))["event"] == "heartbeat")
        assert len(heartbeat["equity"]) == 5
        assert (heartbeat["other_accounts"], heartbeat["other_equity"]) == (995, 4975.0)
        assert bytes_of(lines) < DAY_BYTES_MAX


def test_what_is_not_shown_is_there_for_debugging() -> None:
    lines = LogCapture()
    log = structlog.wrap_logger(None, processors=[lines], wrapper_class=structlog.make_filtering_bound_logger(0))
    journal = Journal(log, float, 60.0)
    for number in range(500):
        everything(journal, number)
    for event in ("trade", "signal refused", "strategy failed, target held"):
        levels = [line["log_level"] for line in lines.entries if line["event"] == event]
        assert len(levels) == 500
        assert levels[-1] == "debug" != levels[0]


def test_at_full_speed_no_trade_is_told() -> None:
    lines = LogCapture()
    log = structlog.wrap_logger(None, processors=[lines], wrapper_class=structlog.make_filtering_bound_logger(0))
    journal = Journal(log, float, 5.0, quiet=True)
    trades(journal, 1)
    refusals(journal, 1)
    assert lines.entries == []
