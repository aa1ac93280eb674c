"""What the server was asked and what it said."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Quote:
    """Decimals as they were on the wire; None is what the endpoint does not have or a fault took away."""

    bid: str | None
    ask: str | None
    last: str | None


@dataclass(slots=True)
class Request:
    """Logged when it arrives; what is known only with the answer is filled in before the answer's first byte is sent.

    ``status`` stays None while a request hangs and when its connection is cut without an answer. ``spoiled`` has what
    a value fault made wrong: symbol -> (name of the fault, the quote as served).
    """

    arrived: float
    method: str
    path: str
    query: Mapping[str, str]
    endpoint: str
    fault: str = ""
    status: int | None = None
    answered: float | None = None
    retry_after_s: float | None = None
    quotes: dict[str, Quote] = field(default_factory=dict)
    spoiled: dict[str, tuple[str, Quote]] = field(default_factory=dict)


class Log:
    """Written by the server's thread, read by the test's. Holds the newest ``size`` requests."""

    def __init__(self, size: int) -> None:
        self._lock = threading.Lock()
        self._requests: deque[Request] = deque(maxlen=size)

    def add(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)

    def clear(self) -> None:
        with self._lock:
            self._requests.clear()

    def requests(self, endpoint: str | None = None) -> list[Request]:
        with self._lock:
            found = list(self._requests)
        return [request for request in found if endpoint in (None, request.endpoint)]

    def quotes(self, symbol: str, including: Collection[str] = ()) -> list[Quote]:
        """The valid quotes of ``symbol``, oldest first, and those that the faults ``including`` had spoiled."""
        found = []
        for request in self.requests():
            if symbol in request.quotes:
                found.append(request.quotes[symbol])
            elif symbol in request.spoiled and request.spoiled[symbol][0] in including:
                found.append(request.spoiled[symbol][1])
        return found

    def served(self, symbol: str, including: Collection[str] = ()) -> set[tuple[Decimal, Decimal]]:
        """(bid, ask) of every quote of ``quotes`` that has both."""
        return {
            (Decimal(quote.bid), Decimal(quote.ask))
            for quote in self.quotes(symbol, including)
            if quote.bid is not None and quote.ask is not None
        }

    def violations(self) -> list[Request]:
        """Requests, on whatever connection, that arrived before a Retry-After answered earlier was over."""
        requests = self.requests()
        gates = [
            (request.answered, request.answered + request.retry_after_s)
            for request in requests
            if request.answered is not None and request.retry_after_s is not None
        ]
        return [request for request in requests if any(said < request.arrived < end for said, end in gates)]
