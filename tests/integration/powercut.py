"""The power-cut simulator: every state that the disk could hold at any system call of a daemon that has run.

What was fsynced is there. Of what was written since, a disk may have kept nothing, everything, the first few, any few,
or one that is torn between two of its sectors. This models writes and fsyncs file by file, not the loss of directory
entries: a file is there as soon as it was made, and gone as soon as it was removed.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from tests.integration.strace import Event, Opened, Removed, Resized, Synced, Told, Written

SECTOR_BYTES = 512
SEED = 20_250_101
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
COUNTED = ("ticks", "signals", "orders", "trades")

Change = Written | Resized
Random = np.random.Generator


class Reported(NamedTuple):
    """A row that the daemon's log has told of, with all that was told."""

    table: str
    id: int
    told: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """``lost``: acknowledged, and not or not so in the file. ``broken``: what must not be in any file."""

    lost: list[Reported]
    broken: list[str]


def reported(lines: Iterable[str | bytes]) -> list[Reported]:
    """What the lines of a JSON log acknowledge. The last words of a failed start are no JSON."""
    rows = []
    for line in map(json.loads, (line for line in lines if line[:1] in {"{", b"{"})):
        if line["event"] == "trade":
            told = tuple(line[name] for name in ("account", "symbol", "side", "amount", "price", "fee", "pnl"))
            rows.append(Reported("trades", line["id"], told))
        elif line["event"] == "signal refused":
            told = tuple(line[name] for name in ("account", "symbol", "target", "reason"))
            rows.append(Reported("signals", line["id"], told))
    return rows


