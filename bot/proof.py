"""Proves a ledger: adds it up again, and replays its tape through the loop to compare every decision."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from bot.clock import VirtualClock
from bot.compose import plans_of, recorded_markets, recorded_settings, trading_loop
from bot.domain import Account, IntArray, Market, Signal, plain, quote_currency
from bot.feeds import SessionFeed, TapePart
from bot.loop import BLOCK_TICKS, Pace
from bot.ports import Status
from bot.repositories import (
    AccountRepository,
    Database,
    LedgerError,
    RunRepository,
    audit,
    connect,
    digest,
    open_database,
    seals,
)
from bot.repositories.books import STANDALONE, Books
from bot.repositories.decisions import WIDTH
from bot.repositories.errors import EXIT_LEDGER_BROKEN, RowsAltered
from bot.repositories.seals import Seal
from bot.repositories.shadow import Difference, Shadow, SourceTape
from bot.repositories.standing import Aside, Head, Standing
from bot.repositories.worker import InlineWorker
from bot.settings import Settings

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Proof:
    """What a replay found. ``first_poll`` is where it began: 1, or the start of a tape whose older part was deleted;
    ``unrecorded`` polls had no tape."""

    first_poll: int
    polls: int
    decisions: int
    digest: str
    unrecorded: int = 0
    difference: Difference | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A run of the daemon with the polls and the ticks that it recorded."""

    settings: Settings
    markets: Mapping[str, Market]
    last_poll: int
    last_tick: int


@asynccontextmanager
async def _snapshot(path: str | os.PathLike[str]) -> AsyncIterator[Database]:
    """A ledger as it is at one moment, whatever a daemon writes to it meanwhile."""
    async with open_database(path, read_only=True, worker=InlineWorker) as source, source.snapshot():
        source.cursor.set((await source.run(Head.read)).cursor.values())
        yield source


async def audited(path: str | os.PathLike[str]) -> Document:
    """The whole ledger added up again, as a document: ``ok``, and its counts and sums or the first ``error``.

    Raises LedgerError only where there is no ledger to add up.
    """
    try:
        async with _snapshot(path) as source:
            return {"ok": True, **await _sums(source, await source.run(audit.whole))}
    except LedgerError as error:
        if error.exit_code != EXIT_LEDGER_BROKEN:
            raise
        return {"ok": False, "exit_code": error.exit_code, **await told(path, error)}


async def told(path: str | os.PathLike[str], error: LedgerError) -> Document:
    """What is wrong with a ledger; where a hash says that some row is, a replay says which one."""
    document: Document = {"error": str(error)}
    if isinstance(error, RowsAltered):
        # It is only to tell more of a ledger that is known to be broken: it may not be possible.
        with suppress(Exception):
            async with _snapshot(path) as source:
                seal = await source.run(lambda connection: seals.before_decision(connection, error.first))
                difference = (await _replayed(source, seal, steps=False)).difference
            if difference is not None:
                document["error"] = f"{error}; by a replay it is {difference}"
                document["difference"] = difference.document()
    return document


async def verified(path: str | os.PathLike[str], *, steps: bool = False) -> Document:
    """Replays the tape through the loop, each run with its recorded configuration, and compares every decision.

    With ``steps`` one poll at a time, as it ran live; without, in blocks.
    """
    async with _snapshot(path) as source:
        proof = await _replayed(source, None, steps)
    error = proof.error
    if error is None and proof.difference is not None:
        error = f"the replay decides otherwise at {proof.difference}"
    elif error is None and proof.unrecorded:
        error = f"{proof.unrecorded} polls have no tape (storage.record_ticks = false): nobody can replay them"
    return {
        "ok": error is None,
        "first_poll": proof.first_poll,
        "polls": proof.polls,
        "decisions": proof.decisions,
        "digest": proof.digest,
        "unrecorded_polls": proof.unrecorded,
        "error": error,
        "difference": proof.difference and proof.difference.document(),
    }


async def _sums(source: Database, books: Books) -> Document:
    cursor = source.cursor
    accounts = dict(sorted(books.accounts.items()))
    (seals_found,) = await source.fetch("SELECT count(*) FROM seals")
    return {
        "ledger": str(source.path),
        "digest": (await source.run(Head.read)).digest,
        "polls": cursor.polls,
        "ticks": cursor.ticks,
        "signals": cursor.signals,
        "orders": cursor.orders,
        "trades": cursor.trades,
        "seals": seals_found[0],
        "accounts": [
            {
                "account": name,
                "currency": account.currency,
                "capital": plain(account.capital),
                "realised": plain(books.realised[name]),
                "fees": plain(books.fees[name]),
                "cash": plain(account.cash),
            }
            for name, account in accounts.items()
        ],
        "positions": [
            {
                "account": name,
                "symbol": symbol,
                "quantity": plain(position.quantity),
                "cost": plain(position.basis),
            }
            for name, account in accounts.items()
            for symbol, position in sorted(account.positions.items())
            if position.quantity
        ],
    }


