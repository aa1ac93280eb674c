"""What a ledger has of the daemon's runs: when they decided alike, from which accounts, and what they did."""

from __future__ import annotations

import os
import sqlite3
from array import array
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from decimal import localcontext
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from bot.backtest.at_once import Asked
from bot.backtest.compare.sides import Side
from bot.backtest.data import TickSeries
from bot.backtest.data.ledger import ticks_of
from bot.backtest.source import Quotes
from bot.backtest.trades import Trades
from bot.domain import MONEY, ZERO, Account, Market, OrderSide, iso8601
from bot.engine import Plan
from bot.proof import snapshot_of
from bot.repositories import Database, LedgerBusy, LedgerError, RunRepository, TickRepository, decisions, seals
from bot.repositories.books import ACCOUNTS, POSITIONS, STANDALONE, Books, Targets, accounts_of
from bot.repositories.decisions import ACCOUNT, ORDER_ID, POLL, Decision
from bot.repositories.standing import Head
from bot.repositories.ticks import AT_ONCE, ID
from bot.settings import Settings
from bot.verify import Session, sessions_of

_TIMESTAMP, _SYMBOL, _TARGET, _BID, _ASK, _REASON = 2, 4, 5, 6, 7, 8
_SIDE = 10
# Price, quantity, fee and profit.
_AMOUNTS = (14, 12, 16, 18)
_NO_AMOUNTS = (np.nan,) * len(_AMOUNTS)
_TICK_TIME, _TICK_WARMUP = 2, 6


@dataclass(frozen=True, slots=True)
class Stretch:
    """Runs that follow each other and decided alike, whatever lay between them: their polls, and the time from the
    first one of them to before ``end_ms``."""

    settings: Settings
    plans: Sequence[Plan]
    markets: Mapping[str, Market]
    runs: int
    first_poll: int
    last_poll: int
    start_ms: int
    end_ms: int

    def within(self, start_ms: int, end_ms: int) -> Stretch | None:
        """The part of it from one time to before another; None if it has none there."""
        start_ms, end_ms = max(self.start_ms, start_ms), min(self.end_ms, end_ms)
        return replace(self, start_ms=start_ms, end_ms=end_ms) if start_ms < end_ms else None

    def only(self, accounts: Collection[str]) -> Stretch | None:
        """Of these accounts; None if it has none of them."""
        plans = [plan for plan in self.plans if plan.account in accounts]
        entries = tuple(entry for entry in self.settings.strategy if entry.account in accounts)
        return (
            replace(self, plans=plans, settings=self.settings.model_copy(update={"strategy": entries}))
            if plans
            else None
        )


class Outline(NamedTuple):
    """``base`` is the seal that the tape begins with. ``notes`` tell what of the ledger cannot be compared, or may be
    why it differs; ``simulated`` is the setting feed.simulated of the newest run."""

    base: int
    stretches: list[Stretch]
    notes: list[str]
    simulated: Mapping[str, Any]


@dataclass(slots=True)
class Recorded:
    """A stretch with its accounts and targets as they were before it, and what each account did in it."""

    stretch: Stretch
    accounts: dict[str, Account]
    targets: Targets
    sides: dict[str, Side] = field(default_factory=dict)


class Recording(NamedTuple):
    """``ticks`` are those of all symbols that were polled, or held, in one of the stretches."""

    parts: list[Recorded]
    ticks: dict[str, TickSeries]


async def outline_of(path: str | os.PathLike[str]) -> Outline:
    """The stretches of a ledger. Raises LedgerError, and SettingsError for a strategy that there is no more."""
    async with _reading(path) as source:
        await source.run(lambda connection: Head.read(connection).check(connection))
        base = await source.run(seals.base)
        notes = []
        if base.id:
            notes.append(
                f"prices up to {iso8601(base.cursor.timestamp)} were deleted (storage.keep_ticks_days): what was traded"
                " until then cannot be compared any more"
            )
        sessions = await sessions_of(source, base)
        if unrecorded := [each for each in sessions if not each.settings.storage.record_ticks]:
            firsts = [max(each.first_poll, base.cursor.polls + 1) for each in unrecorded]
            polls = sum(each.last_poll - first + 1 for each, first in zip(unrecorded, firsts, strict=True))
            notes.append(f"{polls:,} polls have no tape (storage.record_ticks = false), and are left out")
        query = "SELECT count(*) FROM trades WHERE account = ?"
        if by_hand := (await source.fetch(query, (STANDALONE,)))[0][0]:
            notes.append(f"{by_hand:,} orders made from Python (account {STANDALONE!r}) are left out")
        notes += dict.fromkeys(what for each in sessions for what in each.changed)
        newest = await RunRepository(source).last()
        config = {} if newest is None else RunRepository.config_of(newest)
        simulated = config.get("settings", {}).get("feed", {}).get("simulated", {})
        stretches = await _stretches(source, sessions, base.cursor.polls, base.cursor.ticks)
        return Outline(base.id, stretches, notes, simulated)


async def _stretches(source: Database, sessions: Sequence[Session], polls: int, ticks: int) -> list[Stretch]:
    """``polls`` and ``ticks`` are how many lie before the first one."""
    found = []
    for _, group in groupby(sessions, _decisive):
        runs = list(group)
        first, last = runs[0], runs[-1]
        if first.settings.storage.record_ticks:
            start_ms, end_ms = await _time_of(source, ticks, last.last_tick)
            numbers = (len(runs), max(first.first_poll, polls + 1), last.last_poll)
            found.append(Stretch(first.settings, first.plans, first.markets, *numbers, start_ms, end_ms))
        ticks = last.last_tick
    return found


