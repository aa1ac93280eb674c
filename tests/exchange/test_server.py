"""Plans of faults, the log, and a server that goes and comes back."""

from __future__ import annotations

import asyncio

import ccxt.async_support as ccxt
import pytest

from tests.exchange.clients import of_ticker, outcome
from tests.exchange.delivery import pause
from tests.exchange.faults import Fault
from tests.exchange.pair import BTC, Pair

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_plan_by_requests_and_by_seconds(pair: Pair) -> None:
    client, exchange = pair.client, pair.exchange
    exchange.fault("http503", endpoints="ticker", first_request=1, end_request=3)
    exchange.plan([Fault("http502", endpoints="time", start_s=60), Fault("http502", endpoints="time", end_s=0)])
    found = [await outcome(client.fetch_ticker(BTC), of_ticker) for _ in range(4)]
    assert found == ["ok", "ExchangeNotAvailable", "ExchangeNotAvailable", "ok"]
    assert [request.status for request in exchange.requests("ticker")] == [200, 503, 503, 200]
    await client.fetch_time()
    exchange.clear("http503")
    assert exchange.requests("time")[0].fault == ""


async def test_requests_inside_a_retry_after_are_violations(pair: Pair) -> None:
    client, exchange = pair.client, pair.exchange
    exchange.fault("http429", endpoints="ticker", retry_after_s=1)
    assert await outcome(client.fetch_ticker(BTC), of_ticker) != "ok"
    assert client.last_response_headers["Retry-After"] == "1"
    assert exchange.violations() == []
    await client.fetch_time()
    assert [request.endpoint for request in exchange.violations()] == ["time"]


async def test_a_stopped_exchange_refuses_and_comes_back_on_its_port(pair: Pair) -> None:
    exchange = pair.exchange
    exchange.stop()
    with pytest.raises(ccxt.ExchangeNotAvailable):
        await pair.client.fetch_time()
    exchange.start()
    assert await pair.client.fetch_time()


async def test_a_hang_ends_when_the_server_stops(pair: Pair) -> None:
    exchange = pair.exchange
    exchange.fault("hang")
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        call = tasks.create_task(outcome(pair.client.fetch_time(), str))
        while not exchange.requests("time"):
            await pause(0.01, asyncio.Event())
        begun = exchange.monotonic()
        exchange.stop()
        assert exchange.monotonic() - begun < 5
    assert call.result() in {"ExchangeNotAvailable", "RequestTimeout"}
    exchange.start()
