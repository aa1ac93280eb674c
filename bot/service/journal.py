"""What the loop did, as log lines: one a change, none for a poll that changed nothing, a heartbeat a minute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from structlog.typing import FilteringBoundLogger

from bot.domain import Signal, iso8601
from bot.ports import FeedError, Status

# A log of this size means that checkpoints have not got through for a long time.
LOG_BYTES_MAX = 64 * 2**20
# No sooner than the log lets a line through again.
OUTAGE_AGAIN_S = 61.0
REFUSAL_AGAIN_S = 60.0
# At most so many in so long, whatever they say: an exchange may give each failure a number of its own.
OUTAGES_MAX = 10
OUTAGES_WITHIN_S = 600.0


class Journal:
    """The loop's observer. ``quiet`` leaves out the line a trade: at full speed they would be thousands a second."""

    def __init__(
        self, log: FilteringBoundLogger, monotonic: Callable[[], float], heartbeat_s: float, *, quiet: bool = False
    ) -> None:
        self._log, self._monotonic, self._heartbeat_s, self._quiet = log, monotonic, heartbeat_s, quiet
        self._next_heartbeat = monotonic() + heartbeat_s
        self._begun = False
        self.feed_counts: Callable[[], Mapping[str, int]] = dict
        self._outage: str | None = None
        self._refusals: dict[tuple[str, str], tuple[float, int]] = {}  # account, reason -> when told, held since
        self._outage_told = False
        self._outages_held = 0
        self._news: list[tuple[float, str, str]] = []  # outages that were told: when, and of what

    def filled(self, signal: Signal, order: Mapping[str, Any]) -> None:
        if self._quiet:
            return
        self._log.info(
            "trade",
            id=order["info"]["trade_db_id"],
            account=signal.account,
            side=order["side"],
            symbol=signal.symbol,
            amount=order["amount"],
            price=order["price"],
            fee=round(order["fee"]["cost"], 8),
            pnl=round(order["info"]["pnl"], 8),
            target=signal.target,
        )

    def refused(self, signal: Signal, reason: str) -> None:
        if self._quiet:
            return
        now = self._monotonic()
        since, held = self._refusals.get((signal.account, reason), (-REFUSAL_AGAIN_S, 0))
        again = now - since < REFUSAL_AGAIN_S
        self._refusals[signal.account, reason] = (since, held + 1) if again else (now, 0)
        # An account without cash refuses hundreds an hour: the ledger has them all, the log the first of a minute.
        tell = self._log.debug if again else self._log.info
        more = {"repeated": held} if held and not again else {}
        tell(
            "signal refused",
            id=signal.id,
            account=signal.account,
            symbol=signal.symbol,
            target=signal.target,
            reason=reason,
            **more,
        )

    def interrupted(self, error: Exception, retry_s: float) -> None:
        event = "no prices" if isinstance(error, FeedError) else "cannot write the ledger"
        text = f"{error}"
        if event != self._outage:
            self._outage, self._outage_told = event, False
            self._outages_held += 1
        # An outage is one line when it begins and one when it ends; what each try in between met is for debugging.
        if self._outage_told or not self._is_news(event, text):
            self._log.debug(event, error=text, retry_s=round(retry_s, 1))
            return
        held = {"repeated": self._outages_held - 1} if self._outages_held > 1 else {}
        self._outage_told, self._outages_held = True, 0
        self._log.warning(event, error=text, retry_s=round(retry_s, 1), **held)

    def _is_news(self, event: str, text: str) -> bool:
        """Whether an outage is told: not the same again within a minute, nor any number of them, when each other poll
        fails. One that is held back for that and stays is told later."""
        now = self._monotonic()
        self._news = [news for news in self._news if now - news[0] < OUTAGES_WITHIN_S]
        recent = {news[1:] for news in self._news if now - news[0] < OUTAGE_AGAIN_S}
        if (event, text) in recent or len(self._news) >= OUTAGES_MAX:
            return False
        self._news.append((now, event, text))
        return True

    def resumed(self, outage_s: float, failures: int) -> None:
        tell = self._log.info if self._outage_told else self._log.debug
        self._outage = None
        tell("trading again", outage_s=round(outage_s, 1), failures=failures)

    def strategy_failed(self, strategy: str, error: Exception | SystemExit) -> None:
        self._log.error("strategy failed, target held", strategy=strategy, error=f"{type(error).__name__}: {error}")

    def stepped(self, status: Status) -> None:
        now = self._monotonic()
        if not self._begun:
            self._begun = True
            self._log.info("first prices are in the ledger", polls=status.polls, at=iso8601(status.timestamp))
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + self._heartbeat_s
            self._log.info(
                "heartbeat",
                polls=status.polls,
                ticks=status.ticks,
                signals=status.signals,
                trades=status.trades,
                equity={name: round(value, 2) for name, value in status.equity().items()},
                at=iso8601(status.timestamp),
                **{name: count for name, count in {**status.clock_events(), **self.feed_counts()}.items() if count},
            )
            if status.log_bytes > LOG_BYTES_MAX:
                self._log.warning("the ledger's log grows: some program reads it without end", bytes=status.log_bytes)
