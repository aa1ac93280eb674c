"""Connections to a ledger file: what it must be, how SQLite is set, and the way up from an older schema."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Literal

from bot.repositories import audit, decisions
from bot.repositories.errors import ForeignFile, LedgerError, LedgerMissing, LedgerPath, SchemaNewer, translate

APPLICATION_ID = 0x50504C50  # "PPLP"
MIGRATIONS = sorted((Path(__file__).parent / "migrations").glob("*.sql"))
# Short enough that a stop is not held up by somebody's forgotten transaction; the loop tries again by itself.
BUSY_TIMEOUT_S = 2.0
LOG_BYTES = 8 * 2**20
SQLITE_NEEDED = (3, 37, 0)

# FULL: at NORMAL a power cut takes back trades that were reported.
Synchronous = Literal["FULL", "NORMAL", "OFF"]


def real_path(path: str | os.PathLike[str]) -> Path:
    if os.fspath(path) == ":memory:":
        raise ValueError("a ledger is a file: memory cannot prove anything tomorrow")
    real = Path(path).resolve()
    if real.is_dir() or real.parent.is_file():
        raise LedgerPath(f"storage.path: {real} cannot be a ledger, it is a folder or below a file")
    return real


def create(path: Path) -> None:
    """The folder and the file for their owner's eyes only; SQLite gives its side files the same rights."""
    log = log_path(path)
    if size(log) and not size(path):
        # A copy that failed, or a file that was deleted: SQLite would take the log for a stranger's and delete it.
        raise LedgerError(
            f"{path} is empty or gone, but {log.name} beside it holds a part of a ledger: restore it first"
        )
    try:
        make_private(path.parent)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise translate(error, path) from error


def make_private(folder: Path) -> None:
    """Makes a folder, and what is missing above it, for its owner alone: who may write above could put another in its
    place."""
    missing = list(takewhile(lambda each: not each.exists(), (folder, *folder.parents)))
    for each in reversed(missing or [folder]):
        each.mkdir(mode=0o700, exist_ok=True)


def log_path(path: Path) -> Path:
    """The write-ahead log of a ledger."""
    return path.with_name(path.name + "-wal")


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def writer(path: Path, synchronous: Synchronous = "FULL") -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < SQLITE_NEEDED:
        raise LedgerError(f"Python has SQLite {sqlite3.sqlite_version}, a ledger needs 3.37 or newer")
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        is_current(connection, path)
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        # What somebody's long transaction made the log grow to is given back once it is over.
        connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        _migrate(connection, path)
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(decisions.STAGE)
    except BaseException:
        connection.close()
        raise
    return connection


def scratch() -> sqlite3.Connection:
    """Empty books that are gone with their connection: what a replay keeps its sums in."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    _migrate(connection, Path(":memory:"))
    connection.execute(decisions.STAGE)
    return connection


def unchecked_reader(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", timeout=BUSY_TIMEOUT_S, isolation_level=None, uri=True
    )
    connection.execute("PRAGMA query_only = ON")
    return connection


def reader(path: Path) -> sqlite3.Connection:
    connection = unchecked_reader(path)
    try:
        if not is_current(connection, path):
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if not version:
                raise LedgerMissing(f"there is no ledger in {path} yet: it is an empty file")
            raise LedgerError(
                f"{path} was written by an earlier version (schema {version}): `paperloop run` brings it up to"
                f" schema {len(MIGRATIONS)} and keeps a copy of it"
            )
    except BaseException:
        connection.close()
        raise
    return connection


def checkpoint(connection: sqlite3.Connection) -> None:
    # Somebody reads: then the next writer does it.
    connection.execute("PRAGMA busy_timeout = 0")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        end(connection)
        raise


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """What is read inside is of one moment, whatever a daemon writes meanwhile."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        end(connection)


def end(connection: sqlite3.Connection) -> None:
    """Ends a transaction without writing. A disk that fails has ended it; a second end would hide the first error."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def is_current(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether a file is a ledger of this version; raises ForeignFile, or SchemaNewer, for what can never be one."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != APPLICATION_ID and (application or tables):
        raise ForeignFile(f"{path} is a database of another program, not a ledger")
    if version > len(MIGRATIONS):
        raise SchemaNewer(
            f"{path} was written by a later version (schema {version}, this version knows {len(MIGRATIONS)}):"
            " update Paperloop or choose another storage.path"
        )
    return bool(version == len(MIGRATIONS))


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if 0 < version < len(MIGRATIONS):
        _back_up(connection, path.with_name(f"{path.name}.schema{version}"))
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        with transaction(connection):
            for statement in _statements(script.read_text(encoding="utf-8")):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")
            if number == len(MIGRATIONS):
                audit.sign(connection)


def _back_up(connection: sqlite3.Connection, copy: Path) -> None:
    """A whole copy under its name, or none: a copy that was cut short must not pass for one."""
    if copy.exists():
        return
    part = copy.with_name(copy.name + ".part")
    with suppress(FileNotFoundError):
        part.unlink()
    # SQLite would make the copy with the rights that the umask leaves.
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    connection.execute("VACUUM INTO ?", (str(part),))
    with closing(sqlite3.connect(part)) as written:
        found = written.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        raise LedgerError(f"the copy of the ledger before its migration, {part}, is damaged: {found}")
    for name in (part, copy.parent):
        handle = os.open(name, os.O_RDONLY)
        try:
            os.fsync(handle)
            if name == part:
                part.rename(copy)
        finally:
            os.close(handle)


def _statements(script: str) -> list[str]:
    """The statements of a script one by one: executescript would commit the transaction they belong to."""
    statements, part = [], ""
    for line in script.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            statements.append(part.strip())
            part = ""
    return statements
