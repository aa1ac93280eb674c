"""One writer a ledger, across processes."""

from __future__ import annotations

import fcntl
import os
import select
from pathlib import Path
from types import TracebackType

from bot.repositories.errors import LedgerLocked, translate


def lock_path(ledger: Path) -> Path:
    return ledger.with_name(ledger.name + ".lock")


class LedgerLock:
    """An advisory lock on ``<ledger>.lock``. The kernel drops it with the process, however that ends, so a lock file
    that is left behind means nothing; it holds the owner's process id for whoever wants to know."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._handle = -1

    def __enter__(self) -> None:
        path = lock_path(self._ledger)
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise translate(error, self._ledger) from error
        # lock_owner, asked by a reader, holds the lock for some microseconds: not a reason to refuse a start.
        for _ in range(50):
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                select.select([], [], [], 0.002)
        else:
            os.close(self._handle)
            owner = lock_owner(self._ledger)
            raise LedgerLocked(f"the ledger {self._ledger} is in use by process {owner or 'unknown'}")
        os.ftruncate(self._handle, 0)
        os.write(self._handle, str(os.getpid()).encode())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.ftruncate(self._handle, 0)
        os.close(self._handle)


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
