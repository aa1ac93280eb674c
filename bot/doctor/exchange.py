"""The exchange, asked as the daemon would ask it: few requests, all of them public, each with an end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bot.doctor.check import Check, State, failed, ok, warning
from bot.domain import iso8601, plain
from bot.exchange.catalogue import Catalogue, Loading, read_catalogue
from bot.exchange.client import Access, Client
from bot.exchange.faults import ExchangeFault, Kind
from bot.exchange.markets import market_of
from bot.feeds.candles import ladder
from bot.feeds.ccxt_ticker import AHEAD_MAX_MS, clock_offset_ms, quote_of
from bot.feeds.screen import FROM_THE_FUTURE, REASONS, STALE, Quote, Screen
from bot.ports import Clock
from bot.settings import Settings
from bot.settings.values import closest_symbol
from bot.sources import markets_file
from bot.timeframes import TIMEFRAMES

CCXT_NEEDED = (4, 5, 70)
# So much for one answer, for the list of markets, and for all of it.
ANSWER_S, MARKETS_S, ALL_S = 4.0, 10.0, 17.0
# After so many in a row that did not reach it, the others would only tell the same.
UNREACHED_MAX = 2
OFFSET_TOLD_MS = 1000
# More than these are told in one line, except for those with which something is wrong.
SYMBOLS_SINGLY = 20
# Any time: which candles make up a bar does not depend on it.
LONG_AGO_MS = 1_704_067_200_000
_UNREACHED = frozenset({Kind.NETWORK, Kind.TIMEOUT})
_ADVICE = {
    Kind.NETWORK: "check the network, its name service and feed.ccxt.base_url",
    Kind.TIMEOUT: "it does not answer in time: check the network, or try again",
    Kind.RATE_LIMIT: "too much was asked from this address: wait, and poll less often",
    Kind.MAINTENANCE: "wait until the exchange is back; the daemon does the same",
    Kind.BLOCKED: "it does not serve this address: choose another feed.ccxt.exchange",
    Kind.MALFORMED: "something else than the exchange may have answered: check proxies and feed.ccxt.base_url",
    Kind.CREDENTIALS: "it asks for credentials, which public prices do not need: check feed.ccxt.base_url",
    Kind.SETTINGS: "check feed.ccxt.options",
}


async def of_exchange(settings: Settings, clock: Clock) -> list[Check]:
    """Ends in some 20 s, whatever the exchange does."""
    checks = [of_ccxt()]
    examination = _Examination(settings, clock)
    try:
        async with asyncio.timeout(ALL_S):
            async for check in examination.checks():
                checks.append(check)
    except TimeoutError:
        checks.append(warning("exchange", f"the rest was not checked: more than {ALL_S:.0f} s had passed; try again"))
    finally:
        await examination.client.close()
    return checks


def of_ccxt(found: str | None = None) -> Check:
    try:
        found = found or version("ccxt")
        numbers = tuple(int(part) for part in found.split(".")[:3])
    except (PackageNotFoundError, ValueError):
        return warning("ccxt", "its version is not known: pip install --upgrade ccxt")
    if numbers < CCXT_NEEDED:
        needed = ".".join(map(str, CCXT_NEEDED))
        return warning(
            "ccxt", f"ccxt {found} can hang on a dead connection: pip install 'ccxt>={needed}'", version=found
        )
    return ok("ccxt", f"ccxt {found}", version=found)


@dataclass(slots=True)
class _Answer:
    value: Any
    seconds: float


class _Examination:
    """One exchange, looked at once."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        given = settings.feed.ccxt
        self._settings, self._clock, self._exchange = settings, clock, given.exchange
        self._access = Access(given.exchange, given.base_url, given.options, settings.feed.symbols)
        patience_ms = min(given.options.get("timeout") or math.inf, ANSWER_S * 1000)
        self.client = Client(replace(self._access, options={**given.options, "timeout": patience_ms}), clock)
        self._unreached = 0
        self._offset_ms = 0

    async def checks(self) -> AsyncIterator[Check]:
        yield await self._reachable()
        yield await self._status()
        yield await self._clock_offset()
        catalogue, check = await self._markets()
        yield check
        if catalogue is None:
            for name in ("symbols", "quotes", "poll interval"):
                yield self._skipped(name, "needs the exchange's markets")
            return
        for check in self._symbols(catalogue):
            yield check
        tradable = catalogue.tradable(self._settings.feed.symbols)
        self.client.know(list(catalogue.markets.values()))
        if not tradable:
            yield self._skipped("quotes", "none of the symbols is traded")
            return
        before = self.client.gate.spent
        for check in await self._quotes(tradable, catalogue):
            yield check
        if cost := self.client.gate.spent - before:
            yield interval_check(cost, self.client.gate.spacing_s, self._settings.feed.poll_interval_s)
        for check in await self._candles(tradable):
            yield check

    async def _asked(self, method: str, *arguments: Any) -> _Answer:
        """Raises ExchangeFault, in any case within some seconds."""
        if self._unreached >= UNREACHED_MAX:
            raise ExchangeFault(Kind.STOPPED, "the exchange is not reached")
        started_s = self._clock.monotonic()
        try:
            async with asyncio.timeout(ANSWER_S + 1 + 2 * self.client.gate.spacing_s):
                value = await self.client.call(method, *arguments)
        except TimeoutError:
            self._unreached += 1
            raise ExchangeFault(Kind.TIMEOUT, f"{method}: no answer within {ANSWER_S:.0f} s") from None
        except ExchangeFault as fault:
            self._unreached = self._unreached + 1 if fault.kind in _UNREACHED else 0
            raise
        self._unreached = 0
        return _Answer(value, self._clock.monotonic() - started_s)

    def _broken(self, name: str, fault: ExchangeFault) -> Check:
        if fault.kind is Kind.STOPPED:
            return self._skipped(name, "the exchange is not reached")
        silence = f" ({fault.retry_s:.0f} s)" if fault.kind is Kind.RATE_LIMIT and fault.retry_s else ""
        advice = _ADVICE.get(fault.kind, "see what it says, and try again")
        return failed(name, f"{fault}{silence}; {advice}", kind=fault.kind.value)

    def _skipped(self, name: str, why: str) -> Check:
        return warning(name, f"not checked: {why}", skipped=True)

    async def _reachable(self) -> Check:
        method = next(
            (m for a, m in (("fetchTime", "fetch_time"), ("fetchStatus", "fetch_status")) if self._can(a)), ""
        )
        if not method:
            return ok("reachable", f"{self._exchange} has no request for that; see its markets")
        try:
            answer = await self._asked(method)
        except ExchangeFault as fault:
            return self._broken("reachable", fault)
        where = self._access.base_url or self._exchange
        return ok("reachable", f"{where} answered in {answer.seconds:.2f} s", seconds=round(answer.seconds, 3))

    def _can(self, ability: str) -> bool:
        return self.client.has(ability)

    async def _status(self) -> Check:
        if not self._can("fetchStatus"):
            return ok("status", f"{self._exchange} does not tell")
        try:
            answer = await self._asked("fetch_status")
        except ExchangeFault as fault:
            return self._broken("status", fault)
        status = answer.value.get("status") if isinstance(answer.value, Mapping) else None
        if status in ("ok", None):
            return ok("status", f"{self._exchange} says it is {status or 'there'}", status=status)
        return failed("status", f"{self._exchange} says: {status}; {_ADVICE[Kind.MAINTENANCE]}", status=status)

    async def _clock_offset(self) -> Check:
        """After a first request, and a rest: neither opening a connection nor a turn at the gate is the way there."""
        if not self._can("fetchTime"):
            return ok("clock", f"{self._exchange} does not tell its time")
        if self._unreached >= UNREACHED_MAX:
            return self._skipped("clock", "the exchange is not reached")
        try:
            await self._clock.sleep(min(1.0, self.client.gate.spacing_s))
            async with asyncio.timeout(ANSWER_S + 1 + 2 * self.client.gate.spacing_s):
                self._offset_ms = await clock_offset_ms(self.client, self._clock)
        except TimeoutError:
            return self._broken("clock", ExchangeFault(Kind.TIMEOUT, "fetch_time: no answer"))
        except ExchangeFault as fault:
            return self._broken("clock", fault)
        return offset_check(self._offset_ms, self._settings.stale_after_ms)

    async def _markets(self) -> tuple[Catalogue | None, Check]:
        """As the exchange lists them now, else as the daemon kept them."""
        fault = ExchangeFault(Kind.STOPPED, "the exchange is not reached")
        if self._unreached < UNREACHED_MAX:
            started_s = self._clock.monotonic()
            loading = Loading(self._access, self.client.gate)
            try:
                async with asyncio.timeout(MARKETS_S):
                    result = await asyncio.shield(loading.future)
            except TimeoutError:
                result = ExchangeFault(Kind.TIMEOUT, f"its markets took longer than {MARKETS_S:.0f} s")
            if isinstance(result, Catalogue):
                seconds = self._clock.monotonic() - started_s
                told = f"{len(result.listed):,} listed (read in {seconds:.1f} s)"
                return result, ok("markets", told, listed=len(result.listed))
            fault = result
        kept = read_catalogue(markets_file(self._settings), self._access)
        check = self._broken("markets", fault)
        if kept is None or not kept.markets:
            return None, check
        return kept, replace(check, text=f"{check.text}; those kept at {iso8601(kept.saved_ms)} are used here")

    def _symbols(self, catalogue: Catalogue) -> list[Check]:
        checks = [self._symbol(symbol, catalogue) for symbol in self._settings.feed.symbols]
        good = [check for check in checks if check.state is State.OK]
        if len(good) <= SYMBOLS_SINGLY:
            return checks
        return [ok("symbols", f"{len(good)} are listed and traded"), *(c for c in checks if c.state is not State.OK)]

    def _symbol(self, symbol: str, catalogue: Catalogue) -> Check:
        market = catalogue.markets.get(symbol)
        if market is None:
            near = closest_symbol(symbol, catalogue.listed)
            hint = f"; did you mean {near}?" if near else ": take it out of feed.symbols"
            return failed("symbol", f"{symbol}: {self._exchange} has no such market{hint}", symbol=symbol, near=near)
        if market.get("active") is False:
            told = "is listed, and not traded now: the daemon leaves it out until it is"
            return warning("symbol", f"{symbol} {told}", symbol=symbol)
        try:
            told, facts = _limits(market, self.client.precision_mode)
        except (LookupError, TypeError, ValueError, ArithmeticError):
            return warning("symbol", f"{symbol}: its steps and limits cannot be read", symbol=symbol)
        return ok("symbol", f"{symbol}: {told}", symbol=symbol, **facts)

    async def _quotes(self, symbols: Sequence[str], catalogue: Catalogue) -> list[Check]:
        """One request, as in a poll."""
        tickers: dict[str, Any] = {}
        seconds, requests = 0.0, 0
        try:
            for part in catalogue.requests(symbols):
                answer = await self._asked("fetch_tickers", part)
                seconds, requests = seconds + answer.seconds, requests + 1
                tickers |= answer.value if isinstance(answer.value, Mapping) else {}
        except ExchangeFault as fault:
            return [self._broken("quotes", fault)]
        now_ms = self._clock.now_ms() + self._offset_ms
        return quote_checks(symbols, tickers, now_ms, self._settings.stale_after_ms, (requests, seconds))

    async def _candles(self, symbols: Sequence[str]) -> list[Check]:
        wanted = sorted({entry.timeframe for entry in self._settings.strategy} - {"tick"})
        has = self.client.timeframes
        if not wanted:
            told = f"no strategy needs any; {self._exchange} has {', '.join(has) or 'none'}"
            return [ok("candles", told, timeframes=list(has))]
        checks = []
        for timeframe in wanted:
            made_of = history_of(timeframe, has)
            if made_of is None:
                told = (
                    f"{self._exchange} has none that make {timeframe}, it has {', '.join(has) or 'none at all'}:"
                    " the strategy waits until enough prices have been polled"
                )
                checks.append(warning("candles", told, timeframe=timeframe))
                continue
            try:
                rows = (await self._asked("fetch_ohlcv", symbols[0], made_of, None, 2)).value
            except ExchangeFault as fault:
                checks.append(self._broken("candles", fault))
                continue
            if rows:
                checks.append(ok("candles", f"{made_of} of {symbols[0]} are there", timeframe=timeframe))
            else:
                told = (
                    f"{made_of} of {symbols[0]}: the answer is empty; windows of {timeframe} fill with what is polled"
                )
                checks.append(warning("candles", told, timeframe=timeframe))
        return checks


