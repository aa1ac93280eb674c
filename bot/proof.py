"""What audit and verify have to say of a ledger, as documents that JSON can hold."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from bot.domain import plain
from bot.repositories import Database, LedgerError, audit, open_database, seals
from bot.repositories.books import Books
from bot.repositories.errors import EXIT_LEDGER_BROKEN, RowsAltered
from bot.repositories.standing import Head
from bot.repositories.worker import InlineWorker
from bot.verify import replayed

Document = dict[str, Any]


@asynccontextmanager
async def snapshot_of(path: str | os.PathLike[str]) -> AsyncIterator[Database]:
    """A ledger as it is at one moment, whatever a daemon writes to it meanwhile."""
    async with open_database(path, read_only=True, worker=InlineWorker) as source, source.snapshot():
        source.cursor.set((await source.run(Head.read)).cursor.values())
        yield source


async def audited(path: str | os.PathLike[str]) -> Document:
    """The whole ledger added up again, as a document: ``ok``, and its counts and sums or the first ``error``.

    Raises LedgerError only where there is no ledger to add up.
    """
    try:
        async with snapshot_of(path) as source:
            return {"ok": True, **await _sums(source, await source.run(audit.whole))}
    except LedgerError as error:
        if error.exit_code != EXIT_LEDGER_BROKEN:
            raise
        return {"ok": False, "ledger": str(path), "exit_code": error.exit_code, **await told(path, error)}


async def told(path: str | os.PathLike[str], error: LedgerError) -> Document:
    """What is wrong with a ledger; where a hash says that some row is, a replay says which one."""
    document: Document = {"error": str(error)}
    if isinstance(error, RowsAltered):
        # It is only to tell more of a ledger that is known to be broken: it may not be possible.
        with suppress(Exception):
            async with snapshot_of(path) as source:
                seal = await source.run(lambda connection: seals.before_decision(connection, error.first))
                difference = (await replayed(source, seal)).difference
            if difference is not None:
                document["error"] = f"{error}; by a replay it is {difference}"
                document["difference"] = difference.document()
    return document


async def verified(path: str | os.PathLike[str], *, steps: bool = False) -> Document:
    """Replays the tape through the loop, each run with its recorded configuration, and compares every decision.

    With ``steps`` one poll at a time, as it ran live; without, in blocks.
    """
    async with snapshot_of(path) as source:
        try:
            proof = await replayed(source, steps=steps)
        except (ArithmeticError, LookupError, TypeError, ValueError) as damage:
            # A damaged row may hold anything.
            raise LedgerError(f"{path} is damaged: {damage!r}") from damage
        told = (await source.run(Head.read)).digest
    error = proof.error
    if error is None and proof.unrecorded:
        error = f"{proof.unrecorded} polls have no tape (storage.record_ticks = false): nobody can replay them"
    return {
        "ok": error is None,
        "first_poll": proof.first_poll,
        "polls": proof.polls,
        "decisions": proof.decisions,
        "digest": told,
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
