"""What systemd is told over its notification socket: see sd_notify(3). Without one, nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from bot.ports import Clock, Silent, Status
from bot.service.plain import printable
from bot.service.vitals import Vitals

SOCKET, WATCHDOG = "NOTIFY_SOCKET", "WATCHDOG_USEC"
# Often enough for any watchdog in whole seconds, and no system call more than that.
TOLD_EVERY_S = 0.5
# So long after the beat of a start's next try for prices it is not waited for any more.
PATIENCE_S = 60.0
STATUS_CHARS_MAX = 400
ACCOUNTS_MAX = 3


class Systemd(Silent):
    """An observer of the loop. The watchdog is fed by steps alone, so it bites when there are none."""

    def __init__(
        self, vitals: Vitals, clock: Clock, interval_s: float, environ: Mapping[str, str] = os.environ
    ) -> None:
        """``clock`` is the machine's; steps are ``interval_s`` apart."""
        self._vitals, self._clock = vitals, clock
        self._address = environ.get(SOCKET, "")
        self._socket: socket.socket | None = None
        if self._address:
            # Not connected: a manager that opens its end anew is heard by it again.
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._ready = False
        self._told_s = -TOLD_EVERY_S
        self._interval_s = interval_s
        if interval_s > PATIENCE_S:
            # After a restart within a beat the first step is at the next one.
            self._send(self._extended(0.0))
        given = environ.get(WATCHDOG, "")
        needed_us = round(3 * interval_s * 1e6)
        if given.isdigit() and int(given) < needed_us:
            # Polls are further apart than the unit allows for; a watchdog must not bite between two of them.
            self._send(f"WATCHDOG_USEC={needed_us}")

    def stepped(self, status: Status) -> None:
        """The first step makes the service ready: what is behind it has been recovered, and it trades."""
        now_s = self._clock.monotonic()
        if self._socket is None or now_s - self._told_s < TOLD_EVERY_S:
            return
        self._told_s = now_s
        ready = () if self._ready else ("READY=1",)
        # One that was not heard is said again.
        self._ready = self._send(*ready, "WATCHDOG=1", f"STATUS={self._status()}") or self._ready

    def interrupted(self, error: Exception, retry_s: float) -> None:
        self.waiting(f"{error}", retry_s)

    def waiting(self, text: str, retry_s: float) -> None:
        """A start that waits for its exchange is no start that hangs."""
        more = () if self._ready else (self._extended(retry_s),)
        self._send(*more, f"STATUS={self._status(text)}")

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={round(self._clock.monotonic() * 1e6)}")

    def reloaded(self) -> None:
        # Before the first step a service is not ready, whatever was read again.
        if self._ready:
            self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=stopping")

    def failed(self, text: str) -> None:
        """The last words, which `systemctl status` shows."""
        self._send(f"STATUS={printable(text)[:STATUS_CHARS_MAX]}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _extended(self, retry_s: float) -> str:
        return f"EXTEND_TIMEOUT_USEC={round((retry_s + self._interval_s + PATIENCE_S) * 1e6)}"

    def _status(self, trouble: str = "") -> str:
        health = self._vitals.health()
        accounts = [f"{name} {value:,.2f}" for name, value in self._vitals.equity.items()]
        # Not all of a hundred: what is behind them would be cut off.
        more = [f"{len(accounts) - ACCOUNTS_MAX} more"] if len(accounts) > ACCOUNTS_MAX else []
        equity = ", ".join(accounts[:ACCOUNTS_MAX] + more)
        age = "no prices yet" if health.age_s is None else f"prices {health.age_s:.1f} s old"
        parts = [f"equity {equity}" if equity else "", age, trouble or self._last_error()]
        # A line end would begin another field, and its text is an exchange's.
        return printable("; ".join(filter(None, parts)))[:STATUS_CHARS_MAX]

    def _last_error(self) -> str:
        trouble = self._vitals.trouble
        return "" if trouble is None else f"last error {trouble.document['at']}: {trouble.text}"

    def _send(self, *fields: str) -> bool:
        """Whether it was taken."""
        if self._socket is None:
            return False
        # A leading @ stands for the zero byte of an abstract name.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            self._socket.sendto("\n".join(fields).encode(errors="replace"), socket.MSG_DONTWAIT, address)
        except OSError:
            # Nobody listens, or not fast enough: the next step tries again.
            return False
        return True
