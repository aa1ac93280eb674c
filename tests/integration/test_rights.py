"""Who may read what the daemon writes, on a machine where new files are for everybody."""

from __future__ import annotations

import stat
from pathlib import Path

from tests.exchange import running_exchange
from tests.integration.daemon import Daemon, Result, polls_in, settings
from tests.integration.test_live_prices import live

LEDGER = "data/deep/ledger.db"


def umasked(umask: str) -> tuple[str, ...]:
    return ("sh", "-c", f'umask {umask}; exec "$@"', "sh")


def modes(folder: Path) -> dict[str, int]:
    """Everything below it, by name."""
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in sorted(folder.rglob("*"))}


def assert_private(folder: Path) -> None:
    found = modes(folder)
    assert {name: f"{mode:o}" for name, mode in found.items() if mode & 0o077} == {}


def test_a_daemon(tmp_path: Path) -> None:
    """Where all may do everything."""
    with running_exchange("binance", symbols=2) as exchange:
        arguments = live("binance", exchange.url, storage__path=LEDGER)
        with Daemon(*arguments, folder=tmp_path, before=umasked("000")) as daemon:
            daemon.wait_until(lambda: polls_in(tmp_path / LEDGER) > 2, "the first polls")
            assert_private(tmp_path)
            running = set(modes(tmp_path))
            assert daemon.stop().code == 0
    assert_private(tmp_path)
    names = ("", "-wal", "-shm", ".lock", ".markets.json")
    assert running == {"data", "data/deep", *(LEDGER + name for name in names)}


def test_what_else_writes_beside_a_ledger(tmp_path: Path) -> None:
    """Where all may read everything; also the folder that a download makes before there is a ledger in it."""

    def run(*arguments: str) -> Result:
        with Daemon(*arguments, folder=tmp_path, before=umasked("022")) as process:
            result = process.finish()
        assert result.code == 0, result
        return result

    with running_exchange("binance", symbols=2) as exchange:
        keys = settings(feed__ccxt__exchange="binance", feed__ccxt__base_url=exchange.url)
        run("download", "--symbol", "BTC/USDT", "--timerange", "20250101-20250102", *keys)
    folders = {name: mode for name, mode in modes(tmp_path).items() if "." not in name}
    assert folders == dict.fromkeys(("data", "data/history", "data/history/binance"), 0o700)
    run("backtest", "--data", "data/history/binance", "--persist", "data/backtest.db")
    run("export", *settings(storage__path="data/backtest.db"), "--output", "data/out")
    found = modes(tmp_path)
    ledger = {name: mode for name, mode in found.items() if name.startswith("data/backtest.db")}
    assert "data/backtest.db" in ledger
    assert set(ledger.values()) == {0o600}
    # What was asked for by its name has the rights that were asked for; nobody else comes so far.
    assert found["data"] == 0o700
    assert found["data/out/trades.csv"] == 0o644
