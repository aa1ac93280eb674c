"""Quotes that were refused, as log lines: one when it begins, for all symbols at once, and never a flood."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from structlog.typing import FilteringBoundLogger

from bot.feeds.screen import REASONS, UNCONFIRMED, Quote
from bot.ports import Clock

# A symbol that is refused every other second is told of now and then, with how often it was.
QUIET_S = 600.0
NAMES_MAX = 5


class Refusals:
    """Hears of changes from the screen (``changed``) and tells of them once a poll (``tell``)."""

    def __init__(self, log: FilteringBoundLogger, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self._new: list[tuple[str, str, Quote]] = []
        self._told: dict[str, tuple[float, int]] = {}  # reason -> when, and how many changes were held back since

    def changed(self, symbol: str, reason: str, quote: Quote) -> None:
        self._new.append((symbol, reason, quote))

    def tell(self, polled: Collection[str]) -> None:
        """Logs what is new, of the symbols that were asked for."""
        groups: defaultdict[str, list[tuple[str, Quote]]] = defaultdict(list)
        for symbol, reason, quote in self._new:
            if reason != UNCONFIRMED and symbol in polled:
                groups[reason].append((symbol, quote))
        self._new.clear()
        now = self._clock.monotonic()
        for reason, found in groups.items():
            last, held = self._told.get(reason, (-QUIET_S, 0))
            if now - last < QUIET_S:
                self._told[reason] = (last, held + len(found))
                continue
            self._told[reason] = (now, 0)
            names = ", ".join(symbol for symbol, _ in found[:NAMES_MAX])
            more = f" and {len(found) - NAMES_MAX} more" if len(found) > NAMES_MAX else ""
            extra = {"repeated": held} if held else {}
            told = {"reason": reason, "symbols": names + more, "why": REASONS[reason], "quote": _shown(found[0][1])}
            self._log.warning("quotes refused", **told, **extra)


def _shown(quote: Quote) -> str:
    return f"bid {quote.bid} ask {quote.ask} last {quote.last} at {quote.timestamp}"[:200]
