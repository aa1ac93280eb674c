"""The unmodified ccxt client, pointed at a fake exchange by public configuration only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import ccxt.async_support as ccxt

# Longer than a busy machine takes for an answer, and not so long for who is to wait in vain.
TIMEOUT_MS, IMPATIENT_MS = 10_000, 500


@asynccontextmanager
async def ccxt_client(kind: str, url: str, **config: Any) -> AsyncIterator[Any]:
    """Without ccxt's own throttle, which keeps two Kraken calls a second apart."""
    client = getattr(ccxt, kind)({"timeout": TIMEOUT_MS, "enableRateLimit": False, **config})
    client.urls["api"] = _rebased(client, client.urls["api"], url)
    try:
        yield client
    finally:
        await client.close()


def _rebased(client: Any, urls: Any, base: str) -> Any:
    if isinstance(urls, dict):
        return {key: _rebased(client, value, base) for key, value in urls.items()}
    if not isinstance(urls, str):
        return urls
    return base + urlsplit(client.implode_hostname(urls)).path


async def outcome(call: Awaitable[Any], word: Callable[[Any], str]) -> str:
    try:
        return word(await call)
    except Exception as error:  # noqa: BLE001 - whatever ccxt lets out is the finding
        return type(error).__name__


def of_ticker(ticker: Any) -> str:
    return "None" if (ticker["last"], ticker["bid"], ticker["ask"]) == (None, None, None) else "ok"


def of_tickers(tickers: Any) -> str:
    return ",".join(sorted(ticker["symbol"].split("/")[0] for ticker in tickers.values())) or "-"
