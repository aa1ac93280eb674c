"""An exchange's markets: read beside the loop, and kept on disk, so that a start does not need the exchange."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bot.exchange.client import CLOSE_S, Access, made, sorted_out
from bot.exchange.faults import ExchangeFault, Kind, told
from bot.exchange.gate import Gate
from bot.exchange.lookups import Lookups

LOAD_TIMEOUT_S = 60.0
# An address with more symbols than this grows beyond what servers take.
SYMBOLS_PER_REQUEST = 400
_FORMAT = 1

CcxtMarket = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What an exchange said of the wanted symbols, in ccxt's shape; ``listed`` are all the symbols it has."""

    markets: dict[str, CcxtMarket]
    listed: tuple[str, ...] = ()
    saved_ms: int = 0

    def tradable(self, symbols: Sequence[str]) -> tuple[str, ...]:
        """Those that are listed and open for trading."""
        return tuple(
            symbol for symbol in symbols if symbol in self.markets and self.markets[symbol].get("active") is not False
        )

    def requests(self, symbols: Sequence[str]) -> Iterator[list[str]]:
        """The symbols of each request: one, unless the markets are of several kinds or there are very many."""
        kinds: defaultdict[object, list[str]] = defaultdict(list)
        for symbol in symbols:
            market = self.markets[symbol]
            # Spot, linear or inverse: an exchange has an address for each.
            kinds[market.get("type"), market.get("linear")].append(symbol)
        for kind in kinds.values():
            for first in range(0, len(kind), SYMBOLS_PER_REQUEST):
                yield kind[first : first + SYMBOLS_PER_REQUEST]


class Loading:
    """Reads the markets of an exchange on a thread with a loop of its own.

    Thousands of markets are megabytes of JSON and half a second of parsing, in which the loop would neither poll nor
    hear a signal; and whoever waits for ccxt's own loading and gives up takes it away from everybody else. Only what is
    wanted of the answer is kept. ``future`` is done when the thread is, with a Catalogue or the fault as its result.
    """

    def __init__(self, access: Access, gate: Gate) -> None:
        self._access, self._gate = access, gate
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Catalogue | ExchangeFault] = self._loop.create_future()
        # A daemon thread: an exchange that does not answer must not hold up the end of the process.
        threading.Thread(target=self._run, name="markets", daemon=True).start()

    def _run(self) -> None:
        result: Catalogue | ExchangeFault
        try:
            result = asyncio.run(_loaded(self._access, self._gate))
        except ExchangeFault as fault:
            result = fault
        except BaseException as error:  # noqa: BLE001 - nobody else would hear of it
            result = ExchangeFault(Kind.MALFORMED, told(error))
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.call_soon_threadsafe(self._hand_over, result)

    def _hand_over(self, result: Catalogue | ExchangeFault) -> None:
        if not self.future.done():
            self.future.set_result(result)


async def _loaded(access: Access, gate: Gate) -> Catalogue:
    async def turn(cost: float) -> None:
        # The loop's clock cannot be waited for from here; two or three requests need no spacing.
        gate.check()

    asyncio.get_running_loop().set_default_executor(Lookups())
    exchange = made(access, gate, turn)
    try:
        async with asyncio.timeout(LOAD_TIMEOUT_S):
            markets = await exchange.load_markets()
    except TimeoutError:
        raise ExchangeFault(Kind.TIMEOUT, f"its markets took longer than {LOAD_TIMEOUT_S:.0f} s") from None
    except ExchangeFault:
        raise
    except Exception as error:
        raise ExchangeFault(sorted_out(error, exchange), f"its markets: {told(error)}") from error
    finally:
        with suppress(Exception):
            async with asyncio.timeout(CLOSE_S):
                await exchange.close()
    if not markets:
        # ccxt takes a page of HTML for an exchange without markets.
        raise ExchangeFault(Kind.MALFORMED, "its list of markets is empty")
    wanted = {symbol: markets[symbol] for symbol in access.symbols if symbol in markets}
    return Catalogue(wanted, tuple(sorted(markets)))


def read_catalogue(path: Path, access: Access) -> Catalogue | None:
    """What was kept of this exchange; None if that is nothing that can be used."""
    try:
        stored = orjson.loads(path.read_bytes())
        # A test network's markets are not those of the exchange.
        if (stored["format"], stored["exchange"], stored["base_url"]) != (_FORMAT, access.exchange, access.base_url):
            return None
        kept = stored["markets"]
        markets = {symbol: kept[symbol] for symbol in access.symbols if symbol in kept}
        if not all(_is_market(symbol, market) for symbol, market in markets.items()):
            return None
        return Catalogue(markets, saved_ms=int(stored["saved_ms"]))
    except (OSError, ValueError, LookupError, TypeError, OverflowError):
        return None


def _is_market(symbol: str, market: Any) -> bool:
    """Whether it has what ccxt takes for granted."""
    return (
        isinstance(market, dict)
        and market.get("symbol") == symbol
        and isinstance(market.get("id"), str)
        and all(isinstance(market.get(table), dict) for table in ("precision", "limits"))
    )


def write_catalogue(path: Path, access: Access, markets: Mapping[str, CcxtMarket], saved_ms: int) -> None:
    """Keeps the markets, whole or not at all. Raises OSError, and TypeError for what JSON cannot hold."""
    content = {
        "format": _FORMAT,
        "exchange": access.exchange,
        "base_url": access.base_url,
        "saved_ms": saved_ms,
        "markets": markets,
    }
    aside = path.with_name(f"{path.name}.new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(orjson.dumps(content, default=str))
        file.flush()
        os.fsync(descriptor)
    aside.replace(path)
