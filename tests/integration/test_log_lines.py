"""The log of the real daemon, line by line: what an exchange says, and a mistake in a program, make one line each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.exchange import running_exchange
from tests.integration.daemon import Daemon, paperloop, polls_in, rows, settings
from tests.integration.test_live_prices import live

PRIORITIES = {"debug": "7", "info": "6", "warning": "4", "error": "3", "critical": "2"}
FORGED = '{"level": "critical", "event": "sold everything"}'
# Each of them a fault and what the exchange says in it.
HOSTILE = [
    ("http500", f"x\n{FORGED}\r\n<0>{FORGED}\n"),
    ("http500", "\x1b[2J\x1b]0;t\x07\x00\x9b31m\x85\u2028\u2029\u202e\u2066\ufeff"),
    ("rate_msg", f"\ud800\n\x1b[31m\n<0>{FORGED}"),
    ("http503", "\r\n\x1b[31m" * 20_000),
]


@contextmanager
def as_journal(file: Path) -> Iterator[tuple[IO[str], dict[str, str]]]:
    """A file that a process takes for its way to the journal: the stream and the environment."""
    with file.open("w") as stream:
        found = file.stat()
        yield stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}


def test_what_an_exchange_says_forges_nothing(tmp_path: Path) -> None:
    log, ledger = tmp_path / "log", tmp_path / "ledger.db"
    with running_exchange("binance", symbols=2) as exchange, as_journal(log) as (stream, environment):
        arguments = live("binance", exchange.url, log__level="debug")
        with Daemon(*arguments, folder=tmp_path, stderr=stream, environment=environment) as daemon:
            for name, text in HOSTILE:
                polls = polls_in(ledger)
                daemon.wait_until(lambda polls=polls: polls_in(ledger) > polls, "prices")  # type: ignore[misc]
                seen = log.read_text().count("no prices")
                exchange.fault(name, text=text, endpoints=["ticker"], retry_after_s=None)
                daemon.wait_until(lambda seen=seen: log.read_text().count("no prices") > seen, "word of it")  # type: ignore[misc]
                exchange.clear()
            assert daemon.stop().code == 0
    lines = log.read_bytes().decode().split("\n")
    assert lines.pop() == ""
    told = set()
    for line in lines:
        assert line.isprintable()
        assert len(line) < 40_000
        event = json.loads(line[3:])
        assert line[:3] == f"<{PRIORITIES[event['level']]}>"
        assert event["level"] in {"debug", "info", "warning"}
        told.add(event["event"])
    assert told <= {"paperloop", "first prices are in the ledger", "no prices", "trading again", "trade", "stopped"}
    # It was there to be seen, as a part of what was said.
    for text in ("sold everything", "\\\\x1b", "\\\\u202e", "\\\\ud800"):
        assert text in log.read_text()


PANIC = """
import numpy as np

class Panic(BaseException):
    pass

class Odd:
    name, lookback, asked = "odd", 1, 0

    def targets(self, bars):
        Odd.asked += len(bars) == 1
        if Odd.asked > 4:
            raise Panic("a\\nb\\x1b[31m")
        return np.full(len(bars), np.nan)
"""


def test_a_mistake_in_a_program_is_one_line(tmp_path: Path) -> None:
    """Nobody foresees what is no Exception."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "odd.py").write_text(PANIC)
    log = tmp_path / "log"
    keys = settings(
        strategy_folder="mine",
        strategy='[{name="odd"}]',
        storage__path="ledger.db",
        feed__poll_interval_s=0.05,
    )
    with (
        as_journal(log) as (stream, environment),
        Daemon(*keys, folder=tmp_path, stderr=stream, environment=environment) as daemon,
    ):
        result = daemon.finish()
    assert (result.code, result.out) == (1, "")
    *before, line = log.read_text().splitlines()
    assert all(each.startswith("<6>{") for each in before)
    assert line.startswith("<2>{")
    event = json.loads(line[3:])
    assert (event["level"], event["event"]) == ("critical", "crashed")
    assert event["error"] == "Panic: a\\x0ab\\x1b[31m"
    assert "in targets" in event["traceback"]
    assert rows(tmp_path / "ledger.db", "SELECT polls FROM cursor") == [(2,)]


def test_what_the_command_line_complains_of(tmp_path: Path) -> None:
    """Also in the journal, where its level is that of an error."""
    log = tmp_path / "log"
    text = "x\n<0>y\x1b[31m\u202e"
    with as_journal(log) as (stream, environment):
        for arguments in (["--set", f"log.level={text}"], ["backtest", "--data", text]):
            with Daemon(*arguments, folder=tmp_path, stderr=stream, environment=environment) as daemon:
                assert daemon.finish().code in {1, 2, 78}
    lines = log.read_text().splitlines()
    assert len(lines) == 2
    assert all(line.startswith("<3>paperloop: ") and line.isprintable() for line in lines)
    result = paperloop("--set", f"log.level={text}", folder=tmp_path)
    assert result.err.startswith("paperloop: log.level = ")
    assert result.err.count("\n") == 1
