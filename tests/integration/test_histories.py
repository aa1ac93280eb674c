"""Ledgers with a past: symbols that came and went, intervals that changed, replays that were interrupted."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.daemon import Daemon, paperloop, polls_in, settings, wait_until

STRATEGIES = '[{name="sma_cross", params={fast=3, slow=9}, quantity=0.01}, {name="rsi_reversion", quote_amount=700}]'


def run(folder: Path, ledger: str, *flags: str, **keys: Any) -> str:
    """Runs to an end at full speed and returns the digest."""
    keys = {"storage__path": ledger, "log__level": "error", "strategy": STRATEGIES, **keys}
    result = paperloop(*settings(**keys), "--max-speed", *flags, folder=folder)
    assert result.code == 0, result.err
    return result.summary["digest"]


def symbols(*bases: str) -> str:
    return "[" + ", ".join(f'"{base}/USDT"' for base in bases) + "]"


def replay(folder: Path, ledger: str, tape: str, *flags: str, **keys: Any) -> str:
    return run(folder, ledger, *flags, feed__kind="replay", feed__replay__path=tape, **keys)


def in_parts(once: Callable[..., str], *ends: int) -> str:
    for end in ends:
        once("--until-poll", str(end))
    return once()


def test_a_tape_that_is_faster_than_the_replay(tmp_path: Path) -> None:
    run(tmp_path, "tape.db", "--polls", "1000", feed__poll_interval_s=0.2)
    whole = replay(tmp_path, "whole.db", "tape.db", storage__record_ticks="false")

    def once(*flags: str) -> str:
        return replay(tmp_path, "parts.db", "tape.db", *flags, storage__record_ticks="false")

    assert in_parts(once, 300, 700) == whole


def test_a_symbol_that_came_late(tmp_path: Path) -> None:
    run(tmp_path, "tape.db", "--polls", "100", feed__symbols=symbols("BTC"))
    run(tmp_path, "tape.db", "--polls", "1000", feed__symbols=symbols("BTC", "SOL"))
    whole = replay(tmp_path, "whole.db", "tape.db", feed__symbols=symbols("SOL"))

    def once(*flags: str) -> str:
        return replay(tmp_path, "parts.db", "tape.db", *flags, feed__symbols=symbols("SOL"))

    assert in_parts(once, 5, 10, 400) == whole
    assert polls_in(tmp_path / "parts.db") == polls_in(tmp_path / "whole.db") == 1000


def test_all_symbols_exchanged(tmp_path: Path) -> None:
    run(tmp_path, "tape.db", "--polls", "1000", feed__symbols=symbols("BTC"))
    run(tmp_path, "tape.db", "--polls", "1000", feed__symbols=symbols("SOL"))
    with closing(sqlite3.connect(tmp_path / "tape.db")) as tape:
        times = [row[0] for row in tape.execute("SELECT timestamp FROM ticks ORDER BY rowid")]
    assert times == sorted(times)
    whole = replay(tmp_path, "whole.db", "tape.db", feed__symbols=symbols("BTC", "SOL"))

    def once(*flags: str) -> str:
        return replay(tmp_path, "parts.db", "tape.db", *flags, feed__symbols=symbols("BTC", "SOL"))

    assert in_parts(once, 995, 1000, 1005) == whole
    assert polls_in(tmp_path / "parts.db") == 2000


def test_markets_of_an_earlier_run(tmp_path: Path) -> None:
    both = symbols("BTC", "ETH")
    recorded = run(tmp_path, "tape.db", "--polls", "2000", feed__symbols=both)
    run(tmp_path, "tape.db", "--polls", "10", feed__symbols=symbols("BTC"))
    assert replay(tmp_path, "again.db", "tape.db", "--until-poll", "2000", feed__symbols=both) == recorded


def test_a_strategy_that_flattens_with_minus_zero(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "minus.py").write_text(
        "import numpy as np\n\n\n"
        "class Minus:\n"
        "    lookback = 1\n\n"
        "    def targets(self, bars):\n"
        "        return -np.sign(np.rint(bars.close * 100) % 3)\n"
    )
    mine = {"strategy_folder": "mine", "strategy": '[{name="minus", quote_amount=100}]'}
    run(tmp_path, "ledger.db", "--polls", "50", **mine)
    assert run(tmp_path, "ledger.db", "--until-poll", "90", **mine) == run(
        tmp_path, "other.db", "--polls", "90", **mine
    )


def test_all_of_the_equity_can_be_spent(tmp_path: Path) -> None:
    whole = '[{name="buy_and_hold", equity_fraction=1}]'
    run(tmp_path, "ledger.db", "--polls", "5", strategy=whole, feed__symbols=symbols("BTC"))
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as ledger:
        assert ledger.execute("SELECT verdict FROM signals").fetchall() == [("filled",)]
        ((cash,),) = ledger.execute("SELECT CAST(cash AS REAL) FROM accounts")
    assert 0 <= cash < 5


@pytest.mark.parametrize("stop", [False, True], ids=["goes on", "is stopped meanwhile"])
def test_somebody_holds_a_lock_for_a_while(tmp_path: Path, stop: bool) -> None:
    ledger = tmp_path / "ledger.db"
    keys = settings(storage__path=ledger, feed__poll_interval_s=0.05, log__level="warning")
    log = tmp_path / "log"
    with log.open("w") as heard, Daemon(*keys, folder=tmp_path, stderr=heard) as daemon:
        daemon.wait_until(lambda: polls_in(ledger) > 5, "some polls")
        with closing(sqlite3.connect(ledger, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            before = polls_in(ledger)
            wait_until(lambda: "holds a lock" in log.read_text(), "a word about the lock")
            if stop:
                result = daemon.stop()
                assert result.code == 0, result
                return
            assert polls_in(ledger) == before
        daemon.wait_until(lambda: polls_in(ledger) > before + 5, "polls after the lock")
        result = daemon.stop()
    assert result.code == 0, result
    assert "Traceback" not in log.read_text()


def test_a_ledger_that_is_removed_under_the_daemon(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    with Daemon(*settings(storage__path=ledger, feed__poll_interval_s=0.05), folder=tmp_path) as daemon:
        daemon.wait_until(lambda: polls_in(ledger) > 5, "some polls")
        os.unlink(ledger)
        result = daemon.finish()
    assert result.code == 65
    assert "was removed or replaced" in result.err
    assert "Traceback" not in result.err
