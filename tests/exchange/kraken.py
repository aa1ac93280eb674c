"""Kraken's spot REST, the public part."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from tests.exchange.faults import Active
from tests.exchange.prices import Market, floor_to, text
from tests.exchange.values import Wire
from tests.exchange.venue import TICKER_HAS, Call, Refusal, Refused, Venue, page

ROWS_MAX = 720
DEPTH_DEFAULT, DEPTH_MAX = 100, 500
MINUTE_MS = 60_000
INTERVALS = (1, 5, 15, 30, 60, 240, 1440, 10080, 21600)
OWN_NAMES = {"BTC": "XBT"}
PREFIXED = {"BTC": "XXBT", "ETH": "XETH"}
FEES = [[0, 0.4], [10_000, 0.35], [50_000, 0.24], [100_000, 0.22], [250_000, 0.2], [500_000, 0.18]]
FEES_MAKER = [[0, 0.25], [10_000, 0.2], [50_000, 0.14], [100_000, 0.12], [250_000, 0.1], [500_000, 0.08]]
ORDER_COST_MIN = 5  # USDT, which ``ordermin`` is about worth


class Kraken(Venue):
    """Errors come with status 200. Tickers have no timestamp; pairs are known by id, altname or wsname."""

    paths: ClassVar[Mapping[str, str]] = {
        "/0/public/Time": "time",
        "/0/public/SystemStatus": "status",
        "/0/public/Assets": "assets",
        "/0/public/AssetPairs": "markets",
        "/0/public/Ticker": "ticker",
        "/0/public/OHLC": "klines",
        "/0/public/Depth": "depth",
    }
    btc_digits: ClassVar[int] = 1
    price_width: ClassVar[int | None] = None

    def id_of(self, market: Market) -> str:
        return OWN_NAMES.get(market.base, market.base) + market.quote

    def asked_for(self, endpoint: str, query: Mapping[str, str]) -> Collection[str] | None:
        if not (pairs := _pairs(query)):
            return None
        return [self.markets[pair].symbol for pair in pairs if pair in self.markets]

    def answer(self, call: Call) -> Any:
        answers: dict[str, Callable[[Call], Any]] = {
            "time": lambda call: {"unixtime": call.now_ms // 1000, "rfc1123": _iso(call.now_ms)},
            "status": lambda call: {
                "status": "maintenance" if call.has("maintenance") else "online",
                "timestamp": _iso(call.now_ms),
            },
            "assets": self._assets,
            "markets": lambda call: {self.ids[m.symbol]: self._pair(m, call) for m in self.listed(call)},
            "ticker": self._ticker,
            "klines": self._ohlc,
            "depth": self._depth,
        }
        return {"error": [], "result": answers[call.endpoint](call)}

    def refusal(self, fault: Active, now_ms: int) -> Refusal:
        errors = {
            "rate_msg": (200, "EGeneral:Too many requests"),
            "http500[json]": (500, "EGeneral:Internal error"),
            "maintenance": (200, "EService:Unavailable"),
        }
        name = fault.fault.name
        if name in errors:
            status, message = errors[name]
            return Refusal(status, json.dumps({"error": [fault.fault.text or message]}).encode())
        return Refusal(int(name.removeprefix("http")), page(fault), "text/html")

    def _market(self, pair: str, call: Call) -> Market:
        market = self.markets.get(pair.replace("/", ""))
        if market is None or call.has("delist", market.symbol):
            raise Refused(200, {"error": ["EQuery:Unknown asset pair"]})
        return market

    def _one(self, call: Call) -> Market:
        if "pair" not in call.query:
            raise Refused(200, {"error": ["EGeneral:Invalid arguments"]})
        return self._market(call.query["pair"], call)

    def _assets(self, call: Call) -> Any:
        return {
            PREFIXED.get(base, base): {
                "aclass": "currency",
                "altname": OWN_NAMES.get(base, base),
                "decimals": 10,
                "display_decimals": 5,
                "status": "enabled",
            }
            for base in [*(market.base for market in self.prices.markets), "USDT"]
        }

    def _pair(self, market: Market, call: Call) -> Any:
        base = OWN_NAMES.get(market.base, market.base)
        order_min = max(1, ORDER_COST_MIN * 10 ** (market.price_digits + 8) // market.base_steps)
        return {
            "altname": self.ids[market.symbol],
            "wsname": f"{base}/{market.quote}",
            "aclass_base": "currency",
            "base": PREFIXED.get(market.base, market.base),
            "aclass_quote": "currency",
            "quote": market.quote,
            "lot": "unit",
            "cost_decimals": 5,
            "pair_decimals": market.price_digits,
            "lot_decimals": 8,
            "lot_multiplier": 1,
            "leverage_buy": [],
            "leverage_sell": [],
            "fees": FEES,
            "fees_maker": FEES_MAKER,
            "fee_volume_currency": "ZUSD",
            "margin_call": 80,
            "margin_stop": 40,
            "ordermin": text(order_min, 8, 8),
            "costmin": "0.5",
            "tick_size": text(1, market.price_digits, market.price_digits),
            "status": "cancel_only" if call.has("halt", market.symbol) else "online",
        }

    def _ticker(self, call: Call) -> Any:
        pairs = _pairs(call.query)
        chosen = [self._market(pair, call) for pair in pairs] if pairs else self.listed(call)
        return {wire["id"]: _shape(wire) for wire in self.tickers(chosen, call, TICKER_HAS)}

    def _ohlc(self, call: Call) -> Any:
        """The newest 720 candles that opened after ``since``, the one still open among them."""
        market = self._one(call)
        interval, since = _whole(call.query, "interval", 1), _whole(call.query, "since", 0)
        if interval not in INTERVALS:
            raise Refused(200, {"error": ["EGeneral:Invalid arguments"]})
        interval_ms = interval * MINUTE_MS
        newest = floor_to(interval_ms, call.now_ms, week_starts_ms=0)
        after = floor_to(interval_ms, since * 1000, week_starts_ms=0) + interval_ms
        first = max(newest - (ROWS_MAX - 1) * interval_ms, after)
        count = max(0, (newest - first) // interval_ms + 1)
        bars = self.prices.bars(market.symbol, interval_ms, first, count, call.now_ms)
        digits = market.price_digits
        rows = [
            [
                bar.open_ms // 1000,
                *(text(steps, digits, digits) for steps in (bar.open, bar.high, bar.low, bar.close, bar.close)),
                text(bar.volume, 3, 8),
                bar.volume,
            ]
            for bar in bars
        ]
        return {self.ids[market.symbol]: rows, "last": (newest - interval_ms) // 1000}

    def _depth(self, call: Call) -> Any:
        market, seconds = self._one(call), call.now_ms // 1000
        sides = self.book(market, min(_whole(call.query, "count", DEPTH_DEFAULT), DEPTH_MAX), call)
        bids, asks = ([[*level, seconds] for level in side] for side in sides)
        return {self.ids[market.symbol]: {"asks": asks, "bids": bids}}


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    value = query.get(name, str(default))
    if not value.isdecimal():
        raise Refused(200, {"error": ["EGeneral:Invalid arguments"]})
    return int(value)


def _pairs(query: Mapping[str, str]) -> list[str]:
    return [pair.replace("/", "") for pair in query.get("pair", "").split(",") if pair]


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _shape(wire: Wire) -> Any:
    return {
        "a": [wire["ask"], "1", "1.000"],
        "b": [wire["bid"], "1", "1.000"],
        "c": [wire["last"], "0.10000000"],
        "v": ["500.00000000", "1000.00000000"],
        "p": [wire["open"], wire["open"]],
        "t": [500, 1000],
        "l": [wire["low"], wire["low"]],
        "h": [wire["high"], wire["high"]],
        "o": wire["open"],
    }
