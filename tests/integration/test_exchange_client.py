"""The client and the feed against an exchange that does everything wrong, with the real ccxt in between."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
import pytest_asyncio
import structlog
from structlog.testing import LogCapture

from bot.clock import SystemClock
from bot.domain import Block
from bot.exchange.catalogue import Catalogue, Loading, read_catalogue, write_catalogue
from bot.exchange.client import Access, Client
from bot.exchange.faults import ExchangeFault, Kind
from bot.exchange.gate import Gate
from bot.feeds.ccxt_ticker import Caution, CcxtTickerFeed
from bot.feeds.listing import FRESH_MS, RELOAD_HALTED_S, UnknownSymbols
from bot.feeds.ohlcv import TRIES_MAX
from bot.feeds.screen import FROM_THE_FUTURE, MISSING, NOT_A_NUMBER, NOT_POSITIVE, STALE, Quote, Screen
from bot.ports import FeedError, NotYet, Window
from bot.timeframes import TIMEFRAMES
from tests.exchange import FakeExchange, running_exchange
from tests.exchange import handle as fakes
from tests.exchange.faults import BODIES, MARKETS, REFUSALS, VALUES

BTC, ETH, COIN = SYMBOLS = ("BTC/USDT", "ETH/USDT", "COIN003/USDT")
# Longer than a busy machine takes for an answer, and not so long for who is to wait in vain.
TIMEOUT_MS, IMPATIENT_MS = 10_000, 400
# No waits between two requests: what a test waits for is its own business.
OPTIONS = {"timeout": TIMEOUT_MS, "rateLimit": 0}
ELAPSED_S_MAX = 10.0
KINDS = get_args(fakes.Kind)
STALE_AFTER_MS = 10_000


def access(exchange: FakeExchange, symbols: tuple[str, ...] = SYMBOLS, **options: Any) -> Access:
    return Access(exchange.kind, exchange.url, {**OPTIONS, **options}, symbols)


@asynccontextmanager
async def client_of(exchange: FakeExchange, clock: SystemClock | None = None, **options: Any) -> AsyncIterator[Client]:
    """One that knows the markets."""
    client = Client(access(exchange, **options), clock or SystemClock())
    try:
        client.know(list(MARKETS_OF[exchange.kind].markets.values()))
        yield client
    finally:
        await client.close()


class Leaping(SystemClock):
    """Its monotonic clock can be made to leap ahead: silence that was asked for takes no time."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        real = SystemClock().monotonic
        super().__init__(monotonic=lambda: real() + self.ahead_s)


MARKETS_OF: dict[str, Catalogue] = {}


@pytest.fixture(scope="module", autouse=True)
def _markets() -> None:
    """Read once: to close a client takes ccxt a quarter of a second."""
    for kind in KINDS:
        with running_exchange(kind, symbols=3) as exchange:
            MARKETS_OF[kind] = asyncio.run(loaded(access(exchange), Gate(SystemClock())))


async def loaded(access: Access, gate: Gate) -> Catalogue:
    found = await Loading(access, gate).future
    assert isinstance(found, Catalogue), found
    return found


async def fault_of(client: Client, method: str = "fetch_tickers", *arguments: Any) -> ExchangeFault:
    with pytest.raises(ExchangeFault) as caught:
        await client.call(method, *(arguments or (list(SYMBOLS),)))
    return caught.value


@pytest.fixture(params=KINDS)
def exchange(request: pytest.FixtureRequest) -> Iterator[FakeExchange]:
    with running_exchange(request.param, symbols=3) as found:
        yield found


@pytest.fixture
def binance() -> Iterator[FakeExchange]:
    """Where one of them is as good as the other."""
    with running_exchange("binance", symbols=3) as found:
        yield found


# --- every fault


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[tuple[FakeExchange, Client, Leaping]]:
    clock = Leaping()
    with running_exchange(request.param, symbols=3) as exchange:
        async with client_of(exchange, clock) as client:
            yield exchange, client, clock


