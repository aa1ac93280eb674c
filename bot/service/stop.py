"""SIGINT, SIGTERM and SIGHUP."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType


class StopSignals:
    """The first signal asks for a clean stop, the second ends the process at once; SIGHUP asks to read the settings
    again, or, where there is a terminal, for a stop, however often: it has been closed.

    Made before anything slow is imported or opened; a stop that comes in between is kept for whoever listens.
    """

    def __init__(self) -> None:
        self._requested = self._reread = False
        self._listener: Callable[[], object] | None = None
        self._reader: Callable[[], object] | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)
        # Under nohup it is ignored, and stays so.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._handle if sys.stdin is not None and sys.stdin.isatty() else self._read)

    def listen(self, listener: Callable[[], object]) -> None:
        """Calls ``listener`` at the first signal, or now if it was before."""
        self._listener = listener
        if self._requested:
            listener()

    def reread(self, reader: Callable[[], object]) -> None:
        """Calls ``reader`` whenever the settings are to be read again, and now if that was asked for before."""
        self._reader = reader
        if self._reread:
            reader()

    def release(self) -> None:
        """Nobody listens any more: a signal that comes now finds everything done."""
        self._listener = self._reader = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            if number == signal.SIGHUP:
                # A terminal that is closed says so twice: the kernel, and the shell in it.
                return
            # No cleaning up: the ledger is safe at any moment, and this is somebody who no longer wants to wait.
            os._exit(128 + number)
        self._requested = True
        if self._listener is not None:
            self._listener()

    def _read(self, number: int, frame: FrameType | None) -> None:
        self._reread = True
        if self._reader is not None:
            self._reader()
