"""The command line as a real process: a clean environment, bounded waits, and never a process left behind."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM
from types import TracebackType
from typing import IO, Any, Self

from bot.clock import SystemClock
from tests.integration.forks import forked

# Set by the option --new-processes: no forks.
NEW_PROCESSES = "NEW_PROCESSES"
MAIN = Path(__file__).resolve().parents[2] / "main.py"
WAIT_S_MAX = 30.0
POLL_S = 0.01

monotonic = SystemClock().monotonic
_never = threading.Event()


def pause(seconds: float) -> None:
    _never.wait(seconds)


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S_MAX) -> None:
    end = monotonic() + timeout_s
    while not condition():
        assert monotonic() < end, f"{what}: not within {timeout_s:g} s"
        pause(POLL_S)


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, str]:
        """The words of a run, by name; a line that is no part of a summary shows as one too many."""
        return dict(line.split(maxsplit=1) for line in self.out.splitlines())

    @property
    def document(self) -> Any:
        return json.loads(self.out, parse_constant=_no_json)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line, parse_constant=_no_json) for line in self.err.splitlines()]


def _no_json(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


class Daemon:
    """``python main.py ARGUMENTS`` in ``folder``, killed at the end of the block if it is still there.

    ``program`` stands in for main.py; ``before`` is a command that starts it, and is killed with what it started.
    """

    def __init__(
        self,
        *arguments: str,
        folder: Path,
        python: tuple[str, ...] = (),
        program: tuple[str, ...] = (str(MAIN),),
        before: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        stdout: int | IO[str] = subprocess.PIPE,
        stderr: int | IO[str] = subprocess.PIPE,
    ) -> None:
        self._process = subprocess.Popen(
            [*before, sys.executable, *python, *program, *arguments],
            cwd=folder,
            env=_clean(folder, environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            start_new_session=bool(before),
        )
        self._leads = bool(before)
        self.pid = self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Fails at once, with its last words, if the process ends before that."""
        wait_until(lambda: self.ended or condition(), what)
        assert condition(), f"{what}: it ended before with {self.finish()}"

    def finish(self, timeout_s: float = WAIT_S_MAX) -> Result:
        """Reads what is left to the end."""
        out, err = self._process.communicate(timeout=timeout_s)
        return Result(self._process.returncode, out or "", err or "")

    def stop(self, number: int = SIGTERM, timeout_s: float = WAIT_S_MAX) -> Result:
        self.send(number)
        return self.finish(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.ended:
            if self._leads:
                os.killpg(self.pid, SIGKILL)
            else:
                self._process.kill()
            self._process.wait(WAIT_S_MAX)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


class ServedDaemon(Daemon):
    """One with its endpoint enabled, which tells in its log where that is."""

    def __init__(self, *arguments: str, folder: Path) -> None:
        self._log = folder / "stderr"
        with self._log.open("w") as stderr:
            super().__init__(*arguments, folder=folder, stderr=stderr)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The whole lines of its log."""
        whole, _, _ = self._log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    @property
    def address(self) -> str:
        self.wait_until(lambda: any(event["event"] == "http" for event in self.events), "the address in the log")
        return next(str(event["at"]) for event in self.events if event["event"] == "http")


def _clean(folder: Path, more: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", **more}


def paperloop(*arguments: str, folder: Path, environment: Mapping[str, str] | None = None) -> Result:
    """A command that ends by itself: in a fork, unless it is given what a start may look at."""
    if environment is None and not os.environ.get(NEW_PROCESSES):
        return Result(*forked(arguments, folder, _clean(folder, {}), WAIT_S_MAX))
    with Daemon(*arguments, folder=folder, environment=environment) as process:
        return process.finish()


def together(calls: Sequence[Sequence[str]], folder: Path) -> list[Result]:
    """Commands that have nothing to do with each other, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda call: paperloop(*call, folder=folder), calls))


def settings(**keys: object) -> list[str]:
    """``--set`` for each key; two underscores stand for the dot."""
    return [word for key, value in keys.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


def rows(ledger: Path, query: str) -> list[tuple[Any, ...]]:
    """What the file holds, read beside a running daemon."""
    with closing(sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open; not any more, if it has ended."""
    try:
        return any(os.readlink(handle) == str(path) for handle in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return False


def polls_in(ledger: Path) -> int:
    """How many polls are committed; 0 as long as there is no ledger to ask."""
    try:
        return int(rows(ledger, "SELECT polls FROM cursor")[0][0])
    except sqlite3.OperationalError:
        return 0


def books(ledger: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All that must be alike in two ledgers of one tape."""
    return {table: rows(ledger, f"SELECT * FROM {table} ORDER BY id") for table in ("signals", "orders", "trades")}  # noqa: S608


def tape(ledger: Path) -> list[tuple[Any, ...]]:
    return rows(ledger, "SELECT * FROM ticks ORDER BY rowid")