# What a request for tickers ends in: a kind of fault, one for each exchange where they differ.
FAULTS: dict[str, Kind | tuple[Kind, Kind]] = {
    "http429": Kind.RATE_LIMIT,
    "http418": Kind.RATE_LIMIT,
    "rate_msg": Kind.RATE_LIMIT,
    "http400": Kind.NETWORK,
    "http403": Kind.BLOCKED,
    "http404": Kind.BLOCKED,
    "http451": Kind.BLOCKED,
    **dict.fromkeys(("http500", "http500[json]", "http502", "http503", "http520"), Kind.NETWORK),
    "http504": Kind.TIMEOUT,
    "maintenance": (Kind.MAINTENANCE, Kind.NETWORK),
    "reset": Kind.NETWORK,
    "close": Kind.NETWORK,
    "hang": Kind.TIMEOUT,
    "redirect": Kind.BLOCKED,  # it leads to a 404
    "mid_reset": Kind.NETWORK,
    "slow_body": Kind.TIMEOUT,
    **dict.fromkeys(("truncated", "html200", "empty200", "null200", "nan_json"), Kind.MALFORMED),
    "bad_gzip": Kind.NETWORK,
    "delist": Kind.SYMBOL,
}
# Those that only a timeout ends.
ENDLESS = {"hang", "slow_body"}
# Why quotes are refused, or None where they are as good as any.
QUOTES: dict[str, str | tuple[str | None, str | None] | None] = {
    "slow": None,
    "halt": None,
    "list200": MISSING,
    "dict200": MISSING,
    "price_inf": NOT_A_NUMBER,
    "price_nan": NOT_A_NUMBER,
    "price_text": NOT_A_NUMBER,
    "price_null": MISSING,
    "price_zero": MISSING,
    "price_empty": MISSING,
    "no_bidask": MISSING,
    "missing_symbol": MISSING,
    "wrong_symbol": MISSING,
    "price_negative": NOT_POSITIVE,
    "price_absurd": "jump",
    "price_tiny": "jump",
    "crossed": "crossed",
    "locked": "crossed",
    "last_null": None,
    "last_zero": None,
    "null_ts": None,
    # Kraken's tickers have no time.
    "sec_ts": (STALE, None),
    "stale_ts": (STALE, None),
    "future_ts": (FROM_THE_FUTURE, None),
    "frozen": None,
    "backwards_ts": None,
}


def test_every_fault_is_in_a_table() -> None:
    known = REFUSALS | BODIES | VALUES | MARKETS
    assert FAULTS.keys() | QUOTES.keys() == known | (QUOTES.keys() - known)
    assert not FAULTS.keys() & QUOTES.keys()


def for_exchange(value: Any, kind: str) -> Any:
    return value[KINDS.index(kind)] if isinstance(value, tuple) else value


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", sorted(FAULTS))
async def test_a_fault_is_of_its_kind(shared: tuple[FakeExchange, Client, Leaping], name: str) -> None:
    exchange, client, clock = shared
    exchange.fault(name, symbols=[BTC] if name in MARKETS else (), retry_after_s=None)
    try:
        if name in ENDLESS:
            async with client_of(exchange, clock, timeout=IMPATIENT_MS) as impatient:
                fault = await fault_of(impatient)
        else:
            fault = await fault_of(client)
    finally:
        exchange.clear()
    assert fault.kind is for_exchange(FAULTS[name], exchange.kind), str(fault)
    assert len(str(fault)) < 260
    if fault.kind is Kind.RATE_LIMIT:
        assert fault.retry_s is not None
        assert 0 < fault.retry_s <= 1
        clock.ahead_s += 1.0
    assert set(await client.call("fetch_tickers", list(SYMBOLS))) == set(SYMBOLS)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", sorted(QUOTES))
async def test_a_quote_is_refused_or_good(shared: tuple[FakeExchange, Client, Leaping], name: str) -> None:
    exchange, client, clock = shared
    true = await client.call("fetch_tickers", list(SYMBOLS))
    screen = Screen(SYMBOLS, stale_after_ms=STALE_AFTER_MS, levels={symbol: true[symbol]["last"] for symbol in SYMBOLS})
    whole = name in BODIES
    exchange.fault(name, symbols=() if whole else [BTC], delay_s=0.01 if name == "slow" else None)
    try:
        found = await client.call("fetch_tickers", list(SYMBOLS))
    finally:
        exchange.clear()
    quotes = {
        symbol: Quote(ticker["bid"], ticker["ask"], ticker["last"], ticker["timestamp"])
        for symbol, ticker in found.items()
    }
    now_ms = clock.now_ms()
    block = screen.block(now_ms, quotes, now_ms)
    reason = for_exchange(QUOTES[name], exchange.kind)
    assert screen.reasons([BTC]) == ({reason: 1} if reason else {})
    taken = dict(zip(SYMBOLS, block.last[:, 0].tolist(), strict=True))
    assert (taken[BTC] == taken[BTC]) is (reason is None)
    for symbol in (ETH, COIN):
        assert (taken[symbol] == taken[symbol]) is (not whole or reason is None)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("method", ["fetch_ticker", "fetch_order_book", "fetch_time", "fetch_ohlcv", "no_such_method"])
