"""How far something that takes long is, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

import rich.progress
from rich.console import Console
from rich.markup import escape

from bot.domain import iso8601

LINE_EVERY_S = 10.0
# Nobody needs a bar for what is over before it is read.
BAR_AFTER_S = 1.0


class Bar:
    """For people who watch."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TextColumn("{task.fields[at]}  {task.fields[rows]:,} candles"),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
        )
        self._task: rich.progress.TaskID | None = None
        self._rows = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begun(self, name: str, missing_ms: int) -> None:
        self._rows = 0
        self._task = self._bar.add_task(escape(name), total=max(1, missing_ms), at="", rows=0)
        if not missing_ms:
            self._bar.update(self._task, completed=1, at="nothing is missing")

    def went_on(self, done_ms: int, at_ms: int, rows: int) -> None:
        self._rows += rows
        if self._task is not None:
            self._bar.update(self._task, advance=done_ms, at=iso8601(at_ms)[:16], rows=self._rows)

    def told(self, text: str) -> None:
        self._console.print(f"paperloop: {escape(text)}", highlight=False, soft_wrap=True)

    def ended(self) -> None:
        self._task = None


class Lines:
    """For a log."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._name, self._missing_ms, self._done_ms, self._rows = "", 0, 0, 0
        self._told_s = monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def begun(self, name: str, missing_ms: int) -> None:
        self._name, self._missing_ms, self._done_ms, self._rows = name, missing_ms, 0, 0
        self._told_s = self._monotonic()

    def went_on(self, done_ms: int, at_ms: int, rows: int) -> None:
        self._done_ms += done_ms
        self._rows += rows
        if self._monotonic() - self._told_s >= LINE_EVERY_S:
            self._told_s = self._monotonic()
            part = self._done_ms / max(1, self._missing_ms)
            self.told(f"{self._name}: {part:.0%}, up to {iso8601(at_ms)[:16]}Z, {self._rows:,} candles")

    def told(self, text: str) -> None:
        sys.stderr.write(f"paperloop: {text}\n")
        sys.stderr.flush()

    def ended(self) -> None:
        pass


class Work:
    """A bar for the part of 1 that is done, shown only for what takes longer than a moment."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._began_s = monotonic()
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            transient=True,
        )
        self._task: rich.progress.TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._bar.stop()

    def at(self, what: str, part: float) -> None:
        if self._task is None:
            if self._monotonic() - self._began_s < BAR_AFTER_S:
                return
            self._task = self._bar.add_task("", total=1.0)
            self._bar.start()
        self._bar.update(self._task, description=escape(what), completed=part)