def history_of(timeframe: str, available: Sequence[str]) -> str | None:
    """The candles that the daemon fills windows of a timeframe with; None if there are none that fit."""
    bars = TIMEFRAMES[timeframe]
    first_ms = bars.open_of(LONG_AGO_MS)
    segments = ladder(0, bars.back(first_ms, -1), [(bars, 1)], available)
    return segments[0].timeframe if segments else None


def offset_check(offset_ms: int, stale_after_ms: int) -> Check:
    """``offset_ms``: how far the exchange's clock is ahead."""
    which = "behind" if offset_ms > 0 else "ahead of"
    told = f"this machine's clock is {abs(offset_ms) / 1000:.2f} s {which} the exchange's"
    if abs(offset_ms) > stale_after_ms:
        return failed(
            "clock", f"{told}, more than feed.stale_after_s: switch on time synchronisation", offset_ms=offset_ms
        )
    if abs(offset_ms) > OFFSET_TOLD_MS:
        return warning("clock", f"{told}: switch on time synchronisation (NTP)", offset_ms=offset_ms)
    return ok("clock", told, offset_ms=offset_ms)


def interval_check(cost: float, spacing_s: float, interval_s: float) -> Check:
    """Whether the exchange's rate limit allows a request of that cost every so often."""
    needed_s = cost * spacing_s
    facts = {"needed_s": round(needed_s, 3), "interval_s": interval_s}
    told = f"the exchange's rate limit allows a poll every {needed_s:.2f} s"
    if needed_s > interval_s:
        return failed("poll interval", f"{told}: raise feed.poll_interval_s from {interval_s:g} to that", **facts)
    return ok("poll interval", f"{told}, and feed.poll_interval_s is {interval_s:g}", **facts)