async def test_nothing_else_leaks_from_any_method(shared: tuple[FakeExchange, Client, Leaping], method: str) -> None:
    exchange, client, _ = shared
    arguments = () if method == "fetch_time" else (BTC,)
    for name in ("html200", "null200", "list200", "dict200", "truncated", "empty200", "price_text", "bad_gzip"):
        exchange.fault(name)
        try:
            await client.call(method, *arguments)
        except ExchangeFault as fault:
            assert fault.kind in {Kind.MALFORMED, Kind.NETWORK, Kind.REFUSED, Kind.SYMBOL}  # noqa: PT017
        finally:
            exchange.clear()


# --- time and connections


class TestACallThatHangs:
    async def test_is_ended_by_ccxts_own_timeout(self, exchange: FakeExchange) -> None:
        async with client_of(exchange, timeout=IMPATIENT_MS) as client:
            exchange.fault("hang", end_request=3)
            for _ in range(3):
                assert (await fault_of(client)).kind is Kind.TIMEOUT
            assert client.rebuilt == 0
            assert set(await client.call("fetch_tickers", list(SYMBOLS))) == set(SYMBOLS)
            assert client.rebuilt == 1

    async def test_is_ended_by_the_deadline_where_ccxts_does_not_come(self, binance: FakeExchange) -> None:
        clock = SystemClock()
        async with client_of(binance, clock, timeout=3_600_000) as client:
            client.deadline_s = 0.2
            binance.fault("hang", endpoints="ticker")
            begun = clock.monotonic()
            fault = await fault_of(client)
            assert (fault.kind, str(fault)) == (Kind.TIMEOUT, "timeout: fetch_tickers: no answer within 0 s")
            assert clock.monotonic() - begun < ELAPSED_S_MAX
            binance.clear()
            client.deadline_s = ELAPSED_S_MAX
            assert set(await client.call("fetch_tickers", list(SYMBOLS))) == set(SYMBOLS)
            assert client.rebuilt == 1

    async def test_ends_at_once_when_stopped(self, binance: FakeExchange) -> None:
        clock = SystemClock()
        async with client_of(binance, clock, timeout=3_600_000) as client:
            binance.fault("hang")
            begun = clock.monotonic()
            asyncio.get_running_loop().call_later(0.1, clock.stop)
            assert (await fault_of(client)).kind is Kind.STOPPED
            assert clock.monotonic() - begun < ELAPSED_S_MAX

    async def test_cancelled_it_leaves_a_client_that_works(self, binance: FakeExchange) -> None:
        async with client_of(binance, timeout=3_600_000) as client:
            binance.fault("hang")
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await client.call("fetch_tickers", list(SYMBOLS))
            binance.clear()
            assert set(await client.call("fetch_tickers", list(SYMBOLS))) == set(SYMBOLS)

    async def test_a_cancelled_task_is_cancelled(self, binance: FakeExchange) -> None:
        async with client_of(binance, timeout=3_600_000) as client:
            binance.fault("hang")
            async with asyncio.TaskGroup() as group:
                task = group.create_task(client.call("fetch_tickers", list(SYMBOLS)))
                asyncio.get_running_loop().call_later(0.05, task.cancel)
            assert task.cancelled()


async def test_an_exchange_that_comes_back(binance: FakeExchange) -> None:
    async with client_of(binance) as client:
        binance.stop()
        for _ in range(4):
            assert (await fault_of(client)).kind is Kind.NETWORK
        binance.start()
        assert set(await client.call("fetch_tickers", list(SYMBOLS))) == set(SYMBOLS)
        assert client.rebuilt == 1


async def test_retry_after_is_obeyed(exchange: FakeExchange) -> None:
    clock = SystemClock()
    async with client_of(exchange, clock) as client:
        exchange.fault("http418", end_request=1, retry_after_s=1)
        assert (await fault_of(client)).kind is Kind.RATE_LIMIT
        asked = len(exchange.requests())
        while True:
            try:
                await client.call("fetch_tickers", list(SYMBOLS))
            except ExchangeFault as fault:
                assert fault.kind is Kind.RATE_LIMIT  # noqa: PT017
                await clock.sleep(0.05)
            else:
                break
        assert len(exchange.requests()) == asked + 1
        assert exchange.violations() == []


