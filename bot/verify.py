"""Replays a recorded tape through the loop, each run with its own configuration, and compares every decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import localcontext

from bot import __version__
from bot.clock import VirtualClock
from bot.compose import code_of, plans_of, recorded_markets, recorded_settings, trading_loop
from bot.domain import MONEY, Account, IntArray, Market, quote_currency
from bot.engine import Plan
from bot.feeds import SessionFeed, TapePart
from bot.loop import BLOCK_TICKS, Pace
from bot.ports import Silent
from bot.repositories import AccountRepository, Database, LedgerError, RunRepository, connect, digest, seals
from bot.repositories.books import ACCOUNTS, POSITIONS, STANDALONE, Books, Targets, accounts_of
from bot.repositories.decisions import WIDTH
from bot.repositories.seals import Seal
from bot.repositories.shadow import Difference, Shadow, SourceTape
from bot.repositories.standing import Aside, Head, Standing
from bot.repositories.worker import InlineWorker
from bot.settings import Settings


@dataclass(frozen=True, slots=True)
class Session:
    """A run of the daemon, with the first and the last poll, and the last tick, that it recorded."""

    settings: Settings
    markets: Mapping[str, Market]
    plans: list[Plan]
    first_poll: int
    last_poll: int
    last_tick: int
    # What is not as it was when it was recorded, and may be why a replay decides otherwise.
    changed: tuple[str, ...]


@dataclass(slots=True)
class Proof:
    """What a replay found. ``first_poll`` is where it began: 1, or where a tape begins whose older part was deleted;
    ``unrecorded`` polls had no tape."""

    first_poll: int
    polls: int = 0
    decisions: int = 0
    unrecorded: int = 0
    difference: Difference | None = None
    error: str | None = None


async def replayed(source: Database, start: Seal | None = None, *, steps: bool = False) -> Proof:
    """Replays all of a ledger that is open for reading, or what follows a seal; with ``steps`` one poll at a time."""
    base = await source.run(seals.base)
    if start is None or start.id < base.id:
        start = base
    sessions = await sessions_of(source, start)
    scratch = await InlineWorker.start(connect.scratch)
    try:
        replay = Replay(source, Shadow(source, scratch, _standing(start)), start, steps)
        proof = Proof(start.cursor.polls + 1)
        try:
            await replay.run(sessions)
        except Difference as difference:
            proof.difference = difference
            changed = [what for session in sessions for what in session.changed]
            proof.error = "; ".join([f"the replay decides otherwise at {difference}", *dict.fromkeys(changed)])
        except LedgerError as error:
            proof.error = str(error)
        cursor = replay.shadow.cursor
        proof.polls, proof.decisions = cursor.polls - start.cursor.polls, cursor.decisions - start.cursor.decisions
        proof.unrecorded = replay.unrecorded
        return proof
    finally:
        await scratch.close()


async def sessions_of(source: Database, start: Seal) -> list[Session]:
    """The runs that recorded anything after a seal, the first one first."""
    runs = await RunRepository(source).all()
    firsts = [int(run[2]) for run in runs]
    lasts = [*(first - 1 for first in firsts[1:]), source.cursor.polls][: len(firsts)]
    tape = SourceTape(source, source.cursor)
    found = []
    for run, first, last in zip(runs, firsts, lasts, strict=True):
        if last >= first and last > start.cursor.polls:
            config = RunRepository.config_of(run)
            settings = recorded_settings(config)
            plans = plans_of(settings, polled=False)
            tick = await tape.first_poll_after(last) - 1
            changed = _changed(run[3], config.get("code", {}), code_of(plans))
            found.append(Session(settings, recorded_markets(config), plans, first, last, tick, changed))
    if source.cursor.polls > start.cursor.polls and not found:
        raise LedgerError("the table runs does not say which configuration the polls were decided by")
    return found


def _changed(version: str, recorded: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    told = [f"the code of strategy {name} has changed" for name in now if recorded.get(name, now[name]) != now[name]]
    if version != __version__:
        told.append(f"it was recorded by version {version}, this is {__version__}")
    return tuple(told)


def _standing(start: Seal) -> Standing:
    """Where a replay begins to write: its hashes do not matter, only what it compares does."""
    running = digest.of_decisions(WIDTH, start.seed, start.cursor.decisions)
    tape = digest.of_ticks(start.tape_seed, start.cursor.ticks)
    sealed = (start.cursor.decisions, start.cursor.ticks)
    return Standing(start.cursor.values(), running, tape, sealed, Aside(0, "", ""))


class Replay:
    """Runs the loop over a ledger's sessions, one after the other, with the shadow in place of the ledger."""

    def __init__(self, source: Database, shadow: Shadow, start: Seal, steps: bool) -> None:
        self.source, self.shadow = source, shadow
        self.unrecorded = 0
        self._start, self._steps = start, steps
        self._hash = digest.of_ticks(start.tape_seed, start.cursor.ticks)

    async def run(self, sessions: list[Session]) -> None:
        """Raises Difference where a decision is another one, LedgerError where the tape is not what it was."""
        head = await self.source.run(Head.read)
        await self._begin()
        for session in sessions:
            if session.settings.storage.record_ticks:
                await self._replay(session)
            else:
                await self._skip(session)
        if left := await self.shadow.following(1):
            raise Difference(left[0], None)
        if self.shadow.stored_digest.digest != head.digest:
            raise LedgerError("the digest is not that of the signals, orders and trades")
        await self.source.run(head.check)
        await self._compare_sums()
        if self._hash.digest != head.tape_digest:
            raise LedgerError("a price on the tape was altered where it changed no decision; `audit` says where")

    async def _begin(self) -> None:
        """The accounts as they were at the start; decisions are compared from there on."""
        start = self._start
        await self.shadow.begin()
        await self._save(*await self.source.run(lambda connection: seals.state(connection, start)))
        # The hash of the tape goes on from the last whole span before it.
        tape = SourceTape(self.source, self.shadow.cursor)
        self._see(await tape.read(self._hash.count, start.cursor.ticks - self._hash.count))
        self.source.cursor.ticks = start.cursor.ticks

    def _see(self, rows: IntArray) -> None:
        # Without their ids.
        self._hash.add(rows[:, : digest.TICK_WIDTH].ravel())

    async def _replay(self, session: Session) -> None:
        tape = SourceTape(self.source, self.shadow.cursor)
        symbols = session.settings.feed.symbols
        part = TapePart(tape, symbols, self.source.cursor.ticks, session.last_tick, self._see)
        clock = VirtualClock(0, 1 if self._steps else max(1, BLOCK_TICKS // len(symbols)))
        pace = Pace(session.settings.feed.poll_interval_ms, until_poll=session.last_poll)
        feed = SessionFeed(part, session.markets)
        loop = await trading_loop(session.settings, session.plans, self.shadow, tape, feed, clock, pace, Silent())
        await loop.run()
        if self.shadow.cursor.polls != session.last_poll:
            raise LedgerError(f"the tape ends at poll {self.shadow.cursor.polls} of {session.last_poll}")

    async def _skip(self, session: Session) -> None:
        """A run that kept no tape: its decisions are taken as they are."""
        cursor, repository = self.shadow.cursor, AccountRepository(self.shadow)
        quote = quote_currency(session.settings.feed.symbols[0])
        wanted = [Account(entry.account, quote, entry.capital, entry.capital) for entry in session.settings.strategy]
        await repository.open(wanted)
        books = Books((), await repository.load(), await repository.targets())
        query = "SELECT count(*) FROM signals WHERE poll > ? AND poll <= ? AND account <> ?"
        rows = await self.source.fetch(query, (cursor.polls, session.last_poll, STANDALONE))
        with localcontext(MONEY):
            for decision in await self.shadow.following(rows[0][0]):
                books.add(decision)
                cursor.decisions = decision[0]
        self.unrecorded += session.last_poll - cursor.polls
        cursor.polls = session.last_poll
        await self._save(books.accounts, books.targets)

    async def _compare_sums(self) -> None:
        """Accounts, positions and targets as the replay left them, against the stored ones."""
        mine = AccountRepository(self.shadow)
        stored, targets = accounts_of(await self.source.fetch(ACCOUNTS), await self.source.fetch(POSITIONS))
        # Orders made from Python have no account, and nobody can replay them.
        stored.pop(STANDALONE, None)
        books = Books(stored.values(), await mine.load(), await mine.targets())
        books.compare(stored, {key: target for key, target in targets.items() if key[0] != STANDALONE})

    async def _save(self, accounts: Mapping[str, Account], targets: Targets) -> None:
        repository = AccountRepository(self.shadow)
        for account in accounts.values():
            if account.currency:
                repository.save(account)
                for position in account.positions.values():
                    repository.save_position(account.name, position, targets[account.name, position.symbol])
        await self.shadow.commit()
