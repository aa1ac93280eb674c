"""SIGINT and SIGTERM."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType


class StopSignals:
    """The first signal asks for a clean stop, the second ends the process at once.

    Made before anything slow is imported or opened; a stop that comes in between is kept for whoever listens.
    """

    def __init__(self) -> None:
        self._requested = False
        self._listener: Callable[[], object] | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def listen(self, listener: Callable[[], object]) -> None:
        """Calls ``listener`` at the first signal, or now if it was before."""
        self._listener = listener
        if self._requested:
            listener()

    def release(self) -> None:
        """Nobody listens any more: a signal that comes now finds everything done."""
        self._listener = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            # No cleaning up: the ledger is safe at any moment, and this is somebody who no longer wants to wait.
            os._exit(128 + number)
        self._requested = True
        if self._listener is not None:
            self._listener()
