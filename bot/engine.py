"""Decides: windows of prices in, changes of target out, and from a change of target the order that follows it.

Synchronous and deterministic. ``decide`` reads the state and changes nothing; what it found out becomes the state by
``advance``, after the block is safely in the ledger. Whatever the size of the blocks, the signals are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np

from bot.bars import CLOSE, HIGH, LOW, OPEN, Candles, Lookback
from bot.domain import (
    ZERO,
    Account,
    Bars,
    Block,
    FloatArray,
    IntArray,
    Market,
    OrderSide,
    OrderType,
    Prices,
    Signal,
    to_decimal,
)
from bot.fills import Terms, touch_price
from bot.ports import Strategy
from bot.timeframes import Timeframe

_BUY, _SELL = OrderSide.BUY, OrderSide.SELL
NO_CHANGE = "no_change"
BELOW_MIN_AMOUNT = "below_min_amount"
BELOW_MIN_COST = "below_min_cost"
ABOVE_MAX_AMOUNT = "above_max_amount"
ABOVE_MAX_COST = "above_max_cost"
INVALID_TARGET = "invalid_target"
NO_EQUITY = "no_equity"


class SizingKind(StrEnum):
    QUANTITY = "quantity"
    QUOTE_AMOUNT = "quote_amount"
    EQUITY_FRACTION = "equity_fraction"


class Sizing(NamedTuple):
    """What a target of 1 means: so many units, so much of the quote currency, or such a part of the equity."""

    kind: SizingKind
    value: Decimal


@dataclass(frozen=True, slots=True)
class Plan:
    """A strategy with the account it trades for. ``on_error`` hears of a strategy that raised; without a timeframe
    every tick is a bar."""

    strategy: Strategy
    account: str
    sizing: Sizing
    on_error: Callable[[Exception | SystemExit], None] = lambda error: None
    timeframe: Timeframe | None = None


def lookbacks_of(plans: Sequence[Plan]) -> list[Lookback]:
    """How many closed bars of each timeframe the plans look back on."""
    counts: dict[Timeframe, int] = {}
    for plan in plans:
        if plan.timeframe is not None:
            counts[plan.timeframe] = max(counts.get(plan.timeframe, 0), plan.strategy.lookback)
    return list(counts.items())


@dataclass(slots=True)
class LoopState:
    """All that decisions depend on, besides the block at hand. One owner: the loop.

    ``times`` and ``prices`` are the last ticks of each symbol, shape [S, K], aligned at their end; a symbol that has
    fewer begins with NaN. ``targets`` holds each plan's last target per symbol, shape [P, S]. ``candles`` are the bars,
    one entry a timeframe, and ``newest_ms`` is the time of the last tick.
    """

    symbols: tuple[str, ...]
    accounts: dict[str, Account]
    times: IntArray
    prices: FloatArray
    targets: FloatArray
    last_prices: dict[str, float] = field(default_factory=dict)
    candles: tuple[Candles, ...] = ()
    newest_ms: int = 0

    @classmethod
    def empty(
        cls, symbols: Sequence[str], plans: Sequence[Plan], accounts: dict[str, Account], *, at_close: bool = False
    ) -> LoopState:
        """``at_close``: bars are closed by the ticks in their last millisecond, see ``Candles``."""
        width = max((plan.strategy.lookback for plan in plans if plan.timeframe is None), default=1) - 1
        shape = (len(symbols), width)
        return cls(
            tuple(symbols),
            accounts,
            np.zeros(shape, np.int64),
            np.full(shape, np.nan),
            np.zeros((len(plans), len(symbols))),
            candles=tuple(
                Candles.empty(timeframe, len(symbols), count, at_close=at_close)
                for timeframe, count in lookbacks_of(plans)
            ),
        )

    @property
    def lookbacks(self) -> tuple[Lookback, ...]:
        return tuple((candles.timeframe, candles.count) for candles in self.candles)

    def advance(self, decision: Decision) -> None:
        self.times, self.prices, self.targets = decision.times, decision.prices, decision.targets
        self.candles, self.newest_ms = decision.candles, decision.newest_ms
        self.last_prices.update(decision.last_prices)

    def equity(self) -> dict[str, float]:
        """Cash plus positions at the last prices, by account."""
        return {name: account.equity(self.last_prices) for name, account in self.accounts.items()}

    def restore_targets(self, plans: Sequence[Plan], stored: Mapping[tuple[str, str], float]) -> None:
        for row, plan in enumerate(plans):
            for column, symbol in enumerate(self.symbols):
                self.targets[row, column] = stored.get((plan.account, symbol), 0.0)


@dataclass(frozen=True, slots=True)
class Decision:
    """A block's signals in the order in which they happened, and the state after it."""

    signals: list[Signal]
    times: IntArray
    prices: FloatArray
    targets: FloatArray
    last_prices: dict[str, float]
    marks: Marks
    polls: int
    candles: tuple[Candles, ...]
    newest_ms: int


