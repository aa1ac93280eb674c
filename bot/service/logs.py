"""The log: structlog lines on stderr, for eyes on a terminal and as JSON everywhere else.

Lines are written by a thread of their own from a bounded queue: a reader that stalls costs lines, which are counted,
and never a trade.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import structlog

QUEUE_LINES = 10_000
REPEAT_S = 60.0
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_LOUD = {"warning", "error", "critical", "exception"}
_CLOSE_WAIT_S = 1.0


class LineWriter:
    """A file-like end for structlog that never waits. ``told`` renders the count of dropped lines."""

    def __init__(self, stream: TextIO | None, told: Callable[[int], str]) -> None:
        self._write = _writer_to(stream)
        self._told = told
        self._queue: queue.Queue[str | None] = queue.Queue(QUEUE_LINES)
        self._thread = threading.Thread(target=self._drain, name="log-writer", daemon=True)
        self._thread.start()
        self.dropped = 0

    def write(self, text: str) -> None:
        try:
            self._queue.put_nowait(text)
        except queue.Full:
            self.dropped += 1

    def flush(self) -> None:
        """structlog flushes after every line; nothing is buffered here."""

    def close(self) -> None:
        """Writes what waits, within a second; a stuck reader must not hold the exit."""
        try:
            self._queue.put(None, timeout=_CLOSE_WAIT_S)
        except queue.Full:
            return
        self._thread.join(_CLOSE_WAIT_S)

    def _drain(self) -> None:
        reported = 0
        ended = False
        while not ended:
            text = self._queue.get()
            ended = text is None
            if self.dropped > reported and (ended or self._queue.empty()):
                text = (text or "") + self._told(self.dropped - reported) + "\n"
                reported = self.dropped
            # Where the reader is gone: the daemon is not here for its log, so it goes on without.
            with suppress(OSError, ValueError):
                self._write(text or "")


def _writer_to(stream: TextIO | None) -> Callable[[str], object]:
    """Writes to the descriptor itself where there is one: what a buffer holds, the interpreter waits for at its end."""
    if stream is None:
        return lambda text: None
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return stream.write

    def write(text: str) -> None:
        data = text.encode(errors="backslashreplace")
        while data:
            data = data[os.write(descriptor, data) :]

    return write


class Repeats:
    """A processor that lets a warning or error through once a minute and counts what it held back in between."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if method not in _LOUD:
            return event
        key = (str(event.get("event")), str(event.get("error", event.get("reason", ""))))
        now = self._monotonic()
        last, held = self._seen.get(key, (-REPEAT_S, 0))
        if now - last < REPEAT_S:
            self._seen[key] = (last, held + 1)
            raise structlog.DropEvent
        if len(self._seen) > 1000:
            self._seen.clear()
        self._seen[key] = (now, 0)
        if held:
            event["repeated"] = held
        return event


def escape_controls(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """One event is one line: a symbol or a venue's message cannot end it and begin another, nor colour a terminal."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in value)
    return event


def head_first(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Time, level and what happened before the details, for whoever reads the JSON after all."""
    head = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    return {**head, **event}


@contextmanager
def logging_to(
    stream: TextIO | None, level: str, form: str, monotonic: Callable[[], float]
) -> Iterator[structlog.typing.FilteringBoundLogger]:
    """A logger at ``level`` in ``form`` ("auto": console on a terminal, else JSON), flushed at the end."""
    terminal = stream is not None and stream.isatty()
    console = form == "console" or (form == "auto" and terminal)
    colors = terminal and "NO_COLOR" not in os.environ
    render: Any = structlog.processors.JSONRenderer()
    if console:
        render = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=16, sort_keys=False)
    dress: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=True),
        _one_line_exception,
        escape_controls,
        head_first,
        render,
    ]

    def told(count: int) -> str:
        event: Any = {"event": "log lines dropped", "count": count}
        for step in dress:
            event = step(None, "warning", event)
        return str(event)

    writer = LineWriter(stream, told)
    logger = structlog.wrap_logger(
        structlog.WriteLogger(writer),  # type: ignore[arg-type]
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        processors=[Repeats(monotonic), *dress],
        cache_logger_on_first_use=True,
    )
    try:
        yield logger
    finally:
        writer.close()


def _one_line_exception(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A traceback as a field like any other, its line ends escaped with the rest."""
    event = structlog.processors.format_exc_info(logger, method, event)
    if "exception" in event:
        event["traceback"] = event.pop("exception")
    return event
