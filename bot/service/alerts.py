"""Notifications: trades, outages and halts to whoever wants to know, on a thread that nobody waits for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from structlog.typing import FilteringBoundLogger

from bot.domain import Signal, iso8601
from bot.ports import FeedError, Silent, Status
from bot.service.logs import WANTED_ENDS
from bot.service.plain import printable
from bot.settings.values import News

QUEUE_MAX = 1000
# Kept free of trades: what is rare and matters must find room.
QUEUE_SPARE = 100
BUNDLE_S = 2.0
CLOSE_WAIT_S = 2.0
# A delivery that takes longer than this is told in the log; it cannot be ended.
STUCK_S = 60.0
HOUR_S = 3600.0
# What every service takes in one message.
LINES_MAX, LINE_CHARS_MAX = 20, 150
REASON_CHARS_MAX = 500
# What is told first where there is little time.
ORDER: tuple[News, ...] = ("halts", "outages", "trades")

# Title and body; False, or an exception that says why, if it was not delivered.
Send = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class AlertRules:
    """What is told, after how long an outage is one, and how many messages an hour."""

    events: Collection[News] = ORDER
    outage_after_s: float = 60.0
    per_hour_max: int = 30


class Alerts(Silent):
    """An observer that tells somebody far away. It lives in a ``with`` block, whose end waits two seconds at most; an
    exception that ends it is a halt.

    Whoever calls it only leaves a line behind: the thread makes messages of them and sends these, one after the other.
    What finds the queue full is dropped, what is more than ``per_hour_max`` held back; both are counted in the next
    message. Of these the last of an hour is kept for a halt.
    """

    def __init__(
        self,
        send: Send,
        log: FilteringBoundLogger,
        monotonic: Callable[[], float],
        rules: AlertRules,
        bundle_s: float = BUNDLE_S,
        clean: Callable[[str], str] = str,
    ) -> None:
        """``clean`` takes secrets out of a line."""
        self._clean = clean
        self._send, self._log, self._monotonic, self._rules = send, log, monotonic, rules
        self._bundle_s = bundle_s
        self._queue: deque[tuple[News, str]] = deque()
        self._wake, self._hurry, self._closing = threading.Event(), threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
        self._outages: dict[News, float] = {}  # since when, by what it is
        self._told: set[News] = set()
        self._sent_at: deque[float] = deque()
        self._sending_since: float | None = None
        self._stuck_told = False
        self.dropped = 0
        # Pieces of news that the next message counts, since nobody was told of them.
        self.unsaid = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, WANTED_ENDS):
            self.halted(f"{type(error).__name__}: {error}")
        self._closing = True
        self._hurry.set()
        self._wake.set()
        self._thread.join(CLOSE_WAIT_S)
        if self._thread.is_alive():
            waiting = len(self._queue) + (self._sending_since is not None)
            self._log.warning("notifications were not delivered before the end", waiting=waiting)

    def filled(self, signal: Signal, order: Mapping[str, Any]) -> None:
        pnl = f", pnl {order['info']['pnl']:.2f}" if order["info"]["pnl"] else ""
        trade = f"{order['side']} {order['amount']:g} {signal.symbol} at {order['price']:.10g}"
        self._put("trades", f"{iso8601(signal.timestamp)} {signal.account}: {trade}{pnl}")

    def interrupted(self, error: Exception, retry_s: float) -> None:
        """Told as soon as it is certain to last: the next try may be in an hour."""
        kind: News = "outages" if isinstance(error, FeedError) else "halts"
        now = self._monotonic()
        lasted_s = now - self._outages.setdefault(kind, now)
        if kind in self._told or lasted_s + retry_s <= self._rules.outage_after_s:
            return
        self._told.add(kind)
        what = "no prices" if kind == "outages" else "trading halted, the ledger cannot be written"
        self._put(kind, f"{what} (for {lasted_s:.0f} s, next try in {retry_s:.0f} s): {error}")

    def resumed(self, outage_s: float, failures: int) -> None:
        self._outages.clear()
        told, self._told = self._told, set()
        for kind in ORDER:
            if kind in told:
                self._put(kind, f"trading again after {outage_s:.0f} s")

    def halted(self, reason: str) -> None:
        """The daemon ends, and not because somebody stopped it."""
        self._put("halts", f"halted: {reason}")

    def stepped(self, status: Status) -> None:
        since = self._sending_since
        stuck = since is not None and self._monotonic() - since > STUCK_S
        if stuck and not self._stuck_told:
            self._log.warning("a notification hangs", waiting=len(self._queue), dropped=self.dropped)
        self._stuck_told = stuck

    def _put(self, kind: News, line: str) -> None:
        if kind not in self._rules.events:
            return
        if len(self._queue) >= QUEUE_MAX + (0 if kind == "trades" else QUEUE_SPARE):
            self.dropped += 1
            return
        # Before it is cut: a part of a secret would not be known for one.
        self._queue.append((kind, printable(self._clean(line)[:REASON_CHARS_MAX])))
        if kind != "trades":
            self._hurry.set()
        self._wake.set()

    def _run(self) -> None:
        counted = 0
        while not self._closing or self._queue:
            self._wake.wait()
            # Trades come together; whatever else comes goes at once, and takes them along.
            self._hurry.wait(self._bundle_s)
            if not self._closing:
                self._wake.clear()
                self._hurry.clear()
            waiting = [self._queue.popleft() for _ in range(len(self._queue))]
            self.unsaid += self.dropped - counted
            counted = self.dropped
            for kind in ORDER:
                if lines := [line for of, line in waiting if of == kind]:
                    self._tell(kind, lines)

    def _tell(self, kind: News, lines: list[str]) -> None:
        if not self._may_send(kind):
            self.unsaid += len(lines)
            return
        title, body = message(kind, lines, self.unsaid)
        self._sending_since = self._monotonic()
        self._sent_at.append(self._sending_since)
        try:
            why = "" if self._send(title, body) else "the service refused it"
        except Exception as error:  # noqa: BLE001 - a service's plugin may raise anything, and the next one may work
            why = f"{type(error).__name__}: {error}"
        self._sending_since = None
        if why:
            self.unsaid += len(lines)
            self._log.warning("a notification was not delivered", error=why)
        else:
            self.unsaid = 0

    def _may_send(self, kind: News) -> bool:
        now, most = self._monotonic(), self._rules.per_hour_max
        while self._sent_at and now - self._sent_at[0] >= HOUR_S:
            self._sent_at.popleft()
        return len(self._sent_at) < (most if kind == "halts" or most == 1 else most - 1)


def message(kind: News, lines: list[str], unsaid: int) -> tuple[str, str]:
    """Title and body of one message: the newest lines, and how many there are besides."""
    count = f"{len(lines)} trades" if len(lines) > 1 else "a trade"
    title = {"trades": count, "outages": "outage", "halts": "halt"}[kind]
    left_out = [f"and {len(lines) - LINES_MAX} before them"] if len(lines) > LINES_MAX else []
    untold = [f"not told before this: {unsaid}"] if unsaid else []
    chars_max = LINE_CHARS_MAX if kind == "trades" else 2 * REASON_CHARS_MAX
    shown = [line[:chars_max] for line in lines[-LINES_MAX:]]
    return f"Paperloop: {title}", "\n".join([*shown, *left_out, *untold])