class Moments(Protocol):
    """What every symbol was last seen at, at each poll."""

    def at(self, poll: int, /) -> Prices: ...


@dataclass(slots=True)
class Marks:
    """The last known price of every symbol at each poll of a block, worked out when first asked for.

    ``before`` is what was known before the block: the state's own prices, so ask before the state has advanced.
    """

    block: Block
    before: Mapping[str, float]
    first_poll: int
    _row: dict[str, int] = field(default_factory=dict)
    _filled: FloatArray | None = None

    def at(self, poll: int) -> Moment:
        if self._filled is None:
            known = np.array([[self.before.get(symbol, np.nan)] for symbol in self.block.symbols])
            self._filled = _forward_fill(np.concatenate((known, self.block.last), axis=1))[:, 1:]
            self._row = {symbol: row for row, symbol in enumerate(self.block.symbols)}
        return Moment(self.before, self._row, self._filled, poll - self.first_poll + self.block.warmup)


@dataclass(slots=True)
class Moment:
    """Prices by symbol at one poll; looked up one by one, since an account holds few of them."""

    before: Mapping[str, float]
    row: Mapping[str, int]
    filled: FloatArray
    column: int

    def __getitem__(self, symbol: str) -> float:
        row = self.row.get(symbol)
        # A position in a symbol that is no longer polled is worth what it was last seen at.
        return self.before[symbol] if row is None else float(self.filled[row, self.column])


class OrderRequest(NamedTuple):
    side: OrderSide
    quantity: Decimal


