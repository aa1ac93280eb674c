"""One exchange behind one object: every call ends in time, and every failure is an ExchangeFault."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, localcontext
from typing import Any
from urllib.parse import urlsplit

from bot.exchange.faults import ExchangeFault, Kind, NotJson, kind_of, retry_s, told
from bot.exchange.gate import Gate
from bot.exchange.library import exchange_class
from bot.ports import Clock

# Over ccxt's own timeout, which has been known not to come.
GRACE_S = 5.0
CLOSE_S = 5.0
# After so many failures in a row a fresh connection is tried, and then at every so many more.
REBUILD_AFTER = 3
REBUILD_EVERY = 20
_UNREACHED = frozenset({Kind.NETWORK, Kind.TIMEOUT})


@dataclass(frozen=True, slots=True)
class Access:
    """Which exchange, and how to reach it: ``[feed.ccxt]`` of the settings, and the symbols that are wanted."""

    exchange: str
    base_url: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    symbols: tuple[str, ...] = ()


class _Guarded:
    """What is put in front of ccxt's own methods. ``gate`` and ``turn`` are set once the client is made."""

    gate: Gate
    turn: Callable[[float], Awaitable[None]]
    # Not ``status``, which is ccxt's own: a table.
    http_status: int | None = None

    async def throttle(self, cost: float | None = None) -> None:
        await self.turn(1.0 if cost is None else cost)

    def on_rest_response(
        self, code: int, reason: str, url: str, method: str, headers: Any, body: str, *more: Any
    ) -> str:
        self.http_status = code
        self.gate.heard(code, headers, body)
        return super().on_rest_response(code, reason, url, method, headers, body, *more)  # type: ignore[misc, no-any-return]

    def handle_errors(
        self, code: int, reason: str, url: str, method: str, headers: Any, body: str, response: Any, *more: Any
    ) -> Any:
        found = super().handle_errors(code, reason, url, method, headers, body, response, *more)  # type: ignore[misc]
        if response is None and 200 <= code < 300:
            raise NotJson(f"{method} {url} answered {code} with no JSON: {body[:60]!r}")
        return found

    def parse_ticker(self, ticker: Any, market: Any = None) -> Any:
        """As ccxt does, but a price that is no number spoils its own ticker only, not the whole answer."""
        try:
            return super().parse_ticker(ticker, market)  # type: ignore[misc]
        except (ValueError, TypeError, ArithmeticError):
            known = self.markets_by_id or {}  # type: ignore[attr-defined]
            found = super().parse_ticker(_without_nonsense(ticker, known), market)  # type: ignore[misc]
            return {**found, "bid": math.nan, "ask": math.nan}


def _without_nonsense(value: Any, known: Mapping[str, Any]) -> Any:
    """Texts that are neither a finite number nor a market's id are dropped."""
    if isinstance(value, Mapping):
        return {key: _without_nonsense(entry, known) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_nonsense(entry, known) for entry in value]
    if not isinstance(value, str) or value in known:
        return value
    try:
        return value if math.isfinite(float(value)) else None
    except ValueError:
        return None


def made(access: Access, gate: Gate, turn: Callable[[float], Awaitable[None]]) -> Any:
    """ccxt's client for an exchange with its guards. It holds a session from its first request on: close it."""
    kind = exchange_class(access.exchange)
    guarded = type(kind.__name__, (_Guarded, kind), {})
    exchange = guarded(copy.deepcopy(dict(access.options)))
    exchange.gate, exchange.turn = gate, turn
    if access.base_url:
        exchange.urls["api"] = _rebased(exchange, access.base_url.rstrip("/"))
    _only_spot(exchange, access)
    return exchange


def sorted_out(error: Exception, exchange: Any) -> Kind:
    """What an exception of a client means; one that asks for silence closes the gate, if its answer has not."""
    kind = kind_of(error, exchange.http_status)
    if kind is Kind.RATE_LIMIT and not exchange.gate.closed_s:
        exchange.gate.limited(text=str(error))
    return kind


def _rebased(exchange: Any, base_url: str) -> Any:
    """Every address of the client with another host in front of its path."""

    def moved(address: Any) -> Any:
        if isinstance(address, Mapping):
            return {key: moved(entry) for key, entry in address.items()}
        if not isinstance(address, str):
            return address
        parts = urlsplit(exchange.implode_hostname(address))
        host = base_url.replace("http", "ws", 1) if parts.scheme in ("ws", "wss") else base_url
        return host + parts.path

    return moved(exchange.urls["api"])


