"""A recorded ledger against a backtest of the same time: each account's fills matched, and what differs explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from bot.backtest.at_once import Asked
from bot.backtest.booking import booked
from bot.backtest.compare import causes
from bot.backtest.compare.case import DATA, LIVE, Case
from bot.backtest.compare.causes import Reason
from bot.backtest.compare.effects import effects_of
from bot.backtest.compare.matching import Matched, matched
from bot.backtest.compare.recorded import Recorded, Recording, Stretch
from bot.backtest.compare.sides import Side
from bot.backtest.data import TickSeries
from bot.backtest.source import BoolArray, CandleSource, Quotes, Source, TickSource
from bot.backtest.trades import Trade, Trades
from bot.backtest.vectorised import asked_by
from bot.bars import needed
from bot.domain import Account, Bars, OrderSide
from bot.engine import Plan, lookbacks_of
from bot.fills import Terms
from bot.timeframes import Timeframe


@dataclass(frozen=True, slots=True)
class Candles:
    """What a backtest is on, by symbol, and before it what strategies look back on. ``ticks_as`` is what strategies on
    ticks decide on instead. ``execution`` has those settings that are not to be the ones that were recorded."""

    bars: Mapping[str, Bars]
    timeframe: Timeframe
    ticks_as: Timeframe | None
    execution: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Gap:
    """A fill that differs or is missing on one side, or, with neither, a refused signal that is, which has its time and
    symbol. ``effect`` is what the live side earned more by it, in the quote currency."""

    live: Trade | None
    backtest: Trade | None
    reason: Reason
    effect: float
    refused: tuple[int, str] = (0, "")

    @property
    def timestamp(self) -> int:
        fill = self.live or self.backtest
        return fill.timestamp if fill else self.refused[0]

    @property
    def symbol(self) -> str:
        fill = self.live or self.backtest
        return fill.symbol if fill else self.refused[1]

    @property
    def side(self) -> OrderSide | None:
        fill = self.live or self.backtest
        return fill.side if fill else None


@dataclass(frozen=True, slots=True)
class Compared:
    """An account in a stretch. ``same`` counts the fills that are alike on both sides. Profits are net of fees, with
    open positions at the last prices; ``left`` is the part of their difference that gaps have left open."""

    account: Account
    strategy: str
    timeframe: str
    start_ms: int
    end_ms: int
    live: Side
    backtest: Side
    same: int
    gaps: Sequence[Gap]
    profit_live: float
    profit_backtest: float
    left: float


def compared(
    recording: Recording,
    against: Candles | None = None,
    *,
    tolerance_ms: int | None = None,
    progress: Callable[[str, float], None] = lambda what, part: None,
) -> Iterator[Compared]:
    """Each account of each stretch. Without candles the backtest is on the ledger's own tape. ``tolerance_ms`` is how
    far apart the fills of one decision may be; None: a bar of the strategy, or a poll."""
    for number, part in enumerate(recording.parts):
        ground = _ground(part, recording.ticks, against)
        for plan, entry in zip(part.stretch.plans, part.stretch.settings.strategy, strict=True):
            progress(entry.account, number / len(recording.parts))
            case = _case(part, plan, ground, tolerance_ms)
            yield _account(part, case, entry.name, entry.timeframe)


class _Ground(NamedTuple):
    """What all accounts of a stretch stand on, live and in the backtest; ``candles`` is the timeframe of these."""

    tape: Mapping[str, TickSource]
    sources: Mapping[str, Source]
    last_prices: Mapping[str, float]
    terms: Terms
    candles: Timeframe | None = None
    ticks_as: Timeframe | None = None


def _ground(part: Recorded, ticks: Mapping[str, TickSeries], against: Candles | None) -> _Ground:
    stretch, last_prices, tape = part.stretch, _last_prices(part, ticks), _tape(part.stretch, ticks)
    execution = stretch.settings.execution
    if against is None:
        return _Ground(tape, tape, last_prices, Terms(execution.fee_rate, execution.slippage_bps))
    execution = execution.model_copy(update=dict(against.execution))
    terms = Terms(execution.fee_rate, execution.slippage_bps)
    sources = _candles(stretch, against, execution.fill)
    return _Ground(tape, sources, last_prices, terms, against.timeframe, against.ticks_as)


def _case(part: Recorded, plan: Plan, ground: _Ground, tolerance_ms: int | None) -> Case:
    """Both sides of an account."""
    stretch, timeframe = part.stretch, plan.timeframe
    plan = replace(plan, timeframe=timeframe or ground.ticks_as)
    targets = {symbol: target for (name, symbol), target in part.targets.items() if name == plan.account}
    asked = next(asked_by([plan], ground.sources, targets))
    # A candle may be longer than what is left of the stretch.
    lived = asked.quotes.timestamp < stretch.end_ms
    asked = Asked(asked.symbol[lived], asked.target[lived], asked.quotes.at(lived))
    account = deepcopy(part.accounts[plan.account])
    done = booked(plan, account, ground.sources, asked, ground.terms, ground.last_prices)
    interval_ms = stretch.settings.feed.poll_interval_ms
    if tolerance_ms is None:
        tolerance_ms = interval_ms if plan.timeframe is None else plan.timeframe.ms
    return Case(
        plan=plan,
        timeframe=timeframe,
        live=part.sides[plan.account],
        backtest=Side.simulated(asked, done),
        tape=ground.tape,
        sources=ground.sources,
        targets=targets,
        last_prices=ground.last_prices,
        candles=ground.candles,
        tolerance_ms=tolerance_ms,
        interval_ms=interval_ms,
    )


def _tape(stretch: Stretch, ticks: Mapping[str, TickSeries]) -> dict[str, TickSource]:
    """What the loop saw: before a stretch no more than its strategies look back on."""
    window = max((plan.strategy.lookback for plan in stretch.plans if plan.timeframe is None), default=1)
    lookbacks, fill = lookbacks_of(stretch.plans), stretch.settings.execution.fill
    found = {}
    for symbol in stretch.settings.feed.symbols:
        series = ticks[symbol]
        first, end = np.searchsorted(series.timestamp, (stretch.start_ms, stretch.end_ms)).tolist()
        before = needed(series.timestamp[:first], series.last[:first], window, lookbacks)
        rows = np.concatenate((np.flatnonzero(before), np.arange(first, end)))
        history = series.history[rows]
        history[: len(rows) - (end - first)] = True
        quotes = Quotes(series.timestamp, series.bid, series.ask, series.last).at(rows)
        found[symbol] = TickSource(stretch.markets[symbol], quotes, history, fill)
    return found


def _last_prices(part: Recorded, ticks: Mapping[str, TickSeries]) -> dict[str, float]:
    """What is held before a stretch, as the loop values it until it is seen: at its last price, or else at its cost."""
    found: dict[str, float] = {}
    for account in part.accounts.values():
        for symbol, position in account.positions.items():
            series = ticks[symbol].before(part.stretch.start_ms)
            if len(series):
                found[symbol] = float(series.last[-1])
            found.setdefault(symbol, float(position.basis / position.quantity))
    return found


def _candles(stretch: Stretch, against: Candles, fill: str) -> dict[str, Source]:
    """The one that the stretch began in is traded on: the strategies decided there, on what was closed by then."""
    start_ms = against.timeframe.open_of(stretch.start_ms)
    found: dict[str, Source] = {}
    for symbol in stretch.settings.feed.symbols:
        bars = against.bars[symbol]
        bars = bars[: int(np.searchsorted(bars.timestamp, stretch.end_ms))]
        found[symbol] = CandleSource(stretch.markets[symbol], bars, against.timeframe, start_ms, fill)
    return found


def _account(part: Recorded, case: Case, strategy: str, timeframe: str) -> Compared:
    live, backtest = case.live.trades, case.backtest.trades
    pairs = matched(live, backtest, case.tolerance_ms)
    differ = _differing(live, backtest, pairs, exactly=case.candles is None)
    rows = _in_order(live, backtest, pairs, differ)
    fills = [(_fill(live, mine), _fill(backtest, other)) for mine, other in rows]
    first, last = _valued_at(case, part.stretch.start_ms - 1), _valued_at(case, part.stretch.end_ms - 1)
    effects = effects_of(fills, last)
    gaps = [
        Gap(*pair, causes.of(case, *numbers), effect)
        for numbers, pair, effect in zip(rows, fills, effects.gaps, strict=True)
    ]
    if case.candles is None:
        gaps += _refusals(case, gaps)
    account = part.accounts[case.plan.account]
    return Compared(
        account=account,
        strategy=strategy,
        timeframe=timeframe,
        start_ms=part.stretch.start_ms,
        end_ms=part.stretch.end_ms,
        live=case.live,
        backtest=case.backtest,
        same=len(pairs.live) - int(np.count_nonzero(differ)),
        gaps=gaps,
        profit_live=_profit(account, live, first, last),
        profit_backtest=_profit(account, backtest, first, last),
        left=effects.left,
    )


def _differing(live: Trades, backtest: Trades, pairs: Matched, *, exactly: bool) -> BoolArray:
    """Which of the fills that are each other's are not the same; ``exactly``: nor is what they realised."""
    mine, other = pairs.live, pairs.backtest
    found: BoolArray = live.timestamp[mine] != backtest.timestamp[other]
    found |= live.price[mine] != backtest.price[other]
    found |= live.quantity[mine] != backtest.quantity[other]
    off = causes.MONEY_OFF + causes.PART_OFF * live.price[mine] * live.quantity[mine]
    found |= np.abs(live.fee[mine] - backtest.fee[other]) > off
    if exactly:
        found |= np.abs(live.pnl[mine] - backtest.pnl[other]) > off
    return found