async def test_without_a_header_the_silence_doubles_whatever_the_status(exchange: FakeExchange) -> None:
    clock = Leaping()
    async with client_of(exchange, clock) as client:
        exchange.fault("rate_msg", end_request=2)
        first = await fault_of(client)
        clock.ahead_s += 1.0
        second = await fault_of(client)
        assert (round(first.retry_s or 0, 1), round(second.retry_s or 0, 1)) == (1.0, 2.0)


async def test_the_longer_the_block_the_longer_it_is_left(binance: FakeExchange) -> None:
    async with client_of(binance) as client:
        binance.fault("http451", end_request=3)
        assert [(await fault_of(client)).retry_s for _ in range(3)] == [30.0, 60.0, 120.0]
        await client.call("fetch_tickers", list(SYMBOLS))
        binance.fault("http451")
        assert (await fault_of(client)).retry_s == 30.0


async def test_an_unknown_symbol_needs_no_request(binance: FakeExchange) -> None:
    async with client_of(binance) as client:
        binance.forget()
        assert (await fault_of(client, "fetch_tickers", ["NO/SUCH"])).kind is Kind.SYMBOL
        assert binance.requests() == []


# --- markets


class TestMarkets:
    async def test_are_read_in_a_thread(self, binance: FakeExchange) -> None:
        gate = Gate(SystemClock())
        loading = Loading(access(binance, (BTC, "NO/SUCH")), gate)
        assert "markets" in {thread.name for thread in threading.enumerate()}
        found = await loading.future
        assert isinstance(found, Catalogue)
        assert set(found.markets) == {BTC}
        assert set(found.listed) == set(SYMBOLS)

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            *((name, Kind.MALFORMED) for name in ("html200", "empty200", "truncated", "list200")),
            ("mid_reset", Kind.NETWORK),
            ("hang", Kind.TIMEOUT),
            ("http418", Kind.RATE_LIMIT),
        ],
    )
    async def test_a_fault_is_told(self, exchange: FakeExchange, name: str, kind: Kind) -> None:
        gate = Gate(SystemClock())
        exchange.fault(name)
        timeout_ms = IMPATIENT_MS if name in ENDLESS else TIMEOUT_MS
        found = await Loading(access(exchange, timeout=timeout_ms), gate).future
        assert isinstance(found, ExchangeFault)
        assert found.kind is kind
        assert bool(gate.closed_s) is (kind is Kind.RATE_LIMIT)

    async def test_a_closed_gate_keeps_them_from_being_asked_for(self, binance: FakeExchange) -> None:
        gate = Gate(SystemClock())
        gate.close(60)
        found = await Loading(access(binance), gate).future
        assert isinstance(found, ExchangeFault)
        assert found.kind is Kind.RATE_LIMIT
        assert binance.requests() == []

    async def test_the_loop_may_end_before_the_thread(self, binance: FakeExchange) -> None:
        binance.fault("slow", delay_s=0.2)
        threads = set(threading.enumerate())
        script = asyncio.new_event_loop()

        async def begin() -> None:
            Loading(access(binance), Gate(SystemClock()))

        def run() -> None:
            script.run_until_complete(begin())
            script.close()

        other = threading.Thread(target=run)
        other.start()
        other.join()
        for thread in set(threading.enumerate()) - threads:
            thread.join(ELAPSED_S_MAX)
            assert not thread.is_alive()


# --- on disk


MARKET = {"symbol": BTC, "id": "BTCUSDT", "precision": {}, "limits": {}}
HERE = Access("binance", symbols=(BTC, ETH))


