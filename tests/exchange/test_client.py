"""What the unmodified ccxt client reads from a fake exchange that is well."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import ccxt.async_support as ccxt
import pytest

from tests.exchange.clients import ccxt_client
from tests.exchange.handle import Kind, running_exchange
from tests.exchange.pair import BTC, COIN, ETH, KINDS, MINUTE_MS, NOW_MS, SYMBOLS, Pair

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_books(pair: Pair) -> None:
    client = pair.client
    ticker = await client.fetch_ticker(BTC)
    bid, ask = ticker["bid"], ticker["ask"]
    book = await client.fetch_order_book(BTC, 20)
    assert (book["bids"][0][0], book["asks"][0][0], len(book["bids"]), len(book["asks"])) == (bid, ask, 20, 20)
    assert book["bids"] == sorted(book["bids"], reverse=True)
    assert book["asks"] == sorted(book["asks"])


async def test_books_with_faults(pair: Pair) -> None:
    client, exchange = pair.client, pair.exchange
    exchange.fault("crossed", endpoints="depth")
    crossed = await client.fetch_order_book(BTC, 20)
    assert crossed["bids"][0][0] > crossed["asks"][0][0]
    exchange.clear()
    exchange.fault("one_sided", symbols=BTC)
    one_sided = await client.fetch_order_book(BTC, 20)
    assert (len(one_sided["bids"]), one_sided["asks"]) == (20, [])
    exchange.fault("empty_book")
    empty = await client.fetch_order_book(BTC, 20)
    assert (empty["bids"], empty["asks"]) == ([], [])


async def test_time_and_status(pair: Pair) -> None:
    client, exchange = pair.client, pair.exchange
    exact = NOW_MS if exchange.kind == "binance" else NOW_MS // 1000 * 1000
    assert await client.fetch_time() == exact
    exchange.fault("clock_skew", skew_ms=-20_000)
    assert await client.fetch_time() == exact - 20_000
    assert (await client.fetch_status())["status"] == "ok"
    exchange.fault("maintenance")
    assert (await client.fetch_status())["status"] == "maintenance"


async def test_candles_are_samples_of_the_price(pair: Pair) -> None:
    client, prices = pair.client, pair.exchange.prices
    rows = await client.fetch_ohlcv(BTC, "5m", limit=10)
    rows = rows[-10:]
    opened = NOW_MS // 300_000 * 300_000
    assert [row[0] for row in rows] == [opened - 300_000 * (9 - i) for i in range(10)]
    digits = prices.markets[0].price_digits
    for open_ms, *ohlc, volume in rows:
        times = range(open_ms, min(open_ms + 300_000, NOW_MS + 1), 15_000)
        samples = [prices.at(BTC, at_ms) / 10**digits for at_ms in times]
        assert ohlc == [samples[0], max(samples), min(samples), samples[-1]]
        assert volume > 0


async def test_minutes_add_up_to_hours(pair: Pair) -> None:
    bars = pair.exchange.prices.bars
    (hour,) = bars(BTC, 3_600_000, NOW_MS // 3_600_000 * 3_600_000, 1, NOW_MS)
    minutes = bars(BTC, MINUTE_MS, hour.open_ms, 60, NOW_MS)
    assert (hour.open, hour.close) == (minutes[0].open, minutes[-1].close)
    assert (hour.high, hour.low) == (max(m.high for m in minutes), min(m.low for m in minutes))
    assert hour.volume == sum(m.volume for m in minutes)


async def test_pages_of_candles(pair: Pair) -> None:
    """Binance pages back without end; Kraken has the newest 720, whatever since says."""
    client, exchange = pair.client, pair.exchange
    since = NOW_MS // MINUTE_MS * MINUTE_MS - 2_000 * MINUTE_MS
    rows: list[Any] = []
    at_ms = since
    while page := await client.fetch_ohlcv(BTC, "1m", since=at_ms, limit=1_000):
        rows += page
        at_ms = page[-1][0] + MINUTE_MS
    opens = [row[0] for row in rows]
    assert opens[-1] == NOW_MS // MINUTE_MS * MINUTE_MS  # the candle still open
    assert opens == list(range(opens[0], opens[-1] + 1, MINUTE_MS))
    if exchange.kind == "binance":
        assert (opens[0], len(opens), len(exchange.requests("klines"))) == (since, 2_001, 4)
    else:
        assert len(opens) == 720


async def test_the_open_candle_only_grows(pair: Pair) -> None:
    client, hand = pair.client, pair.hand
    hand.ms = NOW_MS // MINUTE_MS * MINUTE_MS
    rows = []
    for _ in range(6):
        rows.append((await client.fetch_ohlcv(BTC, "1m", limit=5))[-1])
        hand.ms += 10_000
    hand.ms += MINUTE_MS
    closed = (await client.fetch_ohlcv(BTC, "1m", since=rows[0][0], limit=1))[0]
    rows.append(closed)
    for earlier, later in pairwise(rows):
        assert earlier[:2] == later[:2]
        assert (earlier[2] <= later[2], earlier[3] >= later[3], earlier[5] <= later[5]) == (True, True, True)


async def test_malformed_questions(pair: Pair) -> None:
    client = pair.client
    if pair.exchange.kind == "binance":
        calls = [client.publicGetKlines({"symbol": "BTCUSDT", "interval": "1m", "limit": "ten"})]
        calls += [client.publicGetKlines({"symbol": "BTCUSDT", "interval": "7m"}), client.publicGetKlines({})]
        calls += [client.publicGetTicker24hr({"symbols": "["}), client.publicGetDepth({"symbol": "NONEUSDT"})]
    else:
        calls = [client.publicGetOHLC({"pair": "XBTUSDT", "interval": "7"}), client.publicGetOHLC({})]
        calls += [client.publicGetOHLC({"pair": "XBTUSDT", "since": "now"}), client.publicGetDepth({"pair": "NONE"})]
    for call in calls:
        with pytest.raises(ccxt.ExchangeError):
            await call
    assert not pair.exchange.bugs


async def test_markets_have_steps_and_limits(pair: Pair) -> None:
    for symbol, market in pair.client.markets.items():
        assert market["active"] is True, symbol
        assert 0 < market["precision"]["price"] < 1
        assert 0 < market["precision"]["amount"] <= 1
        assert market["limits"]["amount"]["min"] > 0
        assert market["limits"]["cost"]["min"] > 0
        assert 0 < market["maker"] <= market["taker"]


async def test_a_halted_market(mended: Pair) -> None:
    mended.exchange.fault("halt", symbols=ETH)
    markets = await mended.client.load_markets(True)
    assert {symbol: market["active"] for symbol, market in markets.items()} == {BTC: True, ETH: False, COIN: True}


async def test_the_light_endpoints(pair: Pair) -> None:
    if pair.exchange.kind == "kraken":
        pytest.skip("binance's")
    ticker = await pair.client.fetch_ticker(BTC)
    last, bid, ask = ticker["last"], ticker["bid"], ticker["ask"]
    pair.exchange.forget()
    quotes = await pair.client.fetch_bids_asks(SYMBOLS)
    assert {symbol: (quote["bid"], quote["ask"]) for symbol, quote in quotes.items()}[BTC] == (bid, ask)
    assert set(quotes) == set(SYMBOLS)
    assert (await pair.client.fetch_last_prices(SYMBOLS))[BTC]["price"] == last
    assert {(float(b), float(a)) for b, a in pair.exchange.served(BTC)} == {(bid, ask)}
    assert int(pair.client.last_response_headers["X-MBX-USED-WEIGHT-1M"]) > 0


async def test_unknown_symbols(pair: Pair) -> None:
    kind, client = pair.exchange.kind, pair.client
    error = {"binance": ccxt.BadSymbol, "kraken": ccxt.ExchangeError}[kind]
    call = client.publicGetTicker24hr if kind == "binance" else client.publicGetTicker
    with pytest.raises(error):
        await call({"symbols": '["BTCUSDT","NONEUSDT"]'} if kind == "binance" else {"pair": "XBTUSDT,NONEUSDT"})


@pytest.mark.parametrize("kind", KINDS)
async def test_three_hundred_symbols_are_one_request(kind: Kind) -> None:
    with running_exchange(kind, symbols=300) as exchange:
        async with ccxt_client(kind, exchange.url, timeout=5_000) as client:
            assert len(await client.load_markets()) == 300
            tickers = await client.fetch_tickers(exchange.symbols)
            assert set(tickers) == set(exchange.symbols)
            assert all(ticker["bid"] < ticker["last"] < ticker["ask"] for ticker in tickers.values())
            assert len(exchange.requests("ticker")) == 1
            assert exchange.quotes("COIN300/USDT")