def _only_spot(exchange: Any, access: Access) -> None:
    """Where all symbols are spot, the markets of futures need not be asked for (unless the settings say so)."""
    asked = access.options.get("options", {})
    default = exchange.options.get("fetchMarkets")
    if "fetchMarkets" in asked or any(":" in symbol for symbol in access.symbols):
        return
    if isinstance(default, dict) and "spot" in (default.get("types") or ()):
        exchange.options["fetchMarkets"] = {**default, "types": ["spot"]}


class Client:
    """Calls one exchange, one call at a time. A client of ccxt that got stuck is closed and made anew."""

    def __init__(self, access: Access, clock: Clock) -> None:
        """Raises LookupError for an exchange that ccxt does not have."""
        self.access, self._clock = access, clock
        self.gate = Gate(clock)
        self._markets: list[Mapping[str, Any]] = []
        self._failures = 0
        self._kind_in_a_row: tuple[Kind | None, int] = (None, 0)
        self._stuck = False
        self._exchange = self._made()
        self.rebuilt = 0

    def _made(self) -> Any:
        exchange = made(self.access, self.gate, self.gate.pass_through)
        self.gate.spacing_s = exchange.rateLimit / 1000
        # Above ccxt's own, plus its turn behind the costliest request that there is.
        self.deadline_s = exchange.timeout / 1000 + GRACE_S + 40 * self.gate.spacing_s
        if self._markets:
            exchange.set_markets(copy.deepcopy(self._markets))
        return exchange

    @property
    def timeframes(self) -> tuple[str, ...]:
        """The candles that it has, by ccxt's names."""
        return tuple(self._exchange.timeframes or ()) if self.has("fetchOHLCV") else ()

    def candles_per_request(self, symbol: str) -> int | None:
        """The most candles that one answer holds, where ccxt knows; the symbol's market must be known."""
        found = self._exchange.feature_value(symbol, "fetchOHLCV", "limit")
        return int(found) if found else None

    @property
    def precision_mode(self) -> int:
        return int(self._exchange.precisionMode)

    def has(self, ability: str) -> bool:
        return bool(self._exchange.has.get(ability))

    def know(self, markets: Sequence[Mapping[str, Any]]) -> None:
        """Gives it the markets it may be asked about, in ccxt's shape."""
        self._markets = list(markets)
        self._exchange.set_markets(copy.deepcopy(self._markets))

    async def call(self, method: str, *arguments: Any) -> Any:
        """The answer of one of ccxt's methods. Raises ExchangeFault, whatever happened."""
        self.gate.check()
        await self._rebuild_if_stuck()
        self._exchange.http_status = None
        try:
            # ccxt rounds as it likes, and leaves it so: the ledger's rounding is another one.
            async with self._clock.limit(self.deadline_s):
                with localcontext(Context()):
                    answer = await getattr(self._exchange, method)(*arguments)
        except TimeoutError:
            self._stuck = True
            if await self._clock.sleep(0):
                raise ExchangeFault(Kind.STOPPED, f"{method}: stopped") from None
            raise self._fault(Kind.TIMEOUT, f"{method}: no answer within {self.deadline_s:.0f} s") from None
        except asyncio.CancelledError as error:
            self._stuck = True
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled this: ccxt's shared tasks do when one who waits for them leaves.
            raise self._fault(Kind.NETWORK, f"{method}: abandoned") from error
        except ExchangeFault:
            raise
        except Exception as error:
            raise self._fault(sorted_out(error, self._exchange), told(error)) from error
        self._failures, self._kind_in_a_row = 0, (None, 0)
        self.gate.answered()
        return answer

    def _fault(self, kind: Kind, text: str) -> ExchangeFault:
        self._failures += 1
        times = self._kind_in_a_row[1] + 1 if self._kind_in_a_row[0] is kind else 1
        self._kind_in_a_row = (kind, times)
        if kind in _UNREACHED and (self._failures - REBUILD_AFTER) % REBUILD_EVERY == 0:
            self._stuck = True
        if kind is Kind.RATE_LIMIT:
            return ExchangeFault(kind, text, self.gate.closed_s)
        return ExchangeFault(kind, text, retry_s(kind, times))

    async def _rebuild_if_stuck(self) -> None:
        if self._stuck:
            await self.close()
            self._exchange, self._stuck = self._made(), False
            self.rebuilt += 1

    async def close(self) -> None:
        """Closes its connections, or gives up on that after some seconds."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._exchange.close()
        except Exception:  # noqa: BLE001, S110 # nosec B110 # it is thrown away whatever it says
            pass
