"""What the journal makes of what it hears."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import structlog
from structlog.testing import LogCapture

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
