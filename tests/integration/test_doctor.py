"""``doctor`` in front of machines and exchanges that are well, and of some that are not."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bot.clock import SystemClock
from bot.domain import iso8601
from tests.exchange import FakeExchange, running_exchange
from tests.integration.daemon import Daemon, Result, paperloop, polls_in, settings

EXCHANGE = ["ccxt", "reachable", "status", "clock", "markets", "symbol", "symbol", "quotes", "poll interval", "candles"]
MACHINE = ["configuration", "python", "sqlite", "ledger path", "rights", "disk", "ledger"]
WORST_S = 25.0

monotonic = SystemClock().monotonic


def doctor(folder: Path, *words: str, **keys: object) -> Result:
    return paperloop("doctor", *words, *settings(storage__path=folder / "ledger.db", **keys), folder=folder)


def at(exchange: FakeExchange, **keys: object) -> dict[str, object]:
    return {"feed__kind": "ccxt", "feed__ccxt__exchange": exchange.kind, "feed__ccxt__base_url": exchange.url, **keys}


def by_name(result: Result) -> dict[str, dict[str, Any]]:
    """The worst finding of each name."""
    found: dict[str, dict[str, Any]] = {}
    for check in sorted(result.document["checks"], key=lambda check: ("ok", "warning", "failed").index(check["state"])):
        found[check["name"]] = check
    return found


def failures(result: Result) -> set[str]:
    assert result.document["ok"] is (result.code == 0)
    return {check["name"] for check in result.document["checks"] if check["state"] == "failed"}


class TestTheMachine:
    def test_all_is_well(self, tmp_path: Path) -> None:
        result = doctor(tmp_path)
        assert (result.code, result.err) == (0, "")
        assert [line[9:22].strip() for line in result.out.splitlines()] == MACHINE
        assert all(line.startswith("ok ") for line in result.out.splitlines())
        assert list(tmp_path.iterdir()) == []

    def test_a_broken_configuration(self, tmp_path: Path) -> None:
        result = doctor(tmp_path, "--json", log__level="loud")
        assert (result.code, result.out) == (78, "")
        assert "log.level" in result.err

    def test_rights(self, tmp_path: Path) -> None:
        assert paperloop(*settings(storage__path="ledger.db"), "--max-speed", "--polls", "5", folder=tmp_path).code == 0
        (tmp_path / "ledger.db").chmod(0o666)
        before = (tmp_path / "ledger.db").read_bytes()
        result = doctor(tmp_path)
        assert result.code == 0
        (line,) = [line for line in result.out.splitlines() if line[9:15] == "rights"]
        assert line.startswith("warning")
        assert f"chmod 600 '{tmp_path}/ledger.db'" in line
        assert (tmp_path / "ledger.db").read_bytes() == before

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        folder = tmp_path if os.geteuid() else Path("/sys")
        if os.geteuid():
            folder.chmod(0o500)
        result = paperloop("doctor", "--json", *settings(storage__path=folder / "ledger.db"), folder=tmp_path)
        assert result.code == 1
        assert "ledger path" in failures(result)
        assert str(folder) in by_name(result)["ledger path"]["text"]

    def test_beside_a_daemon(self, tmp_path: Path) -> None:
        keys = settings(storage__path=tmp_path / "ledger.db", feed__poll_interval_s=0.05)
        with Daemon("run", *keys, folder=tmp_path) as daemon:
            daemon.wait_until(lambda: polls_in(tmp_path / "ledger.db") > 2, "polls")
            result = doctor(tmp_path, "--json")
            assert result.code == 0
            assert by_name(result)["ledger"]["pid"] == daemon.pid
            polls = polls_in(tmp_path / "ledger.db")
            daemon.wait_until(lambda: polls_in(tmp_path / "ledger.db") > polls, "more polls")
            assert daemon.stop().code == 0

    def test_a_ledger_of_the_future(self, tmp_path: Path) -> None:
        start = iso8601(SystemClock().now_ms() + 3_600_000)
        keys = settings(storage__path="ledger.db", feed__simulated__start=start)
        assert paperloop(*keys, "--max-speed", "--polls", "5", folder=tmp_path).code == 0
        found = by_name(doctor(tmp_path, "--json"))["ledger"]
        assert (found["state"], "later than this machine's clock" in found["text"]) == ("warning", True)

    def test_a_database_of_another_program(self, tmp_path: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
            connection.execute("CREATE TABLE trades (id)")
        result = doctor(tmp_path, "--json")
        assert failures(result) == {"ledger"}
        assert "another program" in by_name(result)["ledger"]["text"]


class TestTheExchange:
    @pytest.mark.parametrize("kind", ["binance", "kraken"])
    def test_all_is_well(self, tmp_path: Path, kind: Any) -> None:
        with running_exchange(kind) as exchange:
            result = doctor(tmp_path, "--json", **at(exchange, feed__poll_interval_s=5))
        checks = result.document["checks"]
        assert [check["name"] for check in checks] == MACHINE + EXCHANGE
        assert {check["state"] for check in checks} == {"ok"}, checks
        assert result.code == 0
        symbol = next(check for check in checks if check["name"] == "symbol")
        assert (symbol["symbol"], symbol["price_step"]) == ("BTC/USDT", "0.01" if kind == "binance" else "0.1")
        assert symbol["taker"] > 0
        assert by_name(result)["quotes"]["good"] == 2
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("fault", ["down", "hang"])
    def test_it_does_not_answer(self, tmp_path: Path, fault: str) -> None:
        with running_exchange() as exchange:
            if fault == "down":
                exchange.stop()
            else:
                exchange.fault("hang")
            started_s = monotonic()
            result = doctor(tmp_path, "--json", **at(exchange))
            assert monotonic() - started_s < WORST_S
        assert result.code == 1
        assert failures(result) == {"reachable", "status"}
        assert by_name(result)["markets"]["text"] == "not checked: the exchange is not reached"
        assert by_name(result)["disk"]["state"] == "ok"

    @pytest.mark.parametrize(("skew_ms", "state"), [(3_000, "warning"), (-60_000, "failed")])
    def test_clocks_that_differ(self, tmp_path: Path, skew_ms: int, state: str) -> None:
        with running_exchange() as exchange:
            exchange.fault("clock_skew", skew_ms=skew_ms)
            result = doctor(tmp_path, "--json", **at(exchange))
        found = by_name(result)
        assert found["clock"]["state"] == state
        assert abs(found["clock"]["offset_ms"] - skew_ms) < 500
        # The age of a quote is by the exchange's own clock.
        assert found["quotes"]["state"] == "ok"
        assert "quote" not in found

    def test_symbols_quotes_and_the_poll_interval(self, tmp_path: Path) -> None:
        with running_exchange(symbols=4) as exchange:
            exchange.fault("halt", symbols=["ETH/USDT"])
            exchange.fault("crossed", symbols=["COIN003/USDT"])
            symbols = '["BTC/USDT", "BTX/USDT", "ETH/USDT", "COIN003/USDT"]'
            keys = at(exchange, feed__symbols=symbols, feed__poll_interval_s=0.5)
            result = doctor(tmp_path, **keys)
        assert result.code == 1
        told = "\n".join(line for line in result.out.splitlines() if not line.startswith("ok"))
        assert len(told.splitlines()) == 4, told
        for words in (
            "BTX/USDT: binance has no such market; did you mean BTC/USDT?",
            "ETH/USDT is listed, and not traded now",
            "COIN003/USDT: the bid is not below the ask",
            "raise feed.poll_interval_s from 0.5",
        ):
            assert words in told

    def test_maintenance(self, tmp_path: Path) -> None:
        with running_exchange() as exchange:
            exchange.fault("maintenance")
            result = doctor(tmp_path, "--json", **at(exchange))
        assert failures(result) >= {"reachable", "status", "markets"}
        assert "maintenance" in by_name(result)["status"]["text"]

    def test_one_failure_hides_no_other_check(self, tmp_path: Path) -> None:
        with running_exchange() as exchange:
            exchange.fault("http500", endpoints=["time"])
            exchange.fault("html200", endpoints=["status"])
            result = doctor(tmp_path, "--json", **at(exchange))
        assert failures(result) == {"reachable", "status", "clock"}
        assert by_name(result)["quotes"]["good"] == 2

    def test_rate_limit_is_kept(self, tmp_path: Path) -> None:
        with running_exchange() as exchange:
            exchange.fault("http429", endpoints=["time"], retry_after_s=30)
            result = doctor(tmp_path, "--json", **at(exchange))
            assert exchange.violations() == []
        assert "reachable" in failures(result)
