"""The log: structlog lines on stderr, for eyes on a terminal and as JSON everywhere else.

Lines are written by a thread of their own from a bounded queue: a reader that stalls costs lines, which are counted,
and never a trade.
"""

from __future__ import annotations

import os
import queue
import select
import threading
from asyncio import CancelledError
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import structlog

from bot.service.plain import Plain, printable, without
from bot.service.stray import gathered

QUEUE_LINES = 10_000
REPEAT_S = 60.0
# What tells one complaint from another is in its first words.
KEY_CHARS_MAX = 500
# Somebody asked for them: these ends are no failures.
WANTED_ENDS: tuple[type[BaseException], ...] = (KeyboardInterrupt, SystemExit, CancelledError)
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "exception": 3, "critical": 2}
_LOUD = {"warning", "error", "critical", "exception"}
_CLOSE_WAIT_S = 1.0


class LineWriter:
    """A file-like end for structlog that never waits. ``told`` is the text for a count of lines that were lost."""

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
        reported = failed = 0
        ended = False
        while not ended:
            text = self._queue.get()
            ended = text is None
            lost = self.dropped + failed - reported if ended or self._queue.empty() else 0
            told = self._told(lost) if lost else ""
            try:
                self._write((text or "") + told)
            except (OSError, ValueError):
                # The reader is gone or the disk full: the daemon is not here for its log, so it goes on without.
                failed += not ended
            else:
                reported += lost


def _writer_to(stream: TextIO | None) -> Callable[[str], object]:
    """Writes to the descriptor itself where there is one: what a buffer holds, the interpreter waits for at its end."""
    if stream is None:
        return lambda text: None
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return stream.write

    torn = False

    def write(text: str) -> None:
        nonlocal torn
        # What a full disk cut off is a line by itself, and not the beginning of the next one.
        data = b"\n" * torn + text.encode(errors="backslashreplace")
        while data:
            try:
                written = os.write(descriptor, data)
            except BlockingIOError:
                # Whoever shares it has set it so; this thread may wait.
                select.select([], [descriptor], [])
                continue
            data = data[written:]
            torn = bool(data)

    return write


class Repeats:
    """A processor that lets a warning or error through once a minute and counts what it held back in between."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._seen: dict[tuple[str, ...], tuple[float, int]] = {}

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if method not in _LOUD:
            return event
        key = (
            str(event.get("event"))[:KEY_CHARS_MAX],
            str(event.get("error", event.get("reason", "")))[:KEY_CHARS_MAX],
            str(event.get("strategy", "")),
        )
        now = self._monotonic()
        last, held = self._seen.get(key, (-REPEAT_S, 0))
        if now - last < REPEAT_S:
            self._seen[key] = (last, held + 1)
            raise structlog.DropEvent
        if len(self._seen) > 1000:
            self._seen.clear()
        self._seen[key] = (now, 0)
        if held:
            event["repeated"] = held + event.get("repeated", 0)
        return event


class Threshold:
    """A processor that drops what is below a level, which may change while it is in use."""

    def __init__(self, level: str) -> None:
        self.level = level

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if _LEVELS.get(method, _LEVELS["error"]) < _LEVELS[self.level]:
            raise structlog.DropEvent
        return event


class OneLine:
    """A processor: one event is one line, whatever a symbol, a venue's message or a traceback holds, and none of the
    secrets is in it. Time, level and what happened come first, for whoever reads the JSON after all."""

    def __init__(self, secrets: Collection[str]) -> None:
        self._clean = without(secrets)

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        plain = Plain(self._clean)
        shown = {key: plain.value(event.pop(key)) for key in ("timestamp", "level", "event")}
        trace = event.pop("traceback", None)
        # There is room for so much, and the traceback is what whoever reads it needs.
        last = {} if trace is None else {"traceback": plain.traceback(trace)}
        return {**shown, **{printable(key): plain.value(value) for key, value in event.items()}, **last}


@contextmanager
def logging_to(
    stream: TextIO | None,
    level: str | Threshold,
    form: str,
    monotonic: Callable[[], float],
    *,
    secrets: Collection[str] = (),
) -> Iterator[structlog.typing.FilteringBoundLogger]:
    """A logger at ``level`` in ``form`` ("auto": console on a terminal, else JSON), flushed at the end.

    Each of ``secrets`` becomes ***. What libraries log, warn of, and what a thread dies of is told in it too.
    """
    terminal = stream is not None and stream.isatty()
    console = form == "console" or (form == "auto" and terminal)
    colors = terminal and "NO_COLOR" not in os.environ
    render: Any = structlog.processors.JSONRenderer()
    if console:
        render = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=16, sort_keys=False)
    prefix = priority_prefix(stream)
    dress: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=True),
        _exception_as_field,
        OneLine(secrets),
        lambda logger, method, event: prefix(method) + render(logger, method, event),
    ]

    def told(count: int) -> str:
        event: Any = {"event": "log lines dropped", "count": count}
        for step in dress:
            event = step(None, "warning", event)
        return f"{event}\n"

    writer = LineWriter(stream, told)
    logger = structlog.wrap_logger(
        structlog.WriteLogger(writer),  # type: ignore[arg-type]
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS["debug"]),
        processors=[level if isinstance(level, Threshold) else Threshold(level), Repeats(monotonic), *dress],
        cache_logger_on_first_use=True,
    )
    try:
        with gathered(logger):
            yield logger
    finally:
        writer.close()


def priority_prefix(stream: TextIO | None, environ: Mapping[str, str] = os.environ) -> Callable[[str], str]:
    """What goes in front of a line of a level, so that the journal knows the level too (`journalctl -p warning`).

    The journal takes it from the beginning of a line only, where no text of anybody else stands. Nothing, where the
    stream does not lead to the journal.
    """
    try:
        found = os.fstat(stream.fileno()) if stream is not None else None
    except (OSError, ValueError):
        found = None
    if found is None or environ.get("JOURNAL_STREAM") != f"{found.st_dev}:{found.st_ino}":
        return lambda level: ""
    return lambda level: f"<{_PRIORITIES[level]}>"


class Crashed(Exception):
    """A mistake in the program has ended the daemon; the log has its traceback."""


@contextmanager
def crashes_told(
    log: structlog.typing.FilteringBoundLogger, foreseen: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Makes one line of an exception that nobody has foreseen, and raises Crashed in its place."""
    try:
        yield
    except (*foreseen, *WANTED_ENDS):
        raise
    # What is no Exception at all, too: a library in another language panics with one.
    except BaseException as error:
        log.critical("crashed", error=f"{type(error).__name__}: {error}", exc_info=error)
        raise Crashed from error


def _exception_as_field(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A traceback as a field like any other, its line ends escaped with the rest."""
    event = structlog.processors.format_exc_info(logger, method, event)
    if "exception" in event:
        event["traceback"] = event.pop("exception")
    return event
