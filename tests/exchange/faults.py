"""What can go wrong, by name, and when: the board of faults."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

# Instead of an answer.
REFUSALS = frozenset(
    {"http429", "http418", "rate_msg", "http400", "http403", "http404", "http451", "http500", "http500[json]"}
    | {"http502", "http503", "http504", "http520", "maintenance", "reset", "close", "hang", "redirect"}
)
# The answer's bytes: spoiled, replaced or late.
BODIES = frozenset(
    {"mid_reset", "slow", "slow_body", "truncated", "html200", "empty200", "null200", "list200", "dict200"}
    | {"nan_json", "bad_gzip"}
)
# The values in an answer that looks well.
VALUES = frozenset(
    {"backwards_ts", "crossed", "frozen", "future_ts", "last_null", "last_zero", "locked", "missing_symbol"}
    | {"no_bidask", "null_ts", "price_absurd", "price_empty", "price_inf", "price_nan", "price_negative"}
    | {"price_null", "price_text", "price_tiny", "price_zero", "sec_ts", "stale_ts", "wrong_symbol"}
)
BOOKS = frozenset({"crossed", "empty_book", "one_sided"})
# delist: the market is gone; halt: it is listed and not traded (BREAK, cancel_only).
MARKETS = frozenset({"delist", "halt"})
SERVER = frozenset({"clock_skew"})
NAMES = REFUSALS | BODIES | VALUES | BOOKS | MARKETS | SERVER


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault and when it holds, since it was set or since its plan was started.

    It holds from ``start_s`` until before ``end_s``, and for the requests ``first_request`` until before
    ``end_request`` (from 0), counted for each endpoint by itself among those that the filters let through. No
    endpoints or no symbols means all of them. With symbols, a value fault spoils those entries only, and any other
    fault hits the requests that name one of them or ask for all.
    """

    name: str
    start_s: float = 0.0
    end_s: float = math.inf
    endpoints: Collection[str] = ()
    symbols: Collection[str] = ()
    first_request: int = 0
    end_request: float = math.inf
    retry_after_s: int | None = 1  # http429 and http418 only; None: no such header
    delay_s: float | None = None  # slow: 0.3 s before the answer; slow_body: 30 s for its bytes
    skew_ms: int = 0  # clock_skew only
    text: str | None = None  # refusals only: what the exchange says, instead of what the real one does

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"no fault is called {self.name!r}; there are {', '.join(sorted(NAMES))}")
        for field_ in ("endpoints", "symbols"):
            if isinstance(value := getattr(self, field_), str):
                object.__setattr__(self, field_, (value,))

    def concerns(self, symbol: str) -> bool:
        return not self.symbols or symbol in self.symbols


@dataclass(slots=True, eq=False)
class Active:
    """A fault that was set: when, how many requests it has seen, and what it must remember."""

    fault: Fault
    since: float
    seen: Counter[str] = field(default_factory=Counter)
    memory: dict[str, Any] = field(default_factory=dict)

    def in_time(self, now: float) -> bool:
        return self.fault.start_s <= now - self.since < self.fault.end_s

    def hits(self, endpoint: str, symbols: Collection[str] | None, now: float) -> bool:
        fault = self.fault
        if not self.in_time(now) or (fault.endpoints and endpoint not in fault.endpoints):
            return False
        if fault.symbols and symbols is not None and not any(symbol in fault.symbols for symbol in symbols):
            return False
        number = self.seen[endpoint]
        self.seen[endpoint] += 1
        return fault.first_request <= number < fault.end_request


class FaultBoard:
    """Written by the test's thread, read by the server's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: list[Active] = []

    def add(self, faults: Sequence[Fault], now: float) -> None:
        with self._lock:
            self._active += [Active(fault, now) for fault in faults]

    def clear(self, names: Collection[str]) -> None:
        """Takes away the faults of these names, or all of them."""
        with self._lock:
            self._active = [active for active in self._active if names and active.fault.name not in names]

    def hits(self, endpoint: str, symbols: Collection[str] | None, now: float) -> list[Active]:
        """What holds for this request, which is counted; ``symbols`` None means all."""
        with self._lock:
            return [active for active in self._active if active.hits(endpoint, symbols, now)]

    def skew_ms(self, now: float) -> int:
        with self._lock:
            return sum(
                active.fault.skew_ms for active in self._active if active.fault.name in SERVER and active.in_time(now)
            )
