"""One fake exchange and one ccxt client of each kind, for all tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.exchange.clients import TIMEOUT_MS, ccxt_client
from tests.exchange.handle import running_exchange
from tests.exchange.pair import KINDS, NOW_MS, Hand, Pair


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """One client for all tests of a kind: closing one takes ccxt a quarter of a second."""
    hand = Hand()
    with running_exchange(request.param, symbols=3, now_ms=hand) as exchange:
        async with ccxt_client(request.param, exchange.url) as client:
            await client.load_markets()
            yield Pair(client, exchange, hand)


@pytest.fixture
def pair(opened: Pair) -> Iterator[Pair]:
    opened.hand.ms = NOW_MS
    opened.client.timeout = TIMEOUT_MS
    opened.exchange.forget()
    yield opened
    opened.exchange.clear()


@pytest_asyncio.fixture(loop_scope="module")
async def mended(pair: Pair) -> AsyncIterator[Pair]:
    """For tests after which the client has lost its markets."""
    yield pair
    pair.exchange.clear()
    await pair.client.load_markets(True)
