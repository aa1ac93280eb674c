"""The sums of a ledger's entries, added up once more and held against those that are stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Any

from bot.domain import ZERO, Account, OrderSide, Position, quote_currency
from bot.repositories.decisions import Decision
from bot.repositories.errors import LedgerError

Row = tuple[Any, ...]
Targets = dict[tuple[str, str], float]
# Orders that are made from Python, without a loop, are booked here: positions only, there is no cash.
STANDALONE = "manual"
_SIDES = {side.value: side for side in OrderSide}
ACCOUNTS = "SELECT name, currency, capital, cash FROM accounts ORDER BY name"
POSITIONS = (
    "SELECT account, symbol, quantity, basis, total_buys, total_sells, target FROM positions ORDER BY account, symbol"
)


def accounts_of(
    accounts: Iterable[tuple[Any, ...]], positions: Iterable[tuple[Any, ...]]
) -> tuple[dict[str, Account], Targets]:
    """Accounts with their positions, and the targets, from rows of the two tables. Raises LedgerError."""
    try:
        return _accounts_of(accounts, positions)
    except (InvalidOperation, TypeError) as error:
        raise LedgerError(f"an account or a position holds what is no number: {error!r}") from None


def _accounts_of(accounts: Iterable[Row], positions: Iterable[Row]) -> tuple[dict[str, Account], Targets]:
    found = {row[0]: Account(row[0], row[1], Decimal(row[2]), Decimal(row[3])) for row in accounts}
    targets: Targets = {}
    for name, symbol, *amounts, target in positions:
        account = found.setdefault(name, Account(name, "", ZERO, ZERO))
        position = account.positions[symbol] = Position(symbol, *map(Decimal, amounts))
        account.short_basis -= min(position.basis, ZERO)
        targets[name, symbol] = target
    return found, targets


class Books:
    """Accounts as their entries make them. ``deposits`` are all accounts of the ledger; one that was opened later than
    ``accounts`` begins with its capital. ``fees`` and ``realised`` are sums of what was entered here, by account."""

    def __init__(self, deposits: Iterable[Account], accounts: dict[str, Account], targets: Targets) -> None:
        self.accounts, self.targets = accounts, targets
        self.fees: defaultdict[str, Decimal] = defaultdict(Decimal)
        self.realised: defaultdict[str, Decimal] = defaultdict(Decimal)
        for account in deposits:
            if account.currency:
                opened = Account(account.name, account.currency, account.capital, account.capital)
                accounts.setdefault(account.name, opened)

    def add(self, decision: Decision) -> None:
        """Enters a decision. Raises LedgerError where its cost or its profit is not what its price makes it."""
        # Millions of them: one unpacking instead of a name an access.
        number, _, _, name, symbol, target, _, _, _, order, side, _, amount, _, price, cost, fee, currency, pnl = (
            decision
        )
        account = self.accounts.get(name)
        if account is None:
            if name != STANDALONE:
                raise LedgerError(f"decision {number}: there is no account {name!r}")
            account = self.accounts[name] = Account(name, "", ZERO, ZERO)
        if account.currency:
            self.targets[name, symbol] = target
        else:
            self.targets.setdefault((name, symbol), 0.0)
        position = account.position(symbol)
        if order is None:
            return
        try:
            quantity, price, cost, fee, pnl = Decimal(amount), Decimal(price), Decimal(cost), Decimal(fee), Decimal(pnl)
            side = _SIDES[side]
        except (InvalidOperation, KeyError, TypeError, ValueError) as error:
            raise LedgerError(f"trade {number}: {error!r}") from None
        if not (price > 0 and quantity > 0 and fee >= 0):
            raise LedgerError(f"trade {number}: price, quantity and fee cannot be {price}, {quantity} and {fee}")
        if price * quantity != cost:
            raise LedgerError(f"trade {number}: {quantity} at {price} cost {price * quantity}, not {cost}")
        if currency != (account.currency or quote_currency(symbol)):
            raise LedgerError(f"trade {number}: its fee is in {currency}")
        realised = position.apply_fill(side, quantity, price)
        if realised != pnl:
            raise LedgerError(f"trade {number}: the realised profit is {realised}, not {pnl}")
        self.fees[name] += fee
        self.realised[name] += pnl
        if account.currency:
            account.cash += (-cost if side is OrderSide.BUY else cost) - fee

    def compare(self, accounts: dict[str, Account], targets: Targets, when: str = "") -> None:
        """Raises LedgerError for the first stored sum that is not the one of these books."""
        for name in sorted(self.accounts.keys() | accounts.keys()):
            mine, stored = self.accounts.get(name), accounts.get(name)
            if mine is None or stored is None:
                if mine is not None and when:
                    continue  # Opened after the seal.
                raise LedgerError(f"account {name}{when}: {'its row is gone' if mine else 'no entry made it'}")
            self._compare(mine, stored, when)
        for key in sorted(self.targets.keys() | targets.keys()):
            if self.targets.get(key) != targets.get(key):
                raise LedgerError(
                    f"position of {key[0]} in {key[1]}{when}: the last target is {self.targets.get(key)}, not"
                    f" {targets.get(key)}"
                )

    @staticmethod
    def _compare(mine: Account, stored: Account, when: str) -> None:
        for column in ("currency", "capital", "cash"):
            if (found := getattr(stored, column)) != (made := getattr(mine, column)):
                raise LedgerError(f"account {mine.name}{when}: {column} is {found}, its entries make {made}")
        for symbol in sorted(mine.positions.keys() | stored.positions.keys()):
            made, found = mine.positions.get(symbol), stored.positions.get(symbol)
            if made != found:
                raise LedgerError(
                    f"position of {mine.name} in {symbol}{when}: {_told(found)}, its entries make {_told(made)}"
                )


def _told(position: Position | None) -> str:
    if position is None:
        return "none"
    amounts = (position.quantity, position.basis, position.total_buys, position.total_sells)
    return "quantity {} at a cost of {}, bought {}, sold {}".format(*amounts)