async def _replayed(source: Database, start: Seal | None, steps: bool) -> Proof:
    head = await source.run(Head.read)
    base = await source.run(seals.base)
    if start is None or start.id < base.id:
        start = base
    sessions = await _sessions(source, start)
    scratch = await InlineWorker.start(connect.scratch)
    try:
        shadow = Shadow(source, scratch, _standing(start))
        await _begin(shadow, source, start)
        tape = digest.of_ticks(start.tape_seed, start.cursor.ticks)
        span = await SourceTape(source, shadow.cursor).read(tape.count, start.cursor.ticks - tape.count)
        tape.add(_hashed(span))
        unrecorded, difference, error = 0, None, None
        try:
            for session in sessions:
                if session.settings.storage.record_ticks:
                    await _replay(source, shadow, session, tape, steps)
                else:
                    unrecorded += await _skip(source, shadow, session)
            left = await shadow.following(1)
            if left:
                raise Difference(left[0], None)
            if tape.digest != head.tape_digest:
                raise LedgerError("a price on the tape was altered where it changed no decision; `audit` says where")
        except Difference as found:
            difference = found
        except LedgerError as broken:
            error = str(broken)
        return Proof(
            start.cursor.polls + 1,
            shadow.cursor.polls - start.cursor.polls,
            shadow.cursor.decisions - start.cursor.decisions,
            head.digest,
            unrecorded,
            difference,
            error,
        )
    finally:
        await scratch.close()


async def _sessions(source: Database, start: Seal) -> list[Session]:
    """The runs that recorded anything after a seal, the first one first."""
    runs = await RunRepository(source).all()
    polls = [int(run[2]) for run in runs]
    ends = [*(first - 1 for first in polls[1:]), source.cursor.polls][: len(polls)]
    tape = SourceTape(source, source.cursor)
    found = []
    for run, first, last in zip(runs, polls, ends, strict=True):
        if last >= first and last > start.cursor.polls:
            config = RunRepository.config_of(run)
            tick = await tape.first_poll_after(last) - 1
            found.append(Session(recorded_settings(config), recorded_markets(config), last, tick))
    if source.cursor.polls > start.cursor.polls and not found:
        raise LedgerError("the table runs does not say which configuration the polls were decided by")
    return found


def _standing(start: Seal) -> Standing:
    """Where a replay begins to write: its hashes do not matter, only what it compares does."""
    running = digest.of_decisions(WIDTH, start.seed, start.cursor.decisions)
    tape = digest.of_ticks(start.tape_seed, start.cursor.ticks)
    sealed = (start.cursor.decisions, start.cursor.ticks)
    return Standing(start.cursor.values(), running, tape, sealed, Aside(0, "", ""))


async def _begin(shadow: Shadow, source: Database, start: Seal) -> None:
    """The accounts as they were at the seal; decisions are compared from there on."""
    await shadow.begin()
    accounts, targets = await source.run(lambda connection: seals.state(connection, start))
    await _save(shadow, accounts, targets)
    source.cursor.ticks = start.cursor.ticks


async def _save(shadow: Shadow, accounts: Mapping[str, Account], targets: Mapping[tuple[str, str], float]) -> None:
    repository = AccountRepository(shadow)
    for account in accounts.values():
        if account.currency:
            repository.save(account)
            for position in account.positions.values():
                repository.save_position(account.name, position, targets[account.name, position.symbol])
    await shadow.commit()


async def _replay(
    source: Database, shadow: Shadow, session: Session, hashed: digest.RunningDigest, steps: bool
) -> None:
    settings = session.settings
    tape = SourceTape(source, shadow.cursor)
    symbols = settings.feed.symbols
    part = TapePart(tape, symbols, source.cursor.ticks, session.last_tick, lambda rows: hashed.add(_hashed(rows)))
    clock = VirtualClock(0, 1 if steps else max(1, BLOCK_TICKS // len(symbols)))
    pace = Pace(settings.feed.poll_interval_ms, until_poll=session.last_poll)
    feed = SessionFeed(part, session.markets)
    loop = await trading_loop(settings, plans_of(settings), shadow, tape, feed, clock, pace, _Silent())
    await loop.run()
    if shadow.cursor.polls != session.last_poll:
        raise LedgerError(f"the tape ends at poll {shadow.cursor.polls}, the run went on to {session.last_poll}")


async def _skip(source: Database, shadow: Shadow, session: Session) -> int:
    """A run that kept no tape: its decisions are taken as they are, and how many polls it had."""
    quote = quote_currency(session.settings.feed.symbols[0])
    wanted = [Account(entry.account, quote, entry.capital, entry.capital) for entry in session.settings.strategy]
    repository = AccountRepository(shadow)
    await repository.open(wanted)
    books = Books((), await repository.load(), dict(await repository.targets()))
    query = "SELECT count(*) FROM signals WHERE poll > ? AND poll <= ? AND account <> ?"
    rows = await source.fetch(query, (shadow.cursor.polls, session.last_poll, STANDALONE))
    for decision in await shadow.following(rows[0][0]):
        books.add(decision)
        shadow.cursor.decisions = decision[0]
    polls = session.last_poll - shadow.cursor.polls
    shadow.cursor.polls = session.last_poll
    await _save(shadow, books.accounts, books.targets)
    return polls


def _hashed(rows: IntArray) -> IntArray:
    """Rows of the tape as they are hashed: without their ids."""
    return rows[:, : digest.TICK_WIDTH].ravel()


class _Silent:
    """An observer that has seen it all before."""

    def filled(self, signal: Signal, order: Mapping[str, Any]) -> None: ...
    def refused(self, signal: Signal, reason: str) -> None: ...
    def interrupted(self, error: Exception, retry_s: float) -> None: ...
    def resumed(self, outage_s: float, failures: int) -> None: ...
    def stepped(self, status: Status) -> None: ...
