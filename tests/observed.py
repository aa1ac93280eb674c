"""What observers of a loop are told, by hand; and a log that keeps what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from bot.domain import Account
from bot.ports import FeedError


@dataclass
class Seen:
    """A loop's status: see ``ports.Status``."""

    log_bytes: int = 0
    polls: int = 1
    ticks: int = 1
    signals: int = 1
    trades: int = 1
    timestamp: int = 1
    digest: str = ""
    step_s: float = 0.001
    quoted: Mapping[str, float] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)
    accounts: Mapping[str, Account] = field(default_factory=dict)
    missed_beats: int = 0
    valued: int = 1  # how many accounts have an equity

    def clock_events(self) -> dict[str, int]:
        return {"missed_beats": self.missed_beats, "clock_steps": 0}

    def equity(self) -> dict[str, float]:
        return {f"{'one' * (number > 0)}{number}": 5.0 for number in range(self.valued)}


class Machine:
    """A machine's clock, set by hand. Seconds since 2023-11-14T22:13:20Z and, for ``monotonic``, since its start."""

    waits = True
    missed_beats = steps = 0
    polls_ahead = 1

    def __init__(self) -> None:
        self.wall_s, self.now_s = 1_700_000_000.0, 100.0

    def now_ms(self) -> int:
        return round(self.wall_s * 1000)

    def monotonic(self) -> float:
        return self.now_s

    def passes(self, seconds: float) -> None:
        self.wall_s += seconds
        self.now_s += seconds

    def stop(self) -> None:
        raise NotImplementedError

    def limit(self, seconds: float | None) -> Any:
        raise NotImplementedError

    async def sleep(self, seconds: float) -> bool:
        self.passes(seconds)
        return False

    async def next_beat(self, interval_ms: int, after_ms: int) -> int | None:
        raise NotImplementedError


def log_to(lines: LogCapture) -> FilteringBoundLogger:
    wrapper = structlog.make_filtering_bound_logger(0)
    log: FilteringBoundLogger = structlog.wrap_logger(None, processors=[lines], wrapper_class=wrapper)
    return log


def no_prices(text: str = "the exchange answers 503") -> FeedError:
    return FeedError(text)
