"""A thread that asks the event loop, once a second, whether it still turns, and says in the log where it hangs."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from structlog.typing import FilteringBoundLogger

ASKED_EVERY_S = 1.0
BLOCKED_AFTER_S = 2.0
FRAMES = 4


class Stalls:
    """A block around a running event loop. ``lag_s`` is how long the loop last took to answer, ``count`` how often it
    was blocked."""

    def __init__(
        self,
        log: FilteringBoundLogger,
        monotonic: Callable[[], float],
        every_s: float = ASKED_EVERY_S,
        blocked_after_s: float = BLOCKED_AFTER_S,
    ) -> None:
        self._log, self._monotonic = log, monotonic
        self._every_s, self._blocked_after_s = every_s, blocked_after_s
        self._ended, self._answered = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stalls", daemon=True)
        self.lag_s = 0.0
        self.count = 0

    def __enter__(self) -> Self:
        self._loop, self._watched = asyncio.get_running_loop(), threading.get_ident()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._answered.set()
        self._thread.join()

    def _watch(self) -> None:
        waits_from_s = self._monotonic()
        while not self._ended.wait(self._every_s):
            self._answered.clear()
            if self._ended.is_set():
                return
            asked_s = self._monotonic()
            self._loop.call_soon_threadsafe(self._answered.set)
            stood_still_s = asked_s - waits_from_s - self._every_s
            if stood_still_s > self._blocked_after_s:
                # This thread did not run either: the process was stopped, the machine suspended, or code that is not
                # Python's held on to the interpreter.
                self._log.warning("the process stood still", for_s=round(stood_still_s, 1))
            elif not self._answered.wait(self._blocked_after_s):
                self._tell(asked_s)
            waits_from_s = self._monotonic()
            self.lag_s = waits_from_s - asked_s

    def _tell(self, asked_s: float) -> None:
        """Tells where the loop hangs, and when it goes on."""
        self.count += 1
        where = _where(sys._current_frames().get(self._watched))
        self._log.warning("the loop is blocked", for_s=round(self._monotonic() - asked_s, 1), at=where)
        self._answered.wait()
        if not self._ended.is_set():
            self._log.warning("the loop goes on", blocked_s=round(self._monotonic() - asked_s, 1), at=where)


def _where(frame: FrameType | None) -> str:
    """The innermost calls, the one that hangs first."""
    calls: list[str] = []
    while frame is not None and len(calls) < FRAMES:
        code = frame.f_code
        calls.append(f"{code.co_name} ({Path(code.co_filename).name}:{frame.f_lineno})")
        frame = frame.f_back
    return " < ".join(calls)
