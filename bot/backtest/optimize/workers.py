"""Processes that work out the parts of a study, one on each core.

They share the bars: a forked process has those of its parent, and one that starts anew maps them from a file. Only
numbers go between them and their parent, which alone hears of an interrupt, and leaves none of them behind.
"""

from __future__ import annotations

import mmap
import os
import pickle  # nosec B403 # between this process and its own children
import signal
import sys
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from bot.backtest.optimize.study import Part, Study, Worked

StartMethod = Literal["fork", "spawn"]
# Elsewhere the system's libraries may have threads, which a forked process lacks.
START_METHOD: StartMethod = "fork" if sys.platform == "linux" else "spawn"
# For a process that is gone to be known as gone.
_GONE_S = 5.0
# No number lies across two lines of the processor's cache.
_ALIGNMENT = 64

Processes = dict[Connection, BaseProcess]


class WorkerDied(Exception):
    """A process that ended before its work did."""


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work(
    study: Study, parts: Sequence[Part], jobs: int, start_method: StartMethod = START_METHOD
) -> Generator[Worked, None, None]:
    """All parts as they are ready, in any order; with one job in this process itself. Raises WorkerDied."""
    jobs = min(jobs, len(parts))
    if jobs == 1:
        yield from map(study.work, parts)
        return
    with _started(study, jobs, start_method) as processes:
        waiting = iter(parts)
        busy = [connection for connection in processes if _give(connection, processes, next(waiting, None))]
        while busy:
            ready = wait(busy)
            for connection in [each for each in busy if each in ready]:
                answer = _answer(connection, processes)
                if not _give(connection, processes, next(waiting, None)):
                    busy.remove(connection)
                yield answer


@contextmanager
def _started(study: Study, jobs: int, start_method: StartMethod) -> Iterator[Processes]:
    """So many processes, which are gone at the end of the block."""
    processes: Processes = {}
    with ExitStack() as stack:
        content: Study | _Packed = study
        if start_method == "spawn":
            folder = stack.enter_context(TemporaryDirectory(prefix="paperloop-"))
            content = _packed(study, Path(folder) / "arrays")
        stack.callback(_end, processes)
        context = get_context("fork") if start_method == "fork" else get_context("spawn")
        # An interrupt of the terminal reaches them too, and before they know that it is none of their business.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for _ in range(jobs):
                ours, theirs = context.Pipe()
                # A forked process has these too, and would keep its own pipe open when its parent is gone.
                others = [*processes, ours] if start_method == "fork" else []
                process = context.Process(target=_serve, args=(content, theirs, others), daemon=True)
                process.start()
                theirs.close()
                processes[ours] = process
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield processes


def _end(processes: Processes) -> None:
    for connection, process in processes.items():
        process.kill()
        connection.close()
    for process in processes.values():
        process.join()


def _give(connection: Connection, processes: Processes, part: Part | None) -> bool:
    if part is None:
        return False
    try:
        connection.send(part)
    except OSError:
        raise _death(connection, processes) from None
    return True


def _answer(connection: Connection, processes: Processes) -> Worked:
    try:
        answer: Worked | str = connection.recv()
    except (EOFError, OSError):
        raise _death(connection, processes) from None
    if isinstance(answer, str):
        raise RuntimeError(answer)
    return answer


def _death(connection: Connection, processes: Processes) -> WorkerDied:
    process = processes[connection]
    process.join(_GONE_S)
    code = process.exitcode
    how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    hint = "; is there too little memory? --jobs takes fewer at a time" if how == "SIGKILL" else ""
    return WorkerDied(f"one of the {len(processes)} worker processes ended ({how}){hint}")


def _serve(study: Study | _Packed, parent: Connection, others: Sequence[Connection]) -> None:
    """What a worker does until its parent is gone."""
    for connection in others:
        connection.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The result is the parent's, and what somebody's strategy prints is no part of it.
    sys.stdout = sys.stderr
    if isinstance(study, _Packed):
        study = _unpacked(study)
    try:
        while True:
            part = parent.recv()
            try:
                answer: Worked | str = study.work(part)
            except Exception:  # noqa: BLE001 - raised again by the parent
                answer = traceback.format_exc()
            parent.send(answer)
    except (EOFError, OSError):
        return


class _Packed(NamedTuple):
    """A study without its arrays, and where in a file these are."""

    study: bytes
    file: Path
    places: list[slice]


def _packed(study: Study, file: Path) -> _Packed:
    arrays: list[pickle.PickleBuffer] = []
    # A new one: what was worked out of the old one stays here.
    text = pickle.dumps(replace(study), protocol=5, buffer_callback=arrays.append)
    places = []
    with file.open("wb") as output:
        for array in arrays:
            start = output.seek(-(-output.tell() // _ALIGNMENT) * _ALIGNMENT)
            places.append(slice(start, start + output.write(array.raw())))
    return _Packed(text, file, places)


def _unpacked(packed: _Packed) -> Study:
    with packed.file.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    study: Study = pickle.loads(packed.study, buffers=[content[place] for place in packed.places])  # noqa: S301 # nosec B301 # made by this process a moment ago, over a pipe of its own
    return study
