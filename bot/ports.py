"""The edges of the system: what the loop asks of a feed, a strategy, an executor and a clock."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol, runtime_checkable

from bot.bars import Lookback
from bot.domain import Account, Bars, Block, FloatArray, Market, OrderSide, OrderType, Signal


class FeedError(Exception):
    """The feed has no prices this time. The loop skips the step and backs off; anything else stops the daemon.

    ``retry_s`` is how long to leave it, where the feed knows better than the loop's back-off.
    """

    def __init__(self, text: str, *, retry_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_s = retry_s


class NotYet(FeedError):
    """There are prices, and not enough of them to be believed: the next beat will tell. No failure, no back-off."""


class OrderRefused(Exception):
    """The executor will not take this order. ``reason`` is the machine-readable verdict that is stored."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@runtime_checkable
class Strategy(Protocol):
    """A pure function from a price window to target positions.

    ``targets(bars)`` returns float64 in [-1, 1], one value a bar: 1 fully long, 0 flat, -1 fully short, NaN hold.
    A value may depend on the last ``lookback`` bars only, and must be the same whatever came before them. A class
    that sets ``batch = True`` also takes prices of shape [S, N] and answers for all S symbols in one call.
    """

    @property
    def name(self) -> str: ...
    @property
    def lookback(self) -> int: ...
    def targets(self, bars: Bars) -> FloatArray: ...


@dataclass(frozen=True, slots=True)
class Window:
    """What decisions look back on: so many ticks of each symbol, and so many closed bars of each timeframe besides the
    one that is still open. Nothing up to ``after_ms`` is wanted: it is there already."""

    ticks: int = 0
    bars: tuple[Lookback, ...] = ()
    after_ms: int = 0

    def __bool__(self) -> bool:
        """Whether anything is looked back on."""
        return self.ticks > 0 or bool(self.bars)


@runtime_checkable
class PriceFeed(Protocol):
    """Where prices come from. ``markets`` tells each symbol's steps and limits."""

    @property
    def symbols(self) -> tuple[str, ...]: ...
    @property
    def markets(self) -> Mapping[str, Market]: ...

    async def history(self, before_ms: int, window: Window) -> Block | None:
        """Ticks before ``before_ms`` that fill a window as far as there are any, all marked as warm-up; more than it
        asks for does no harm. None if there are none. Raises FeedError.
        """

    async def poll(self, beat_ms: int, polls: int) -> Block | None:
        """The next 1 to ``polls`` polls, the first at ``beat_ms``; None when the feed has ended. Raises FeedError."""

    async def close(self) -> None: ...


@runtime_checkable
class Executor(Protocol):
    """Takes orders. The mock fills at once; an exchange's executor stands behind the same methods."""

    async def execute_order(
        self,
        symbol: str,
        side: OrderSide,
        quantity: float | Decimal,
        order_type: OrderType = OrderType.MARKET,
        price: float | Decimal | None = None,
        *,
        signal: Signal | None = None,
        told: bool = True,
    ) -> dict[str, Any]:
        """Executes and records one order; returns ccxt's order shape. Where nobody is ``told`` of it, that may be left
        empty.

        Raises ValueError for a bad symbol, quantity or price, and OrderRefused for an order that the account or the
        market does not allow; both leave nothing behind.
        """

    async def get_position(self, symbol: str) -> dict[str, Any]:
        """``symbol``, ``net_quantity``, ``total_buys``, ``total_sells``, ``is_flat`` (below 1e-8)."""

    def reset_position_cache(self) -> None:
        """Forgets what it remembers of positions; the next question is answered from the database."""


@runtime_checkable
class Clock(Protocol):
    """The only source of time.

    ``waits`` tells whether time passes by itself; ``missed_beats`` and ``steps`` count what went wrong with it.
    """

    waits: bool
    missed_beats: int
    steps: int

    @property
    def polls_ahead(self) -> int:
        """How many polls may share one block: 1 where waiting is real."""

    def now_ms(self) -> int: ...
    def monotonic(self) -> float: ...

    def stop(self) -> None:
        """Ends every wait, now and later."""

    def limit(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """A scope that ends with TimeoutError after so long (None: never), or at once when stopped."""

    async def sleep(self, seconds: float) -> bool:
        """Waits, or less if stopped; True once stopped."""

    async def next_beat(self, interval_ms: int, after_ms: int) -> int | None:
        """Waits for the next beat and returns its time, always later than ``after_ms``; None once stopped."""


class Observer(Protocol):
    """Hears what the loop did, after it is in the ledger. It can neither trade nor stop the loop."""

    def filled(self, signal: Signal, order: Mapping[str, Any]) -> None: ...
    def refused(self, signal: Signal, reason: str) -> None: ...
    def interrupted(self, error: Exception, retry_s: float) -> None:
        """The feed had no prices, or the ledger could not be written; the next try is in ``retry_s``."""

    def resumed(self, outage_s: float, failures: int) -> None: ...
    def stepped(self, status: Status) -> None: ...


class Silent:
    """An observer that says nothing of what it hears."""

    def filled(self, signal: Signal, order: Mapping[str, Any]) -> None: ...
    def refused(self, signal: Signal, reason: str) -> None: ...
    def interrupted(self, error: Exception, retry_s: float) -> None: ...
    def resumed(self, outage_s: float, failures: int) -> None: ...
    def stepped(self, status: Status) -> None: ...


class Status(Protocol):
    """What the loop tells of itself after a step. ``accounts`` are the loop's own: to be read while it is told, since
    the next step changes them before it is in the ledger."""

    @property
    def polls(self) -> int: ...
    @property
    def ticks(self) -> int: ...
    @property
    def signals(self) -> int: ...
    @property
    def trades(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def log_bytes(self) -> int:
        """The size of the ledger's write-ahead log."""

    @property
    def step_s(self) -> float:
        """How long the step took, from its prices to the commit."""

    @property
    def quoted(self) -> Mapping[str, float]:
        """The newest price of each symbol that the step brought one of."""

    @property
    def prices(self) -> Mapping[str, float]:
        """The last known price of every symbol."""

    @property
    def accounts(self) -> Mapping[str, Account]: ...

    def clock_events(self) -> dict[str, int]:
        """How often beats were missed, and the wall clock set."""

    def equity(self) -> dict[str, float]:
        """Cash plus positions at the last prices, by account."""