class TestKept:
    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        file = tmp_path / "markets.json"
        write_catalogue(file, HERE, {BTC: MARKET, COIN: {**MARKET, "symbol": COIN}}, 5)
        assert read_catalogue(file, HERE) == Catalogue({BTC: MARKET}, (), 5)
        assert [entry.name for entry in tmp_path.iterdir()] == ["markets.json"]
        assert file.stat().st_mode & 0o077 == 0

    def test_what_is_half_written_is_written_over(self, tmp_path: Path) -> None:
        file = tmp_path / "markets.json"
        (tmp_path / "markets.json.new").write_bytes(b"x" * 10_000)
        write_catalogue(file, HERE, {BTC: MARKET}, 5)
        assert read_catalogue(file, HERE) is not None

    @pytest.mark.parametrize("size", range(0, 170, 13))
    def test_a_truncated_file_is_none(self, tmp_path: Path, size: int) -> None:
        file = tmp_path / "markets.json"
        write_catalogue(file, HERE, {BTC: MARKET}, 5)
        file.write_bytes(file.read_bytes()[:-1][:size])
        assert read_catalogue(file, HERE) is None

    @pytest.mark.parametrize(
        "change",
        [
            {"format": 2},
            {"exchange": "kraken"},
            {"saved_ms": "soon"},
            {"saved_ms": None},
            {"saved_ms": 1e400},
            {"markets": None},
            {"markets": 5},
            {"markets": {BTC: None}},
            {"markets": {BTC: 5}},
            {"markets": {BTC: {}}},
            {"markets": {BTC: {**MARKET, "id": None}}},
            {"markets": {BTC: {**MARKET, "symbol": ETH}}},
            {"markets": {BTC: {**MARKET, "precision": 5}}},
            {"markets": {BTC: {key: value for key, value in MARKET.items() if key != "limits"}}},
        ],
        ids=str,
    )
    def test_a_file_of_something_else_is_none(self, tmp_path: Path, change: dict[str, Any]) -> None:
        file = tmp_path / "markets.json"
        file.write_bytes(
            orjson.dumps({"format": 1, "exchange": "binance", "saved_ms": 5, "markets": {BTC: MARKET}} | change)
        )
        assert read_catalogue(file, HERE) is None

    @pytest.mark.parametrize("content", [b"", b"[]", b"null", b"5", b'"x"', b"\xff\xfe", b"[" * 5000, b"<html>"])
    def test_garbage_is_none(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "markets.json"
        file.write_bytes(content)
        assert read_catalogue(file, HERE) is None
        assert read_catalogue(tmp_path, HERE) is None
        assert read_catalogue(tmp_path / "none", HERE) is None


# --- the feed


class Daemon:
    """A feed, and what it logs."""

    def __init__(
        self, exchange: FakeExchange, folder: Path, symbols: tuple[str, ...] = SYMBOLS, **options: Any
    ) -> None:
        self.clock = Leaping()
        self.lines = LogCapture()
        log = structlog.wrap_logger(
            None, processors=[self.lines], wrapper_class=structlog.make_filtering_bound_logger(0)
        )
        self.kept = folder / "markets.json"
        self.access = access(exchange, symbols, **options)
        self.feed = CcxtTickerFeed(self.access, self.clock, Caution(STALE_AFTER_MS), self.kept, log)

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines.entries]

    async def poll(self) -> Block:
        """The next one that has prices."""
        for _ in range(40):
            try:
                return await self.feed.poll(self.clock.now_ms(), 1)
            except NotYet:
                await self.clock.sleep(0.002)
        raise AssertionError("never a price")

    async def seen(self) -> set[str]:
        block = await self.poll()
        return {symbol for symbol, last in zip(block.symbols, block.last[:, 0], strict=True) if last == last}

    async def seen_some_day(self, symbols: set[str]) -> None:
        for _ in range(100):
            if await self.seen() == symbols:
                return
            await self.clock.sleep(0.02)
        raise AssertionError(self.events())


@asynccontextmanager
async def daemon(exchange: FakeExchange, folder: Path, *symbols: str, **options: Any) -> AsyncIterator[Daemon]:
    made = Daemon(exchange, folder, symbols or SYMBOLS, **options)
    try:
        yield made
    finally:
        await made.feed.close()


