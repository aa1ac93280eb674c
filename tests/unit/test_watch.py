"""Those who look at the loop: isolated from each other, owned, and heard when they die."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import LogCapture

from bot.ports import Silent, Status
from bot.reload import Reload
from bot.repositories import Retention, open_database
from bot.service.journal import ERROR_CHARS_MAX, Journal
from bot.service.logs import Threshold
from bot.service.observers import Observers
from bot.service.plain import without
from bot.service.stalls import Stalls
from bot.service.supervise import SideTasks
from bot.service.systemd import Systemd
from bot.service.vitals import Vitals
from bot.settings import Settings, SettingsError, load_settings
from tests.integration.daemon import monotonic
from tests.observed import Machine, Seen, log_to, no_prices

WAIT_S_MAX = 20.0


@pytest.fixture
def lines() -> LogCapture:
    return LogCapture()


class Broken(Silent):
    def stepped(self, status: Status) -> None:
        raise RuntimeError("no more")


class Counting(Silent):
    heard = 0

    def stepped(self, status: Status) -> None:
        self.heard += 1


def test_an_observer_that_fails_keeps_nobody_from_hearing(lines: LogCapture) -> None:
    first, last = Counting(), Counting()
    Observers([first, Broken(), last], log_to(lines)).stepped(Seen())
    assert (first.heard, last.heard) == (1, 1)
    assert lines.entries == [
        {"event": "an observer failed", "observer": "Broken", "error": "RuntimeError: no more", "log_level": "error"}
    ]


def test_observers_hear_of_what_went_wrong_without_secrets(lines: LogCapture) -> None:
    # Where the journal cuts it, the beginning of a secret would be left, which nobody takes for one.
    text = f"{'x' * (ERROR_CHARS_MAX - 10)}{'secret' * 4}"
    machine = Machine()
    vitals, journal = Vitals(machine, 10.0, {}), Journal(log_to(lines), machine.monotonic, 60.0)
    Observers([vitals, journal], log_to(lines), without(["secret" * 4])).interrupted(no_prices(text), 1.0)
    assert vitals.trouble is not None
    assert vitals.trouble.text == lines.entries[0]["error"] == f"{'x' * (ERROR_CHARS_MAX - 10)}***"


class TestSideTasks:
    async def test_one_that_dies_stops_the_daemon_and_is_named(self, lines: LogCapture) -> None:
        async def dies() -> None:
            raise OSError("gone")

        stopped = asyncio.Event()
        async with asyncio.timeout(WAIT_S_MAX), SideTasks(log_to(lines), stopped.set) as side:
            side.start("http", dies)
            await stopped.wait()
        assert side.died == "http died: OSError: gone"
        assert lines.entries[0]["task"] == side.died
        assert isinstance(lines.entries[0]["exc_info"], OSError)

    async def test_so_does_one_that_ends(self, lines: LogCapture) -> None:
        async def ends() -> None:
            return

        stopped = asyncio.Event()
        async with asyncio.timeout(WAIT_S_MAX), SideTasks(log_to(lines), stopped.set) as side:
            side.start("reload", ends)
            await stopped.wait()
        assert side.died == "reload ended"

    async def test_so_does_one_that_is_cancelled_by_something_of_its_own(self, lines: LogCapture) -> None:
        async def waits_for_nothing() -> None:
            given_up = asyncio.get_running_loop().create_future()
            given_up.cancel()
            await given_up

        stopped = asyncio.Event()
        async with asyncio.timeout(WAIT_S_MAX), SideTasks(log_to(lines), stopped.set) as side:
            side.start("http", waits_for_nothing)
            await stopped.wait()
        assert side.died == "http was cancelled"

    async def test_the_first_death_is_the_cause(self, lines: LogCapture) -> None:
        async def dies(of: str) -> None:
            raise OSError(of)

        async with asyncio.timeout(WAIT_S_MAX), SideTasks(log_to(lines), list) as side:
            side.start("one", lambda: dies("a"))
            side.start("two", lambda: dies("b"))
            while len(lines.entries) < 2:
                await asyncio.get_running_loop().run_in_executor(None, list)
        assert side.died == "one died: OSError: a"

    async def test_all_of_them_end_with_the_block(self, lines: LogCapture) -> None:
        ended: list[str] = []

        async def goes_on(name: str) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(name)

        async with asyncio.timeout(WAIT_S_MAX), SideTasks(log_to(lines), pytest.fail) as side:
            started = asyncio.Event()
            side.start("one", lambda: goes_on("one"))
            side.start("two", lambda: goes_on("two"))
            asyncio.get_running_loop().call_soon(started.set)
            await started.wait()
        assert sorted(ended) == ["one", "two"]
        assert side.died is None
        assert lines.entries == []

    async def test_what_the_block_raises_goes_on_as_it_is(self, lines: LogCapture) -> None:
        async def block() -> None:
            async with SideTasks(log_to(lines), list) as side:
                side.start("one", asyncio.Event().wait)
                raise SettingsError(["wrong"])

        with pytest.raises(SettingsError, match="wrong"):
            await block()

    async def test_a_cancelled_block_is_cancelled(self, lines: LogCapture) -> None:
        async def block() -> None:
            async with SideTasks(log_to(lines), list) as side:
                side.start("one", asyncio.Event().wait)
                await asyncio.Event().wait()

        task = asyncio.ensure_future(block())
        asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task


class TestStalls:
    async def test_a_blocked_loop_is_told_with_where_it_hangs(self, lines: LogCapture) -> None:
        def hangs() -> None:
            end = monotonic() + WAIT_S_MAX
            while not lines.entries and monotonic() < end:
                threading.Event().wait(0.01)

        async with asyncio.timeout(WAIT_S_MAX):
            with Stalls(log_to(lines), monotonic, every_s=0.01, blocked_after_s=0.1) as stalls:
                hangs()
                while len(lines.entries) < 2:
                    await asyncio.get_running_loop().run_in_executor(None, list)
        assert [line["event"] for line in lines.entries[:2]] == ["the loop is blocked", "the loop goes on"]
        assert "hangs (test_watch.py:" in lines.entries[0]["at"]
        assert stalls.count >= 1

    async def test_its_end_waits_for_nothing(self, lines: LogCapture) -> None:
        for _ in range(20):
            with Stalls(log_to(lines), monotonic, every_s=0.001, blocked_after_s=WAIT_S_MAX):
                threading.Event().wait(0.002)
        assert lines.entries == []
        assert "stalls" not in {thread.name for thread in threading.enumerate()}

    async def test_a_process_that_stood_still_was_not_blocked(self, lines: LogCapture) -> None:
        times = iter([0.0])

        def jumps() -> float:
            return next(times, 100.0)

        async with asyncio.timeout(WAIT_S_MAX):
            with Stalls(log_to(lines), jumps, every_s=0.01, blocked_after_s=5.0):
                while not lines.entries:
                    await asyncio.get_running_loop().run_in_executor(None, list)
        assert lines.entries[0] == {"event": "the process stood still", "for_s": 100.0, "log_level": "warning"}


class Manager:
    """systemd's end of the notification socket."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notify")
        self.open()

    def open(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        told = []
        while True:
            try:
                told.append(self._socket.recv(65536).decode().split("\n"))
            except BlockingIOError:
                return told

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path)
    yield manager
    manager.close()


