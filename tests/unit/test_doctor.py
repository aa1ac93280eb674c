"""What the doctor makes of what it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bot.doctor import Check, State, machine
from bot.doctor.exchange import history_of, interval_check, of_ccxt, offset_check, quote_checks
from bot.settings import Settings, load_settings

NOW_MS = 1_735_689_600_000


def given(*overrides: str) -> Settings:
    return load_settings((), overrides, {}, None)


def states(checks: list[Check]) -> list[State]:
    return [check.state for check in checks]


@pytest.mark.parametrize(
    ("version", "state", "words"),
    [
        ((3, 36, 0), State.FAILED, "newer Python"),
        ((3, 40, 1), State.OK, "only the daemon"),
        ((3, 44, 5), State.OK, "only the daemon"),
        ((3, 44, 6), State.OK, ""),
        ((3, 50, 7), State.OK, ""),
        ((3, 51, 2), State.OK, "only the daemon"),
        ((3, 51, 3), State.OK, ""),
        ((3, 53, 0), State.OK, ""),
    ],
)
def test_sqlite(version: tuple[int, int, int], state: State, words: str) -> None:
    (check,) = machine.of_sqlite(version)
    assert check.state is state
    assert words in check.text
    assert ("only the daemon" in check.text) == (words == "only the daemon")


@pytest.mark.parametrize(
    ("free", "state"),
    [
        (99_999_999, State.FAILED),
        (100_000_000, State.WARNING),
        (999_999_999, State.WARNING),
        (10**9, State.OK),
        (10**13, State.OK),
    ],
)
def test_room(free: int, state: State) -> None:
    check = machine.room(free, given())
    assert check.state is state
    # Two symbols, every second, 34 bytes each.
    assert check.facts["tape_bytes_per_day"] == 34 * 2 * 86_400
    assert check.facts["days"] == round(free / (34 * 2 * 86_400))


def test_a_tape_that_will_not_fit() -> None:
    check = machine.room(2 * 10**9, given("feed.poll_interval_s=0.01"))
    assert (check.state, check.facts["days"]) == (State.WARNING, 3)
    assert "keep_ticks_days" in check.text


def test_no_tape() -> None:
    check = machine.room(2 * 10**9, given("feed.poll_interval_s=0.01", "storage.record_ticks=false"))
    assert (check.state, check.facts["days"]) == (State.OK, None)


def test_rights(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    settings = given(f"storage.path='{folder}/ledger.db'")
    assert states(list(machine.of_rights(settings))) == [State.OK]
    ledger = folder / "ledger.db"
    ledger.touch(mode=0o600)
    assert states(list(machine.of_rights(settings))) == [State.OK]
    ledger.chmod(0o644)
    (check,) = machine.of_rights(settings)
    assert check.state is State.WARNING
    assert f"chmod 600 '{ledger}'" in check.text
    ledger.chmod(0o600)
    folder.chmod(0o770)
    (check,) = machine.of_rights(settings)
    assert f"others may write to {folder} (mode 770): chmod 700 '{folder}'" in check.text
    folder.chmod(0o711)
    (check,) = machine.of_rights(settings)
    assert f"others may enter {folder} (mode 711): chmod 700 '{folder}'" in check.text


def test_a_folder_that_is_to_be_made(tmp_path: Path) -> None:
    (check,) = machine.of_folder(given(f"storage.path='{tmp_path}/a/b/ledger.db'"))
    assert (check.state, list(tmp_path.iterdir())) == (State.OK, [])


def test_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (check,) = machine.of_folder(given(f"storage.path='{tmp_path}/file/ledger.db'"))
    assert check.state is State.FAILED


@pytest.mark.parametrize(
    ("offset_ms", "state", "word"),
    [(0, State.OK, ""), (-1000, State.OK, "ahead"), (1001, State.WARNING, "behind"), (-10_001, State.FAILED, "ahead")],
)
def test_clock(offset_ms: int, state: State, word: str) -> None:
    check = offset_check(offset_ms, 10_000)
    assert check.state is state
    assert word in check.text


def test_poll_interval() -> None:
    assert interval_check(16, 0.05, 1.0).state is State.OK
    check = interval_check(16, 0.05, 0.5)
    assert (check.state, check.facts["needed_s"]) == (State.FAILED, 0.8)


@pytest.mark.parametrize(
    ("timeframe", "available", "made_of"),
    [
        ("5m", ("1m", "5m", "1h"), "5m"),
        ("2h", ("1m", "1h", "1d"), "1h"),
        ("3m", ("1m", "5m"), "1m"),
        ("3m", ("5m",), None),
        ("1w", ("1w",), None),
        ("1w", ("1d", "1w"), "1d"),
        ("1M", ("1m", "1d"), "1d"),
        ("1h", (), None),
    ],
)
def test_history_is_made_of(timeframe: str, available: tuple[str, ...], made_of: str | None) -> None:
    assert history_of(timeframe, available) == made_of


@pytest.mark.parametrize(
    ("version", "state"), [("4.5.69", State.WARNING), ("4.5.70", State.OK), ("5.0", State.OK), ("x", State.WARNING)]
)
def test_ccxt(version: str, state: State) -> None:
    assert of_ccxt(version).state is state


@pytest.mark.parametrize(
    ("ticker", "words"),
    [
        (None, "no quote"),
        ({"bid": None, "ask": 2.0}, "None"),
        ({"bid": float("nan"), "ask": 2.0}, "nan"),
        ({"bid": 2.0, "ask": 2.0}, "not below"),
        ({"bid": 1.0, "ask": 2.0, "timestamp": NOW_MS - 11_000}, "11.0 s old"),
        ({"bid": 1.0, "ask": 2.0, "timestamp": NOW_MS + 7_000}, "ahead"),
        ({"bid": 1.0, "ask": 2.0, "timestamp": "soon"}, "a price or the time"),
        ({"bid": 1.0, "ask": 2.0, "timestamp": float("nan")}, "a price or the time"),
        ({"bid": 1.0, "ask": 2.0, "last": -1.0}, "zero or below"),
        ({"bid": True, "ask": 2.0}, "True"),
        ({"bid": 0.1 + 0.2, "ask": 2.0}, "0.30000000000000004"),
        ({"bid": 10**400, "ask": 10**401}, "a price or the time"),
        ({"bid": 1.0, "ask": 2.0, "symbol": "X/Y"}, "no quote"),
    ],
)
def test_bad_quotes(ticker: Any, words: str) -> None:
    good = {"symbol": "A/B", "bid": 99.0, "ask": 101.0, "timestamp": None}
    bad = ticker and {"symbol": "C/B", **ticker}
    checks = quote_checks(["A/B", "C/B"], {"A/B": good, "C/B": bad}, NOW_MS, 10_000, (1, 0.1))
    assert states(checks) == [State.OK, State.FAILED]
    assert "1 of 2" in checks[0].text
    assert "200.0 bp" in checks[0].text
    assert words in checks[1].text
