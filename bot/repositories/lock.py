"""One writer a ledger, across processes."""

from __future__ import annotations

import fcntl
import os
import select
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from bot.repositories.errors import LedgerLocked, translate


def lock_path(ledger: Path) -> Path:
    return ledger.with_name(ledger.name + ".lock")


class LedgerLock:
    """An advisory lock on ``<ledger>.lock``. The kernel drops it with the process, however that ends, so a lock file
    that is left behind means nothing; it holds the owner's process id for whoever wants to know.

    The ledger itself is locked too: a hard link gives one file two names, and so two lock files.
    """

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._handles: list[int] = []

    def __enter__(self) -> int:
        """The handle of the ledger, to read from: whoever opens and closes it once more drops SQLite's own locks."""
        try:
            self._lock(lock_path(self._ledger), os.O_RDWR | os.O_CREAT)
            self._lock(self._ledger, os.O_RDONLY)
        except BaseException:
            self._close()
            raise
        # A disk without room for a number must not keep anybody from reading what the ledger holds.
        with suppress(OSError):
            os.ftruncate(self._handles[0], 0)
            os.write(self._handles[0], str(os.getpid()).encode())
        return self._handles[1]

    def _lock(self, path: Path, flags: int) -> None:
        try:
            handle = os.open(path, flags | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise translate(error, self._ledger) from error
        self._handles.append(handle)
        # lock_owner, asked by a reader, holds the lock for some microseconds: not a reason to refuse a start.
        for _ in range(50):
            try:
                return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                select.select([], [], [], 0.002)
        owner = lock_owner(self._ledger)
        raise LedgerLocked(f"the ledger {self._ledger} is in use by process {owner or 'unknown'}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            os.ftruncate(self._handles[0], 0)
        self._close()

    def _close(self) -> None:
        """After SQLite has closed the ledger: closing another handle of it drops the locks that SQLite holds."""
        while self._handles:
            os.close(self._handles.pop())


def lock_owner(ledger: Path) -> int | None:
    """The process that writes to the ledger now, or None."""
    try:
        handle = os.open(lock_path(ledger), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(handle, 32).decode(errors="replace").strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(handle)
    return None