def _in_order(live: Trades, backtest: Trades, pairs: Matched, differ: BoolArray) -> list[tuple[int, int]]:
    """The rows of those fills that make gaps, in the order of time; -1 where a side has none."""
    mine = (pairs.live[differ], pairs.only_live, np.full(len(pairs.only_backtest), -1))
    other = (pairs.backtest[differ], np.full(len(pairs.only_live), -1), pairs.only_backtest)
    rows = np.stack((np.concatenate(mine), np.concatenate(other)))
    times, symbols = (
        np.where(rows[0] < 0, np.append(right, 0)[rows[1]], np.append(left, 0)[rows[0]])
        for left, right in ((live.timestamp, backtest.timestamp), (live.symbol, backtest.symbol))
    )
    found: list[tuple[int, int]] = list(map(tuple, rows[:, np.lexsort((symbols, times))].T.tolist()))
    return found


def _fill(trades: Trades, row: int) -> Trade | None:
    return None if row < 0 else trades[row]


def _refusals(case: Case, gaps: Sequence[Gap]) -> Iterator[Gap]:
    """Refused signals that the other side has not, or refused for another reason; what was filled there is a gap
    already."""
    known = {(gap.timestamp, gap.symbol) for gap in gaps}
    live, backtest = case.live.refusals(), case.backtest.refusals()
    for where, missing in ((LIVE, live - backtest), (DATA, backtest - live)):
        for time, number, target, reason in sorted(missing):
            symbol = case.symbols[number]
            if (time, symbol) not in known:
                yield Gap(None, None, causes.of_refusal(where, target, reason), 0.0, (time, symbol))


def _valued_at(case: Case, time: int) -> dict[str, float]:
    """What each symbol was last seen at by a time, live or else in the data: both sides are valued at these."""
    found = dict(case.last_prices)
    for symbol in case.symbols:
        for source in (case.sources[symbol], case.tape[symbol]):
            (price,) = source.last_before(np.array([time])).tolist()
            if price == price:
                found[symbol] = price
    return found


def _profit(account: Account, trades: Trades, first: Mapping[str, float], last: Mapping[str, float]) -> float:
    """Cash and positions at the end, less what they were before."""
    change = np.where(trades.buy, trades.quantity, -trades.quantity)
    profit = -float((change * trades.price + trades.fee).sum())
    held = {symbol: float(position.quantity) for symbol, position in account.positions.items()}
    for number, symbol in enumerate(trades.symbols):
        moved = float(change[trades.symbol == number].sum())
        # A symbol that nobody has seen is held by nobody.
        if moved:
            profit += moved * last[symbol]
    return profit + sum(quantity * (last[symbol] - first[symbol]) for symbol, quantity in held.items())
