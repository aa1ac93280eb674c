"""Several observers behind one: whoever fails is told in the log, and the others hear of it all the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from structlog.typing import FilteringBoundLogger

from bot.domain import Signal
from bot.ports import Observer, Status


class Observers:
    """Implements ``ports.Observer``: hands on to each in order. ``clean`` takes secrets out of what went wrong."""

    def __init__(
        self, observers: Sequence[Observer], log: FilteringBoundLogger, clean: Callable[[str], str] = str
    ) -> None:
        self._observers, self._log, self._clean = list(observers), log, clean

    def add(self, observer: Observer) -> None:
        self._observers.append(observer)

    def filled(self, signal: Signal, order: Mapping[str, Any]) -> None:
        self._each(lambda observer: observer.filled(signal, order))

    def refused(self, signal: Signal, reason: str) -> None:
        self._each(lambda observer: observer.refused(signal, reason))

    def interrupted(self, error: Exception, retry_s: float) -> None:
        # Before any of them cuts it, or shows it elsewhere than in the log.
        error.args = (self._clean(f"{error}"),)
        self._each(lambda observer: observer.interrupted(error, retry_s))

    def resumed(self, outage_s: float, failures: int) -> None:
        self._each(lambda observer: observer.resumed(outage_s, failures))

    def stepped(self, status: Status) -> None:
        self._each(lambda observer: observer.stepped(status))

    def _each(self, tell: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                tell(observer)
            except Exception as error:  # noqa: BLE001 - what is in the ledger stays, whoever cannot take the news
                name = type(observer).__name__
                self._log.error("an observer failed", observer=name, error=f"{type(error).__name__}: {error}")
