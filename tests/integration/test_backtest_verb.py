"""``paperloop backtest`` as its user runs it."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.daemon import Result, paperloop, rows

MINUTE = 60_000
START = 1_704_067_200_000  # 2024-01-01T00:00:00Z
SMA = ("--strategy", "sma_cross", "--param", "fast=3", "--param", "slow=9")


def write_candles(file: Path, seed: int, count: int = 3_000) -> Path:
    random = np.random.default_rng(seed)
    prices = np.round(100 * np.exp(np.cumsum(random.normal(0, 0.001, 4 * count))), 2).reshape(count, 4)
    lines = ["timestamp,open,high,low,close,volume"]
    for number, row in enumerate(prices.tolist()):
        lines.append(f"{START + number * MINUTE},{row[0]},{max(row)},{min(row)},{row[3]},1")
    text = "\n".join(lines) + "\n"
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("backtest")
    write_candles(where / "BTC_USDT-1m.csv", 1)
    write_candles(where / "ETH_USDT-1m.csv.gz", 2)
    return where


def backtest(folder: Path, *arguments: str) -> Result:
    return paperloop("backtest", *arguments, folder=folder)


def document(folder: Path, *arguments: str) -> dict[str, Any]:
    found = backtest(folder, *arguments, "--json")
    assert (found.code, found.err) == (0, "")
    whole: dict[str, Any] = found.document
    return whole


def test_the_tables(folder: Path) -> None:
    found = backtest(folder, "--data", "BTC_USDT-1m.csv", *SMA, "--fee-rate", "0.002")
    assert (found.code, found.err) == (0, "")
    for words in (
        "candles 3,000 of 1m",
        "fee 0.2%",
        "sma_cross fast=3 slow=9",
        "Exit reasons",
        "Sharpe",
        "max drawdown",
    ):
        assert words in re.sub(" +", " ", found.out), words


def test_through_the_loop_it_is_the_same_and_the_ledger_is_proven(folder: Path) -> None:
    """Two symbols, a longer timeframe, a part of the data: equal to the last digit of every figure."""
    asked = (
        *SMA,
        "--timeframe",
        "5m",
        "--timerange",
        "20240102-20240103",
        "--slippage-bps",
        "2",
        "--equity-fraction",
        "1",
    )
    files = ("--data", "BTC_USDT-1m.csv", "--data", "ETH_USDT-1m.csv.gz")
    at_once = document(folder, *files, *asked)
    ledger = folder / "kept.db"
    lived = document(folder, *files, *asked, "--persist", ledger.name)
    assert (at_once.pop("engine"), lived.pop("engine")) == ("vectorised", "event-driven")
    assert at_once == lived
    (strategy,) = at_once["strategies"]
    assert len(strategy["trades"]) > 10
    assert at_once["start"] == "2024-01-02T00:00:00.000Z"
    assert {trade["symbol"] for trade in strategy["trades"]} == {"BTC/USDT", "ETH/USDT"}
    assert rows(ledger, "SELECT count(*) FROM trades") == [(strategy["metrics"]["fills"],)]
    here = f"storage.path={ledger.name}"
    for verb in ("audit", "verify"):
        assert paperloop(verb, "--set", here, folder=folder).code == 0, verb
    # And it can be traded again, as any tape.
    again = document(folder, "--data", ledger.name, *asked)
    assert again["strategies"][0]["trades"] == strategy["trades"]
    replayed = backtest(folder, "--data", ledger.name, "--event-driven", *SMA)
    assert replayed.code == 78
    assert "run --set feed.kind=replay" in replayed.err
    at_close = backtest(folder, "--data", ledger.name, "--fill", "close", *SMA)
    assert at_close.code == 78
    assert "is for candles: a ledger has ticks" in at_close.err
    taken = backtest(folder, *files, *asked, "--persist", ledger.name)
    assert (taken.code, taken.out) == (78, "")
    assert "exists already" in taken.err


def test_several_strategies_and_reports(folder: Path) -> None:
    asked = ("--data", ".", "--strategy", "sma_cross", "--strategy", "macd", "--fill", "close", "--capital", "500")
    found = backtest(folder, *asked, "--report", "r.html", "--report", "r.png")
    assert (found.code, found.err) == (0, "")
    assert "at the close" in found.out
    assert re.search(r"^Strategies$", found.out, re.MULTILINE)
    page = (folder / "r.html").read_text()
    assert "sma_cross" in page
    assert "macd" in page
    assert "://" not in page
    assert (folder / "r.png").read_bytes().startswith(b"\x89PNG")


def test_the_configuration_is_what_is_traded(folder: Path) -> None:
    """Without a strategy on the command line, and options on top of it."""
    strategies = 'strategy=[{name="buy_and_hold", quote_amount=50}, {name="rsi_reversion", params={period=2}}]'
    found = document(folder, "--data", "BTC_USDT-1m.csv", "--set", strategies, "--capital", "70", "--timeframe", "15m")
    first, second = found["strategies"]
    assert (first["sizing"], second["sizing"]) == ("quote_amount 50", "equity_fraction 0.25")
    assert {each["timeframe"] for each in (first, second)} == {"15m"}
    assert {each["metrics"]["starting_balance"] for each in (first, second)} == {70.0}
    assert (first["metrics"]["fills"], first["metrics"]["open_trades"]) == (1, 1)


def test_simulated_prices_are_those_of_the_daemon(folder: Path) -> None:
    """What `run` builds of its ticks is what the backtest trades."""
    one = 'strategy=[{name="sma_cross", params={fast=2, slow=5}, timeframe="1m"}]'
    keys = ("--set", one, "--set", "storage.path=lived.db", "--set", 'feed.symbols=["BTC/USDT"]')
    assert paperloop("run", "--max-speed", "--polls", "20000", *keys, folder=folder).code == 0
    asked = ("--set", one, "--set", 'feed.symbols=["BTC/USDT"]', "--timerange", "20250101-20250102")
    found = document(folder, "--data", "simulated", *asked)
    sides = [(trade["opened"][:16], trade["side"]) for trade in found["strategies"][0]["trades"]]
    fills = rows(folder / "lived.db", "SELECT timestamp, side FROM trades ORDER BY id")
    bought = [np.datetime64(time, "ms").astype(str)[:16] for time, side in fills if side == "buy"]
    assert len(bought) > 20
    assert bought == [time for time, _ in sides][: len(bought)]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--data", "none.csv"], 2, "there is no file none.csv"),
        (["--data", "BTC_USDT-1m.csv", "--strategy", "smacross"], 78, "did you mean sma_cross"),
        (["--data", "BTC_USDT-1m.csv", "--quantity", "1", "--quote-amount", "1"], 2, "only one of --quantity"),
        (["--data", "BTC_USDT-1m.csv", "--param", "fast=3"], 2, "--param goes with one --strategy"),
        (["--data", "BTC_USDT-1m.csv", "--timerange", "20200101-20200201"], 2, "has no candles in it"),
        (["--data", "BTC_USDT-1m.csv", "--report", "r.pdf"], 2, "must end in .html or .png"),
        (["--data", "BTC_USDT-1m.csv", "--timeframe", "7m"], 2, "--timeframe 7m: must be one of tick, 1m"),
        (["--data", "american.csv"], 65, '"01/31/2024"; a time is ISO 8601, such as'),
        (["--data", "bad.csv"], 65, "line 3: close is -1.0"),
        (
            ["--data", "ETH_USDT-1m.csv.gz", "--set", 'strategy=[{name="sma_cross", timeframe="1d"}]', "--fill", "x"],
            2,
            "fill",
        ),
    ],
)
def test_what_is_wrong_is_told(folder: Path, arguments: list[str], code: int, told: str) -> None:
    (folder / "bad.csv").write_text("timestamp,open,high,low,close\n1704067200000,1,2,1,1\n1704067260000,1,2,1,-1\n")
    (folder / "american.csv").write_text("date,open,high,low,close\n01/31/2024,1,2,1,1\n")
    found = backtest(folder, *arguments)
    assert (found.code, found.out) == (code, "")
    assert told in found.err
    assert "Traceback" not in found.err


def test_bad_rows_are_left_out_when_asked(folder: Path) -> None:
    lines = (folder / "BTC_USDT-1m.csv").read_text().splitlines()
    lines[10] = lines[10].replace(",1", ",NaN", 1)
    (folder / "holes.csv").write_text("\n".join(lines))
    assert backtest(folder, "--data", "holes.csv", *SMA).code == 65
    found = backtest(folder, "--data", "holes.csv", *SMA, "--repair", "drop")
    assert found.code == 0
    assert "1 line left out" in found.err


def test_a_strategy_that_raises_is_told_once(folder: Path) -> None:
    (folder / "mine").mkdir()
    text = (
        "class Moody:\n    name = 'moody'\n    lookback = 1\n"
        "    def targets(self, bars):\n        raise ValueError('no\\nluck')\n"
    )
    (folder / "mine" / "moody.py").write_text(text)
    found = backtest(folder, "--data", "BTC_USDT-1m.csv", "--strategy", "moody", "--set", "strategy_folder=mine")
    assert found.code == 0
    assert found.err == "paperloop: moody raised, and held where it did: ValueError: no luck\n"


def test_no_trade_for_want_of_bars_is_told(folder: Path) -> None:
    found = backtest(folder, "--data", "BTC_USDT-1m.csv", *SMA, "--timeframe", "1d")
    assert found.code == 0
    assert found.err == "paperloop: sma_cross did not trade: it looks back on 9 bars of 1d, and the range has 2\n"


def test_what_was_repaired_is_in_the_document(folder: Path) -> None:
    lines = (folder / "BTC_USDT-1m.csv").read_text().splitlines()
    (folder / "newest.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    found = backtest(folder, "--data", "newest.csv", *SMA, "--repair", "sort", "--json")
    assert found.code == 0
    assert "newest.csv: put in the order of time" in found.err
    (file,) = found.document["files"]
    assert (file["candles"], file["repair"]) == (3_000, ["sort"])
    assert file["faults"]["disorder"]["count"] == 2_999
