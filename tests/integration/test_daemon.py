"""The daemon as the service manager sees it: a process that starts, is stopped, killed, and started again."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.daemon import (
    MAIN,
    WAIT_S_MAX,
    Daemon,
    Result,
    books,
    monotonic,
    paperloop,
    pause,
    polls_in,
    rows,
    settings,
    tape,
    together,
    wait_until,
)

SYMBOLS = tuple(f"{base}/USDT" for base in ("BTC", "ETH", *(letter * 3 for letter in "ABCDEFGHIJKLMN")))
POLLS = 16_000
# 16 symbols: a block is 4,096 polls, so a run of this length commits four times.
BLOCK = 65_536 // len(SYMBOLS)
# Far from what it takes, which is some hundredths: the machine may be busy.
STOP_S_MAX = 10.0
SUMMARY = ["reason", "ledger", "polls", "ticks", "signals", "trades", "equity", "digest"]
PIPE_BYTES_MIN = 4096


def symbols(names: tuple[str, ...]) -> str:
    return json.dumps(names)


def at_speed(ledger: Path | str, *more: str, until: int = POLLS) -> list[str]:
    keys: list[str] = settings(storage__path=ledger, feed__symbols=symbols(SYMBOLS))
    return [*keys, "--max-speed", "--until-poll", str(until), *more]


def live(ledger: Path | str, interval_s: float = 0.05, **more: object) -> list[str]:
    keys: list[str] = settings(storage__path=ledger, feed__poll_interval_s=interval_s, **more)
    return keys


def succeeded(result: Result) -> Result:
    assert result.code == 0, result
    assert "Traceback" not in result.err
    return result


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("recorded")
    succeeded(paperloop(*at_speed("ledger.db"), folder=folder))
    return folder / "ledger.db"


def digest_of(ledger: Path) -> str:
    document = paperloop("status", "--json", *settings(storage__path=ledger), folder=ledger.parent).document
    return str(document["digest"])


class TestStop:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_first_tick_soon_and_a_clean_end_with_a_summary(self, tmp_path: Path, number: signal.Signals) -> None:
        ledger = tmp_path / "state" / "ledger.db"
        begun = monotonic()
        with Daemon(*live(ledger, 1.0), folder=tmp_path) as daemon:
            daemon.wait_until(lambda: polls_in(ledger) > 0, "the first poll")
            assert monotonic() - begun < 10
            asked = monotonic()
            result = succeeded(daemon.stop(number))
            assert monotonic() - asked < STOP_S_MAX
        assert list(result.summary) == SUMMARY
        assert result.summary["reason"] == "stopped"
        counts = [int(result.summary[name]) for name in ("polls", "ticks", "signals", "trades")]
        assert counts == list(rows(ledger, "SELECT polls, ticks, signals, trades FROM cursor")[0])
        assert re.fullmatch(r"[0-9a-f]{32}", result.summary["digest"])
        assert re.fullmatch(r"sma_cross [\d,.]+, rsi_reversion [\d,.]+", result.summary["equity"])
        assert result.events[0]["event"] == "paperloop"
        assert result.events[-1] | {"event": "stopped", "reason": "stopped"} == result.events[-1]
        assert rows(ledger, "SELECT stop_reason FROM runs") == [("stopped",)]

    def test_the_summary_as_json(self, tmp_path: Path) -> None:
        result = succeeded(paperloop(*at_speed("ledger.db", "--json", until=10), folder=tmp_path))
        assert set(result.document) == set(SUMMARY)
        assert result.document["polls"] == 10

    def test_a_run_at_full_speed_stops_as_soon(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        with Daemon(*at_speed(ledger, until=10_000_000), folder=tmp_path) as daemon:
            daemon.wait_until(lambda: polls_in(ledger) > 0, "the first block")
            asked = monotonic()
            result = succeeded(daemon.stop(signal.SIGTERM))
            assert monotonic() - asked < STOP_S_MAX
        assert result.summary["reason"] == "stopped"
        assert int(result.summary["polls"]) == polls_in(ledger)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_second_signal_ends_at_once(self, tmp_path: Path, number: signal.Signals) -> None:
        ledger = tmp_path / "ledger.db"
        with Daemon(*at_speed(ledger, until=10_000_000), folder=tmp_path) as daemon:
            daemon.wait_until(lambda: polls_in(ledger) > 0, "the first block")
            daemon.send(number)
            asked = monotonic()
            result = daemon.stop(number)
            assert monotonic() - asked < STOP_S_MAX
        assert result.code in {0, 128 + number}
        assert "Traceback" not in result.err
        before = polls_in(ledger)
        assert before % BLOCK == 0
        again = succeeded(paperloop(*at_speed(ledger, until=before + 7), folder=tmp_path))
        assert int(again.summary["polls"]) == before + 7

    def test_sigterm_at_any_moment_of_the_start(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        for number, delay_s in enumerate(np.random.default_rng(5).uniform(0, 0.4, 8)):
            with Daemon(*live(ledger, 0.25), folder=tmp_path) as daemon:
                pause(float(delay_s))
                result = daemon.stop(signal.SIGTERM)
            # Before the handler is in place the system's own one ends the process.
            assert result.code in {0, -signal.SIGTERM}, (number, result)
            assert "Traceback" not in result.err, (number, result)
        after = succeeded(paperloop(*live(ledger, 0.05), "--polls", "1", folder=tmp_path))
        assert int(after.summary["polls"]) >= 1

    def test_sigint_at_any_moment_of_the_start(self, tmp_path: Path) -> None:
        for number, delay_s in enumerate((0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3)):
            with Daemon(*live("ledger.db", 0.25), folder=tmp_path) as daemon:
                # Before that it is Python that starts, and the interrupt is Python's to tell.
                daemon.wait_until(partial(imports_asyncio, daemon.pid), "the first imports")
                pause(delay_s)
                result = daemon.stop(signal.SIGINT)
            assert result.code in {0, 130, -signal.SIGINT}, (number, result)
            assert "Traceback" not in result.err, (number, result)

    def test_a_signal_while_the_summary_is_printed(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        reader, writer = full_pipe()
        try:
            with Daemon(*at_speed(ledger, until=10), folder=tmp_path, stdout=writer) as daemon:
                daemon.wait_until(lambda: polls_in(ledger) == 10 and not lock_text(ledger), "the end of the run")
                pause(0.2)
                daemon.send(signal.SIGTERM)
                pause(0.1)
                os.read(reader, PIPE_BYTES_MIN)
                result = daemon.finish()
        finally:
            os.close(reader)
            os.close(writer)
        assert "Traceback" not in result.err
        assert result.code in {0, 128 + signal.SIGTERM}

    def test_no_warning_in_development_mode(self, tmp_path: Path) -> None:
        with Daemon(*at_speed("ledger.db", until=10), folder=tmp_path, python=("-X", "dev")) as daemon:
            result = succeeded(daemon.finish())
        assert "Warning" not in result.err
        # asyncio, too, speaks there: of what took a tenth of a second, on a busy machine.
        events = [event for event in result.events if not str(event.get("error")).startswith("Executing <")]
        assert events[-1]["event"] == "stopped"


def full_pipe() -> tuple[int, int]:
    """A small pipe that takes no more until somebody reads."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES_MIN)
    os.write(writer, b" " * PIPE_BYTES_MIN)
    return reader, writer


