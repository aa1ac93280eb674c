"""The equity of every account over time, from the ledger: what is behind a chart, in doubles.

Everything is read in parts, each of them a short transaction of its own: nothing here keeps the ledger's log from being
written back, and a stop waits for one part at most. SQLite adds up the trades, so that the event loop's thread has the
interpreter for itself. What is appended meanwhile is later than the end that is read first.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from bot.domain import Account, FloatArray, IntArray, iso8601
from bot.repositories import Database, seals
from bot.repositories.books import ACCOUNTS, STANDALONE, accounts_of
from bot.service.inspect import Document

HOUR_MS = 3_600_000
# How many rows of trades or ticks one part may look at.
PART_ROWS = 65_536
# A longer past is cut off: some seconds of reading.
DECISIONS_MAX = 2_000_000
# Rows of the tape that are looked at for the prices of a moment, for each symbol on it.
ROWS_A_SYMBOL = 8

# What each account's fills moved, by the point of the curve that first has it.
_FOLD = """
SELECT
    CASE WHEN timestamp <= :start THEN 0 ELSE (timestamp - :start + :step - 1) / :step END, account, symbol,
    total(CASE side WHEN 'buy' THEN quantity ELSE -quantity END),
    total(CASE side WHEN 'buy' THEN -cost ELSE cost END) - total(fee)
