"""What libraries and the interpreter would write to stderr by themselves, in any shape: as log lines of ours."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from structlog.typing import FilteringBoundLogger


class _Forward(logging.Handler):
    """Warnings and errors of the logging module."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        tell = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - somebody else's format string
            text = str(record.msg)
        error = record.exc_info[1] if record.exc_info else None
        tell("a library says", logger=record.name, error=text, exc_info=error)


@contextmanager
def gathered(log: FilteringBoundLogger) -> Iterator[None]:
    """As long as the block lasts; ``on_loop`` does the same for an event loop."""
    handler = _Forward(log)
    root = logging.getLogger()
    before = sys.unraisablehook, threading.excepthook, warnings.showwarning

    def unraisable(args: Any) -> None:
        # As it is: what was half destroyed may not be able to show itself.
        log.error("an error that nobody could be told of", where=args.object, exc_info=args.exc_value)

    def in_thread(args: threading.ExceptHookArgs) -> None:
        log.error("a thread died", thread=args.thread.name if args.thread else None, exc_info=args.exc_value)

    def warned(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        log.warning("a library warns", kind=category.__name__, error=str(message), at=f"{filename}:{lineno}")

    root.addHandler(handler)
    sys.unraisablehook, threading.excepthook, warnings.showwarning = unraisable, in_thread, warned
    try:
        yield
    finally:
        root.removeHandler(handler)
        sys.unraisablehook, threading.excepthook, warnings.showwarning = before


def on_loop(loop: asyncio.AbstractEventLoop, log: FilteringBoundLogger) -> None:
    """What a callback or a forgotten task raises."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        log.error("an error in the event loop", error=context.get("message"), exc_info=context.get("exception"))

    loop.set_exception_handler(handle)