def imports_asyncio(pid: int) -> bool:
    """Whether a process has come as far as the compiled part of asyncio."""
    return "_asyncio" in Path(f"/proc/{pid}/maps").read_text()


def beyond(ledger: Path, polls: int) -> bool:
    return polls_in(ledger) > polls


def ended_or_beyond(daemon: Daemon, ledger: Path, polls: int) -> bool:
    return daemon.ended or beyond(ledger, polls)


def lock_text(ledger: Path) -> str:
    return ledger.with_name(ledger.name + ".lock").read_text()


class TestLog:
    def test_lines_for_people_on_a_terminal(self, tmp_path: Path) -> None:
        main, terminal = pty.openpty()
        try:
            with Daemon(*at_speed("ledger.db", until=10), folder=tmp_path, stderr=terminal) as daemon:
                succeeded(daemon.finish())
            os.set_blocking(main, False)
            said = os.read(main, 65_536).decode()
        finally:
            os.close(main)
            os.close(terminal)
        lines = said.splitlines()
        assert len(lines) == 3
        assert "paperloop" in lines[0]
        assert "stopped" in lines[-1]
        assert not any(line.startswith("{") for line in lines)

    def test_json_elsewhere_every_line(self, tmp_path: Path) -> None:
        fast = '[{name="sma_cross", params={fast=1, slow=2}}]'
        with Daemon(*live("ledger.db", 0.01, strategy=fast), folder=tmp_path) as daemon:
            daemon.wait_until(lambda: trades_in(tmp_path / "ledger.db") > 4, "some trades")
            events = succeeded(daemon.stop()).events
        assert {event["level"] for event in events} == {"info"}
        assert {"paperloop", "first prices are in the ledger", "trade", "stopped"} == {e["event"] for e in events}
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", event["timestamp"]) for event in events)
        assert len([e for e in events if e["event"] == "trade"]) == trades_in(tmp_path / "ledger.db")

    def test_a_reader_that_stalls_does_not_stop_trading(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        reader, writer = full_pipe()
        fast = '[{name="sma_cross", params={fast=1, slow=2}}]'
        keys = live(ledger, 0.01, strategy=fast, feed__symbols=symbols(SYMBOLS), log__level="debug")
        try:
            with Daemon(*keys, folder=tmp_path, stderr=writer) as daemon:
                daemon.wait_until(lambda: polls_in(ledger) > 100, "polls beside a stalled log")
                assert trades_in(ledger) * 200 > PIPE_BYTES_MIN
                asked = monotonic()
                result = daemon.stop()
                assert monotonic() - asked < STOP_S_MAX
        finally:
            os.close(reader)
            os.close(writer)
        assert result.code == 0
        assert list(result.summary) == SUMMARY

    def test_a_reader_that_left_does_not_stop_it(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        reader, writer = os.pipe()
        os.close(reader)
        try:
            with Daemon(*live(ledger, 0.01), folder=tmp_path, stderr=writer) as daemon:
                daemon.wait_until(lambda: polls_in(ledger) > 50, "polls without a log")
                result = daemon.stop()
        finally:
            os.close(writer)
        assert result.code == 0
        assert list(result.summary) == SUMMARY

    def test_no_stderr_at_all(self, tmp_path: Path) -> None:
        command = [
            "sh",
            "-c",
            'exec "$@" 2>&-',
            "sh",
            sys.executable,
            str(MAIN),
            *at_speed("ledger.db", until=10),
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=WAIT_S_MAX, check=False)
        assert done.returncode == 0
        assert list(Result(0, done.stdout, "").summary) == SUMMARY


def trades_in(ledger: Path) -> int:
    return int(rows(ledger, "SELECT trades FROM cursor")[0][0]) if polls_in(ledger) else 0


class TestOneLedgerWhateverHappens:
    def test_killed_and_started_until_done(self, tmp_path: Path, recorded: Path) -> None:
        ledger = tmp_path / "ledger.db"
        random = np.random.default_rng(11)
        for kill in range(6):
            before = polls_in(ledger)
            with Daemon(*at_speed(ledger), folder=tmp_path) as daemon:
                if kill % 3 == 2:
                    pause(float(random.uniform(0.1, 0.5)))
                else:
                    wait_until(partial(ended_or_beyond, daemon, ledger, before), "the next block")
                    pause(float(random.uniform(0, 0.15)))
                daemon.send(signal.SIGKILL)
                assert "Traceback" not in daemon.finish().err
            if polls_in(ledger) == POLLS:
                break
            assert polls_in(ledger) % BLOCK == 0
        result = succeeded(paperloop(*at_speed(ledger), folder=tmp_path))
        assert int(result.summary["polls"]) == POLLS
        assert result.summary["digest"] == digest_of(recorded)
        assert books(ledger) == books(recorded)
        assert tape(ledger) == tape(recorded)

    def test_split_into_parts(self, tmp_path: Path, recorded: Path) -> None:
        ledger = tmp_path / "ledger.db"
        polls = 0
        for part in (["--polls", "1"], ["--polls", "299"], ["--until-poll", "301"], ["--polls", "5000"]):
            result = succeeded(
                paperloop(
                    *settings(storage__path=ledger, feed__symbols=symbols(SYMBOLS)),
                    "--max-speed",
                    *part,
                    folder=tmp_path,
                )
            )
            polls = int(part[1]) if part[0] == "--until-poll" else polls + int(part[1])
            assert int(result.summary["polls"]) == polls == polls_in(ledger)
            assert result.summary["reason"] == "the polls are done"
        result = succeeded(paperloop(*at_speed(ledger), folder=tmp_path))
        assert result.summary["digest"] == digest_of(recorded)
        assert books(ledger) == books(recorded)
        assert tape(ledger) == tape(recorded)
        nothing = succeeded(paperloop(*at_speed(ledger, until=10), folder=tmp_path))
        assert nothing.summary | {"ledger": ""} == result.summary | {"ledger": ""}

    def test_replayed(self, tmp_path: Path, recorded: Path) -> None:
        ledger = tmp_path / "ledger.db"
        replay = settings(
            storage__path=ledger,
            feed__kind="replay",
            feed__replay__path=recorded,
            feed__symbols=symbols(SYMBOLS),
        )
        succeeded(paperloop(*replay, "--until-poll", "5001", folder=tmp_path))
        result = succeeded(paperloop(*replay, folder=tmp_path))
        assert result.summary["reason"] == "the feed has ended"
        assert result.summary["digest"] == digest_of(recorded)
        assert books(ledger) == books(recorded)
        assert tape(ledger) == tape(recorded)

    def test_without_a_tape(self, tmp_path: Path, recorded: Path) -> None:
        untaped = at_speed("ledger.db", *settings(storage__record_ticks="false"))
        result = succeeded(paperloop(*untaped, folder=tmp_path))
        assert result.summary["ticks"] == "0"
        assert result.summary["digest"] == digest_of(recorded)

    def test_without_a_tape_in_parts(self, tmp_path: Path, recorded: Path) -> None:
        keys = settings(storage__record_ticks="false")
        succeeded(paperloop(*at_speed("ledger.db", *keys, until=5000), folder=tmp_path))
        result = succeeded(paperloop(*at_speed("ledger.db", *keys), folder=tmp_path))
        assert result.summary["digest"] == digest_of(recorded)

    def test_a_replay_without_a_tape_in_parts(self, tmp_path: Path, recorded: Path) -> None:
        keys = settings(
            storage__path="ledger.db",
            storage__record_ticks="false",
            feed__kind="replay",
            feed__replay__path=recorded,
            feed__symbols=symbols(SYMBOLS),
        )
        succeeded(paperloop(*keys, "--until-poll", "5000", folder=tmp_path))
        result = succeeded(paperloop(*keys, folder=tmp_path))
        assert result.summary["digest"] == digest_of(recorded)

    def test_what_ran_live_and_was_killed_is_replayed_alike(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        keys = {"strategy": '[{name="sma_cross", params={fast=2, slow=5, short=true}}, {name="rsi_reversion"}]'}
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            before = polls_in(ledger)
            with Daemon(*live(ledger, 0.01, **keys), folder=tmp_path) as daemon:
                daemon.wait_until(partial(beyond, ledger, before + 40), "forty polls")
                assert "Traceback" not in daemon.stop(number).err
        replay = settings(storage__path="again.db", feed__kind="replay", feed__replay__path=ledger, **keys)
        result = succeeded(paperloop(*replay, folder=tmp_path))
        assert int(result.summary["polls"]) == polls_in(ledger)
        assert int(result.summary["trades"]) > 10
        assert result.summary["digest"] == digest_of(ledger)
        assert books(tmp_path / "again.db") == books(ledger)

    def test_a_full_disk_ends_it_and_room_lets_it_go_on(self, tmp_path: Path, recorded: Path) -> None:
        ledger = tmp_path / "ledger.db"
        with Daemon(*at_speed(ledger), folder=tmp_path) as daemon:
            daemon.wait_until(lambda: polls_in(ledger) > 0, "the first block")
            # The file system has no room for files larger than this: what a full disk looks like to a process.
            size = max(file.stat().st_size for file in tmp_path.iterdir())
            resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (size, size))
            result = daemon.finish()
        assert result.code == 74, result
        assert "Traceback" not in result.err
        assert sum(line.startswith("paperloop: ") for line in result.err.splitlines()) == 1
        assert polls_in(ledger) < POLLS
        again = succeeded(paperloop(*at_speed(ledger), folder=tmp_path))
        assert again.summary["digest"] == digest_of(recorded)
        assert books(ledger) == books(recorded)


class TestStartedAgain:
    """A start on a ledger that holds positions, and an end before the first new price."""

    HOLD = '[{name="buy_and_hold"}]'

    def test_a_strategy_without_a_window(self, tmp_path: Path) -> None:
        keys = [*settings(storage__path="ledger.db", strategy=self.HOLD), "--max-speed", "--until-poll", "5"]
        first = succeeded(paperloop(*keys, folder=tmp_path))
        assert succeeded(paperloop(*keys, folder=tmp_path)).summary == first.summary

    def test_without_a_tape(self, tmp_path: Path) -> None:
        keys = settings(storage__path="ledger.db", strategy=self.HOLD, storage__record_ticks="false")
        keys += ["--max-speed", "--until-poll", "5"]
        succeeded(paperloop(*keys, folder=tmp_path))
        succeeded(paperloop(*keys, folder=tmp_path))

    def test_a_symbol_less(self, tmp_path: Path) -> None:
        """Either it goes on with what it holds, or it says what is wrong; a traceback is neither."""
        both = settings(storage__path="ledger.db", strategy=self.HOLD, feed__symbols=symbols(SYMBOLS[:2]))
        succeeded(paperloop(*both, "--max-speed", "--until-poll", "500", folder=tmp_path))
        one = settings(storage__path="ledger.db", strategy=self.HOLD, feed__symbols=symbols(SYMBOLS[:1]))
        result = paperloop(*one, "--max-speed", "--until-poll", "600", folder=tmp_path)
        assert result.code in {0, 78}
        assert "Traceback" not in result.err


class TestBeside:
    """Others on the same ledger."""

    def test_readers_and_a_second_daemon(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        fast = '[{name="sma_cross", params={fast=1, slow=2}}]'
        keys = live(ledger, 0.01, strategy=fast)
        with Daemon(*keys, folder=tmp_path) as daemon:
            daemon.wait_until(lambda: trades_in(ledger) > 4, "some trades")
            second = paperloop(*keys, folder=tmp_path)
            running = read_all(ledger)
            polls = polls_in(ledger)
            daemon.wait_until(lambda: polls_in(ledger) > polls, "the next poll")
            pid = daemon.pid
            succeeded(daemon.stop())
        assert second.code == 73
        assert str(pid) in second.err
        assert "Traceback" not in second.err
        assert second.out == ""
        assert (running["status"]["running"], running["status"]["pid"]) == (True, pid)
        assert -1 < running["status"]["data_age_s"] < 10
        stopped = read_all(ledger)
        assert (stopped["status"]["running"], stopped["status"]["pid"]) == (False, None)
        assert stopped["status"]["trades"] == trades_in(ledger)
        assert len(stopped["trades"]) == min(20, stopped["status"]["trades"])
        assert stopped["status"]["accounts"][0]["account"] == "sma_cross"
        assert stopped["why"]["accounts"][0]["last_signal"] is not None

    def test_the_lock_goes_with_the_process(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        with Daemon(*live(ledger, 0.05), folder=tmp_path) as daemon:
            daemon.wait_until(lambda: polls_in(ledger) > 0, "the first poll")
            daemon.stop(signal.SIGKILL)
        status = paperloop("status", "--json", *settings(storage__path=ledger), folder=tmp_path).document
        assert (status["running"], status["pid"]) == (False, None)
        succeeded(paperloop(*live(ledger, 0.05), "--polls", "1", folder=tmp_path))


def read_all(ledger: Path) -> dict[str, Any]:
    """Every reading verb, once for a machine and once for people."""
    verbs = (["status"], ["trades"], ["signals"], ["why", "BTC/USDT"])
    calls = [[*verb, *settings(storage__path=ledger), *form] for verb in verbs for form in ([], ["--json"])]
    results = [succeeded(result) for result in together(calls, ledger.parent)]
    assert all(result.out.strip() and not result.err for result in results)
    return {verb[0]: result.document for verb, result in zip(verbs, results[1::2], strict=True)}


def test_what_the_daemon_does_not_import(tmp_path: Path) -> None:
    code = (
        "import sys, bot.app, bot.cli, bot.service.render, bot.service.inspect;"
        "heavy = {'ccxt', 'aiohttp', 'prometheus_client', 'pandas', 'polars', 'matplotlib', 'requests'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT_S_MAX,
        check=True,
    )
    assert done.stdout == "[]\n"
