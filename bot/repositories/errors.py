"""What can go wrong with a ledger file, each with the exit code that the service manager is told."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

EXIT_LEDGER_BROKEN = 65
EXIT_LEDGER_LOCKED = 73
EXIT_STORAGE = 74
EXIT_TRY_AGAIN = 75
EXIT_CONFIGURATION = 78


class LedgerError(Exception):
    """A ledger that cannot be used; the message is one line for the user."""

    exit_code = EXIT_LEDGER_BROKEN


class RowsAltered(LedgerError):
    """Some row of signals, orders or trades is not the one that was written; which one, only a replay can tell."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(f"of the decisions {first} to {last} (signals, orders, trades) one was altered")
        self.first, self.last = first, last


class LedgerTaken(LedgerError):
    """Its files were removed, replaced or written to by somebody else while it was in use."""


class LedgerTouched(LedgerTaken):
    """It is the same file, but somebody else wrote to it."""


class ForeignFile(LedgerError):
    """The file is not a ledger."""


class LedgerMissing(LedgerError):
    """There is no ledger to read yet."""

    exit_code = 1


class LedgerLocked(LedgerError):
    """Another process writes to it."""

    exit_code = EXIT_LEDGER_LOCKED


class LedgerBusy(LedgerError):
    """Another program holds a lock on it for the moment; the daemon waits, and at its start may be started again."""

    exit_code = EXIT_TRY_AGAIN


class LedgerAhead(LedgerError):
    """It ends later than the clock says it is."""

    exit_code = EXIT_TRY_AGAIN


class LedgerPath(LedgerError):
    """Its path cannot be one of a ledger."""

    exit_code = EXIT_CONFIGURATION


class PricesTooFine(ValueError):
    """The tape cannot hold these prices exactly."""


class StorageFull(LedgerError):
    """There is no room, or no right to write, for the moment; the daemon waits until there is."""

    exit_code = EXIT_STORAGE


class StorageFailed(LedgerError):
    """The disk is full, read-only or failing."""

    exit_code = EXIT_STORAGE


class SchemaNewer(LedgerError):
    """It was written by a later version."""

    exit_code = EXIT_CONFIGURATION


class CapitalChanged(LedgerError):
    """The configured starting capital or currency is not the one that the ledger was opened with."""

    exit_code = EXIT_CONFIGURATION


_STORAGE_ERRNO = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EDQUOT}


def translate(error: BaseException, path: Path) -> BaseException:
    """The LedgerError that says in words what an error of SQLite or of the system means for the ledger at ``path``."""
    if isinstance(error, OSError):
        if error.errno in _STORAGE_ERRNO:
            return StorageFailed(f"cannot write the ledger {path}: {error.strerror}")
        return LedgerPath(f"storage.path: cannot open {path}: {error.strerror}")
    if not isinstance(error, sqlite3.Error):
        return error
    name = getattr(error, "sqlite_errorname", None) or ""
    # Text that is none is found by Python, which gives it no name; a table that is gone is a mistake in the SQL.
    if any(words in str(error) for words in ("decode", "no such table", "no such column")):
        name = "SQLITE_CORRUPT"
    if name.startswith("SQLITE_CANTOPEN") and not path.exists():
        return LedgerMissing(f"there is no ledger at {path} yet: start `paperloop run` first, or set storage.path")
    for beginnings, kind, text in _SQLITE_ERRORS:
        if name.startswith(beginnings):
            return kind(f"{text.format(path=path)} [{name}]")
    return error


_SQLITE_ERRORS: tuple[tuple[tuple[str, ...], type[LedgerError], str], ...] = (
    (("SQLITE_READONLY_DIRECTORY", "SQLITE_READONLY_CANTINIT"), StorageFailed, "cannot write to the folder of {path}"),
    (("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"), StorageFull, "the disk is full: {path} cannot grow"),
    (("SQLITE_READONLY", "SQLITE_IOERR_WRITE"), StorageFull, "the disk refuses to write {path}"),
    # An fsync that failed may have dropped what it should have written: only a new start knows what is there.
    (("SQLITE_IOERR", "SQLITE_PERM"), StorageFailed, "the disk fails to read or write {path}"),
    (("SQLITE_CANTOPEN",), StorageFailed, "cannot open {path}"),
    (("SQLITE_BUSY", "SQLITE_LOCKED"), LedgerBusy, "another program holds a lock on {path}"),
    (("SQLITE_NOTADB",), ForeignFile, "{path} is not a ledger: it is no SQLite file"),
    (("SQLITE_CORRUPT",), LedgerError, "{path} is damaged"),
)
