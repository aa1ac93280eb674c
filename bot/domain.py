"""The words of the trade: quotes in, signals and fills out, and the arithmetic of one fill.

Prices in windows are ``float64``; money in the ledger is ``Decimal``. ``to_decimal`` is the one crossing between them.
All times are UTC milliseconds since the epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

ZERO = Decimal(0)
FLAT_BELOW = Decimal("1e-8")
# Prices, quantities and rates are below 10^15 and have at most 18 decimals; wide enough that no product of three of
# them, and no sum of such products, is ever rounded.
MONEY = Context(prec=120, traps=[InvalidOperation, DivisionByZero, Overflow])
# The one division in the books (the cost of the part of a position that is closed) is rounded to this.
_BASIS_STEP = Decimal("1e-12")
AMOUNT_LIMIT = Decimal(10) ** 15
# A venue that does not say what it takes is not taken to be free. Ledgers are replayed with it: it stays as it is.
UNKNOWN_FEE_RATE = Decimal("0.001")
DECIMALS_MAX = 18
NAMES_MAX = 8
_EPOCH = date(1970, 1, 1).toordinal()


class OrderSide(StrEnum):
    BUY = "buy"
    SELL = "sell"


class OrderType(StrEnum):
    MARKET = "market"
    LIMIT = "limit"


def to_decimal(value: float) -> Decimal:
    """The shortest decimal that reads back as ``value``: 50000.12 becomes Decimal('50000.12'), not its binary tail."""
    return Decimal(repr(float(value)))


def few(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    return ", ".join(names[:NAMES_MAX]) + more


def plain(value: Decimal) -> str:
    """As text without an exponent: 0.00000001, never 1E-8."""
    text = str(value)
    return f"{value:f}" if "E" in text else text


def iso8601(timestamp: int) -> str:
    """UTC milliseconds as text: 2025-01-01T00:00:00.000Z."""
    days, rest = divmod(timestamp, 86_400_000)
    minute, rest = divmod(rest, 60_000)
    return f"{_date(days)}T{_MINUTES[minute]}:{_SECONDS[rest // 1000]}.{_MILLIS[rest % 1000]}Z"


# Every fill tells its time as text; looking it up costs half of formatting it.
_MINUTES = tuple(f"{minute // 60:02d}:{minute % 60:02d}" for minute in range(1440))
_SECONDS = tuple(f"{second:02d}" for second in range(60))
_MILLIS = tuple(f"{milli:03d}" for milli in range(1000))


@lru_cache(maxsize=64)
def _date(days: int) -> str:
    return date.fromordinal(_EPOCH + days).isoformat()


@dataclass(frozen=True, slots=True)
class Bars:
    """A window of OHLCV bars as a struct of arrays; the last axis is time, oldest first.

    ``timestamp`` is the bar's open in UTC milliseconds (int64); the prices are in the quote currency and ``volume`` in
    the base currency (float64). All have the shape [N], or [S, N] for S symbols at once.
    A tick is a bar whose four prices are equal.
    """

    timestamp: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray

    @classmethod
    def from_arrays(
        cls,
        timestamp: npt.ArrayLike,
        open: npt.ArrayLike,
        high: npt.ArrayLike,
        low: npt.ArrayLike,
        close: npt.ArrayLike,
        volume: npt.ArrayLike | None = None,
    ) -> Bars:
        """Bars from anything array-like; raises ValueError if the lengths differ or time does not increase."""
        times = np.ascontiguousarray(timestamp, dtype=np.int64)
        prices = [np.ascontiguousarray(column, dtype=np.float64) for column in (open, high, low, close)]
        volumes = np.zeros_like(prices[3]) if volume is None else np.ascontiguousarray(volume, dtype=np.float64)
        lengths = {column.shape[-1] if column.ndim else 0 for column in (times, *prices, volumes)}
        if len(lengths) != 1:
            raise ValueError(f"bars need columns of one length, got lengths {sorted(lengths)}")
        if (np.diff(times) <= 0).any():
            raise ValueError("bars need strictly increasing timestamps")
        return cls(times, prices[0], prices[1], prices[2], prices[3], volumes)

    @classmethod
    def from_ticks(cls, timestamp: IntArray, price: FloatArray) -> Bars:
        """Every tick its own bar, without volume; the four prices share one array, so this copies nothing."""
        return cls(timestamp, price, price, price, price, np.zeros(price.shape))

    def __len__(self) -> int:
        return int(self.timestamp.shape[-1])

    def __getitem__(self, rows: slice) -> Bars:
        """The bars of a slice of time, as views."""
        return Bars(
            self.timestamp[..., rows],
            self.open[..., rows],
            self.high[..., rows],
            self.low[..., rows],
            self.close[..., rows],
            self.volume[..., rows],
        )

    def row(self, number: int) -> Bars:
        """The bars of one of several symbols."""
        columns = (self.timestamp, self.open, self.high, self.low, self.close, self.volume)
        return Bars(*(column[number] for column in columns))


@dataclass(frozen=True, slots=True)
class Block:
    """Ticks of several polls: what a feed yields and what one transaction holds.

    ``timestamp`` has shape [N] (one beat a poll); ``bid``, ``ask`` and ``last`` have shape [S, N] in the order of
    ``symbols``. A symbol without a price at a poll is NaN in all three. The first ``warmup`` columns are history:
    they fill the windows and are never traded on.
    """

    symbols: tuple[str, ...]
    timestamp: IntArray
    bid: FloatArray
    ask: FloatArray
    last: FloatArray
    warmup: int = 0

    def __len__(self) -> int:
        return len(self.timestamp)

    @classmethod
    def joined(cls, blocks: Sequence[Block]) -> Block:
        """Blocks of the same symbols as one; history may only be at its head."""
        if len(blocks) == 1:
            return blocks[0]
        return cls(
            blocks[0].symbols,
            np.concatenate([block.timestamp for block in blocks]),
            np.concatenate([block.bid for block in blocks], axis=1),
            np.concatenate([block.ask for block in blocks], axis=1),
            np.concatenate([block.last for block in blocks], axis=1),
            blocks[0].warmup + (0 if blocks[0].polls else blocks[1].warmup),
        )

    @property
    def polls(self) -> int:
        return len(self.timestamp) - self.warmup

    @property
    def ticks(self) -> int:
        """How many prices it holds, history included."""
        return int(np.count_nonzero(self.last == self.last))

    def last_prices(self) -> dict[str, float]:
        """The last price of each symbol that has one."""
        found = {}
        for symbol, row in zip(self.symbols, self.last, strict=True):
            seen = row[row == row]
            if len(seen):
                found[symbol] = float(seen[-1])
        return found

    def columns(self, chosen: slice | npt.NDArray[np.bool_], warmup: int = 0) -> Block:
        """Some of its columns, of which the first ``warmup`` are history."""
        prices = self.bid[:, chosen], self.ask[:, chosen], self.last[:, chosen]
        return Block(self.symbols, self.timestamp[chosen], *prices, warmup)

    def after(self, timestamp: int) -> Block | None:
        """The columns later than a moment; None if there are none."""
        first = int(np.searchsorted(self.timestamp, timestamp, side="right"))
        if first == len(self):
            return None
        return self.columns(slice(first, None), warmup=max(0, self.warmup - first))

    def without_gaps(self) -> Block:
        """Without the columns in which no symbol has a price."""
        seen = (self.last == self.last).any(axis=0)
        if seen.all():
            return self
        return self.columns(seen, warmup=int(np.count_nonzero(seen[: self.warmup])))


@lru_cache(maxsize=4096)
def quote_currency(symbol: str) -> str:
    """What a symbol is priced in: USDT for BTC/USDT and for BTC/USDT:USDT."""
    return symbol.partition("/")[2].partition(":")[0]


@dataclass(frozen=True, slots=True)
class Market:
    """What a venue says of a symbol; None: nothing.

    ``price_step`` and ``amount_step`` are the smallest increments. Amounts are in the base currency, costs in the quote
    currency; ``max_market_amount`` is what one market order may be at most. ``taker`` and ``maker`` are the fees of a
    market and of a limit order, as a rate of its cost.
    """

    symbol: str
    price_step: Decimal
    amount_step: Decimal = Decimal("1e-8")
    min_amount: Decimal | None = None
    min_cost: Decimal | None = None
    max_amount: Decimal | None = None
    max_cost: Decimal | None = None
    max_market_amount: Decimal | None = None
    taker: Decimal | None = None
    maker: Decimal | None = None

    def whole_steps(self, quantity: Decimal) -> Decimal:
        """Rounded towards zero, as ccxt's ``amount_to_precision`` does before an order is sent."""
        rest = quantity % self.amount_step
        return quantity - rest if rest else quantity

    def fee_rate(self, order_type: OrderType) -> Decimal:
        """A stated rate of zero is believed."""
        stated = self.maker if order_type is OrderType.LIMIT else self.taker
        return UNKNOWN_FEE_RATE if stated is None else stated

    @property
    def base(self) -> str:
        return self.symbol.partition("/")[0]

    @property
    def quote(self) -> str:
        return quote_currency(self.symbol)