def check_state(ledger: Path, acknowledged: Sequence[Reported]) -> Findings:
    """Opens a ledger as its next reader would, and holds it against what was acknowledged."""
    try:
        with closing(sqlite3.connect(ledger)) as connection:
            if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                # The schema is one transaction: before it there is nothing, and nothing to lose.
                return Findings(list(acknowledged), [])
            if corrupt := [text for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok"]:
                return Findings(list(acknowledged), corrupt)
            stored = _stored(connection)
            return Findings([row for row in acknowledged if row not in stored], _half(connection))
    except sqlite3.DatabaseError as error:
        return Findings(list(acknowledged), [f"{type(error).__name__}: {error}"])


def _stored(connection: sqlite3.Connection) -> set[Reported]:
    trades = connection.execute("SELECT id, account, symbol, side, quantity, price, fee, pnl FROM trades")
    refused = connection.execute("SELECT id, account, symbol, target, reason FROM signals WHERE verdict = 'refused'")
    # The log rounds what the ledger holds exactly.
    rows = {
        Reported("trades", number, (*words, float(quantity), float(price), round(float(fee), 8), round(float(pnl), 8)))
        for number, *words, quantity, price, fee, pnl in trades
    }
    return rows | {Reported("signals", number, tuple(told)) for number, *told in refused}


def _half(connection: sqlite3.Connection) -> list[str]:
    found = []
    counts = {
        name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608 - constants
        for name in COUNTED
    }
    cursor = connection.execute(f"SELECT {', '.join(COUNTED)} FROM cursor").fetchone()  # noqa: S608 - constants
    if cursor != tuple(counts.values()):
        found.append(f"the cursor counts {cursor}, the tables hold {counts}")
    if counts["trades"] != counts["orders"]:
        found.append(f"{counts['trades']} trades of {counts['orders']} orders")
    return found


@dataclass(slots=True)
class File:
    """``synced`` is on the disk; ``waiting`` may be or not."""

    synced: bytearray = field(default_factory=bytearray)
    waiting: list[Change] = field(default_factory=list)

    def sync(self) -> None:
        for change in self.waiting:
            _apply(self.synced, change)
        self.waiting.clear()

    def after_cut(self, kept: Callable[[list[Change], Random], list[Change]], random: Random) -> bytearray:
        content = self.synced.copy()
        for change in kept(self.waiting, random):
            _apply(content, change)
        return content


def _apply(content: bytearray, change: Change) -> None:
    start = change.size if isinstance(change, Resized) else change.offset
    content.extend(bytes(max(0, start - len(content))))
    if isinstance(change, Resized):
        del content[start:]
    else:
        content[start : start + len(change.data)] = change.data


def nothing(waiting: list[Change], random: Random) -> list[Change]:
    return []


def everything(waiting: list[Change], random: Random) -> list[Change]:
    return waiting


def first_few(waiting: list[Change], random: Random) -> list[Change]:
    return waiting[: random.integers(len(waiting) + 1)]


def any_few(waiting: list[Change], random: Random) -> list[Change]:
    """Written back in another order than they were written in."""
    return [change for change in waiting if random.random() < 0.5]


def torn(waiting: list[Change], random: Random) -> list[Change]:
    """The first few, and of the next one any few sectors."""
    whole = first_few(waiting, random)
    return [*whole, *any_few([part for change in waiting[len(whole) :][:1] for part in _sectors(change)], random)]


def _sectors(change: Change) -> list[Change]:
    if isinstance(change, Resized):
        return [change]
    end = change.offset + len(change.data)
    edges = [change.offset, *range((change.offset // SECTOR_BYTES + 1) * SECTOR_BYTES, end, SECTOR_BYTES), end]
    return [
        Written(change.file, start, change.data[start - change.offset : stop - change.offset])
        for start, stop in pairwise(edges)
    ]


KEPT = (nothing, everything, first_few, any_few, torn)


class Disk:
    """What the files hold and may hold, and what the daemon has acknowledged so far."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.acknowledged: list[Reported] = []
        self._line = b""

    def happens(self, event: Event) -> None:
        match event:
            case Opened(name):
                self.files.setdefault(name, File())
            case Written(name) | Resized(name):
                self.files.setdefault(name, File()).waiting.append(event)
            case Synced(name):
                self.files[name].sync()
            case Removed(name):
                del self.files[name]
            case Told(data):
                *lines, self._line = (self._line + data).split(b"\n")
                self.acknowledged += reported(lines)

    def uncut(self) -> dict[str, bytes]:
        """The files as the daemon sees them."""
        return {name: bytes(file.after_cut(everything, np.random.default_rng())) for name, file in self.files.items()}

    def cut(self, folder: Path, random: Random) -> None:
        """Leaves in ``folder`` what a power cut could have left at this moment."""
        for name, file in self.files.items():
            (folder / name).write_bytes(file.after_cut(KEPT[random.integers(len(KEPT))], random))


@dataclass(slots=True)
class Outcome:
    """``lossy`` states lack something acknowledged, ``broken`` ones are half or corrupt; the texts tell where."""

    states: int = 0
    lossy: int = 0
    broken: int = 0
    lost_max: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, where: str, findings: Findings) -> None:
        self.states += 1
        self.lossy += bool(findings.lost)
        self.broken += bool(findings.broken)
        self.lost_max = max(self.lost_max, len(findings.lost))
        if (findings.lost or findings.broken) and len(self.first) < 5:
            self.first.append(f"{where}: lost {findings.lost[:3]}, broken {findings.broken}")


def cut_power(happened: Sequence[Event], ledger: str, states: int, seed: int = SEED) -> Outcome:
    """Looks at so many states, spread evenly over what happened. A state is a function of the seed and its number."""
    disk, outcome = Disk(), Outcome()
    with TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as top:
        for done, event in enumerate(happened, start=1):
            disk.happens(event)
            while outcome.states < states * done // len(happened):
                folder = Path(top, str(outcome.states))
                folder.mkdir()
                disk.cut(folder, np.random.default_rng((seed, outcome.states)))
                where = f"state {outcome.states} of {states}, seed {seed}, after event {done} of {len(happened)}"
                outcome.add(where, check_state(folder / ledger, disk.acknowledged))
                for file in folder.iterdir():
                    file.unlink()
                folder.rmdir()
    return outcome