def quote_checks(
    symbols: Sequence[str], tickers: Mapping[str, Any], now_ms: int, stale_after_ms: int, asked: tuple[int, float]
) -> list[Check]:
    """One line for the good ones, and one for each of the others. ``asked``: requests, and seconds they took."""
    problems = []
    spreads: dict[str, float] = {}
    ages: dict[str, float] = {}
    for symbol in symbols:
        found = _judged(symbol, quote_of(symbol, tickers.get(symbol), 0), now_ms, stale_after_ms)
        if isinstance(found, str):
            told = f"{symbol}: {found}; nothing is traded on such a quote, leave the symbol out if it stays"
            problems.append(failed("quote", told, symbol=symbol))
            continue
        spreads[symbol] = found[0]
        if found[1] is not None:
            ages[symbol] = found[1]
    if not spreads:
        return problems
    requests, seconds = asked
    widest = max(spreads, key=spreads.__getitem__)
    age = f"the oldest is {max(ages.values()):.1f} s old" if ages else "the exchange does not say how old they are"
    how = "one request" if requests == 1 else f"{requests} requests"
    told = (
        f"{len(spreads)} of {len(symbols)} symbols have a good one ({how}, {seconds:.2f} s);"
        f" the widest spread is {spreads[widest]:.1f} bp ({widest}), {age}"
    )
    facts = {"good": len(spreads), "widest_bps": round(spreads[widest], 3), "age_s": max(ages.values(), default=None)}
    return [ok("quotes", told, **facts), *problems]


