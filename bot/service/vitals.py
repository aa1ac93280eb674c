"""What is known of the running daemon, and whether it is alive: the one place that the service manager, the health
check, the metrics and the page ask."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bot.domain import Signal, iso8601
from bot.ports import Clock, FeedError, Silent, Status
from bot.repositories import Database, lock_owner
from bot.service.inspect import Document, account_document
from bot.service.plain import printable

# Where nothing was traded, positions are valued anew no more often than this.
VALUED_EVERY_S = 0.5
# A ledger whose last prices are further ahead of the clock says nothing about their age.
AHEAD_MAX_S = 60.0
# What others say may be a page long.
TEXT_CHARS_MAX = 400


@dataclass(frozen=True, slots=True)
class Health:
    """``reason`` says why it is not alive; ``age_s`` is how old the last committed step is, None before the first."""

    alive: bool
    reason: str
    age_s: float | None

    @property
    def document(self) -> Document:
        return {
            "alive": self.alive,
            "reason": self.reason,
            "age_s": None if self.age_s is None else round(self.age_s, 3),
        }


def judged(age_s: float | None, stale_after_s: float) -> Health:
    """Alive is who has committed a step on fresh prices within ``stale_after_s``, and nobody else."""
    if age_s is None:
        return Health(False, "no prices yet", None)
    if age_s > stale_after_s:
        return Health(False, f"no prices for {age_s:.1f} s, stale after {stale_after_s:g} s", age_s)
    if age_s < -AHEAD_MAX_S:
        return Health(False, f"the last prices are {-age_s:.0f} s ahead of this machine's clock", age_s)
    return Health(True, "", max(0.0, age_s))


async def of_ledger(database: Database, now_ms: Callable[[], int], stale_after_s: float) -> Health:
    """The same, asked from outside: by the lock that a daemon holds, and by the time of its last committed step."""
    cursor = database.cursor
    if lock_owner(database.path) is None:
        return Health(False, "no daemon is running on this ledger", None)
    if not cursor.polls:
        return judged(None, stale_after_s)
    age_s = (now_ms() - cursor.timestamp) / 1000
    if age_s < -AHEAD_MAX_S and (written_ms := database.written_ms):
        # The clock was set back, and beats go on from where they were: when the file was written tells.
        age_s = (now_ms() - written_ms) / 1000
    return judged(age_s, stale_after_s)


@dataclass(slots=True)
class Histogram:
    """How long steps took; ``counts`` has one entry a bucket, and one more for what is above the last."""

    bounds_s: tuple[float, ...] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
    counts: list[int] = field(default_factory=list)
    sum_s: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds_s) + 1)

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.sum_s += seconds


@dataclass(frozen=True, slots=True)
class Trouble:
    """The last thing that went wrong. ``kind`` is "feed" or "ledger"."""

    at_ms: int
    kind: str
    text: str

    @property
    def document(self) -> Document:
        return {"at": iso8601(self.at_ms), "kind": self.kind, "error": self.text}


class Vitals(Silent):
    """An observer of the loop that remembers. Counts of ticks, signals and trades are of the whole ledger; those by
    verdict, of troubles and of steps are since the start."""

    def __init__(
        self, clock: Clock, stale_after_s: float, strategies: Mapping[str, str], symbols: Sequence[str] = ()
    ) -> None:
        """``clock`` is the machine's; ``strategies`` are the accounts' strategies by account, ``symbols`` what is
        watched."""
        self.clock, self.stale_after_s, self._strategies, self.symbols = clock, stale_after_s, strategies, symbols
        self.started_ms = clock.now_ms()
        self.feed_counts: Callable[[], Mapping[str, int]] = dict
        self.polls = self.ticks = self.signals = self.trades = self.timestamp = 0
        self.digest = ""
        self.steps = Histogram()
        self.filled_count = 0
        self.refusals: Counter[str] = Counter()
        self.interruptions: Counter[str] = Counter()
        self.seen: dict[str, tuple[float, int]] = {}  # symbol -> price, when it was last quoted
        self.accounts: list[Document] = []
        self.clock_events: Mapping[str, int] = {}
        self.trouble: Trouble | None = None
        self.outage_since_ms: int | None = None
        self._valued_s = 0.0
        self._stepped: tuple[int, float] | None = None  # by the wall clock and by the monotonic one

    def filled(self, signal: Signal, order: Mapping[str, Any]) -> None:
        self.filled_count += 1

    def refused(self, signal: Signal, reason: str) -> None:
        self.refusals[reason] += 1

    def recovered(self, status: Document, timestamp: int) -> None:
        """What the ledger says before the first step: nobody is alive by that, but it is known."""
        self.accounts, self.digest, self.timestamp = status["accounts"], status["digest"], timestamp
        self.polls, self.ticks = status["polls"], status["ticks"]
        self.signals, self.trades = status["signals"], status["trades"]

    def interrupted(self, error: Exception, retry_s: float) -> None:
        self.troubled("feed" if isinstance(error, FeedError) else "ledger", f"{error}")

    def troubled(self, kind: str, text: str) -> None:
        self.interruptions[kind] += 1
        self.trouble = Trouble(self.clock.now_ms(), kind, printable(text)[:TEXT_CHARS_MAX])
        if self.outage_since_ms is None:
            self.outage_since_ms = self.trouble.at_ms

    def stepped(self, status: Status) -> None:
        now_s = self.clock.monotonic()
        if status.trades != self.trades or not self.accounts or now_s - self._valued_s >= VALUED_EVERY_S:
            self._valued_s = now_s
            strategies, prices = self._strategies, status.prices
            self.accounts = [
                account_document(account, strategies.get(account.name), prices) for account in status.accounts.values()
            ]
        self.polls, self.ticks, self.timestamp = status.polls, status.ticks, status.timestamp
        self.signals, self.trades, self.digest = status.signals, status.trades, status.digest
        self.clock_events = status.clock_events()
        self.seen.update((symbol, (price, status.timestamp)) for symbol, price in status.quoted.items())
        self.steps.add(status.step_s)
        self._stepped = self.clock.now_ms(), now_s
        # Not when the loop says that it trades again: of a start that waited for its exchange it knows nothing.
        self.outage_since_ms = None

    def health(self) -> Health:
        """By two clocks: the wall clock may be set back, and the other one stands still in a suspended machine."""
        if self._stepped is None:
            return judged(None, self.stale_after_s)
        at_ms, at_s = self._stepped
        age_s = max((self.clock.now_ms() - at_ms) / 1000, self.clock.monotonic() - at_s)
        return judged(age_s, self.stale_after_s)

    @property
    def equity(self) -> dict[str, float]:
        """By account, those whose positions all have a price."""
        return {each["account"]: each["equity"] for each in self.accounts if each["equity"] is not None}
