"""This machine: Python and SQLite, the ledger's folder, its rights and its disk, and the ledger itself."""

from __future__ import annotations

import os
import platform
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bot.app import CLOCK_TOLERANCE_MS
from bot.doctor.check import Check, failed, ok, warning
from bot.domain import iso8601
from bot.ports import Clock
from bot.repositories import Cursor, LedgerBusy, LedgerError, LedgerMissing, lock_owner, open_database
from bot.repositories.connect import SQLITE_NEEDED, log_path, real_path
from bot.repositories.lock import lock_path
from bot.settings import Settings

BYTES_PER_TICK = 34
MEGABYTE, GIGABYTE = 10**6, 10**9
FREE_MIN, FREE_FEW = 100 * MEGABYTE, GIGABYTE
DAY_S = 86_400
DAYS_MANY = 36_500

# Two connections that write and checkpoint at an unlucky moment can damage a file: mended in these, and later ones.
_WAL_MENDED = (3, 51, 3)
_WAL_BACKPORTS = ((3, 44, 6), (3, 50, 7))
# Their locks or their shared memory cannot be relied on, and a ledger needs both.
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "afs"}


def of_python() -> Iterator[Check]:
    yield ok("python", f"Python {platform.python_version()}", version=platform.python_version())


def of_sqlite(version: tuple[int, int, int] = sqlite3.sqlite_version_info[:3]) -> Iterator[Check]:
    text = ".".join(map(str, version))
    if version < SQLITE_NEEDED:
        needed = ".".join(map(str, SQLITE_NEEDED[:2]))
        yield failed("sqlite", f"SQLite {text}: a ledger needs {needed}; install a newer Python", version=text)
    elif version >= _WAL_MENDED or any(version[:2] == fix[:2] and version >= fix for fix in _WAL_BACKPORTS):
        yield ok("sqlite", f"SQLite {text}", version=text)
    else:
        told = "let only the daemon write to the ledger (before 3.51.3 two writers can damage a file)"
        yield ok("sqlite", f"SQLite {text}; {told}", version=text)


def of_folder(settings: Settings) -> Iterator[Check]:
    """Whether a ledger can be written where it is to be: a file is made there and taken away again."""
    try:
        ledger = real_path(settings.storage.path)
    except (LedgerError, OSError) as error:
        yield failed("ledger path", str(error))
        return
    folder = nearest(ledger.parent)
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".paperloop-doctor-") as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        told = f"cannot write to {folder}: {error.strerror}; give its rights to this user or set another storage.path"
        yield failed("ledger path", told, path=str(ledger))
        return
    for path in (ledger, log_path(ledger), lock_path(ledger)):
        if refusal := _refuses(path):
            yield failed(
                "ledger path", f"cannot write {path}: {refusal}; give it to this user (chown)", path=str(ledger)
            )
            return
    if (kind := _file_system(folder)) in _NETWORK:
        told = f"{folder} is on {kind}, on whose locks SQLite cannot rely: set storage.path to a disk of this machine"
        yield warning("ledger path", told, path=str(ledger))
    elif folder != ledger.parent:
        yield ok("ledger path", f"{ledger} can be written; its folder will be made", path=str(ledger))
    else:
        yield ok("ledger path", f"{ledger} can be written", path=str(ledger))


def nearest(folder: Path) -> Path:
    """The folder, or the first above it that is there."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def _refuses(path: Path) -> str | None:
    """Why a file that is there cannot be opened for writing. Nobody in this process may have it open by then: SQLite
    would lose its locks when it is closed here."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.strerror
    return None