def _judged(symbol: str, quote: Quote | None, now_ms: int, stale_after_ms: int) -> tuple[float, float | None] | str:
    """Spread in basis points and age in seconds, or why the daemon would not take it."""
    if quote is None:
        return "there is no quote"
    # One request has nothing that would confirm it.
    screen = Screen([symbol], stale_after_ms=stale_after_ms, ahead_max_ms=AHEAD_MAX_MS, confirmations=0)
    block = screen.block(now_ms, {symbol: quote})
    age_s = (now_ms - quote.timestamp) / 1000 if isinstance(quote.timestamp, int) else None
    if not block.ticks:
        (reason,) = screen.reasons([symbol])
        if reason in (STALE, FROM_THE_FUTURE) and age_s is not None:
            return f"it is {abs(age_s):,.1f} s {'old' if age_s > 0 else 'ahead of the clock'}"
        return f"{REASONS[reason]} (bid {quote.bid}, ask {quote.ask}, last {quote.last})"
    bid, ask = float(block.bid[0, 0]), float(block.ask[0, 0])
    return (ask - bid) / (ask + bid) * 20_000, None if age_s is None else round(max(0.0, age_s), 3)


def _limits(market: Mapping[str, Any], precision_mode: int) -> tuple[str, dict[str, Any]]:
    known = market_of(market, precision_mode)
    limits = {
        "price_step": known.price_step,
        "amount_step": known.amount_step,
        "min_amount": known.min_amount,
        "min_cost": known.min_cost,
    }
    shown = [f"{name.replace('_', ' ')} {plain(value)}" for name, value in limits.items() if value is not None]
    facts: dict[str, Any] = {name: None if value is None else plain(value) for name, value in limits.items()}
    for side in ("taker", "maker"):
        fee = market.get(side)
        facts[side] = fee
        shown += [f"{side} fee {fee * 100:g} %"] if isinstance(fee, int | float) else []
    return ", ".join(shown), facts