class Signal(NamedTuple):
    """A change of target, with the quote it was seen at."""

    id: int
    poll: int
    timestamp: int
    account: str
    symbol: str
    target: float
    bid: float
    ask: float


@dataclass(slots=True)
class Position:
    """What an account holds of one symbol.

    ``quantity`` is signed; ``basis`` is what the open part cost, below zero for a short one.
    """

    symbol: str
    quantity: Decimal = ZERO
    basis: Decimal = ZERO
    total_buys: Decimal = ZERO
    total_sells: Decimal = ZERO

    def apply_fill(self, side: OrderSide, quantity: Decimal, price: Decimal) -> Decimal:
        """Books one fill and returns the realised profit of the part it closed, at average cost and before fees."""
        held = self.quantity
        buying = side is OrderSide.BUY
        if buying:
            self.total_buys += quantity
            self.quantity = held + quantity
        else:
            self.total_sells += quantity
            self.quantity = held - quantity
        signed_cost = price * quantity if buying else -(price * quantity)
        if not held or (held > 0) is buying:
            self.basis += signed_cost
            return ZERO
        size = abs(held)
        if quantity < size:
            closed = (self.basis * quantity / size).quantize(_BASIS_STEP)
            self.basis -= closed
            return -signed_cost - closed
        # The fill closes all of it; what is left of it opens the other way at this price.
        excess = quantity - size
        closed, self.basis = self.basis, (price * excess if buying else -(price * excess))
        return self.basis - signed_cost - closed


class Prices(Protocol):
    """Prices by symbol: a dict, or anything that is asked like one."""

    def __getitem__(self, symbol: str, /) -> float: ...


@dataclass(slots=True)
class Account:
    """One strategy's money. ``cash`` is the capital plus all that its fills moved, in ``currency``.

    ``short_basis`` is what its open short positions were sold for: kept, because every opening order needs it.
    """

    name: str
    currency: str
    capital: Decimal
    cash: Decimal
    positions: dict[str, Position] = field(default_factory=dict)
    short_basis: Decimal = ZERO

    def restore(self, stored: Account) -> None:
        """Takes over what the ledger says, in place: executors hold on to this object."""
        self.cash, self.positions, self.short_basis = stored.cash, stored.positions, stored.short_basis

    def equity(self, prices: Prices) -> float:
        """Cash plus all positions at their prices; the sum is exact, so the order of symbols cannot matter."""
        values = [float(self.cash)]
        for position in self.positions.values():
            if position.quantity:
                values.append(float(position.quantity) * prices[position.symbol])
        return math.fsum(values)

    def position(self, symbol: str) -> Position:
        position = self.positions.get(symbol)
        if position is None:
            position = self.positions[symbol] = Position(symbol)
        return position
