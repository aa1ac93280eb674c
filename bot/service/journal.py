"""What the loop did, as log lines: one a change, none for a poll that changed nothing, a heartbeat a minute."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from structlog.typing import FilteringBoundLogger

from bot.domain import Signal, iso8601
from bot.ports import FeedError, Status

# A log of this size means that checkpoints have not got through for a long time.
LOG_BYTES_MAX = 64 * 2**20
# No sooner than the log lets a line through again.
OUTAGE_AGAIN_S = 61.0
REFUSAL_AGAIN_S = 60.0
FAILURE_AGAIN_S = 61.0
# At most so many in so long, whatever they say: an exchange may give each failure a number of its own.
OUTAGES_MAX = 3
OUTAGES_WITHIN_S = 600.0
# Of a page of HTML that came instead of an answer, the beginning says enough.
ERROR_CHARS_MAX = 200
ACCOUNTS_MAX = 5
# A strategy on ticks may trade ten thousand times a day. With a heartbeat a minute this comes to 800 kB a day, whatever
# happens; the rest of a megabyte is for restarts and for what others have to say.
BYTES_AT_FIRST = 16_000
BYTES_A_HEARTBEAT = 540
# What lines leave in the budget to those that matter more: trades to failures, these to heartbeats, all to outages.
LEFT_BY_TRADES = 4_000
LEFT_BY_FAILURES = 2_500
LEFT_BY_HEARTBEATS = 1_000
# Time, level and punctuation; and a whole line that says "trading again".
LINE_BYTES = 100
END_BYTES = 180


class Budget:
    """How many bytes of log may still be written: some at first, then so many a second, never more than at first."""

    def __init__(self, monotonic: Callable[[], float], bytes_a_second: float) -> None:
        self._monotonic, self._bytes_a_second = monotonic, bytes_a_second
        self._left, self._at = float(BYTES_AT_FIRST), monotonic()

    def pays(self, event: str, fields: Mapping[str, Any], leaving: int, besides: int = 0) -> bool:
        """Takes what a line costs, and ``besides`` for one that will follow, if at least ``leaving`` is left then."""
        now = self._monotonic()
        self._left = min(BYTES_AT_FIRST, self._left + (now - self._at) * self._bytes_a_second)
        self._at = now
        cost = LINE_BYTES + len(event) + len(json.dumps(fields, default=str)) + besides
        if self._left - cost < leaving:
            return False
        self._left -= cost
        return True


class Journal:
    """The loop's observer. ``quiet`` leaves out the line a trade: at full speed they would be thousands a second.

    The lines have a budget. What it does not pay for is at level debug, and its count is in the next heartbeat.
    """

    def __init__(
        self, log: FilteringBoundLogger, monotonic: Callable[[], float], heartbeat_s: float, *, quiet: bool = False
    ) -> None:
        self._log, self._monotonic, self._heartbeat_s, self._quiet = log, monotonic, heartbeat_s, quiet
        self._next_heartbeat = monotonic() + heartbeat_s
        self._begun = False
        self.feed_counts: Callable[[], Mapping[str, int]] = dict
        self._budget = Budget(monotonic, BYTES_A_HEARTBEAT / heartbeat_s)
        self._not_shown: Counter[str] = Counter()
        self._told: dict[tuple[str, ...], tuple[float, int]] = {}  # of what -> when, and how often not since
        self._outage: str | None = None
        self._outage_told = False
        self._outages_held = 0
        self._news: list[tuple[float, str, str]] = []  # outages that were told: when, and of what

    def filled(self, signal: Signal, order: Mapping[str, Any]) -> None:
        if self._quiet:
            return
        trade = {
            "id": order["info"]["trade_db_id"],
            "account": signal.account,
            "side": order["side"],
            "symbol": signal.symbol,
            "amount": order["amount"],
            "price": order["price"],
            "fee": round(order["fee"]["cost"], 8),
            "pnl": round(order["info"]["pnl"], 8),
            "target": signal.target,
        }
        if self._budget.pays("trade", trade, LEFT_BY_TRADES):
            self._log.info("trade", **trade)
        else:
            self._not_shown["trades_not_shown"] += 1
            self._log.debug("trade", **trade)

    def refused(self, signal: Signal, reason: str) -> None:
        if self._quiet:
            return
        refusal = {
            "id": signal.id,
            "account": signal.account,
            "symbol": signal.symbol,
            "target": signal.target,
            "reason": reason,
        }
        # An account without cash refuses hundreds an hour: the ledger has them all, the log the first of a minute.
        if self._again((signal.account, reason), "signal refused", refusal, REFUSAL_AGAIN_S, LEFT_BY_TRADES):
            self._not_shown["refusals_not_shown"] += 1
            self._log.debug("signal refused", **refusal)
        else:
            self._log.info("signal refused", **refusal)

    def strategy_failed(self, strategy: str, error: Exception | SystemExit) -> None:
        event = "strategy failed, target held"
        failure = {"strategy": strategy, "error": f"{type(error).__name__}: {error}"[:ERROR_CHARS_MAX]}
        # It may fail at every tick, and say something else each time.
        if self._again((event, strategy), event, failure, FAILURE_AGAIN_S, LEFT_BY_FAILURES):
            self._not_shown["failures_not_shown"] += 1
            self._log.debug(event, **failure)
        else:
            self._log.error(event, **failure)

    def _again(self, of: tuple[str, ...], event: str, fields: dict[str, Any], within_s: float, leaving: int) -> bool:
        """Whether a line is held back: told not long ago, or not paid for. Else it gets the count of those."""
        now = self._monotonic()
        since, held = self._told.get(of, (-within_s, 0))
        more = {"repeated": held} if held else {}
        if now - since < within_s or not self._budget.pays(event, fields | more, leaving):
            self._told[of] = (since, held + 1)
            return True
        self._told[of] = (now, 0)
        fields |= more
        return False

    def interrupted(self, error: Exception, retry_s: float) -> None:
        event = "no prices" if isinstance(error, FeedError) else "cannot write the ledger"
        if event != self._outage:
            self._outage, self._outage_told = event, False
            self._outages_held += 1
        outage: dict[str, Any] = {"error": f"{error}"[:ERROR_CHARS_MAX], "retry_s": round(retry_s, 1)}
        # An outage is one line when it begins and one when it ends; what each try in between met is for debugging.
        if self._outage_told or not self._is_news(event, outage):
            self._log.debug(event, **outage)
            return
        held = {"repeated": self._outages_held - 1} if self._outages_held > 1 else {}
        self._outage_told, self._outages_held = True, 0
        self._log.warning(event, **outage, **held)

    def _is_news(self, event: str, outage: Mapping[str, Any]) -> bool:
        """Whether an outage is told: not the same again within a minute, nor any number of them, when each other poll
        fails. One that is held back for that and stays is told later."""
        now = self._monotonic()
        self._news = [news for news in self._news if now - news[0] < OUTAGES_WITHIN_S]
        recent = {news[1:] for news in self._news if now - news[0] < OUTAGE_AGAIN_S}
        if (event, outage["error"]) in recent or len(self._news) >= OUTAGES_MAX:
            return False
        # Its end is paid for with it: whoever reads of an outage is to read that it is over.
        if not self._budget.pays(event, outage, 0, besides=END_BYTES):
            return False
        self._news.append((now, event, outage["error"]))
        return True

    def resumed(self, outage_s: float, failures: int) -> None:
        tell = self._log.info if self._outage_told else self._log.debug
        self._outage = None
        tell("trading again", outage_s=round(outage_s, 1), failures=failures)

    def stepped(self, status: Status) -> None:
        now = self._monotonic()
        if not self._begun:
            self._begun = True
            self._log.info("first prices are in the ledger", polls=status.polls, at=iso8601(status.timestamp))
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + self._heartbeat_s
            self._heartbeat(status)

    def _heartbeat(self, status: Status) -> None:
        counts = {**status.clock_events(), **self.feed_counts(), **self._not_shown}
        heartbeat = {
            "polls": status.polls,
            "ticks": status.ticks,
            "signals": status.signals,
            "trades": status.trades,
            **_equities(status.equity()),
            "at": iso8601(status.timestamp),
            **{name: count for name, count in counts.items() if count},
        }
        # One that is left out, because it is too long or there is worse to tell, leaves room to the next.
        if self._budget.pays("heartbeat", heartbeat, LEFT_BY_HEARTBEATS):
            self._not_shown.clear()
            self._log.info("heartbeat", **heartbeat)
        growth = {"bytes": status.log_bytes}
        event = "the ledger's log grows: some program reads it without end"
        if status.log_bytes > LOG_BYTES_MAX and self._budget.pays(event, growth, LEFT_BY_HEARTBEATS):
            self._log.warning(event, **growth)


def _equities(equity: Mapping[str, float]) -> dict[str, Any]:
    """By account; of more than a few, the others together."""
    shown = {name: round(value, 2) for name, value in islice(equity.items(), ACCOUNTS_MAX)}
    if len(equity) <= ACCOUNTS_MAX:
        return {"equity": shown}
    others = list(equity.values())[ACCOUNTS_MAX:]
    return {"equity": shown, "other_accounts": len(others), "other_equity": round(sum(others), 2)}