def _file_system(folder: Path, table: Path = Path("/proc/self/mounts")) -> str:
    """The kind of file system, by Linux's name for it; empty where that is not told."""
    try:
        mounts = [line.split() for line in table.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return ""
    # The last of those that fit best lies above the others.
    fitting = [(len(mount[1]), mount[2]) for mount in mounts if folder.is_relative_to(_unescaped(mount[1]))]
    longest = max((length for length, _ in fitting), default=0)
    return next((kind for length, kind in reversed(fitting) if length == longest), "")


def _unescaped(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def of_rights(settings: Settings) -> Iterator[Check]:
    """Who else may read the ledger, or replace it."""
    ledger = Path(settings.storage.path).resolve()
    problems = []
    for path in (ledger, log_path(ledger)):
        try:
            found = path.stat()
        except OSError:
            continue
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o077:
            may = "change" if mode & 0o022 else "read"
            problems.append(f"others may {may} {path} (mode {mode:03o}): chmod 600 '{path}'")
        if found.st_uid != os.geteuid():
            problems.append(f"{path} belongs to user {found.st_uid}, not to you: run as that user")
    folder = ledger.parent
    if folder.is_dir():
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & 0o022:
            problems.append(f"others may write to {folder} (mode {mode:03o}): chmod 700 '{folder}'")
        elif mode & 0o055:
            told = (
                f"others may enter {folder} (mode {mode:03o}): chmod 700 '{folder}', or keep the ledger in a folder of"
            )
            problems.append(f"{told} its own (storage.path)")
    if problems:
        yield from (warning("rights", problem) for problem in problems)
    else:
        yield ok(
            "rights", "the ledger is this user's alone" if ledger.exists() else "the ledger will be this user's alone"
        )


def of_disk(settings: Settings) -> Iterator[Check]:
    ledger = Path(settings.storage.path).resolve()
    try:
        disk = os.statvfs(nearest(ledger.parent))
    except OSError as error:
        yield failed("disk", f"cannot tell how much room there is: {error.strerror}")
        return
    if disk.f_flag & os.ST_RDONLY:
        yield failed("disk", f"{nearest(ledger.parent)} is on a read-only file system: set another storage.path")
        return
    yield room(disk.f_bavail * disk.f_frsize, settings)


def room(free_bytes: int, settings: Settings) -> Check:
    """Whether so much is enough, and for how long."""
    storage, feed = settings.storage, settings.feed
    daily = BYTES_PER_TICK * len(feed.symbols) * DAY_S / feed.poll_interval_s if storage.record_ticks else 0.0
    kept = daily * storage.keep_ticks_days
    days = free_bytes / daily if daily else None
    facts = {"free_bytes": free_bytes, "tape_bytes_per_day": round(daily), "days": days and round(days)}
    text = f"{size(free_bytes)} free; {_tape(daily, days, storage.keep_ticks_days)}"
    if free_bytes < FREE_MIN:
        return failed("disk", f"{text}: make room, the daemon stops trading when it is full", **facts)
    if free_bytes < FREE_FEW or kept > free_bytes:
        return warning("disk", f"{text}: make room, or lower storage.keep_ticks_days", **facts)
    return ok("disk", text, **facts)


def _tape(daily: float, days: float | None, keep_days: int) -> str:
    if days is None:
        return "no tape is recorded (storage.record_ticks)"
    lasts = f"{days:,.0f} days" if days < DAYS_MANY else "more than 100 years"
    until = f" and is kept for {keep_days} days ({size(daily * keep_days)})" if keep_days else ""
    return f"the tape grows by {size(daily)} a day{until}, room for {lasts}"


def size(count: float) -> str:
    for unit, whole in (("GB", GIGABYTE), ("MB", MEGABYTE)):
        if count >= whole:
            return f"{count / whole:,.1f} {unit}"
    return f"{count / 1000:,.0f} kB"


async def of_ledger(settings: Settings, clock: Clock) -> list[Check]:
    """Who writes to it, and whether it can be read, by a connection that a running daemon does not notice."""
    try:
        path = real_path(settings.storage.path)
        owner = lock_owner(path)
        async with open_database(path, read_only=True) as database:
            cursor = database.cursor
    except LedgerMissing:
        return [ok("ledger", "there is none yet; `paperloop run` makes it", running=False)]
    except (LedgerError, OSError) as error:
        return [_unreadable(error)]
    return [_standing(cursor, owner, clock.now_ms(), settings)]


def _unreadable(error: LedgerError | OSError) -> Check:
    if isinstance(error, LedgerBusy):
        return warning("ledger", f"{error}; `paperloop run` waits for that, and gives up after a while")
    return (ok if "earlier version" in str(error) else failed)("ledger", str(error))


def _standing(cursor: Cursor, owner: int | None, now_ms: int, settings: Settings) -> Check:
    used = f"in use by process {owner}" if owner else "not in use"
    facts = {"running": owner is not None, "pid": owner, "polls": cursor.polls, "timestamp": cursor.timestamp}
    if not cursor.polls:
        return ok("ledger", f"{used}, no polls yet", **facts)
    behind_ms = now_ms - cursor.timestamp
    told = f"{used}, {cursor.polls:,} polls up to {iso8601(cursor.timestamp)}"
    if behind_ms < -CLOCK_TOLERANCE_MS and settings.feed.kind != "replay":
        # Prices that are simulated at full speed may be ahead of their time.
        judge = failed if settings.feed.kind == "ccxt" else warning
        return judge("ledger", f"{told}, later than this machine's clock: set it, or another storage.path", **facts)
    if owner and behind_ms > settings.stale_after_ms and settings.feed.kind != "replay":
        text = f"{told}, {behind_ms / 1000:,.0f} s ago: it runs and gets no prices, look at its log"
        return warning("ledger", text, **facts)
    return ok("ledger", told, **facts)