class TestStart:
    async def test_learns_the_markets_and_keeps_them(self, exchange: FakeExchange, tmp_path: Path) -> None:
        async with daemon(exchange, tmp_path) as one:
            assert await one.feed.start({})
            assert set(one.feed.markets) == set(SYMBOLS)
            kept = read_catalogue(one.kept, one.access)
            assert kept is not None
            assert set(kept.markets) == set(SYMBOLS)
            assert await one.seen() == set(SYMBOLS)

    async def test_soon_after_asks_for_no_markets(self, binance: FakeExchange, tmp_path: Path) -> None:
        async with daemon(binance, tmp_path) as one:
            assert await one.feed.start({})
        binance.forget()
        async with daemon(binance, tmp_path) as one:
            assert await one.feed.start({})
            assert await one.seen() == set(SYMBOLS)
            await one.seen()
        assert binance.requests("markets") == []

    @pytest.mark.parametrize("name", ["down", "html200"])
    async def test_with_the_exchange_ill_uses_the_kept_ones(
        self, exchange: FakeExchange, tmp_path: Path, name: str
    ) -> None:
        async with daemon(exchange, tmp_path) as one:
            assert await one.feed.start({})
            self.age(one)
            whole = one.kept.read_bytes()
        if name == "down":
            exchange.stop()
        else:
            exchange.fault(name)
        async with daemon(exchange, tmp_path) as one:
            assert await one.feed.start({})
            assert set(one.feed.markets) == set(SYMBOLS)
            assert one.events() == ["markets are those kept on disk"]
            assert one.kept.read_bytes() == whole
            with pytest.raises(FeedError):
                await one.poll()
            exchange.start()
            exchange.clear()
            assert await one.seen() == set(SYMBOLS)

    def age(self, one: Daemon) -> None:
        catalogue = read_catalogue(one.kept, one.access)
        assert catalogue is not None
        write_catalogue(one.kept, one.access, catalogue.markets, catalogue.saved_ms - FRESH_MS - 1000)

    async def test_without_any_waits_and_ends_when_stopped(self, binance: FakeExchange, tmp_path: Path) -> None:
        binance.stop()
        async with daemon(binance, tmp_path) as one:
            begun = one.clock.monotonic()
            asyncio.get_running_loop().call_later(0.5, one.clock.stop)
            assert not await one.feed.start({})
            assert 0.5 <= one.clock.monotonic() - begun < ELAPSED_S_MAX
            assert one.events() == ["waiting for the exchange's markets"]

    async def test_ends_when_stopped_while_the_exchange_hangs(self, binance: FakeExchange, tmp_path: Path) -> None:
        binance.fault("hang")
        async with daemon(binance, tmp_path, timeout=2000) as one:
            threads = set(threading.enumerate())
            asyncio.get_running_loop().call_later(0.1, one.clock.stop)
            begun = one.clock.monotonic()
            assert not await one.feed.start({})
            assert one.clock.monotonic() - begun < 1.9
        for thread in set(threading.enumerate()) - threads:
            thread.join(ELAPSED_S_MAX)

    async def test_without_any_goes_on_when_the_exchange_is_back(self, binance: FakeExchange, tmp_path: Path) -> None:
        binance.fault("http503", endpoints="markets", end_request=1)
        async with daemon(binance, tmp_path) as one:
            assert await one.feed.start({})
            assert await one.seen() == set(SYMBOLS)

    @pytest.mark.parametrize("content", [b"garbage", b'{"format":1,"exchange":"bitstamp","saved_ms":1,"markets":{}}'])
    async def test_a_file_that_is_of_no_use_is_written_over(
        self, binance: FakeExchange, tmp_path: Path, content: bytes
    ) -> None:
        async with daemon(binance, tmp_path) as one:
            one.kept.write_bytes(content)
            assert await one.feed.start({})
            assert read_catalogue(one.kept, one.access) is not None

    async def test_where_nothing_can_be_kept_goes_on(self, binance: FakeExchange, tmp_path: Path) -> None:
        async with daemon(binance, tmp_path / "none") as one:
            assert await one.feed.start({})
            assert one.events() == ["the markets cannot be kept on disk"]

    async def test_an_unknown_symbol(self, exchange: FakeExchange, tmp_path: Path) -> None:
        async with daemon(exchange, tmp_path, BTC, "BTC/USDX") as one:
            with pytest.raises(UnknownSymbols) as caught:
                await one.feed.start({})
        assert caught.value.symbols == ("BTC/USDX",)
        assert set(caught.value.listed) == set(SYMBOLS)

    async def test_a_symbol_that_was_listed_once(self, binance: FakeExchange, tmp_path: Path) -> None:
        """It may have been delisted with a position in it."""
        async with daemon(binance, tmp_path) as one:
            assert await one.feed.start({})
            self.age(one)
        binance.delist(ETH)
        for _ in range(3):
            async with daemon(binance, tmp_path) as one:
                assert await one.feed.start({})
                assert set(one.feed.markets) == set(SYMBOLS)
                assert await one.seen() == {BTC, COIN}
                assert one.events() == ["no longer traded on the exchange"]


@asynccontextmanager
async def informed(exchange: FakeExchange, folder: Path, *symbols: str, **options: Any) -> AsyncIterator[Daemon]:
    """One whose markets have just been kept."""
    async with daemon(exchange, folder, *symbols, **options) as made:
        write_catalogue(made.kept, made.access, MARKETS_OF[exchange.kind].markets, made.clock.now_ms())
        yield made


