"""The real daemon as a service: what its manager hears, what a hang-up does, and how it ends when a part of it dies."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from bot.app import RunOptions, Summary, run
from bot.cli.daemon import reread_from
from bot.service.stop import StopSignals
from bot.settings import DEFAULT_FILE, Settings, SettingsError, load_settings
from tests.exchange import running_exchange
from tests.integration.daemon import MAIN, Daemon, paperloop, polls_in, rows, settings, wait_until
from tests.integration.test_live_prices import live
from tests.unit.test_watch import Manager


@pytest.fixture
def signals() -> Iterator[StopSignals]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield StopSignals()
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def events_in(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_the_service_manager_hears_from_start_to_end(tmp_path: Path) -> None:
    manager = Manager(tmp_path)
    heard: list[list[str]] = []

    def heard_of(word: str) -> bool:
        heard.extend(manager.heard())
        return any(word in fields for fields in heard)

    environment = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "1000000"}
    arguments = settings(storage__path="ledger.db", feed__poll_interval_s=1)
    with Daemon(*arguments, folder=tmp_path, environment=environment) as daemon:
        daemon.wait_until(lambda: heard_of("READY=1"), "ready")
        assert polls_in(tmp_path / "ledger.db") >= 1, "ready before a step was in the ledger"
        first = next(fields for fields in heard if "READY=1" in fields)
        assert "WATCHDOG=1" in first
        assert heard[0] == ["WATCHDOG_USEC=3000000"]
        heard.clear()
        daemon.wait_until(lambda: heard_of("WATCHDOG=1"), "a second step")
        assert any(field.startswith("STATUS=equity sma_cross ") for fields in heard for field in fields)
        daemon.send(signal.SIGHUP)
        daemon.wait_until(lambda: heard_of("RELOADING=1") and heard_of("READY=1"), "ready again")
        heads = [fields[0] for fields in heard]
        assert heads.index("RELOADING=1") < heads.index("READY=1")
        result = daemon.stop()
    heard_of("")
    manager.close()
    assert result.code == 0
    assert ["STOPPING=1", "STATUS=stopping"] in heard
    assert "settings read again" in {event["event"] for event in result.events}


def test_the_last_words_of_a_daemon_that_cannot_start(tmp_path: Path) -> None:
    manager = Manager(tmp_path)
    (tmp_path / "ledger.db").write_bytes(b"not a ledger at all, but long enough to look at" * 100)
    with Daemon(
        *settings(storage__path="ledger.db"), folder=tmp_path, environment={"NOTIFY_SOCKET": manager.path}
    ) as daemon:
        assert daemon.finish().code == 65
    heard = manager.heard()
    manager.close()
    assert len(heard) == 1
    assert "is not a ledger" in heard[0][0]


def test_the_settings_are_read_again(tmp_path: Path) -> None:
    config, log = tmp_path / "own.toml", tmp_path / "log"
    config.write_text("[storage]\nkeep_ticks_days = 30\n")
    with log.open("w") as stream:
        arguments = ["--config", str(config), *settings(storage__path="ledger.db")]
        with Daemon(*arguments, folder=tmp_path, stderr=stream) as daemon:
            daemon.wait_until(lambda: polls_in(tmp_path / "ledger.db") > 0, "the first poll")

            def reread(text: str, told: int) -> dict[str, object]:
                config.write_text(text)
                daemon.send(signal.SIGHUP)

                def found() -> list[dict[str, object]]:
                    return [event for event in events_in(log) if str(event["event"]).startswith("settings read again")]

                daemon.wait_until(lambda: len(found()) == told, "the settings are read again")
                return found()[-1]

            event = reread("[storage]\nkeep_ticks_days = 3\n[feed]\npoll_interval_s = 2.0\n", 1)
            assert (event["changed"], event["need_a_restart"]) == (
                ["storage.keep_ticks_days"],
                ["feed.poll_interval_s"],
            )
            event = reread("[storage]\nkeep_tick_days = 3\n", 2)
            assert event["level"] == "error"
            assert "keep_ticks_days" in str(event["error"])
            assert daemon.stop().code == 0


def test_a_hang_up_while_it_starts_does_not_end_it(tmp_path: Path) -> None:
    with Daemon(*settings(storage__path="ledger.db", feed__poll_interval_s=0.05), folder=tmp_path) as daemon:
        wait_until(lambda: b"python" in Path(f"/proc/{daemon.pid}/cmdline").read_bytes(), "python")
        caught = f"/proc/{daemon.pid}/status"

        def handled() -> bool:
            mask = next(line for line in Path(caught).read_text().splitlines() if line.startswith("SigCgt"))
            return bool(int(mask.split()[1], 16) >> (signal.SIGHUP - 1) & 1)

        daemon.wait_until(handled, "the handler")
        daemon.send(signal.SIGHUP)
        daemon.wait_until(lambda: polls_in(tmp_path / "ledger.db") > 3, "polls")
        result = daemon.stop()
    assert result.code == 0
    assert "settings read again" in {event["event"] for event in result.events}


def on_a_terminal(ledger: Path) -> tuple[int, int]:
    """A daemon that trades, and leads the session of a terminal: its process id, and our end of that."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(ledger.parent)
        arguments = [sys.executable, str(MAIN), *settings(storage__path=ledger, feed__poll_interval_s=0.05)]
        os.execv(sys.executable, arguments)  # noqa: S606 - the terminal is to be its own
    wait_until(lambda: polls_in(ledger) > 3, "polls")
    return pid, terminal