def _decisive(session: Session) -> Any:
    settings = session.settings
    asked = (settings.strategy_folder, settings.strategy, settings.execution, settings.feed.symbols)
    return (*asked, session.markets, settings.storage.record_ticks)


async def _time_of(source: Database, after: int, until: int) -> tuple[int, int]:
    """From the first poll's tick after one of the tape to past another."""
    tape = TickRepository(source)
    end_ms = int((await tape.read(until - 1, 1, until))[0, _TICK_TIME]) + 1
    while len(rows := await tape.read(after, AT_ONCE, until)):
        polled = rows[rows[:, _TICK_WARMUP] == 0]
        if len(polled):
            return int(polled[0, _TICK_TIME]), end_ms
        after = int(rows[-1, ID])
    raise LedgerError("the tape has no prices of a run that has polls")


async def recording_of(path: str | os.PathLike[str], outline: Outline, stretches: Sequence[Stretch]) -> Recording:
    """What a ledger has of some stretches, or parts of them, of its outline. Raises LedgerError."""
    async with _reading(path) as source:
        if (await source.run(seals.base)).id != outline.base:
            raise LedgerBusy(f"{path}: the daemon has just deleted old prices, run it again")
        return await _recording(source, stretches)


@asynccontextmanager
async def _reading(path: str | os.PathLike[str]) -> AsyncIterator[Database]:
    async with snapshot_of(path) as source:
        try:
            yield source
        except (ArithmeticError, LookupError, TypeError, ValueError) as damage:
            # A damaged row may hold anything.
            raise LedgerError(f"{path} is damaged: {damage!r}") from damage


async def _recording(source: Database, stretches: Sequence[Stretch]) -> Recording:
    until = source.cursor.decisions
    parts = await source.run(lambda connection: list(_parts(connection, until, stretches)))
    polled = {symbol for stretch in stretches for symbol in stretch.settings.feed.symbols}
    held = {name for part, _ in parts for account in part.accounts.values() for name in account.positions}
    ticks = await ticks_of(source, sorted(polled | held))
    for part, rows in parts:
        symbols = part.stretch.settings.feed.symbols
        for plan in part.stretch.plans:
            part.sides[plan.account] = rows.get(plan.account, _Rows()).side(symbols, ticks)
    return Recording([part for part, _ in parts], ticks)


def _parts(
    connection: sqlite3.Connection, until: int, stretches: Sequence[Stretch]
) -> Iterator[tuple[Recorded, dict[str, _Rows]]]:
    """Each stretch with the books as they were before it, folded exactly, and its own decisions by account."""
    base = seals.base(connection)
    deposits, _ = accounts_of(connection.execute(ACCOUNTS), connection.execute(POSITIONS))
    books = Books(deposits.values(), *seals.state(connection, base))
    stored = (row for row in decisions.stored(connection, base.cursor.decisions, until) if row[ACCOUNT] != STANDALONE)
    row = next(stored, None)
    with localcontext(MONEY):
        for stretch in stretches:
            place = {symbol: number for number, symbol in enumerate(stretch.settings.feed.symbols)}
            while row is not None and (row[POLL] < stretch.first_poll or row[_TIMESTAMP] < stretch.start_ms):
                books.add(row)
                row = next(stored, None)
            accounts = {plan.account: _begun(books.accounts[plan.account]) for plan in stretch.plans}
            part = Recorded(stretch, accounts, dict(books.targets))
            found: defaultdict[str, _Rows] = defaultdict(_Rows)
            while row is not None and row[POLL] <= stretch.last_poll and row[_TIMESTAMP] < stretch.end_ms:
                books.add(row)
                found[row[ACCOUNT]].add(row, place[row[_SYMBOL]])
                row = next(stored, None)
            yield part, found


def _begun(account: Account) -> Account:
    """A copy with the positions that are open."""
    held = {symbol: copy(position) for symbol, position in account.positions.items() if position.quantity}
    short_basis = -sum((min(position.basis, ZERO) for position in held.values()), ZERO)
    return Account(account.name, account.currency, account.capital, account.cash, held, short_basis)


class _Rows:
    """The decisions of one account as columns of numbers: there may be millions."""

    def __init__(self) -> None:
        self._whole, self._parts, self._reasons = array("q"), array("d"), dict[int, str]()

    def add(self, row: Decision, symbol: int) -> None:
        filled = row[ORDER_ID] is not None
        if not filled:
            self._reasons[len(self._whole) // 4] = str(row[_REASON])
        self._whole.extend((row[_TIMESTAMP], symbol, row[_SIDE] == OrderSide.BUY, filled))
        amounts = [float(row[column]) for column in _AMOUNTS] if filled else _NO_AMOUNTS
        self._parts.extend((row[_TARGET], row[_BID], row[_ASK], *amounts))

    def side(self, symbols: tuple[str, ...], ticks: Mapping[str, TickSeries]) -> Side:
        times, symbol, buy, filled = np.array(self._whole, np.int64).reshape(-1, 4).T
        target, bid, ask, *amounts = np.array(self._parts, np.float64).reshape(-1, 3 + len(_AMOUNTS)).T
        last = np.empty(len(times))
        for number, name in enumerate(symbols):
            mine, series = symbol == number, ticks[name]
            last[mine] = series.last[np.searchsorted(series.timestamp, times[mine], side="right") - 1]
        chosen = filled == 1
        fills = (times[chosen], symbol[chosen], buy[chosen] == 1, *(column[chosen] for column in amounts))
        return Side.of(Asked(symbol, target, Quotes(times, bid, ask, last)), self._reasons, Trades(symbols, *fills))
