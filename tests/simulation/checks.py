"""What must be true of a ledger whatever has happened to it, looked at as it grows: every row once."""

from __future__ import annotations

import sqlite3
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from bot.domain import MONEY, Account, OrderSide, Signal
from bot.fills import touch_price
from bot.repositories.decisions import order_id

PRICE_STEP = Decimal("0.01")
Prices = Mapping[str, tuple[float, float, float]]


class Violation(AssertionError):
    """Something that must never happen did."""


class Told(NamedTuple):
    """What an observer was told of a signal: its order's id and price, or why it was refused."""

    signal: Signal
    order: str | None
    price: float | None
    reason: str | None


@dataclass
class Checks:
    """Reads what is new in a ledger and holds it against the rows before it and against what was served and told.

    ``handed`` are the prices that the loop was given, by beat: each time it was asked for one may have its own.
    """

    fee_rate: Decimal
    slippage_bps: Decimal
    handed: defaultdict[int, list[Prices]] = field(default_factory=lambda: defaultdict(list))
    told: deque[Told] = field(default_factory=deque)
    polls: int = 0
    ticks: int = 0
    decisions: int = 0
    trades: int = 0
    timestamp: int = 0
    cash: dict[str, Decimal] = field(default_factory=dict)
    held: dict[tuple[str, str], Decimal] = field(default_factory=dict)
    targets: dict[tuple[str, str], float] = field(default_factory=dict)

    def catch_up(self, path: Path, told_polls: int, accounts: Mapping[str, Account] | None = None) -> None:
        """``told_polls``: the last poll that was reported; only one more may be there, and only after an accident,
        when there are no ``accounts`` in memory any more."""
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file, localcontext(MONEY):
            file.row_factory = sqlite3.Row
            cursor = dict(file.execute("SELECT * FROM cursor").fetchone())
            unsure = cursor["polls"] - told_polls
            require(
                unsure in ((0, 1) if accounts is None else (0,)),
                f"{told_polls} polls were reported, and {cursor['polls']} are in the file",
            )
            self._tape(file, cursor)
            self._decisions(file, told_polls)
            self._cursor(file, cursor)
            self._books(file, accounts)
        for time in [time for time in self.handed if time <= self.timestamp]:
            del self.handed[time]

    def _tape(self, file: sqlite3.Connection, cursor: Mapping[str, Any]) -> None:
        self.quotes: dict[tuple[int, str], tuple[int, float, float]] = {}
        rows = file.execute("SELECT * FROM quotes WHERE id > ? ORDER BY id", (self.ticks,))
        for time, group in groupby(map(tuple, rows), itemgetter(3)):
            ticks = list(group)
            require(
                [row[0] for row in ticks] == [self.ticks + n for n in range(1, len(ticks) + 1)], "ticks are missing"
            )
            self.ticks += len(ticks)
            require(time > self.timestamp, f"ticks are not in the order of time at {time}")
            self.timestamp = time
            ((poll, warmup),) = {(row[1], row[7]) for row in ticks}
            require(poll == self.polls + 1, f"poll {poll} follows {self.polls}")
            self.polls += not warmup
            found = {row[2]: row[4:7] for row in ticks}
            require(found in self.handed[time], f"what is on the tape at {time} is not what was served: {found}")
            if not warmup:
                self.quotes.update({(poll, row[2]): (time, row[4], row[5]) for row in ticks})
        require(self.polls == cursor["polls"], f"the tape ends at poll {self.polls}, the cursor at {cursor['polls']}")
        require(not self.polls or self.timestamp == cursor["timestamp"], "the cursor's time is not the tape's")

    def _decisions(self, file: sqlite3.Connection, told_polls: int) -> None:
        trades = _by(file.execute("SELECT * FROM trades WHERE id > ? ORDER BY id", (self.decisions,)), "id")
        first = order_id(self.decisions)
        orders = _by(file.execute("SELECT * FROM orders WHERE id > ? ORDER BY id", (first,)), "signal_id")
        for row in file.execute("SELECT * FROM signals WHERE id > ? ORDER BY id", (self.decisions,)):
            self.decisions += 1
            signal = Signal._make(tuple(row)[:8])
            require(signal.id == self.decisions, f"signal {signal.id} follows {self.decisions - 1}")
            order, trade = orders.pop(signal.id, None), trades.pop(signal.id, None)
            self._signal(signal, row["verdict"], row["reason"], filled=order is not None and trade is not None)
            if order is not None and trade is not None:
                self._fill(signal, order, trade)
            self._told(signal, row["reason"], trade, told_polls)
        require(not orders and not trades, "there are orders or trades of no signal")
        require(not self.told, f"reported, and not in the file: {self.told}")

    def _signal(self, signal: Signal, verdict: str, reason: str | None, *, filled: bool) -> None:
        key = (signal.account, signal.symbol)
        require((verdict, not reason) in (("filled", True), ("refused", False)), f"{signal}: {verdict}, {reason}")
        require(filled == (verdict == "filled"), f"{signal} is {verdict}, its order or trade says otherwise")
        require(signal.target != self.targets.get(key, 0.0), f"{signal} is no change of target")
        seen = self.quotes.get((signal.poll, signal.symbol))
        require(seen == (signal.timestamp, signal.bid, signal.ask), f"{signal} saw {seen}")
        self.targets[key] = signal.target

    def _fill(self, signal: Signal, order: sqlite3.Row, trade: sqlite3.Row) -> None:
        same = (trade["order_id"], order["id"], trade["account"], trade["symbol"], trade["timestamp"])
        number = order_id(signal.id)
        require(same == (number, number, signal.account, signal.symbol, signal.timestamp), f"{same} is not {signal}")
        price, quantity, fee = Decimal(trade["price"]), Decimal(trade["quantity"]), Decimal(trade["fee"])
        side = OrderSide(trade["side"])
        expected = touch_price(side, signal.bid, signal.ask, self.slippage_bps, PRICE_STEP)
        require(price == expected, f"{signal} was filled at {price}")
        require(quantity > 0 and fee == price * quantity * self.fee_rate, f"{signal}: {quantity} for a fee of {fee}")
        sign, key = (1 if side is OrderSide.BUY else -1), (signal.account, signal.symbol)
        self.trades += 1
        self.cash[signal.account] = self.cash.get(signal.account, Decimal(0)) - sign * price * quantity - fee
        self.held[key] = self.held.get(key, Decimal(0)) + sign * quantity

    def _told(self, signal: Signal, reason: str | None, trade: sqlite3.Row | None, told_polls: int) -> None:
        if self.told and self.told[0].signal.id == signal.id:
            order, price = (trade["order_id"], float(trade["price"])) if trade is not None else (None, None)
            told, found = self.told.popleft(), Told(signal, order, price, reason)
            require(told == found, f"reported as {told}, in the file as {found}")
        else:
            require(signal.poll > told_polls, f"{signal} is in the file, and was not reported")

    def _cursor(self, file: sqlite3.Connection, cursor: Mapping[str, Any]) -> None:
        counted = {"ticks": self.ticks, "decisions": self.decisions, "signals": self.decisions, "trades": self.trades}
        counted["orders"] = self.trades
        require(counted.items() <= cursor.items(), f"the cursor says {cursor}, the rows say {counted}")

    def _books(self, file: sqlite3.Connection, accounts: Mapping[str, Account] | None) -> None:
        capital = {}
        for name, _, deposit, cash in map(tuple, file.execute("SELECT * FROM accounts")):
            capital[name] = Decimal(deposit)
            moved = self.cash.get(name, Decimal(0))
            require(Decimal(cash) == capital[name] + moved, f"{name} has {cash}, its fills say {capital[name] + moved}")
        for row in file.execute("SELECT * FROM positions"):
            key = (row["account"], row["symbol"])
            held = self.held.get(key, Decimal(0))
            require(Decimal(row["quantity"]) == held, f"{key} is {row['quantity']}, its fills say {held}")
            bought = Decimal(row["total_buys"]) - Decimal(row["total_sells"])
            require(bought == held, f"{key} has bought {bought} more than it sold, its fills say {held}")
            require(row["target"] == self.targets.get(key, 0.0), f"{key}: a target of {row['target']}")
        for account in (accounts or {}).values():
            cash = capital[account.name] + self.cash.get(account.name, Decimal(0))
            require(account.cash == cash, f"in memory {account.name} has {account.cash}, in the file {cash}")
            for symbol, position in account.positions.items():
                held = self.held.get((account.name, symbol), Decimal(0))
                require(position.quantity == held, f"in memory {position}, in the file {held}")


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Violation(otherwise)


def _by(rows: Iterator[sqlite3.Row] | Sequence[sqlite3.Row], column: str) -> dict[Any, sqlite3.Row]:
    found: dict[Any, sqlite3.Row] = {}
    for row in rows:
        require(row[column] not in found, f"twice: {tuple(row)}")
        found[row[column]] = row
    return found
