"""Binance's spot REST, the public part."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

from tests.exchange.faults import Active
from tests.exchange.prices import Market, Prices, floor_to, text
from tests.exchange.values import Wire
from tests.exchange.venue import TICKER_HAS, Call, Refusal, Refused, Venue, page

HISTORY_STARTS_MS = 1_502_942_400_000  # 2017-08-17, the oldest candle of the real one
LIMIT_DEFAULT, LIMIT_MAX = 500, 1_000
DEPTH_DEFAULT, DEPTH_MAX = 100, 5_000
DAY_MS = 86_400_000
MINUTE_MS = 60_000
UNITS_MS = {"s": 1_000, "m": MINUTE_MS, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}
# 1M, the calendar month, is not there.
INTERVALS_MS = {
    name: int(name[:-1]) * UNITS_MS[name[-1]]
    for name in ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w")
}


class Binance(Venue):
    """Weights are counted as the real one counts them and told in X-MBX-USED-WEIGHT-1M; no limit is enforced."""

    paths: ClassVar[Mapping[str, str]] = {
        "/api/v3/exchangeInfo": "markets",
        "/fapi/v1/exchangeInfo": "futures",
        "/dapi/v1/exchangeInfo": "futures",
        "/api/v3/ticker/24hr": "ticker",
        "/api/v3/ticker/bookTicker": "book_ticker",
        "/api/v3/ticker/price": "price",
        "/api/v3/klines": "klines",
        "/api/v3/depth": "depth",
        "/api/v3/time": "time",
        "/api/v3/ping": "ping",
        "/sapi/v1/system/status": "status",
    }
    btc_digits: ClassVar[int] = 2
    price_width: ClassVar[int | None] = 8

    def __init__(self, prices: Prices) -> None:
        super().__init__(prices)
        self._weights: Counter[int] = Counter()  # by minute

    def id_of(self, market: Market) -> str:
        return market.base + market.quote

    def asked_for(self, endpoint: str, query: Mapping[str, str]) -> Collection[str] | None:
        if not (ids := _ids(query)):
            return None
        return [self.markets[id_].symbol for id_ in ids if id_ in self.markets]

    def answer(self, call: Call) -> Any:
        answers: dict[str, Callable[[Call], Any]] = {
            "markets": self._exchange_info,
            "futures": lambda call: {"timezone": "UTC", "serverTime": call.now_ms, "symbols": []},
            "ticker": lambda call: self._listed_tickers(call, (*TICKER_HAS, "at_ms"), _day_ticker),
            "book_ticker": lambda call: self._listed_tickers(call, ("id", "bid", "ask"), _book_ticker),
            "price": lambda call: self._listed_tickers(call, ("id", "last"), _last_price),
            "klines": self._klines,
            "depth": self._depth,
            "time": lambda call: {"serverTime": call.now_ms},
            "ping": lambda call: {},
            "status": _status,
        }
        return answers[call.endpoint](call)

    def refusal(self, fault: Active, now_ms: int) -> Refusal:
        name = fault.fault.name
        until = now_ms + 1000 * (fault.fault.retry_after_s or 0)
        errors = {
            "http429": (429, -1003, "Too much request weight used; please use the websocket to avoid bans."),
            "http418": (418, -1003, f"Way too much request weight used; IP banned until {until}."),
            "rate_msg": (400, -1003, "Too many requests queued."),
            "http500[json]": (500, -1000, "An unknown error occurred while processing the request."),
            "maintenance": (503, 1, "System is under maintenance."),
        }
        if name in errors:
            status, code, message = errors[name]
            return Refusal(status, json.dumps({"code": code, "msg": fault.fault.text or message}).encode())
        return Refusal(int(name.removeprefix("http")), page(fault), "text/html")

    def headers(self, endpoint: str, query: Mapping[str, str], now_ms: int) -> dict[str, str]:
        self._weights[now_ms // MINUTE_MS] += self._weight(endpoint, query)
        return {"X-MBX-USED-WEIGHT-1M": str(self._weights[now_ms // MINUTE_MS])}

    def _weight(self, endpoint: str, query: Mapping[str, str]) -> int:
        symbols = len(_ids(query)) or len(self.markets)
        if endpoint == "ticker":
            return 2 if symbols <= 20 else 40 if symbols <= 100 else 80
        if endpoint == "depth":
            limit = _whole(query, "limit", DEPTH_DEFAULT)
            return 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1000 else 250
        if endpoint in {"book_ticker", "price"}:
            return 2 if "symbol" in query else 4
        return {"markets": 20, "klines": 2}.get(endpoint, 1)

    def _market(self, id_: str, call: Call) -> Market:
        market = self.markets.get(id_)
        if market is None or call.has("delist", market.symbol):
            raise Refused(400, {"code": -1121, "msg": "Invalid symbol."})
        return market

    def _one(self, call: Call) -> Market:
        if "symbol" not in call.query:
            message = "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."
            raise Refused(400, {"code": -1102, "msg": message})
        return self._market(call.query["symbol"], call)

    def _exchange_info(self, call: Call) -> Any:
        symbols = [self._symbol(market, call) for market in self.listed(call)]
        return {"timezone": "UTC", "serverTime": call.now_ms, "exchangeFilters": [], "symbols": symbols}

    def _symbol(self, market: Market, call: Call) -> Any:
        price, amount = (text(1, digits, 8) for digits in (market.price_digits, market.amount_digits))
        return {
            "symbol": self.ids[market.symbol],
            "status": "BREAK" if call.has("halt", market.symbol) else "TRADING",
            "baseAsset": market.base,
            "baseAssetPrecision": 8,
            "quoteAsset": market.quote,
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "filters": [
                {"filterType": "PRICE_FILTER", "minPrice": price, "maxPrice": "1000000.00000000", "tickSize": price},
                {"filterType": "LOT_SIZE", "minQty": amount, "maxQty": "9000000.00000000", "stepSize": amount},
                {"filterType": "MARKET_LOT_SIZE", "minQty": "0.00000000", "maxQty": "900.0", "stepSize": "0.00000000"},
                {"filterType": "NOTIONAL", "minNotional": "5.00000000", "maxNotional": "9000000.00000000"},
            ],
            "permissions": [],
            "permissionSets": [["SPOT"]],
        }

    def _listed_tickers(self, call: Call, has: Collection[str], shape: Callable[[Wire], Any]) -> Any:
        ids = _ids(call.query)
        chosen = [self._market(id_, call) for id_ in ids] if ids else self.listed(call)
        wires = self.tickers(chosen, call, has)
        if "symbol" not in call.query:
            return [shape(wire) for wire in wires]
        if not wires:
            raise Refused(400, {"code": -1121, "msg": "Invalid symbol."})
        return shape(wires[0])

    def _klines(self, call: Call) -> Any:
        """Ascending; from ``startTime`` on if there is one, else the newest. The candle still open is among them."""
        market, query = self._one(call), call.query
        if (interval_ms := INTERVALS_MS.get(query.get("interval", ""))) is None:
            raise Refused(400, {"code": -1120, "msg": "Invalid interval."})
        limit = min(_whole(query, "limit", LIMIT_DEFAULT), LIMIT_MAX)
        newest = floor_to(interval_ms, min(call.now_ms, _whole(query, "endTime", call.now_ms)))
        first = newest - (limit - 1) * interval_ms
        if "startTime" in query:
            first = floor_to(interval_ms, _whole(query, "startTime", 0) + interval_ms - 1)
        first = max(first, floor_to(interval_ms, HISTORY_STARTS_MS + interval_ms - 1))
        count = max(0, min(limit, (newest - first) // interval_ms + 1))
        bars = self.prices.bars(market.symbol, interval_ms, first, count, call.now_ms)
        return [
            [
                bar.open_ms,
                *(text(steps, market.price_digits, 8) for steps in (bar.open, bar.high, bar.low, bar.close)),
                text(bar.volume, 3, 8),
                bar.open_ms + interval_ms - 1,
                text(bar.volume * bar.close, 3 + market.price_digits, 8),
                bar.volume,
                text(bar.volume // 2, 3, 8),
                text(bar.volume // 2 * bar.close, 3 + market.price_digits, 8),
                "0",
            ]
            for bar in bars
        ]

    def _depth(self, call: Call) -> Any:
        bids, asks = self.book(self._one(call), min(_whole(call.query, "limit", DEPTH_DEFAULT), DEPTH_MAX), call)
        return {"lastUpdateId": call.now_ms, "bids": bids, "asks": asks}


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    value = query.get(name, str(default))
    if not value.isdecimal():
        raise Refused(400, {"code": -1100, "msg": f"Illegal characters found in parameter '{name}'."})
    return int(value)


def _ids(query: Mapping[str, str]) -> list[str]:
    if "symbol" in query:
        return [query["symbol"]]
    try:
        return [str(id_) for id_ in json.loads(query.get("symbols", "[]"))]
    except ValueError:
        raise Refused(400, {"code": -1100, "msg": "Illegal characters found in parameter 'symbols'."}) from None


def _status(call: Call) -> Any:
    ill = call.has("maintenance")
    return {"status": int(ill), "msg": "system_maintenance" if ill else "normal"}


def _day_ticker(wire: Wire) -> Any:
    at_ms = wire["at_ms"]
    return {
        "symbol": wire["id"],
        "priceChange": wire["change"],
        "priceChangePercent": "0.100",
        "weightedAvgPrice": wire["open"],
        "prevClosePrice": wire["open"],
        "lastPrice": wire["last"],
        "lastQty": "0.10000000",
        "bidPrice": wire["bid"],
        "bidQty": "1.00000000",
        "askPrice": wire["ask"],
        "askQty": "1.00000000",
        "openPrice": wire["open"],
        "highPrice": wire["high"],
        "lowPrice": wire["low"],
        "volume": "1000.00000000",
        "quoteVolume": "1000000.00000000",
        "openTime": None if at_ms is None else at_ms - DAY_MS,
        "closeTime": at_ms,
        "firstId": 1,
        "lastId": 1000,
        "count": 1000,
    }


def _book_ticker(wire: Wire) -> Any:
    symbol, bid, ask = wire["id"], wire["bid"], wire["ask"]
    return {"symbol": symbol, "bidPrice": bid, "bidQty": "1.00000000", "askPrice": ask, "askQty": "1.00000000"}


def _last_price(wire: Wire) -> Any:
    return {"symbol": wire["id"], "price": wire["last"]}