class TestSystemd:
    @pytest.fixture
    def machine(self) -> Machine:
        return Machine()

    @pytest.fixture
    def told(self, manager: Manager, machine: Machine) -> Iterator[tuple[Systemd, Vitals]]:
        vitals = Vitals(machine, 10.0, {})
        systemd = Systemd(vitals, machine, 1.0, {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "120000000"})
        yield systemd, vitals
        systemd.close()

    def test_ready_with_the_first_step_and_fed_by_steps_alone(
        self, manager: Manager, machine: Machine, told: tuple[Systemd, Vitals]
    ) -> None:
        systemd, vitals = told
        systemd.interrupted(no_prices(), 4.0)
        assert manager.heard() == [["EXTEND_TIMEOUT_USEC=65000000", "STATUS=no prices yet; the exchange answers 503"]]
        vitals.stepped(Seen())
        systemd.stepped(Seen())
        assert manager.heard() == [["READY=1", "WATCHDOG=1", "STATUS=prices 0.0 s old"]]
        machine.passes(5.0)
        vitals.interrupted(no_prices(), 1.0)
        systemd.interrupted(no_prices(), 1.0)
        assert manager.heard() == [["STATUS=prices 5.0 s old; the exchange answers 503"]]
        vitals.stepped(Seen())
        systemd.stepped(Seen())
        last = "STATUS=prices 0.0 s old; last error 2023-11-14T22:13:25.000Z: the exchange answers 503"
        assert manager.heard() == [["WATCHDOG=1", last]]

    def test_fast_polls_are_not_each_a_system_call(
        self, manager: Manager, machine: Machine, told: tuple[Systemd, Vitals]
    ) -> None:
        for _ in range(100):
            machine.passes(0.01)
            told[0].stepped(Seen())
        assert len(manager.heard()) == 2

    def test_a_text_cannot_become_a_field(self, manager: Manager, told: tuple[Systemd, Vitals]) -> None:
        told[0].interrupted(no_prices("bad\nMAINPID=1\0WATCHDOG=1\r"), 1.0)
        ((_, status),) = manager.heard()
        assert status == r"STATUS=no prices yet; bad\x0aMAINPID=1\x00WATCHDOG=1\x0d"

    def test_reload_and_stop(self, manager: Manager, told: tuple[Systemd, Vitals]) -> None:
        systemd, _ = told
        systemd.reloading()
        systemd.reloaded()
        assert manager.heard() == [["RELOADING=1", "MONOTONIC_USEC=100000000"]], "ready before its first step"
        systemd.stepped(Seen())
        systemd.reloading()
        systemd.reloaded()
        systemd.stopping()
        assert [fields[0] for fields in manager.heard()[1:]] == ["RELOADING=1", "READY=1", "STOPPING=1"]

    @pytest.mark.parametrize(("interval_s", "asked"), [(40.0, []), (60.0, [["WATCHDOG_USEC=180000000"]])])
    def test_rare_polls_ask_for_a_longer_watchdog(
        self, manager: Manager, machine: Machine, interval_s: float, asked: list[list[str]]
    ) -> None:
        environ = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "120000000"}
        systemd = Systemd(Vitals(machine, 10.0, {}), machine, interval_s, environ)
        assert manager.heard() == asked
        systemd.close()

    def test_a_hundred_accounts_leave_room_for_the_rest(self, manager: Manager, told: tuple[Systemd, Vitals]) -> None:
        systemd, vitals = told
        accounts = [{"account": f"account{number}", "equity": 1000.0 * number} for number in range(100)]
        counts = {"polls": 1, "ticks": 1, "signals": 1, "trades": 1}
        vitals.recovered({"accounts": accounts, "digest": "", **counts}, 1)
        systemd.interrupted(no_prices(), 1.0)
        ((_, status),) = manager.heard()
        equity = "account0 0.00, account1 1,000.00, account2 2,000.00, 97 more"
        assert status == f"STATUS=equity {equity}; no prices yet; the exchange answers 503"

    def test_rare_polls_ask_for_a_longer_start(self, manager: Manager, machine: Machine) -> None:
        """After a restart in the middle of an hour the first step is at its end."""
        systemd = Systemd(Vitals(machine, 10.0, {}), machine, 3600.0, {"NOTIFY_SOCKET": manager.path})
        assert manager.heard() == [["EXTEND_TIMEOUT_USEC=3660000000"]]
        systemd.close()

    @pytest.mark.parametrize("path", ["", "nobody-listens", "@nobody-listens"])
    def test_without_systemd_it_says_nothing(self, machine: Machine, path: str) -> None:
        systemd = Systemd(Vitals(machine, 10.0, {}), machine, 1.0, {"NOTIFY_SOCKET": path})
        systemd.stepped(Seen())
        systemd.stopping()
        systemd.close()

    def test_a_socket_that_is_full_holds_nobody_up(
        self, manager: Manager, machine: Machine, told: tuple[Systemd, Vitals]
    ) -> None:
        for _ in range(10_000):
            machine.passes(1.0)
            told[0].stepped(Seen())
        assert 0 < len(manager.heard()) < 10_000

    def test_a_ready_that_was_not_heard_is_said_again(
        self, manager: Manager, machine: Machine, told: tuple[Systemd, Vitals]
    ) -> None:
        manager.close()
        Path(manager.path).unlink()
        told[0].stepped(Seen())
        manager.open()
        for _ in range(2):
            machine.passes(1.0)
            told[0].stepped(Seen())
        assert [fields[0] for fields in manager.heard()] == ["READY=1", "WATCHDOG=1"]


