"""Accounts and what they hold: the sums of the ledger's rows, kept so that a start need not add them up again."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from bot.domain import Account, Position, plain
from bot.repositories.books import ACCOUNTS, POSITIONS, accounts_of
from bot.repositories.database import Database
from bot.repositories.errors import CapitalChanged
from bot.repositories.insert import Insert

_SAVE_ACCOUNT = Insert("INSERT INTO accounts VALUES", 4, "ON CONFLICT (name) DO UPDATE SET cash = excluded.cash")
_SAVE_POSITION = Insert(
    "INSERT INTO positions VALUES",
    7,
    "ON CONFLICT (account, symbol) DO UPDATE SET quantity = excluded.quantity, basis = excluded.basis,"
    " total_buys = excluded.total_buys, total_sells = excluded.total_sells, target = excluded.target",
)


class AccountRepository:
    def __init__(self, database: Database) -> None:
        self.database = database
        self._accounts = database.buffer(_SAVE_ACCOUNT)
        self._positions = database.buffer(_SAVE_POSITION)

    async def load(self) -> dict[str, Account]:
        """All accounts with their positions, as the file has them."""
        accounts, _ = accounts_of(*[await self.database.fetch(query) for query in (ACCOUNTS, POSITIONS)])
        return {name: account for name, account in accounts.items() if account.currency}

    async def targets(self) -> dict[tuple[str, str], float]:
        """The last target of each account and symbol."""
        rows = await self.database.fetch("SELECT account, symbol, target FROM positions")
        return {(account, symbol): target for account, symbol, target in rows}

    async def position(self, account: str, symbol: str) -> Position | None:
        query = "SELECT quantity, basis, total_buys, total_sells FROM positions WHERE account = ? AND symbol = ?"
        rows = await self.database.fetch(query, (account, symbol))
        return Position(symbol, *map(Decimal, rows[0])) if rows else None

    def save(self, account: Account) -> None:
        self._accounts.extend((account.name, account.currency, plain(account.capital), plain(account.cash)))

    def save_position(self, account: str, position: Position, target: float = 0.0) -> None:
        self._positions.extend((
            account, position.symbol, plain(position.quantity), plain(position.basis),
            plain(position.total_buys), plain(position.total_sells), target,
        ))  # fmt: skip

    async def open(self, wanted: Iterable[Account]) -> dict[str, Account]:
        """The accounts of this configuration: new ones get their capital as a deposit, known ones are as they were.

        Raises CapitalChanged where the configuration disagrees with the deposit of a ledger in use.
        """
        known = await self.load()
        accounts, opened = {}, False
        for account in wanted:
            found = known.get(account.name)
            if found is None:
                self.save(account)
                opened = True
            elif (found.capital, found.currency) != (account.capital, account.currency):
                raise CapitalChanged(
                    f"account {account.name!r} was opened with {found.capital} {found.currency}, the configuration"
                    f" says {account.capital} {account.currency}: set the capital back, or open a new ledger with"
                    f" --set storage.path=FILE (this one is {self.database.path})"
                )
            accounts[account.name] = found or account
        if opened:
            await self.database.commit()
        return accounts