class Engine:
    """Turns blocks into signals, and signals into the orders that reach their target."""

    def __init__(self, plans: Sequence[Plan], markets: Mapping[str, Market], terms: Terms | None = None) -> None:
        """``terms``, those of the executors, say what an order costs beyond its quote, so that it can be paid for."""
        self._terms = terms or Terms()
        self._with_fee = {
            symbol: 1 + self._terms.fee_rate_of(market, OrderType.MARKET) for symbol, market in markets.items()
        }
        self.plans = tuple(plans)
        self._on_ticks = [(number, plan) for number, plan in enumerate(plans) if plan.timeframe is None]
        self._markets = dict(markets)
        self._sizing = {plan.account: plan.sizing for plan in plans}

    def decide(self, state: LoopState, block: Block, first_poll: int, first_signal: int) -> Decision:
        """The signals of a block whose first poll (after its history) is ``first_poll``."""
        count = len(block)
        targets = np.full((len(self.plans), *block.last.shape), np.nan)
        times, prices = np.empty_like(state.times), np.empty_like(state.prices)
        newest = np.full(len(block.symbols), np.nan)
        for rows, seen in _groups(block):
            window = _Window.joined(state, block, rows, seen)
            for number, plan in self._on_ticks:
                found = _targets(plan, window)
                targets[number, rows, :] = found if seen is None else _scattered(found, seen, count)
            # What is kept for the next block; counted from the front, since a width of 0 has no end to count from.
            times[rows], prices[rows] = window.times[:, window.fresh :], window.prices[:, window.fresh :]
            if window.fresh:
                newest[rows] = window.prices[:, -1]
        candles = state.candles and tuple(self._decide_bars(before, block, targets) for before in state.candles)
        changes, final = _changes(targets[:, :, block.warmup :], state.targets)
        signals = self._signals(block, changes, first_poll, first_signal)
        last_prices = {
            name: price for name, price in zip(block.symbols, newest.tolist(), strict=True) if price == price
        }
        marks = Marks(block, state.last_prices, first_poll)
        newest_ms = int(block.timestamp[-1])
        return Decision(signals, times, prices, final, last_prices, marks, block.polls, candles, newest_ms)

    def _decide_bars(self, before: Candles, block: Block, targets: FloatArray) -> Candles:
        """The bars after a block; fills in the targets of those that were closed."""
        after, closed = before.after(block)
        for rows, times, prices, columns in closed:
            window = _Window(times, prices, columns.shape[1])
            chosen = columns >= 0
            places = np.nonzero(chosen)[0]
            for number, plan in enumerate(self.plans):
                if plan.timeframe == before.timeframe:
                    targets[number, rows[places], columns[chosen]] = _targets(plan, window)[chosen]
        return after

    def _signals(self, block: Block, changes: _Changes, first_poll: int, first_signal: int) -> list[Signal]:
        if not len(changes.poll):
            return []
        order = np.lexsort((changes.symbol, changes.plan, changes.poll))
        poll, symbol = changes.poll[order], changes.symbol[order]
        column = poll + block.warmup
        accounts = [plan.account for plan in self.plans]
        rows = zip(
            range(first_signal, first_signal + len(poll)),
            (poll + first_poll).tolist(),
            block.timestamp[column].tolist(),
            [accounts[number] for number in changes.plan[order].tolist()],
            [block.symbols[number] for number in symbol.tolist()],
            # A target of -0.0 is one of 0.0, and the file would make it so.
            (changes.target[order] + 0.0).tolist(),
            block.bid[symbol, column].tolist(),
            block.ask[symbol, column].tolist(),
            strict=True,
        )
        return list(map(Signal._make, rows))

    def order_for(self, signal: Signal, account: Account, marks: Moments) -> OrderRequest | str:
        """The order that takes the account to the signal's target, or the reason why there is none."""
        market = self._markets[signal.symbol]
        held = account.position(signal.symbol).quantity
        wanted = self._wanted(signal, account, market, marks) if signal.target else ZERO
        if isinstance(wanted, str):
            return wanted
        change = wanted - held
        # An account may hold less than a step: markets change, and so does the feed of a ledger.
        quantity = market.whole_steps(abs(change))
        if not quantity:
            return NO_CHANGE if wanted or not (held or signal.target) else BELOW_MIN_AMOUNT
        side = _BUY if change > 0 else _SELL
        return _refusal(market, quantity, signal.ask if side is _BUY else signal.bid) or OrderRequest(side, quantity)

    def _wanted(self, signal: Signal, account: Account, market: Market, marks: Moments) -> Decimal | str:
        """The signed quantity that the target means, in whole steps of the market."""
        target = signal.target
        if not -1 <= target <= 1:
            return INVALID_TARGET
        kind, size = self._sizing[signal.account]
        step = unit = market.amount_step
        if kind is SizingKind.QUOTE_AMOUNT:
            unit = step * to_decimal(signal.ask if target > 0 else signal.bid)
        elif kind is SizingKind.EQUITY_FRACTION:
            equity = account.equity(marks.at(signal.poll))
            if equity <= 0:
                return NO_EQUITY
            size *= to_decimal(equity)
            side, slippage_bps = _BUY if target > 0 else _SELL, self._terms.slippage_bps
            price = touch_price(side, signal.bid, signal.ask, slippage_bps, market.price_step)
            unit = step * price * self._with_fee[market.symbol]
        if target not in (1, -1):
            size *= to_decimal(target)
        elif target < 0:
            size = -size
        # How many whole steps that pays for, towards zero: exact, where a quotient would have to be rounded first.
        return size // unit * step


