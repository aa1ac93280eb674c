"""What the unmodified ccxt client makes of every fault."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.exchange.clients import IMPATIENT_MS, of_ticker, of_tickers, outcome
from tests.exchange.faults import BODIES, BOOKS, MARKETS, NAMES, REFUSALS, SERVER, VALUES
from tests.exchange.pair import BTC, ETH, KINDS, NOW_MS, Pair

pytestmark = pytest.mark.asyncio(loop_scope="module")


# What ccxt does, a word a call: fetch_ticker, fetch_tickers, load_markets(True). An exception by its class; else a
# ticker as "ok" or "None" (all its prices), tickers as their bases, markets as their number.
SAME = {
    "http429": ("DDoSProtection", "RateLimitExceeded"),
    "http418": ("DDoSProtection", "DDoSProtection"),
    "rate_msg": ("RateLimitExceeded", "DDoSProtection"),
    "http500[json]": ("OperationFailed", "ExchangeNotAvailable"),
    "http504": ("RequestTimeout", "RequestTimeout"),
    "maintenance": ("OnMaintenance", "ExchangeNotAvailable"),
    "hang": ("RequestTimeout", "RequestTimeout"),
    "slow_body": ("RequestTimeout", "RequestTimeout"),
    "mid_reset": ("ExchangeError", "ExchangeError"),
    "bad_gzip": ("ExchangeError", "ExchangeError"),
    **{f"http{status}": ("ExchangeNotAvailable",) * 2 for status in (400, 403, 404, 451, 500, 502, 503, 520)},
    **dict.fromkeys(("reset", "close", "redirect"), ("ExchangeNotAvailable",) * 2),
}
LOST = "None - 0"
ANSWERS = {
    "slow": ("ok BTC,ETH 3", "ok BTC,ETH 3"),
    "truncated": ("None AttributeError 0", LOST),
    "html200": ("None AttributeError 0", LOST),
    "empty200": ("None AttributeError 0", LOST),
    "null200": ("None AttributeError 0", LOST),
    "list200": (LOST, LOST),
    "dict200": (LOST, LOST),
    "nan_json": ("None AttributeError 3", "None - 3"),
    "delist": ("BadSymbol BadSymbol 2", "ExchangeError ExchangeError 2"),
    "halt": ("ok BTC,ETH 3", "ok BTC,ETH 3"),
    **{name: tuple(" ".join([error] * 3) for error in errors) for name, errors in SAME.items()},
}


async def test_every_fault_has_a_test() -> None:
    named = {"missing_symbol", "wrong_symbol", "price_nan", "price_inf", "price_text"}
    assert set(ANSWERS) == REFUSALS | BODIES | MARKETS
    assert set(SHOWN) | named == VALUES
    assert NAMES - set(ANSWERS) - VALUES == (BOOKS - VALUES) | SERVER  # test_client.py has those


@pytest.mark.parametrize("name", sorted(ANSWERS))
async def test_what_the_client_makes_of_an_answer(mended: Pair, name: str) -> None:
    client, exchange = mended.client, mended.exchange
    exchange.fault(name, symbols=[BTC] if name in MARKETS else (), delay_s=0.05 if name == "slow" else None)
    if name in {"hang", "slow_body"}:
        client.timeout = IMPATIENT_MS
    found = [
        await outcome(client.fetch_ticker(BTC), of_ticker),
        await outcome(client.fetch_tickers([BTC, ETH]), of_tickers),
        await outcome(client.load_markets(True), lambda markets: str(len(markets))),
    ]
    assert " ".join(found) == ANSWERS[name][KINDS.index(exchange.kind)]
    assert bool(exchange.quotes(BTC)) is (name in {"slow", "slow_body", "halt"})
    if found[2].isdigit():
        assert len(client.markets) == int(found[2])


# last, bid, ask as ccxt shows them, from the true ones. Where Binance has no last, ccxt invents one out of the day's
# open and change (INVENTED).
Values = tuple[float | None, float | None, float | None]
SHOWN: dict[str, Callable[[float, float, float], Values]] = {
    "crossed": lambda last, bid, ask: (last, ask * 1.01, bid * 0.99),
    "locked": lambda last, bid, ask: (last, last, last),
    "last_null": lambda last, bid, ask: (None, bid, ask),
    "last_zero": lambda last, bid, ask: (None, bid, ask),
    "no_bidask": lambda last, bid, ask: (last, None, None),
    "price_absurd": lambda last, bid, ask: (last * 1e3, bid * 1e3, ask * 1e3),
    "price_tiny": lambda last, bid, ask: (last / 1e3, bid / 1e3, ask / 1e3),
    "price_negative": lambda last, bid, ask: (-last, -bid, -ask),
    **dict.fromkeys(("price_empty", "price_null", "price_zero"), lambda last, bid, ask: (None, None, None)),
    **dict.fromkeys(
        ("frozen", "backwards_ts", "null_ts", "sec_ts", "stale_ts", "future_ts"),
        lambda last, bid, ask: (last, bid, ask),
    ),
}
INVENTED = {"last_null", "last_zero", "price_empty"}
TIMESTAMPS = {"null_ts": None, "sec_ts": NOW_MS // 1000, "stale_ts": NOW_MS - 600_000, "future_ts": NOW_MS + 3_600_000}
STILL_VALID = {"frozen", "backwards_ts", "last_null", "last_zero", "no_bidask"}


async def truth(pair: Pair, symbol: str = BTC) -> tuple[float, float, float]:
    ticker = await pair.client.fetch_ticker(symbol)
    pair.exchange.forget()
    return ticker["last"], ticker["bid"], ticker["ask"]


@pytest.mark.parametrize("name", sorted(SHOWN))
async def test_what_the_client_makes_of_a_value(pair: Pair, name: str) -> None:
    client, exchange = pair.client, pair.exchange
    true, true_eth = await truth(pair), await truth(pair, ETH)
    last, bid, ask = SHOWN[name](*true)
    if name in INVENTED and exchange.kind == "binance":
        last = true[0]
    at_ms = TIMESTAMPS.get(name, NOW_MS) if exchange.kind == "binance" else None

    exchange.fault(name, symbols=BTC)
    one, both = await client.fetch_ticker(BTC), await client.fetch_tickers([BTC, ETH])

    assert (one["last"], one["bid"], one["ask"]) == (pytest.approx(last), pytest.approx(bid), pytest.approx(ask))
    assert one["timestamp"] == at_ms
    assert set(both) == {BTC, ETH}
    assert (both[ETH]["last"], both[ETH]["bid"], both[ETH]["ask"]) == true_eth
    assert both[ETH]["timestamp"] == (NOW_MS if exchange.kind == "binance" else None)
    valid = name in STILL_VALID or (exchange.kind == "kraken" and name in TIMESTAMPS)
    assert bool(exchange.requests("ticker")[0].quotes) is valid
    assert ETH in exchange.requests("ticker")[1].quotes


@pytest.mark.parametrize("name", ["price_nan", "price_inf", "price_text"])
async def test_a_price_that_is_no_number_is_not_even_a_ccxt_error(pair: Pair, name: str) -> None:
    pair.exchange.fault(name)
    assert await outcome(pair.client.fetch_ticker(BTC), of_ticker) == "ValueError"
    assert await outcome(pair.client.fetch_tickers([BTC, ETH]), of_tickers) == "ValueError"
    assert not pair.exchange.served(BTC)


async def test_a_missing_symbol(pair: Pair) -> None:
    pair.exchange.fault("missing_symbol", symbols=BTC)
    assert of_tickers(await pair.client.fetch_tickers([BTC, ETH])) == "ETH"
    found = await outcome(pair.client.fetch_ticker(BTC), of_ticker)
    assert found == {"binance": "BadSymbol", "kraken": "None"}[pair.exchange.kind]


async def test_a_wrong_symbol(pair: Pair) -> None:
    last, bid, ask = await truth(pair)
    pair.exchange.fault("wrong_symbol", symbols=BTC)
    assert of_tickers(await pair.client.fetch_tickers([BTC, ETH])) == "ETH"
    ticker = await pair.client.fetch_ticker(BTC)
    expected = (last, bid, ask) if pair.exchange.kind == "binance" else (None, None, None)
    assert (ticker["symbol"], ticker["last"], ticker["bid"], ticker["ask"]) == (BTC, *expected)
    assert not pair.exchange.served(BTC)


async def test_a_frozen_price_and_one_that_goes_back(pair: Pair) -> None:
    client, exchange, hand = pair.client, pair.exchange, pair.hand
    exchange.fault("frozen")
    first = await client.fetch_ticker(BTC)
    hand.ms += 5_000
    again = await client.fetch_ticker(BTC)
    assert [again[key] for key in ("last", "bid", "ask", "timestamp")] == [
        first[key] for key in ("last", "bid", "ask", "timestamp")
    ]
    assert [bool(request.quotes) for request in exchange.requests("ticker")] == [True, False]
    exchange.clear()
    exchange.fault("backwards_ts")
    lasts = [(await client.fetch_ticker(BTC))["last"] for _ in range(4)]
    market = exchange.prices.markets[0]
    steps = [round(last * 10**market.price_digits) for last in lasts]
    assert steps == [exchange.prices.at(BTC, hand.ms), exchange.prices.at(BTC, hand.ms - 30_000)] * 2


async def test_spoiled_quotes_are_told_from_valid_ones(pair: Pair) -> None:
    _, bid, ask = await truth(pair)
    pair.exchange.fault("price_tiny", symbols=BTC)
    await pair.client.fetch_tickers([BTC, ETH])
    assert not pair.exchange.served(BTC)
    assert len(pair.exchange.served(ETH)) == 1
    ((low_bid, low_ask),) = pair.exchange.served(BTC, including=["price_tiny"])
    assert [float(low_bid), float(low_ask)] == pytest.approx([bid / 1e3, ask / 1e3])
