"""The ledger: a SQLite file, and one repository for each of its tables."""

from bot.repositories.accounts import AccountRepository
from bot.repositories.cursor import Cursor
from bot.repositories.database import Database, open_database
from bot.repositories.errors import (
    CapitalChanged,
    LedgerAhead,
    LedgerBusy,
    LedgerError,
    LedgerLocked,
    LedgerMissing,
    StorageFull,
)
from bot.repositories.lock import lock_owner
from bot.repositories.orders import OrderRepository
from bot.repositories.retention import Retention
from bot.repositories.runs import RunRepository
from bot.repositories.signals import SignalRepository
from bot.repositories.ticks import TickRepository
from bot.repositories.trades import TradeRepository

__all__ = [
    "AccountRepository",
    "CapitalChanged",
    "Cursor",
    "Database",
    "LedgerAhead",
    "LedgerBusy",
    "LedgerError",
    "LedgerLocked",
    "LedgerMissing",
    "OrderRepository",
    "Retention",
    "RunRepository",
    "SignalRepository",
    "StorageFull",
    "TickRepository",
    "TradeRepository",
    "lock_owner",
    "open_database",
]