def _refusal(market: Market, quantity: Decimal, quote: float) -> str | None:
    """Why the venue would not take a market order of this size at the quote that it fills at; None if it would.

    One that is too large is refused and not made smaller: the account would hold what no target asked for, under a
    verdict that says filled.
    """
    if market.min_amount is not None and quantity < market.min_amount:
        return BELOW_MIN_AMOUNT
    # One by one: to go through both in a loop would take longer than all the rest.
    if market.max_amount is not None and quantity > market.max_amount:
        return ABOVE_MAX_AMOUNT
    if market.max_market_amount is not None and quantity > market.max_market_amount:
        return ABOVE_MAX_AMOUNT
    if market.min_cost is not None and quantity * to_decimal(quote) < market.min_cost:
        return BELOW_MIN_COST
    if market.max_cost is not None and quantity * to_decimal(quote) > market.max_cost:
        return ABOVE_MAX_COST
    return None


# A user's strategy may raise anything, sys.exit() included.
_ANYTHING = (Exception, SystemExit)


class _Window(NamedTuple):
    """What some symbols' strategies look at, gaps closed up: of ticks the price, shape [R, N], of bars the four prices,
    shape [4, R, N]. The last ``fresh`` ones are to be decided on."""

    times: IntArray
    prices: FloatArray
    fresh: int

    @classmethod
    def joined(cls, state: LoopState, block: Block, rows: Rows, seen: IntArray | None) -> _Window:
        """The state's ticks with a block's behind them."""
        prices, before = block.last[rows], state.prices[rows]
        if seen is not None:
            prices = np.take_along_axis(prices, seen, 1)
        fresh, width = prices.shape[1], before.shape[1]
        times = np.empty((len(prices), width + fresh), np.int64)
        times[:, :width] = state.times[rows]
        times[:, width:] = block.timestamp if seen is None else block.timestamp[seen]
        joined = np.concatenate((before, prices), axis=1)
        # All plans look at these, and the state keeps them: a strategy that writes into its bars raises.
        times.flags.writeable = joined.flags.writeable = False
        return cls(times, joined, fresh)


Rows = slice | IntArray


def _groups(block: Block) -> list[tuple[Rows, IntArray | None]]:
    """Symbols that share the number of ticks in the block, so that they can be computed together.

    Almost always that is all of them, none with a gap. Otherwise each group comes with the columns of its ticks.
    """
    present = block.last == block.last
    if present.all():
        return [(slice(None), None)]
    counts = present.sum(axis=1)
    groups: list[tuple[Rows, IntArray | None]] = []
    for count in np.unique(counts):
        rows = np.nonzero(counts == count)[0]
        groups.append((rows, np.nonzero(present[rows])[1].reshape(len(rows), count)))
    return groups


def _scattered(found: FloatArray, seen: IntArray, count: int) -> FloatArray:
    """Targets of the ticks that are there, put back into the block's columns."""
    spread = np.full((found.shape[0], count), np.nan)
    np.put_along_axis(spread, seen, found, 1)
    return spread


def _bars(times: IntArray, prices: FloatArray) -> Bars:
    if prices.ndim == times.ndim:
        return Bars.from_ticks(times, prices)
    return Bars(times, prices[OPEN], prices[HIGH], prices[LOW], prices[CLOSE], np.zeros(times.shape))