def test_a_closed_terminal_stops_it_cleanly(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    pid, terminal = on_a_terminal(ledger)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert rows(ledger, "SELECT stop_reason FROM runs")[-1] == ("stopped",)


def test_a_terminal_that_is_closed_more_than_once(tmp_path: Path) -> None:
    """By the kernel and by the shell in it: nobody who no longer wants to wait."""
    ledger = tmp_path / "ledger.db"
    pid, terminal = on_a_terminal(ledger)
    statuses: list[int] = []

    def ended() -> bool:
        os.kill(pid, signal.SIGHUP)
        found, status = os.waitpid(pid, os.WNOHANG)
        statuses.extend([status] * bool(found))
        return bool(found)

    wait_until(ended, "the end")
    os.close(terminal)
    assert os.waitstatus_to_exitcode(statuses[0]) == 0
    assert rows(ledger, "SELECT stop_reason FROM runs")[-1] == ("stopped",)


def test_a_reader_that_stalls_does_not_keep_it_from_its_end(tmp_path: Path) -> None:
    """Of its log, of its last words and of its summary."""
    reader, end = os.pipe()
    os.set_blocking(end, False)
    for size in (4096, 1):
        with suppress(BlockingIOError):
            while os.write(end, b"x" * size):
                pass
    os.set_blocking(end, True)
    given = settings(storage__path="ledger.db", feed__poll_interval_s=0.05)
    with os.fdopen(end, "w") as stream, Daemon(*given, folder=tmp_path, stdout=stream, stderr=stream) as daemon:
        daemon.wait_until(lambda: polls_in(tmp_path / "ledger.db") > 3, "polls")
        # Two on one ledger: an error that is told.
        with Daemon(*given, folder=tmp_path, stdout=stream, stderr=stream) as second:
            assert second.finish().code == 73
        assert daemon.stop().code == 0
    os.close(reader)


def test_words_that_find_a_disk_full_do_not_change_the_exit_code(tmp_path: Path) -> None:
    given = settings(storage__path="ledger.db", feed__poll_interval_s=0.05)
    with Path("/dev/full").open("w") as full:
        with Daemon(*given, "--polls", "2", folder=tmp_path, stdout=full, stderr=full) as daemon:
            assert daemon.finish().code == 0
        with Daemon(*given, *settings(feed__kind="none"), folder=tmp_path, stdout=full, stderr=full) as daemon:
            assert daemon.finish().code == 78


class TestReadAgain:
    def test_a_file_that_is_gone_is_missed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was set in it is not to be as built in all at once: prices would be deleted that were to be kept."""
        monkeypatch.chdir(tmp_path)
        assert reread_from(None, None)().storage.keep_ticks_days == 30
        DEFAULT_FILE.parent.mkdir()
        DEFAULT_FILE.write_text("[storage]\nkeep_ticks_days = 0\n")
        reread = reread_from(None, None)
        assert reread().storage.keep_ticks_days == 0
        DEFAULT_FILE.unlink()
        with pytest.raises(SettingsError, match="there is no such file"):
            reread()

    def test_what_is_no_file_is_not_read_twice(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with pytest.raises(SettingsError, match="cannot be read a second time"):
            reread_from([pipe], None)()

    def test_nobodys_file_is_run_beside_the_trading(self, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text("raise KeyboardInterrupt")
        given = [f"strategy_folder={tmp_path}", 'strategy=[{name="mine"}]']
        assert reread_from(None, given)().strategy[0].name == "mine"


def test_the_last_words_of_one_without_its_notifications(tmp_path: Path) -> None:
    manager = Manager(tmp_path)
    given = settings(storage__path="ledger.db", notify__urls='["json://host"]')
    program = "import sys; sys.modules['apprise'] = None; from bot.entry import main; main()"
    environment = {"NOTIFY_SOCKET": manager.path, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    strict = ("-X", "dev", "-W", "error")
    with Daemon(*given, folder=tmp_path, environment=environment, python=strict, program=("-c", program)) as daemon:
        result = daemon.finish()
    heard = manager.heard()
    manager.close()
    assert (result.code, len(result.err.splitlines())) == (78, 1), result.err
    assert heard[0][0].startswith("STATUS=notify.urls: apprise is not installed")


def test_a_part_that_dies_stops_it_in_good_order(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], signals: StopSignals
) -> None:
    def reread() -> Settings:
        raise RuntimeError("cannot read")

    given = load_settings((), [f"storage.path={tmp_path / 'ledger.db'}", "feed.poll_interval_s=0.05"], {}, None)

    async def hung_up() -> object:
        asyncio.get_running_loop().call_later(0.2, signal.raise_signal, signal.SIGHUP)
        return await run(given, RunOptions(reread=reread), signals)

    summary = asyncio.run(hung_up())
    assert getattr(summary, "failed", None) is True
    assert getattr(summary, "reason", None) == "reload died: RuntimeError: cannot read"
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    told = next(line for line in lines if line["event"] == "a side task ended, so the daemon stops")
    assert told["task"] == "reload died: RuntimeError: cannot read"
    assert "\n" not in json.dumps(told)
    assert lines[-1]["event"] == "stopped"
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        assert connection.execute("SELECT stop_reason FROM runs").fetchone() == (told["task"],)


def test_a_part_that_dies_while_it_waits_for_its_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: StopSignals
) -> None:
    def reread() -> Settings:
        raise RuntimeError("cannot read")

    manager = Manager(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", manager.path)
    with running_exchange("binance", symbols=2) as exchange:
        exchange.fault("http503")
        words = live("binance", exchange.url, storage__path=tmp_path / "ledger.db")[2::2]
        given = load_settings((), words, {}, None)

        async def hung_up() -> Summary:
            asyncio.get_running_loop().call_later(0.2, signal.raise_signal, signal.SIGHUP)
            return await run(given, RunOptions(reread=reread), signals)

        summary = asyncio.run(hung_up())
    heard = manager.heard()
    manager.close()
    assert (summary.failed, summary.reason) == (True, "reload died: RuntimeError: cannot read")
    assert heard[-1] == ["STOPPING=1", "STATUS=stopping"]


def test_a_signal_after_a_start_that_failed(tmp_path: Path, signals: StopSignals) -> None:
    one, other = tmp_path / "one.db", tmp_path / "other.db"
    for ledger in (one, other):
        paperloop("run", *settings(storage__path=ledger), "--max-speed", "--polls", "3", folder=tmp_path)
    words = [f"storage.path={one}", "feed.kind=replay", f"feed.replay.path={other}"]
    with pytest.raises(SettingsError, match="has prices of simulated"):
        asyncio.run(run(load_settings((), words, {}, None), RunOptions(), signals))
    # The event loop is closed: there is nobody to wake.
    signal.raise_signal(signal.SIGTERM)


def test_the_health_of_a_real_daemon(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    given = settings(storage__path=ledger, feed__poll_interval_s=0.1, feed__stale_after_s=1)
    with Daemon(*given, folder=tmp_path) as daemon:
        daemon.wait_until(lambda: polls_in(ledger) > 0, "the first poll")
        assert paperloop("healthcheck", *given, folder=tmp_path).out == "alive\n"
        daemon.send(signal.SIGSTOP)

        def alive() -> bool:
            return paperloop("healthcheck", *given, folder=tmp_path).code == 0

        wait_until(lambda: not alive(), "stale")
        assert "no prices for" in paperloop("healthcheck", *given, folder=tmp_path).out
        daemon.send(signal.SIGCONT)
        wait_until(alive, "alive again")
        assert daemon.stop().code == 0
    assert "no daemon is running" in paperloop("healthcheck", *given, folder=tmp_path).out
