"""What Binance and Kraken have in common: markets, tickers, order books, and how faults reach them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np

from tests.exchange.faults import Active
from tests.exchange.log import Quote
from tests.exchange.prices import Market, Prices, half_spread, text
from tests.exchange.values import BACKWARDS_MS, CROSSED_BY, Wire, spoil

TICKER_HAS = ("id", "bid", "ask", "last", "open", "high", "low", "change")


class Refused(Exception):
    """The exchange's own error: a status and a JSON body."""

    def __init__(self, status: int, payload: Any) -> None:
        super().__init__(payload)
        self.status, self.payload = status, payload


@dataclass(slots=True)
class Call:
    """One request on its way to an answer; tickers note here what they served."""

    endpoint: str
    query: Mapping[str, str]
    now_ms: int
    faults: Sequence[Active] = ()
    quotes: dict[str, Quote] = field(default_factory=dict)
    spoiled: dict[str, tuple[str, Quote]] = field(default_factory=dict)

    def has(self, fault: str, symbol: str | None = None) -> bool:
        return any(a.fault.name == fault and (symbol is None or a.fault.concerns(symbol)) for a in self.faults)


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a fault that refuses looks over HTTP."""

    status: int
    body: bytes
    content_type: str = "application/json"


def page(fault: Active) -> bytes:
    """The HTML that stands where JSON should."""
    text = "<html><body>no</body></html>" if fault.fault.text is None else fault.fault.text
    return text.encode(errors="surrogatepass")


class Venue(ABC):
    """One exchange: paths to endpoints, queries to JSON. It knows no sockets and no clock."""

    paths: ClassVar[Mapping[str, str]]  # path -> name of the endpoint
    btc_digits: ClassVar[int]
    price_width: ClassVar[int | None]  # decimals that prices are padded to; None: the market's own

    def __init__(self, prices: Prices) -> None:
        self.prices = prices
        self.markets = {self.id_of(market): market for market in prices.markets}
        self.ids = {market.symbol: id_ for id_, market in self.markets.items()}

    @abstractmethod
    def id_of(self, market: Market) -> str: ...

    @abstractmethod
    def asked_for(self, endpoint: str, query: Mapping[str, str]) -> Collection[str] | None:
        """The symbols that a request names, unknown ones left out; None if it is about all."""

    @abstractmethod
    def answer(self, call: Call) -> Any:
        """The JSON; raises Refused."""

    @abstractmethod
    def refusal(self, fault: Active, now_ms: int) -> Refusal: ...

    def headers(self, endpoint: str, query: Mapping[str, str], now_ms: int) -> dict[str, str]:
        return {}

    def listed(self, call: Call) -> list[Market]:
        return [market for market in self.prices.markets if not call.has("delist", market.symbol)]

    def tickers(self, chosen: Sequence[Market], call: Call, has: Collection[str]) -> list[Wire]:
        """The tickers of ``chosen`` as the faults leave them. ``has``: what of them the endpoint shows."""
        served = []
        for wire in self._wires(chosen, call.now_ms):
            market = self.prices.markets[self.prices.place[wire["symbol"]]]
            past = partial(self._past, market, call.now_ms)
            spoilt, quote, blame = spoil(wire, call.faults, has, past)
            if spoilt is None:
                continue
            served.append(spoilt)
            if blame:
                call.spoiled[market.symbol] = blame, quote
            else:
                call.quotes[market.symbol] = quote
        return served

    def _past(self, market: Market, now_ms: int) -> Wire:
        return self._wires([market], now_ms - BACKWARDS_MS)[0]

    def _wires(self, chosen: Sequence[Market], at_ms: int) -> list[Wire]:
        places = np.array([self.prices.place[market.symbol] for market in chosen], np.int64)
        day = self.prices.day(at_ms)[places].tolist()
        lasts = self.prices.steps(places, np.array([at_ms]))[:, 0].tolist()
        return [self._wire(*row, at_ms) for row in zip(chosen, lasts, day, strict=True)]

    def _wire(self, market: Market, last: int, day: Sequence[int], at_ms: int) -> Wire:
        digits, half, open_ = market.price_digits, half_spread(last), day[0]
        width = digits if self.price_width is None else self.price_width
        change = text(abs(last - open_), digits, width)
        return {
            "symbol": market.symbol,
            "id": self.ids[market.symbol],
            "bid": text(last - half, digits, width),
            "ask": text(last + half, digits, width),
            "last": text(last, digits, width),
            "open": text(open_, digits, width),
            "high": text(max(last, day[1]), digits, width),
            "low": text(min(last, day[2]), digits, width),
            "change": change if last >= open_ else f"-{change}",
            "at_ms": at_ms,
        }

    def book(self, market: Market, depth: int, call: Call) -> tuple[list[list[str]], list[list[str]]]:
        """Bids and asks, best first, a half spread apart each; the best are the ticker's."""
        last = self.prices.at(market.symbol, call.now_ms)
        half, digits = half_spread(last), market.price_digits
        width = digits if self.price_width is None else self.price_width
        levels = range(1, min(depth, last // half - 1) + 1)
        bids = [[text(last - half * i, digits, width), f"{i}.00000000"] for i in levels]
        asks = [[text(last + half * i, digits, width), f"{i}.00000000"] for i in levels]
        if call.has("crossed", market.symbol):
            shift = int(last * CROSSED_BY)
            bids[0][0], asks[0][0] = text(last + shift, digits, width), text(last - shift, digits, width)
        if call.has("empty_book", market.symbol):
            bids = asks = []
        if call.has("one_sided", market.symbol):
            asks = []
        return bids, asks
