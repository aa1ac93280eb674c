"""Faults of disks, files and neighbours, made to happen to the real daemon.

Wherever it can go on it pauses, says so once, and goes on by itself; wherever it cannot it ends with the exit code that
the service manager knows and one line for people. What it had reported is in the file in either case.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import numpy as np
import pytest

from tests.integration import damage
from tests.integration.daemon import (
    Daemon,
    Result,
    monotonic,
    paperloop,
    pause,
    polls_in,
    rows,
    settings,
    together,
    wait_until,
)
from tests.integration.disks import (
    abort,
    fill,
    frozen,
    immutable,
    journalled_disk,
    make_read_only,
    make_writable,
    small_disk,
)
from tests.integration.proofs import audited, said, said_of, unkept, verified

SYMBOLS = json.dumps([f"{base}/USDT" for base in ("BTC", "ETH", "AAA", "BBB")])
HASTY = '[{name="sma_cross", params={fast=1, slow=2}, equity_fraction=0.2}]'
INTERVAL_S = 0.02
OUTAGE_S = 0.8
# A ledger that was taken away is noticed at the next commit; the rest is for a busy machine.
NOTICED_S_MAX = 15.0
# SQLite waits two seconds for a lock, and so does a stop that comes meanwhile.
STOP_S_MAX = 15.0
FULL = "disk is full|No space left"
PAUSED, RESUMED = "cannot write the ledger", "trading again"
FLIPPED_POLLS = 80
TABLES = ("ticks", "signals", "orders", "trades", "accounts", "positions", "cursor", "symbols")


def live(ledger: Path, **more: object) -> list[str]:
    keys = {"feed__symbols": SYMBOLS, "feed__poll_interval_s": INTERVAL_S, "strategy": HASTY}
    found: list[str] = settings(storage__path=ledger, feed__simulated__volatility=0.002, **(keys | more))
    return found


def at_speed(ledger: Path, polls: int) -> list[str]:
    return [*live(ledger, feed__poll_interval_s=1), "--max-speed", "--until-poll", str(polls)]


class Trader:
    """A daemon at the pace of the wall clock; its log stands outside of whatever is done to its ledger."""

    def __init__(self, daemon: Daemon, ledger: Path, log: Path) -> None:
        self._daemon, self.ledger, self.log = daemon, ledger, log
        self.pid = daemon.pid

    def told(self, *events: str) -> list[dict[str, Any]]:
        return said_of(self.log, *events)

    @property
    def ended(self) -> bool:
        return self._daemon.ended

    def send(self, number: int) -> None:
        self._daemon.send(number)

    def trades_on(self, polls: int = 3) -> None:
        before = polls_in(self.ledger)
        self.waits_for(lambda: polls_in(self.ledger) > before + polls, "further polls")

    def pauses(self) -> None:
        self.waits_for(lambda: bool(self.told(PAUSED)), PAUSED)

    def resumes(self) -> None:
        self.waits_for(lambda: bool(self.told(RESUMED)), RESUMED)
        self.trades_on()

    def waits_for(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(lambda: self._daemon.ended or condition(), what)
        assert condition(), f"{what}: it ended before with {self.finish()}"

    def finish(self, timeout_s: float = 15) -> Result:
        wait_until(lambda: self._daemon.ended, "its end", timeout_s)
        result = self._daemon.finish()
        return Result(result.code, result.out, self.log.read_text())

    def stop(self, number: int = SIGTERM) -> Result:
        self.send(number)
        return self.finish(STOP_S_MAX)


@contextmanager
def trading(ledger: Path, folder: Path, **more: object) -> Iterator[Trader]:
    log = folder / "daemon.log"
    with log.open("w") as stream, Daemon(*live(ledger, **more), folder=folder, stderr=stream) as daemon:
        trader = Trader(daemon, ledger, log)
        trader.waits_for(lambda: len(trader.told("trade")) > 3, "some trades")
        yield trader


def stopped(result: Result) -> None:
    """A clean end."""
    assert "Traceback" not in result.err, result.err
    assert result.code == 0, result
    assert last_words(result) == []


def ended(result: Result, code: int, *words: str) -> None:
    """An end with an exit code and one line that says why: patterns, all of which must be in it."""
    assert "Traceback" not in result.err, result.err
    assert result.code == code, result
    (line,) = last_words(result)
    for word in words:
        assert re.search(word, line), line


def last_words(result: Result) -> list[str]:
    lines = result.err.split("\n")[:-1]
    assert all(line.startswith(("{", "paperloop: ")) for line in lines), result.err
    return [line for line in lines if line.startswith("paperloop: ")]


def in_order(trader: Trader) -> None:
    """All that was reported is in the file, and the books add up."""
    assert unkept(trader.ledger, said(trader.log)) == []
    assert audited(trader.ledger)["ok"]
    assert verified(trader.ledger)


def paused_once(trader: Trader) -> None:
    """It trades nothing, lives, and does not repeat itself."""
    before = polls_in(trader.ledger)
    pause(OUTAGE_S)
    assert polls_in(trader.ledger) == before
    assert len(trader.told(PAUSED)) == 1
    assert trader.told(PAUSED)[0]["level"] == "warning"


class TestNoRoom:
    def test_a_full_disk_is_waited_out(self, tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk") as disk, trading(disk / "ledger.db", tmp_path) as trader:
            ballast = fill(disk)
            trader.pauses()
            paused_once(trader)
            assert paperloop("status", *settings(storage__path=trader.ledger), folder=tmp_path).code == 0
            ballast.unlink()
            trader.resumes()
            stopped(trader.stop())
            assert not list(disk.glob("*-wal"))
            in_order(trader)

    @pytest.mark.parametrize("wait", [True, False], ids=["paused", "at-once"])
    def test_a_stop_on_a_full_disk(self, tmp_path: Path, wait: bool) -> None:
        with small_disk(tmp_path / "disk") as disk, trading(disk / "ledger.db", tmp_path) as trader:
            ballast = fill(disk)
            if wait:
                trader.pauses()
            stopped(trader.stop())
            ballast.unlink()
            in_order(trader)

    def test_a_stop_on_a_disk_that_fills_meanwhile(self, tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk") as disk, trading(disk / "ledger.db", tmp_path) as trader:
            trader.send(SIGTERM)
            ballast = fill(disk)
            stopped(trader.finish())
            ballast.unlink()
            in_order(trader)

    def test_killed_on_a_full_disk(self, tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk") as disk, trading(disk / "ledger.db", tmp_path) as trader:
            ballast = fill(disk)
            trader.stop(SIGKILL)
            again = paperloop(*live(trader.ledger), "--polls", "1", folder=tmp_path)
            ended(again, 74, "ledger.db", FULL)
            ballast.unlink()
            stopped(paperloop(*live(trader.ledger), "--polls", "3", folder=tmp_path))
            in_order(trader)

    def test_a_start_on_a_full_disk(self, tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk") as disk:
            ballast = fill(disk)
            for ledger in (disk / "ledger.db", disk / "new" / "ledger.db"):
                ended(paperloop(*live(ledger), folder=tmp_path), 74, "ledger.db", FULL)
            ballast.unlink()
            stopped(paperloop(*at_speed(disk / "ledger.db", 20), folder=tmp_path))
            assert audited(disk / "ledger.db")["ok"]

    def test_a_ledger_at_rest_on_a_full_disk(self, tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk") as disk:
            ledger = disk / "ledger.db"
            stopped(paperloop(*at_speed(ledger, 300), folder=tmp_path))
            before = ledger.read_bytes()
            fill(disk)
            ended(paperloop(*live(ledger), folder=tmp_path), 74, "ledger.db", FULL)
            assert ledger.read_bytes() == before


class TestReadOnly:
    @pytest.mark.parametrize("exists", [True, False], ids=["ledger", "none-yet"])
    def test_a_start_on_a_read_only_disk(self, tmp_path: Path, exists: bool) -> None:
        with small_disk(tmp_path / "disk") as disk:
            ledger = disk / "ledger.db"
            if exists:
                stopped(paperloop(*at_speed(ledger, 300), folder=tmp_path))
            make_read_only(disk)
            ended(paperloop(*live(ledger), folder=tmp_path), 74, "ledger.db", "ead-only")
            make_writable(disk)
            stopped(paperloop(*at_speed(ledger, 310), folder=tmp_path))
            assert audited(ledger)["ok"]

    def test_a_disk_that_becomes_read_only(self, tmp_path: Path) -> None:
        image = tmp_path / "image"
        with journalled_disk(image, tmp_path / "disk") as disk, trading(disk / "ledger.db", tmp_path) as trader:
            reported = said(trader.log)
            abort(disk)
            wait_until(lambda: trader.ended or bool(trader.told(PAUSED)), PAUSED)
            if trader.ended:
                # It hit a flush, after which nobody may write any more.
                ended(trader.finish(), 74, "SQLITE_IOERR_FSYNC")
            else:
                paused_once(trader)
                stopped(trader.stop())
        with journalled_disk(image, tmp_path / "disk"):
            stopped(paperloop(*live(trader.ledger), "--polls", "3", folder=tmp_path))
            # Now and then ext4 calls the one fsync a success that the abort overtakes: of that nobody can know.
            assert unkept(trader.ledger, reported) == []
            assert audited(trader.ledger)["ok"]
            assert verified(trader.ledger)

    def test_files_that_cannot_be_written_for_a_while(self, tmp_path: Path) -> None:
        disk = journalled_disk(tmp_path / "image", tmp_path / "disk")
        with disk as folder, trading(folder / "ledger.db", tmp_path) as trader:
            with immutable(trader.ledger, trader.ledger.with_name("ledger.db-wal")):
                trader.pauses()
                paused_once(trader)
            trader.resumes()
            stopped(trader.stop())
            in_order(trader)


class TestFailingDisk:
    def test_a_disk_that_answers_late(self, tmp_path: Path) -> None:
        disk = journalled_disk(tmp_path / "image", tmp_path / "disk")
        with disk as folder, trading(folder / "ledger.db", tmp_path) as trader:
            with frozen(folder):
                pause(OUTAGE_S)
            trader.trades_on()
            assert trader.told(PAUSED) == []
            stopped(trader.stop())
            in_order(trader)
            # The beats that the disk took are skipped, not made up for.
            times = [row[0] for row in rows(trader.ledger, "SELECT DISTINCT timestamp FROM ticks WHERE warmup = 0")]
            assert max(np.diff(times)) >= OUTAGE_S * 1000 / 2

    def test_a_write_that_fails(self, tmp_path: Path) -> None:
        """It may wait or end, but never count as written what was not."""
        with trading(tmp_path / "ledger.db", tmp_path) as trader:
            with injected(trader.pid, trader.ledger, "pwrite64:error=EIO"):
                wait_until(lambda: trader.ended or bool(trader.told(PAUSED)), "a failed write")
            if trader.ended:
                ended(trader.finish(), 74, "ledger.db")
            else:
                trader.resumes()
                stopped(trader.stop())
            in_order(trader)

    def test_an_fsync_that_fails(self, tmp_path: Path) -> None:
        """The kernel may have dropped what it could not write, and would not say so again: only a new start is safe."""
        with trading(tmp_path / "ledger.db", tmp_path) as trader:
            with injected(trader.pid, trader.ledger, "fdatasync,fsync:error=EIO"):
                wait_until(lambda: trader.ended or bool(trader.told(PAUSED)), "a failed fsync")
            ended(trader.finish(STOP_S_MAX), 74, "ledger.db")
            stopped(paperloop(*live(trader.ledger), "--polls", "3", folder=tmp_path))
            in_order(trader)


@contextmanager
def injected(pid: int, ledger: Path, fault: str) -> Iterator[None]:
    """A process whose calls on its ledger fail, until the end of the block."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    calls = fault.partition(":")[0]
    files = [word for suffix in ("", "-wal") for word in ("-P", f"{ledger}{suffix}")]
    command = ["strace", "-f", "-qq", "-o", os.devnull, *files, "-e", f"trace={calls}", "-e", f"inject={fault}"]
    with subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE, text=True) as tracer:
        try:
            wait_until(lambda: tracer.poll() is not None or is_traced(pid), "strace")
            if tracer.poll() is not None:
                pytest.skip(f"strace: {tracer.communicate()[1].strip()}")
            yield
        finally:
            tracer.terminate()


