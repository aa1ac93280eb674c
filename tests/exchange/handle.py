"""The fake exchange as a test sees it: a server in a thread, and a handle that any thread may use."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Literal

from bot.clock import SystemClock
from tests.exchange.binance import Binance
from tests.exchange.faults import Fault, FaultBoard
from tests.exchange.kraken import Kraken
from tests.exchange.log import Log, Quote, Request
from tests.exchange.prices import Prices, markets
from tests.exchange.server import Server, bound
from tests.exchange.venue import Venue

Kind = Literal["binance", "kraken"]
KINDS: dict[str, type[Venue]] = {"binance": Binance, "kraken": Kraken}
START_S_MAX = STOP_S_MAX = 10.0

_clock = SystemClock()


class FakeExchange:
    """One exchange on one port. What it was asked and told to do outlives ``stop`` and ``start``."""

    def __init__(
        self,
        kind: Kind,
        *,
        symbols: int = 2,
        seed: int = 1,
        volatility: float = 1.0,
        port: int = 0,
        log_size: int = 100_000,
        now_ms: Callable[[], int] = _clock.now_ms,
        monotonic: Callable[[], float] = _clock.monotonic,
    ) -> None:
        """``now_ms`` is the exchange's time, ``monotonic`` dates the log and the plans; its thread calls both."""
        made = KINDS[kind]
        self.kind = kind
        self.prices = Prices(markets(symbols, made.btc_digits), seed, volatility)
        self.symbols = [market.symbol for market in self.prices.markets]
        self._venue, self._board, self._log = made(self.prices), FaultBoard(), Log(log_size)
        self._now_ms, self.monotonic = now_ms, monotonic
        # Kept bound while the server is down, so that nobody else gets the port and who connects is refused.
        self._kept = bound(port)
        self.port: int = self._kept.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], None] = lambda: None
        self.bugs: list[Exception] = []

    def start(self) -> None:
        if self._thread is not None:
            return
        ready, failed = threading.Event(), list[BaseException]()
        self._thread = threading.Thread(target=self._serve, args=(ready, failed), name=f"fake-{self.kind}", daemon=True)
        self._thread.start()
        if not ready.wait(START_S_MAX) or failed:
            self._thread = None
            raise RuntimeError(f"the fake {self.kind} did not start") from next(iter(failed), None)

    def stop(self) -> None:
        """Closes every connection; whoever connects from now on is refused, until ``start``."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stop()
            thread.join(STOP_S_MAX)
            assert not thread.is_alive(), f"the fake {self.kind} did not stop"

    def close(self) -> None:
        self.stop()
        self._kept.close()

    def fault(self, name: str, **when: Any) -> None:
        """Sets one fault, from now on; ``when`` is the rest of ``Fault``."""
        self.plan([Fault(name, **when)])

    def plan(self, faults: Sequence[Fault]) -> None:
        """Adds faults whose seconds and requests count from now."""
        self._board.add(faults, self.monotonic())

    def clear(self, *names: str) -> None:
        """Takes away the faults of these names, or all of them."""
        self._board.clear(names)

    def delist(self, symbol: str) -> None:
        self.fault("delist", symbols=[symbol])

    def requests(self, endpoint: str | None = None) -> list[Request]:
        return self._log.requests(endpoint)

    def forget(self) -> None:
        """Empties the log."""
        self._log.clear()

    def quotes(self, symbol: str, including: Collection[str] = ()) -> list[Quote]:
        return self._log.quotes(symbol, including)

    def served(self, symbol: str, including: Collection[str] = ()) -> set[tuple[Decimal, Decimal]]:
        return self._log.served(symbol, including)

    def violations(self) -> list[Request]:
        return self._log.violations()

    def _serve(self, ready: threading.Event, failed: list[BaseException]) -> None:
        try:
            asyncio.run(self._main(ready))
        except BaseException as error:  # noqa: BLE001 - who started the thread raises it
            failed.append(error)
        finally:
            ready.set()

    async def _main(self, ready: threading.Event) -> None:
        server = Server(self._venue, self._board, self._log, self._now_ms, self.monotonic)
        server.bugs = self.bugs
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.call_soon_threadsafe(server.closing.set)

        self._stop = stop
        with bound(self.port) as listening:
            await server.run(listening, ready.set)


@contextmanager
def running_exchange(kind: Kind = "binance", **options: Any) -> Iterator[FakeExchange]:
    """A fake exchange on a free port of 127.0.0.1; ``options`` are FakeExchange's."""
    exchange = FakeExchange(kind, **options)
    try:
        exchange.start()
        yield exchange
    finally:
        exchange.close()
    assert not exchange.bugs, f"bugs of the fake {kind}: {exchange.bugs}"