class TestReload:
    @staticmethod
    async def reloaded(
        tmp_path: Path, lines: LogCapture, read: Callable[[], Settings], times: int = 1
    ) -> tuple[list[Any], Retention]:
        machine = Machine()
        systemd = Systemd(Vitals(machine, 10.0, {}), machine, 1.0, {})
        async with open_database(tmp_path / "ledger.db") as database, asyncio.timeout(WAIT_S_MAX):
            retention = Retention(database, 30)
            running, threshold = load_settings(default_file=None, environ={}), Threshold("info")
            reload = Reload(running, read, systemd, retention, threshold, machine, log_to(lines))
            async with SideTasks(log_to(lines), pytest.fail) as side:
                side.start("reload", reload.run)
                for number in range(times):
                    reload.asked.set()
                    while len(lines.entries) <= number:
                        await asyncio.get_running_loop().run_in_executor(None, list)
        return lines.entries, retention

    async def test_what_can_change_changes_and_the_rest_is_named(self, tmp_path: Path, lines: LogCapture) -> None:
        def read() -> Settings:
            overrides = ["storage.keep_ticks_days=7", "feed.poll_interval_s=5", 'strategy=[{name="buy_and_hold"}]']
            return load_settings(overrides=overrides, default_file=None, environ={})

        entries, retention = await self.reloaded(tmp_path, lines, read, times=2)
        assert retention.days == 7
        assert entries[0]["changed"] == ["storage.keep_ticks_days"]
        assert entries[0]["need_a_restart"] == ["feed.poll_interval_s", "strategy"]
        assert (entries[1]["changed"], entries[1]["need_a_restart"]) == ([], entries[0]["need_a_restart"])

    async def test_settings_that_are_wrong_change_nothing(self, tmp_path: Path, lines: LogCapture) -> None:
        def read() -> Settings:
            raise SettingsError(["storage.keep_ticks_days must be a number", "and more"])

        entries, retention = await self.reloaded(tmp_path, lines, read)
        assert retention.days == 30
        assert entries[0]["log_level"] == "error"
        assert entries[0]["error"] == "storage.keep_ticks_days must be a number; and more"