def is_traced(pid: int) -> bool:
    return "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text()


class TestNeighbours:
    """Others who have the ledger open."""

    def test_a_lock_that_is_held_for_seconds(self, tmp_path: Path) -> None:
        with trading(tmp_path / "ledger.db", tmp_path) as trader, closing(connected(trader.ledger)) as other:
            other.execute("BEGIN IMMEDIATE")
            trader.pauses()
            paused_once(trader)
            other.execute("ROLLBACK")
            trader.resumes()
            stopped(trader.stop())
            in_order(trader)

    def test_a_stop_and_a_start_under_a_lock(self, tmp_path: Path) -> None:
        """At once, on two ledgers, because each waits as long as SQLite does."""
        other = tmp_path / "other" / "ledger.db"
        other.parent.mkdir()
        with trading(tmp_path / "ledger.db", tmp_path) as trader, closing(connected(trader.ledger)) as one:
            one.execute("VACUUM INTO ?", (str(other),))
            with closing(connected(other)) as two:
                for connection in (one, two):
                    connection.execute("BEGIN IMMEDIATE")
                with Daemon(*live(other), folder=tmp_path) as beginner:
                    asked = monotonic()
                    stopped(trader.stop())
                    assert monotonic() - asked < STOP_S_MAX
                    ended(beginner.finish(), 75, "other/ledger.db", "lock")
                one.execute("ROLLBACK")
            in_order(trader)

    def test_a_reader_that_forgets_its_transaction(self, tmp_path: Path) -> None:
        ledger, wal = tmp_path / "ledger.db", tmp_path / "ledger.db-wal"
        with Daemon(*at_speed(ledger, 10_000_000), folder=tmp_path) as daemon:
            daemon.wait_until(lambda: polls_in(ledger) > 0, "the first block")
            with closing(connected(ledger)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM cursor").fetchall()
                daemon.wait_until(lambda: wal.stat().st_size > 24 * 2**20, "a log that grows")
                reader.execute("ROLLBACK")
            wait_until(lambda: wal.stat().st_size < 12 * 2**20, "a log that shrinks")
            stopped(daemon.stop())
        assert not wal.exists()
        assert audited(ledger)["ok"]


def connected(ledger: Path) -> sqlite3.Connection:
    return sqlite3.connect(ledger, isolation_level=None)


@dataclass(frozen=True, slots=True)
class Taken:
    """What somebody does to a ledger in use; ``backup`` is an older state of it, whole and in one file."""

    work: Callable[[Path, Path], object]
    words: tuple[str, ...] = ("ledger.db",)


def unlink(ledger: Path, backup: Path) -> None:
    ledger.unlink()


def replace(ledger: Path, backup: Path) -> None:
    backup.replace(ledger)


def copy_over(ledger: Path, backup: Path) -> None:
    shutil.copyfile(backup, ledger)


def unlink_log(ledger: Path, backup: Path) -> None:
    ledger.with_name("ledger.db-wal").unlink()


def unlink_all(ledger: Path, backup: Path) -> None:
    for file in ledger.parent.glob("ledger.db*"):
        file.unlink()


def rename_folder(ledger: Path, backup: Path) -> None:
    ledger.parent.rename(ledger.parent.with_name("elsewhere"))


TAKEN = {
    "unlinked": Taken(unlink),
    "replaced": Taken(replace),
    "overwritten": Taken(copy_over),
    "log-unlinked": Taken(unlink_log),
    "all-unlinked": Taken(unlink_all),
    "folder-renamed": Taken(rename_folder),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_ledger_that_is_taken_away(tmp_path: Path, name: str) -> None:
    folder, backup = tmp_path / "data", tmp_path / "backup.db"
    folder.mkdir()
    ledger = folder / "ledger.db"
    with trading(ledger, tmp_path) as trader:
        with closing(connected(ledger)) as other:
            other.execute("VACUUM INTO ?", (str(backup),))
        trader.trades_on()
        kept = backup.read_bytes()
        TAKEN[name].work(ledger, backup)
        ended(trader.finish(NOTICED_S_MAX), 65, *TAKEN[name].words)
    if name == "replaced":
        assert ledger.read_bytes() == kept, "the backup is what somebody wants to go on with"
    elif name == "overwritten":
        # Mixed with the log of what it was copied over it is neither; nobody trades on that.
        assert paperloop(*live(ledger), "--polls", "1", folder=tmp_path).code in {0, 65}
        assert audited(ledger)["ok"] is verified(ledger)
    elif name == "log-unlinked":
        assert ledger.exists()
    else:
        assert not ledger.exists(), "a new ledger in place of one that is missed"


# At the start


@dataclass(frozen=True, slots=True)
class Start:
    """A file that the daemon is started on, and how it must end; ``found`` says what must find it at the latest."""

    damage: damage.Damage
    code: int = 65
    words: tuple[str, ...] = ("ledger.db",)
    found: str = "start"


def foreign(ledger: Path) -> None:
    ledger.unlink()
    with closing(connected(ledger)) as other:
        other.execute("CREATE TABLE notes (text TEXT)")


def newer(ledger: Path) -> None:
    with closing(connected(ledger)) as later:
        later.execute("PRAGMA user_version = 999")


def beside_log(name: str) -> damage.Damage:
    """A backup that somebody copied over a ledger whose daemon was killed, and whose log is still there."""

    def work(ledger: Path) -> None:
        shutil.copyfile(ledger.parent.with_name("killed") / name, ledger)
        shutil.copyfile(ledger.parent.with_name("killed") / "ledger.db-wal", ledger.with_name("ledger.db-wal"))

    return work


def leave_log(folder: Path, original: Path) -> None:
    """What a killed daemon leaves, with three backups of its ledger: ``older`` is one from before the last clean stop,
    ``packed`` has all but what is in the log, in other places of the file, and ``empty`` is what a failed copy leaves.
    """
    ledger = folder / "ledger.db"
    shutil.copyfile(original, ledger)
    shutil.copyfile(original, folder / "older")
    stopped(paperloop(*at_speed(ledger, POLLS + 500), folder=folder))
    with closing(connected(ledger)) as reader:
        reader.execute("VACUUM INTO ?", (str(folder / "packed"),))
    (folder / "empty").touch()
    with Daemon(*live(ledger), folder=folder) as daemon:
        daemon.wait_until(lambda: polls_in(ledger) > POLLS + 520, "twenty polls")
        daemon.stop(SIGKILL)
    assert ledger.with_name("ledger.db-wal").stat().st_size


STARTS = {
    "empty": Start(damage.truncated(lambda size: 0), 0, ()),
    "foreign": Start(foreign, 65, ("another program",)),
    "newer": Start(newer, 78, ("later version", "999")),
    "header-zeroed": Start(damage.overwritten(0, bytes(100)), 65, ("not a ledger",)),
    "magic-overwritten": Start(damage.overwritten(0, b"SQLite format 4"), 65, ("not a ledger",)),
    "schema-zeroed": Start(damage.overwritten(100, bytes(damage.PAGE - 100))),
    "first-page-zeroed": Start(damage.overwritten(0, bytes(damage.PAGE))),
    "cursor-zeroed": Start(damage.zeroed_root("cursor")),
    "trades-zeroed": Start(damage.zeroed_root("trades")),
    "accounts-zeroed": Start(damage.zeroed_root("accounts")),
    "positions-zeroed": Start(damage.zeroed_root("positions")),
    "symbols-zeroed": Start(damage.zeroed_root("symbols")),
    "ticks-zeroed": Start(damage.zeroed_root("ticks")),
    "a-page-zeroed": Start(damage.zeroed_page(0.5), found="audit"),
    "a-late-page-zeroed": Start(damage.zeroed_page(0.9), found="audit"),
    "cut-to-7-bytes": Start(damage.truncated(lambda size: 7)),
    "cut-to-100-bytes": Start(damage.truncated(lambda size: 100)),
    "cut-to-a-page": Start(damage.truncated(lambda size: damage.PAGE)),
    "cut-in-half": Start(damage.truncated(lambda size: size // 2)),
    "cut-by-a-page": Start(damage.truncated(lambda size: size - damage.PAGE)),
    "cut-by-a-byte": Start(damage.truncated(lambda size: size - 1), found="audit"),
    "older-backup-beside-log": Start(beside_log("older")),
    "packed-backup-beside-log": Start(beside_log("packed")),
    # The log has all that was reported since the last clean stop: to begin anew would throw it away.
    "emptied-beside-log": Start(beside_log("empty")),
    # No more than what a crash leaves: nothing to complain of.
    "killed": Start(beside_log("ledger.db"), 0, ()),
}
POLLS = 3000


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger at rest."""
    ledger = tmp_path_factory.mktemp("recorded") / "ledger.db"
    stopped(paperloop(*at_speed(ledger, POLLS), folder=ledger.parent))
    return ledger


@pytest.fixture(scope="module")
def starts(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[Path, bytes, Result]]:
    """Each ledger with its bytes before the start and what the start said."""
    folder = tmp_path_factory.mktemp("starts")
    (folder / "killed").mkdir()
    leave_log(folder / "killed", recorded)
    done = {}
    for name, start in STARTS.items():
        ledger = folder / f"at-{name}" / "ledger.db"
        ledger.parent.mkdir()
        shutil.copyfile(recorded, ledger)
        start.damage(ledger)
        before = ledger.read_bytes()
        done[name] = (ledger, before, paperloop(*live(ledger), "--polls", "1", folder=folder))
    return done


@pytest.mark.parametrize("name", STARTS)
def test_a_start_on_a_file_that_is_not_as_it_was(starts: Mapping[str, tuple[Path, bytes, Result]], name: str) -> None:
    start, (ledger, before, result) = STARTS[name], starts[name]
    if start.code == 0:
        stopped(result)
        return
    if start.found != "start" and result.code == 0:
        stopped(result)
        assert not sound(ledger)
        return
    ended(result, start.code, *start.words)
    assert ledger.read_bytes() == before


def sound(ledger: Path) -> bool:
    """What audit and verify say of it."""
    try:
        return bool(audited(ledger)["ok"]) and verified(ledger)
    except sqlite3.Error:
        return False


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit in one row, and the ledger that has it wrong."""

    table: str
    place: int
    bit: int
    ledger: Path


def flips(original: Path, folder: Path, count: int) -> Iterator[Flip]:
    """Each in a copy of its own; bits that SQLite does not look at leave the rows as they are and do not count."""
    places, whole = damage.Rows(original, TABLES), everything(original)
    for table, place, bit in places.bits(np.random.default_rng(33)):
        if not count:
            return
        ledger = folder / f"{place}-{bit}" / "ledger.db"
        ledger.parent.mkdir(exist_ok=True)
        ledger.write_bytes(damage.with_bit_flipped(places.content, place, bit))
        if everything(ledger) != whole:
            count -= 1
            yield Flip(table, place, bit, ledger)


@pytest.mark.timeout(300)
def test_a_bit_that_flips_in_a_row(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """What a start does not notice, audit or verify does; what it notices it says in one line, and never fails in any
    other way."""
    original = tmp_path / "original.db"
    stopped(paperloop(*at_speed(original, FLIPPED_POLLS), folder=tmp_path))
    done = list(flips(original, tmp_path, pytestconfig.getoption("--flips")))
    results = together([["run", *at_speed(flip.ledger, FLIPPED_POLLS)] for flip in done], tmp_path)
    found, later, bad = Counter[str](), Counter[str](), {}
    for flip, result in zip(done, results, strict=True):
        if result.code == 65 and "Traceback" not in result.err and len(last_words(result)) == 1:
            found[flip.table] += 1
        elif result.code or "Traceback" in result.err:
            bad[f"{flip.table}, bit {flip.bit} of byte {flip.place}"] = result.err.strip().split("\n")[-1]
        elif not audited(flip.ledger)["ok"] or not verified(flip.ledger):
            later[flip.table] += 1
        else:
            bad[f"{flip.table}, bit {flip.bit} of byte {flip.place}"] = "found by nobody"
    tried = Counter(flip.table for flip in done)
    counted = ", ".join(f"{found[table]} of {tried[table]} in {table}" for table in TABLES)
    sys.stdout.write(f"found at the start: {found.total()} of {tried.total()} ({counted})\n")
    assert bad == {}
    assert found.total() + later.total() == len(done)


def everything(ledger: Path) -> object:
    """All rows, or the reason why they cannot be read."""
    try:
        return [rows(ledger, f"SELECT * FROM {table}") for table in TABLES]  # noqa: S608
    except sqlite3.Error as error:
        return str(error)


def test_a_start_that_is_called_off_leaves_nothing_half_made(tmp_path: Path) -> None:
    """SIGTERM, each time on a ledger that is just being made."""
    delays_s = np.sort(np.random.default_rng(13).uniform(0.15, 0.6, 10))
    ledgers = [tmp_path / f"{delay_s:.3f}.db" for delay_s in delays_s]

    def call_off(number: int) -> Result:
        with Daemon(*live(ledgers[number]), folder=tmp_path) as daemon:
            pause(float(delays_s[number]))
            return daemon.stop()

    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(call_off, range(len(ledgers))):
            assert result.code in {0, -SIGTERM}, result
            assert "Traceback" not in result.err
            assert last_words(result) == []
    for ledger in ledgers:
        stopped(paperloop(*live(ledger), "--polls", "2", folder=tmp_path))
        assert audited(ledger)["ok"]
        assert rows(ledger, "SELECT count(DISTINCT poll) FROM ticks") == [(polls_in(ledger),)]
