"""What the loop did, as log lines: one a change, none for a poll that changed nothing, a heartbeat a minute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from structlog.typing import FilteringBoundLogger

from bot.domain import Signal, iso8601
from bot.ports import FeedError, Status

# A log of this size means that checkpoints have not got through for a long time.
LOG_BYTES_MAX = 64 * 2**20


class Journal:
    """The loop's observer. ``quiet`` leaves out the line a trade: at full speed they would be thousands a second."""

    def __init__(
        self, log: FilteringBoundLogger, monotonic: Callable[[], float], heartbeat_s: float, *, quiet: bool = False
    ) -> None:
        self._log, self._monotonic, self._heartbeat_s, self._quiet = log, monotonic, heartbeat_s, quiet
        self._next_heartbeat = monotonic() + heartbeat_s
        self._begun = False

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
        if not self._quiet:
            self._log.info(
                "signal refused",
                id=signal.id,
                account=signal.account,
                symbol=signal.symbol,
                target=signal.target,
                reason=reason,
            )

    def interrupted(self, error: Exception, retry_s: float) -> None:
        event = "no prices" if isinstance(error, FeedError) else "cannot write the ledger"
        self._log.warning(event, error=f"{error}", retry_s=round(retry_s, 1))

    def resumed(self, outage_s: float, failures: int) -> None:
        self._log.info("trading again", outage_s=round(outage_s, 1), failures=failures)

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
                **{name: count for name, count in status.clock_events().items() if count},
            )
            if status.log_bytes > LOG_BYTES_MAX:
                self._log.warning("the ledger's log grows: some program reads it without end", bytes=status.log_bytes)