class TestPoll:
    async def test_one_bad_price_leaves_the_others(self, exchange: FakeExchange, tmp_path: Path) -> None:
        exchange.fault("price_nan", symbols=[ETH])
        async with informed(exchange, tmp_path) as one:
            assert await one.feed.start({})
            for _ in range(3):
                assert await one.seen() == {BTC, COIN}
            exchange.clear()
            await one.seen_some_day(set(SYMBOLS))
            assert one.events() == ["quotes refused"]

    @pytest.mark.parametrize("name", ["missing_symbol", "price_text"])
    async def test_a_symbol_that_never_has_a_quote_does_not_keep_the_first_of_another_away(
        self, exchange: FakeExchange, tmp_path: Path, name: str
    ) -> None:
        exchange.fault(name, symbols=[ETH])
        async with informed(exchange, tmp_path) as one:
            assert await one.feed.start({BTC: 60_000.0})
            assert await one.seen() == {BTC, COIN}

    async def test_all_prices_far_from_those_on_the_tape_are_let_in(
        self, binance: FakeExchange, tmp_path: Path
    ) -> None:
        """As after months of rest."""
        async with informed(binance, tmp_path) as one:
            assert await one.feed.start(dict.fromkeys(SYMBOLS, 123_456_789.0))
            assert await one.seen() == set(SYMBOLS)

    async def test_every_other_request_fails(self, exchange: FakeExchange, tmp_path: Path) -> None:
        async with informed(exchange, tmp_path) as one:
            assert await one.feed.start({})
            taken = 0
            for number in range(8):
                if number % 2:
                    exchange.fault("http502")
                try:
                    await one.feed.poll(one.clock.now_ms(), 1)
                    taken += 1
                except FeedError:
                    pass
                exchange.clear()
                await one.clock.sleep(0.002)
            assert taken == 2

    async def test_a_halted_symbol_stops_alone(self, exchange: FakeExchange, tmp_path: Path) -> None:
        exchange.fault("halt", symbols=[ETH])
        async with daemon(exchange, tmp_path) as one:
            assert await one.feed.start({})
            assert await one.seen() == {BTC, COIN}
            assert one.events() == ["no longer traded on the exchange"]

    async def test_a_symbol_that_is_delisted_meanwhile_stops_alone(
        self, exchange: FakeExchange, tmp_path: Path
    ) -> None:
        """Refused at the request first, for all symbols; then seen in the list of markets."""
        async with informed(exchange, tmp_path) as one:
            assert await one.feed.start({})
            assert await one.seen() == set(SYMBOLS)
            exchange.delist(ETH)
            await one.seen_some_day({BTC, COIN})
            assert "the exchange does not know it any more" in one.events()
            for _ in range(100):
                assert await one.seen() == {BTC, COIN}
                if "no longer traded on the exchange" in one.events():
                    break
                await one.clock.sleep(0.02)
            else:
                raise AssertionError(one.events())
            assert set(one.feed.markets) == set(SYMBOLS)
            kept = read_catalogue(one.kept, one.access)
            assert kept is not None
            assert set(kept.markets) == set(SYMBOLS)

    async def test_the_markets_are_read_even_where_it_cannot_be_found_out_which_symbol_is_gone(
        self, binance: FakeExchange, tmp_path: Path
    ) -> None:
        async with informed(binance, tmp_path) as one:
            assert await one.feed.start({})
            assert await one.seen() == set(SYMBOLS)
            binance.delist(ETH)
            binance.fault("http502", endpoints="ticker", first_request=1)
            for _ in range(50):
                with pytest.raises(FeedError):
                    await one.feed.poll(one.clock.now_ms(), 1)
                if "no longer traded on the exchange" in one.events():
                    break
                await one.clock.sleep(0.02)
            binance.clear("http502")
            assert await one.seen() == {BTC, COIN}
            assert len(binance.requests("markets")) == 1

    async def test_what_was_halted_with_all_the_others_comes_back_for_candles_too(
        self, binance: FakeExchange, tmp_path: Path
    ) -> None:
        binance.fault("halt")
        window = Window(0, ((TIMEFRAMES["1m"], 5),))
        async with daemon(binance, tmp_path) as one:
            assert await one.feed.start({})
            binance.clear()
            with pytest.raises(FeedError, match="none of the symbols"):
                await one.feed.history(one.clock.now_ms(), window)
            one.clock.ahead_s += RELOAD_HALTED_S
            for _ in range(100):
                try:
                    assert await one.feed.history(one.clock.now_ms(), window) is not None
                    break
                except FeedError:
                    await one.clock.sleep(0.02)
            assert await one.seen() == set(SYMBOLS)
            assert one.events()[-1] == "traded on the exchange again"

    async def test_a_symbol_whose_candles_cannot_be_read_leaves_the_others_theirs(
        self, exchange: FakeExchange, tmp_path: Path
    ) -> None:
        exchange.fault("html200", endpoints="klines", symbols=[BTC])
        window = Window(0, ((TIMEFRAMES["1m"], 5),))
        async with informed(exchange, tmp_path) as one:
            assert await one.feed.start({})
            for _ in range(TRIES_MAX - 1):
                with pytest.raises(FeedError):
                    await one.feed.history(one.clock.now_ms(), window)
            # Once given up, it keeps nothing from being polled until there is a price.
            for _ in range(3):
                block = await one.feed.history(one.clock.now_ms(), window)
            assert block is not None
            have = [bool((prices == prices).any()) for prices in block.last]
            assert dict(zip(block.symbols, have, strict=True)) == {BTC: False, ETH: True, COIN: True}
            # There may be no prices either, and then it is asked for again.
            assert one.events() == []
            await one.seen()
            assert one.events() == ["no history: bars begin with what is polled from now on"]

    async def test_all_of_them_delisted(self, binance: FakeExchange, tmp_path: Path) -> None:
        async with informed(binance, tmp_path, BTC) as one:
            assert await one.feed.start({})
            binance.delist(BTC)
            with pytest.raises(NotYet):
                await one.feed.poll(one.clock.now_ms(), 1)
            with pytest.raises(FeedError, match="none of the symbols") as caught:
                await one.feed.poll(one.clock.now_ms(), 1)
            assert caught.value.retry_s == 60.0
            while one.feed._listing._loading is not None and not one.feed._listing._loading.future.done():
                await one.clock.sleep(0.01)

    @pytest.mark.parametrize("name", ["http404", "html200", "hang"])
    async def test_without_the_exchanges_time_there_are_prices(
        self, binance: FakeExchange, tmp_path: Path, name: str
    ) -> None:
        binance.fault(name, endpoints="time")
        async with informed(binance, tmp_path, timeout=IMPATIENT_MS if name in ENDLESS else TIMEOUT_MS) as one:
            assert await one.feed.start({})
            assert await one.seen() == set(SYMBOLS)
            assert len(binance.requests("time")) == 1

    async def test_a_time_that_was_told_wrong_is_asked_for_again_within_a_minute(
        self, binance: FakeExchange, tmp_path: Path
    ) -> None:
        binance.fault("clock_skew", skew_ms=3_600_000)
        async with informed(binance, tmp_path) as one:
            assert await one.feed.start({})
            assert await one.seen() == set(SYMBOLS)
            binance.clear()
            for _ in range(3):
                with pytest.raises(FeedError, match="no quote can be used: "):
                    await one.feed.poll(one.clock.now_ms(), 1)
            one.clock.ahead_s += 61
            assert await one.seen() == set(SYMBOLS)
            assert len(binance.requests("time")) == 2

    @pytest.mark.parametrize("skew_ms", [-3_600_000, 3_600_000, -30_000])
    async def test_a_clock_that_is_wrong_is_allowed_for(
        self, binance: FakeExchange, tmp_path: Path, skew_ms: int
    ) -> None:
        binance.fault("clock_skew", skew_ms=skew_ms)
        async with informed(binance, tmp_path) as one:
            assert await one.feed.start({})
            assert await one.seen() == set(SYMBOLS)
            (line,) = one.lines.entries
            assert line["event"] == "this machine's clock differs from the exchange's"
            assert line["ahead_s"] == pytest.approx(-skew_ms / 1000, abs=2)

    async def test_whatever_it_says_there_is_a_feed_error_or_true_prices_and_afterwards_all_is_well(
        self, exchange: FakeExchange, tmp_path: Path
    ) -> None:
        names = sorted((REFUSALS | BODIES | VALUES) - {"slow", "http418", "http429", "rate_msg"})
        assert len(names) > 40
        valid = ["frozen", "backwards_ts", "null_ts", "sec_ts", "stale_ts", "future_ts"]
        async with informed(exchange, tmp_path, timeout=IMPATIENT_MS) as one:
            assert await one.feed.start({})
            for name in names:
                assert await one.seen() == set(SYMBOLS), name
                exchange.fault(name)
                # One that goes on saying so is believed, at the third time, that prices have gone up a thousandfold.
                for _ in range(2):
                    try:
                        block = await one.feed.poll(one.clock.now_ms(), 1)
                    except FeedError:
                        continue
                    for symbol, bid, ask in zip(SYMBOLS, block.bid[:, 0], block.ask[:, 0], strict=True):
                        good = exchange.served(symbol, including=valid)
                        assert bid < ask, name
                        assert any((float(low), float(high)) == (bid, ask) for low, high in good), name
                exchange.clear()