def _targets(plan: Plan, window: _Window) -> FloatArray:
    """The plan's targets at the window's fresh ticks or bars, shape [rows, fresh]."""
    strategy, fresh = plan.strategy, window.fresh
    if not fresh:
        return np.empty((len(window.times), 0))
    needed = fresh + strategy.lookback - 1
    bars = _bars(window.times[:, -needed:], window.prices[..., -needed:])
    if getattr(strategy, "batch", False):
        with suppress(*_ANYTHING):
            found = np.asarray(strategy.targets(bars), dtype=np.float64)
            if found.shape == bars.close.shape:
                return found[:, -fresh:]
    return np.stack([targets_of(plan, bars.row(row), fresh) for row in range(len(window.times))])


def targets_of(plan: Plan, bars: Bars, fresh: int) -> FloatArray:
    """Targets of one symbol's last ``fresh`` bars from a strategy that is somebody else's code: it may raise or answer
    nonsense. What is missing of the bars is NaN at their head.

    A strategy that raises is asked again for each bar by itself, so that only the bars it fails on are held, and the
    same ones whatever the size of the block.
    """
    lookback, length = plan.strategy.lookback, len(bars)
    known = length if bars.close[0] == bars.close[0] else int(np.count_nonzero(bars.close == bars.close))
    usable = min(fresh, known - lookback + 1)
    answer = np.empty(0) if usable == fresh else np.full(fresh, np.nan)
    if usable <= 0:
        return answer
    try:
        found = _asked(plan.strategy, bars[length - known :], usable)
        if usable == fresh:
            return found
        answer[-usable:] = found
    except _ANYTHING as error:
        answer = np.full(fresh, np.nan)
        if usable == 1:
            plan.on_error(error)
            return answer
        for end in range(length - usable + 1, length + 1):
            answer[end - length - 1] = targets_of(plan, bars[end - lookback : end], 1)[0]
    return answer


def _asked(strategy: Strategy, bars: Bars, usable: int) -> FloatArray:
    found = np.asarray(strategy.targets(bars), dtype=np.float64)
    if found.shape != bars.close.shape:
        raise ValueError(f"targets has shape {found.shape} for {len(bars)} bars")
    return found[-usable:]


class _Changes(NamedTuple):
    """Where a target became another one: plan, symbol, poll (column after the history) and the new target."""

    plan: IntArray
    symbol: IntArray
    poll: IntArray
    target: FloatArray


def _changes(targets: FloatArray, before: FloatArray) -> tuple[_Changes, FloatArray]:
    """The changes in targets of shape [P, S, N], and the last targets, shape [P, S]. NaN holds what was."""
    _, symbols, count = targets.shape
    if count == 1:
        # One poll, as it is live: the same answer without the detour over time.
        newest = targets[:, :, 0]
        turned = (newest == newest) & (newest != before)
        plan, symbol = np.nonzero(turned)
        changes = _Changes(plan, symbol, np.zeros_like(plan), newest[turned])
        return changes, np.where(turned, newest, before)
    led = np.concatenate((before[:, :, None], targets), axis=2).ravel()
    said = np.nonzero(led == led)[0]
    values = led[said]
    # Each row begins with its target from before, which is never NaN, so a row's first value is never compared with
    # another row's last one.
    changed = np.nonzero(values[1:] != values[:-1])[0] + 1
    places = said[changed]
    row, column = np.divmod(places, count + 1)
    inside = column > 0
    row, column, target = row[inside], column[inside] - 1, values[changed][inside]
    plan, symbol = np.divmod(row, symbols)
    final = before.copy()
    # In the order of time within each row, so that the last change is the one that stays.
    final[plan, symbol] = target
    return _Changes(plan, symbol, column, target), final


def _forward_fill(values: FloatArray) -> FloatArray:
    """Each NaN replaced by the last number before it in its row."""
    columns = np.where(values == values, np.arange(values.shape[1]), 0)
    filled: FloatArray = np.take_along_axis(values, np.maximum.accumulate(columns, axis=1), 1)
    return filled