FROM trades WHERE id > :after AND id <= :until AND account <> :standalone GROUP BY 1, 2, 3
"""
_PRICES = """
SELECT symbol_id, last, max(id)
FROM (SELECT id, symbol_id, last FROM ticks WHERE id <= ? ORDER BY id DESC LIMIT ?) GROUP BY symbol_id
"""


@dataclass(slots=True)
class _Work:
    """What is known before the first part: the moments, [N], and where the ledger stood at or before the first one."""

    times: IntArray
    step_ms: int
    deleted: bool
    accounts: dict[str, Account]
    after: int
    until: int
    first_tick: int
    last_tick: int
    scales: dict[int, tuple[str, float]]
    cash: dict[str, FloatArray] = field(default_factory=dict)
    quantities: dict[tuple[str, str], FloatArray] = field(default_factory=dict)
    prices: defaultdict[str, FloatArray] = field(default_factory=lambda: defaultdict(lambda: np.zeros(0)))

    @property
    def points_a_part(self) -> int:
        return max(1, PART_ROWS // (ROWS_A_SYMBOL * max(1, len(self.scales))))

    @property
    def document(self) -> Document:
        return {
            "since": iso8601(int(self.times[0])) if len(self.times) else None,
            "until": iso8601(int(self.times[-1])) if len(self.times) else None,
            "ticks_deleted": self.deleted,
            "timestamps": self.times.tolist(),
        }


async def curve(database: Database, hours: float | None, points: int, known: Mapping[str, float]) -> Document:
    """``timestamps`` (at most ``points`` of them) and each account's equity at each; None where a price is missing.

    Over the last ``hours`` of the ledger (None: all of it), as far back as its ticks are kept. ``known`` are the prices
    now, for symbols that had none in all that time.
    """
    work = await database.run(lambda connection: _begin(connection, hours, points))
    document = work.document
    if not len(work.times):
        return {**document, "accounts": {}}
    for after in range(work.after, work.until, PART_ROWS):
        until = min(after + PART_ROWS, work.until)
        await database.run(partial(_fold, work, after, until))
    each = work.points_a_part
    for start in range(0, len(work.times), each):
        await database.run(partial(_price, work, start, start + each))
    accounts = await database.run(lambda _: _valued(work, known))
    return {**document, "accounts": accounts}


def _begin(connection: sqlite3.Connection, hours: float | None, points: int) -> _Work:
    end_ms, ticks, decisions = connection.execute("SELECT timestamp, ticks, decisions FROM cursor").fetchone()
    base = seals.base(connection).cursor
    first = connection.execute(
        "SELECT timestamp, id FROM ticks WHERE id > ? AND warmup = 0 ORDER BY id LIMIT 1", (base.ticks,)
    ).fetchone()
    tape = connection.execute("SELECT id, symbol, decimals FROM symbols").fetchall()
    scales = {number: (symbol, 10.0**decimals) for number, symbol, decimals in tape}
    if first is None:
        return _Work(np.zeros(0, np.int64), 1, base.ticks > 0, {}, 0, 0, 0, 0, scales)
    wanted_ms = 0 if hours is None else end_ms - round(hours * HOUR_MS)
    start_ms = max(wanted_ms, first[0])
    far = connection.execute("SELECT min(timestamp) FROM seals WHERE decisions >= ?", (decisions - DECISIONS_MAX,))
    if decisions > DECISIONS_MAX:
        start_ms = max(start_ms, far.fetchone()[0] or 0)
    seal = seals.newest(connection, start_ms)
    opened, _ = accounts_of(connection.execute(ACCOUNTS), ())
    sealed, _ = seals.state(connection, seal)
    accounts = {}
    for name, account in opened.items():
        # One that was opened later begins with its capital.
        began = Account(name, account.currency, account.capital, account.capital)
        accounts[name] = sealed.get(name, began)
    step_ms = max(1, -(-(end_ms - start_ms) // (points - 1)))
    times = np.minimum(np.arange(start_ms, end_ms + step_ms, step_ms), end_ms)
    done = seal.cursor.decisions
    return _Work(times, step_ms, base.ticks > 0, accounts, done, decisions, first[1], ticks, scales)


def _fold(work: _Work, after: int, until: int, connection: sqlite3.Connection) -> None:
    given = {"start": int(work.times[0]), "step": work.step_ms, "standalone": STANDALONE}
    size = len(work.times)
    for place, account, symbol, bought, paid in connection.execute(_FOLD, {**given, "after": after, "until": until}):
        at = min(place, size - 1)
        work.cash.setdefault(account, np.zeros(size))[at] += paid
        work.quantities.setdefault((account, symbol), np.zeros(size))[at] += bought


def _price(work: _Work, start: int, end: int, connection: sqlite3.Connection) -> None:
    """The last price of each symbol at some of the moments; NaN where it has none among the latest ticks."""
    limit = ROWS_A_SYMBOL * len(work.scales)
    for place, moment in enumerate(work.times[start:end].tolist(), start):
        work.first_tick = _last_tick(connection, work.first_tick, work.last_tick, moment)
        found = connection.execute(_PRICES, (work.first_tick, limit)).fetchall()
        for number, units, _ in sorted(found, key=lambda row: row[2]):
            symbol, scale = work.scales[number]
            if not len(work.prices[symbol]):
                work.prices[symbol] = np.full(len(work.times), np.nan)
            work.prices[symbol][place] = units / scale


def _last_tick(connection: sqlite3.Connection, low: int, high: int, moment: int) -> int:
    """The last tick up to a moment, no earlier than ``low``, which is one; by halves: the tape is in order of time."""
    while low < high:
        middle = (low + high + 1) // 2
        row = connection.execute("SELECT id, timestamp FROM ticks WHERE id >= ? ORDER BY id LIMIT 1", (middle,))
        tick, timestamp = row.fetchone() or (high, moment + 1)
        if timestamp <= moment:
            low = int(tick)
        else:
            high = middle - 1
    return low


def _valued(work: _Work, known: Mapping[str, float]) -> dict[str, list[float | None]]:
    size = len(work.times)
    worth = {}
    for name, account in work.accounts.items():
        worth[name] = float(account.cash) + np.cumsum(work.cash.get(name, np.zeros(size)))
        for symbol, position in account.positions.items():
            if position.quantity:
                work.quantities.setdefault((name, symbol), np.zeros(size))[0] += float(position.quantity)
    for (name, symbol), changes in work.quantities.items():
        held = np.cumsum(changes)
        # What is left of a position that was closed is the rounding of its sums.
        held[np.abs(held) < 1e-9] = 0.0
        prices = _without_gaps(work.prices.get(symbol), size, known.get(symbol, np.nan))
        if name in worth:
            worth[name] += np.where(held == 0.0, 0.0, held * prices)
    return {
        name: [None if value != value else value for value in np.round(values, 8).tolist()]
        for name, values in worth.items()
    }


def _without_gaps(prices: FloatArray | None, size: int, known: float) -> FloatArray:
    """Each gap filled with the price before it; what is before the first one with that."""
    if prices is None:
        return np.full(size, known)
    seen = np.nonzero(prices == prices)[0]
    latest = np.searchsorted(seen, np.arange(size), side="right") - 1
    filled: FloatArray = prices[seen[np.maximum(latest, 0)]]
    return filled
