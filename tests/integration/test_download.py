"""``download`` against fake exchanges: whole, resumed, limited, with gaps; the file is never less than sound."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from signal import SIGINT, SIGKILL
from typing import Any

import pyarrow.parquet as pq
import pytest

from bot.clock import SystemClock
from tests.exchange import FakeExchange, running_exchange
from tests.exchange.binance import Binance
from tests.exchange.venue import Call
from tests.integration.daemon import Daemon, Result, paperloop, settings, together

MINUTE_MS = 60_000
DAY_MS = 86_400_000
JANUARY_MS = 1_735_689_600_000  # 2025-01-01
COLUMNS = ["timestamp", "open", "high", "low", "close", "volume"]


def arguments(exchange: FakeExchange, *words: str) -> list[str]:
    keys = settings(feed__ccxt__exchange=exchange.kind, feed__ccxt__base_url=exchange.url, feed__symbols='["BTC/USDT"]')
    return ["download", *words, *keys]


def download(exchange: FakeExchange, folder: Path, *words: str) -> Result:
    return paperloop(*arguments(exchange, *words), folder=folder)


def kept(folder: Path, kind: str = "binance", name: str = "BTC_USDT-1m") -> Path:
    """The only file that a download leaves there."""
    (path,) = (folder / "data" / "history" / kind).iterdir()
    assert path.name == f"{name}.parquet"
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    table = pq.read_table(path)
    assert table.column_names == COLUMNS
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def times(path: Path) -> list[int]:
    return [row["timestamp"] for row in rows(path)]


def minutes(first_ms: int, end_ms: int) -> list[int]:
    return list(range(first_ms, end_ms, MINUTE_MS))


def asked(exchange: FakeExchange) -> list[int]:
    return [int(request.query["startTime"]) for request in exchange.requests("klines")]


def _holds(journal: Path, size: int) -> bool:
    return journal.exists() and journal.stat().st_size > size


class _Gappy(Binance):
    """It was not there for some minutes."""

    def _klines(self, call: Call) -> Any:
        lost = (JANUARY_MS + 100 * MINUTE_MS, JANUARY_MS + 107 * MINUTE_MS, JANUARY_MS + 999 * MINUTE_MS)
        return [row for row in super()._klines(call) if not (lost[0] <= row[0] < lost[1] or row[0] == lost[2])]


class GappyExchange(FakeExchange):
    def __init__(self) -> None:
        super().__init__("binance")
        self._venue = _Gappy(self.prices)


class _Late(Binance):
    """Its newest candles come some minutes after they are closed."""

    late_ms = 3 * MINUTE_MS

    def _klines(self, call: Call) -> Any:
        return [row for row in super()._klines(call) if row[0] + MINUTE_MS <= call.now_ms - self.late_ms]


class LateExchange(FakeExchange):
    def __init__(self) -> None:
        super().__init__("binance")
        self.venue = self._venue = _Late(self.prices)


class TestWhole:
    def test_then_longer_at_either_end(self, tmp_path: Path) -> None:
        with running_exchange() as exchange:
            result = download(exchange, tmp_path, "--timerange", "20250103-20250105")
            assert (result.code, result.err) == (0, "")
            assert "BTC/USDT 1m: 2,880 candles (2,880 new), 2025-01-03T00:00:00.000Z to" in result.out
            assert "2025-01-04T23:59:00.000Z, no gaps" in result.out
            path = kept(tmp_path)
            assert times(path) == minutes(JANUARY_MS + 2 * DAY_MS, JANUARY_MS + 4 * DAY_MS)
            first = rows(path)
            exchange.forget()
            document = download(exchange, tmp_path, "--timerange", "20250102-20250106", "--json").document
            assert document["ok"] is True
            (file,) = document["files"]
            assert (file["rows"], file["added"], file["gaps"]) == (4 * 1440, 2 * 1440, 0)
            # Only what was missing: a day takes two pages.
            assert [(at - JANUARY_MS) // DAY_MS for at in asked(exchange)] == [1, 1, 4, 4]
            exchange.forget()
            assert download(exchange, tmp_path, "--timerange", "20250102-20250106").code == 0
            assert asked(exchange) == []
            found = rows(path)
            assert found[1440 : 3 * 1440] == first
            assert times(path) == minutes(JANUARY_MS + DAY_MS, JANUARY_MS + 5 * DAY_MS)
            bar = exchange.prices.bars("BTC/USDT", MINUTE_MS, JANUARY_MS + DAY_MS, 1, JANUARY_MS + 9 * DAY_MS)[0]
            assert [found[0][name] for name in COLUMNS[1:5]] == [
                pytest.approx(steps / 100) for steps in (bar.open, bar.high, bar.low, bar.close)
            ]

    @pytest.mark.parametrize("kind", ["binance", "kraken"])
    def test_the_open_candle_is_left_out(self, tmp_path: Path, kind: Any) -> None:
        """Even where this machine's clock is ahead of the exchange's."""
        with running_exchange(kind) as exchange:
            exchange.fault("clock_skew", skew_ms=-150_000)
            day = (SystemClock().now_ms() - 150_000) // MINUTE_MS * MINUTE_MS - 60 * MINUTE_MS
            result = download(exchange, tmp_path, "--timerange", f"{day}-")
            assert result.code == 0, result
            now_ms = SystemClock().now_ms() - 150_000
        found = times(kept(tmp_path, kind))
        assert found[0] == day
        assert now_ms - 3 * MINUTE_MS < found[-1] <= now_ms - MINUTE_MS
        assert found == minutes(day, found[-1] + 1)

    def test_kraken_gives_the_newest_only(self, tmp_path: Path) -> None:
        with running_exchange("kraken") as exchange:
            result = download(exchange, tmp_path, "--json")
            assert result.code == 1
            assert result.err.count("kraken gives the newest candles only") == 1
            (file,) = result.document["files"]
            assert (file["ok"], file["rows"], file["gaps"]) == (False, 719, 0)
            assert len(exchange.requests("klines")) <= 3
            first = rows(kept(tmp_path, "kraken"))
            again = download(exchange, tmp_path, "--json").document["files"][0]
        assert again["rows"] in {719, 720}
        assert rows(kept(tmp_path, "kraken"))[:719] == first

    def test_gaps_are_told_and_not_asked_for_again(self, tmp_path: Path) -> None:
        exchange = GappyExchange()
        try:
            exchange.start()
            result = download(exchange, tmp_path, "--timerange", "20250101-20250103")
            assert result.code == 0
            assert "2,872 candles" in result.out
            assert "2 gaps (8 candles)" in result.out
            assert "no candles from 2025-01-01T01:40:00.000Z to 2025-01-01T01:47:00.000Z" in result.out
            exchange.forget()
            again = download(exchange, tmp_path, "--timerange", "20250101-20250103", "--json")
            assert (again.document["files"][0]["gaps"], asked(exchange)) == (2, [])
        finally:
            exchange.close()
        assert len(times(kept(tmp_path))) == 2872

    def test_what_comes_late_is_asked_for_again(self, tmp_path: Path) -> None:
        exchange = LateExchange()
        first_ms = SystemClock().now_ms() // MINUTE_MS * MINUTE_MS - 60 * MINUTE_MS
        try:
            exchange.start()
            download(exchange, tmp_path, "--timerange", f"{first_ms}-")
            before = times(kept(tmp_path))
            exchange.venue.late_ms = 0
            assert download(exchange, tmp_path, "--timerange", f"{first_ms}-").code == 0
        finally:
            exchange.close()
        found = times(kept(tmp_path))
        assert len(found) >= len(before) + 3
        assert found == minutes(first_ms, found[-1] + 1)

    def test_from_the_first_candle_on(self, tmp_path: Path) -> None:
        with running_exchange() as exchange:
            result = download(exchange, tmp_path, "--timerange", "-20170901", "--timeframe", "1d", "--json")
        assert result.code == 0
        (file,) = result.document["files"]
        assert (file["from_datetime"], file["to_datetime"][:10]) == ("2017-08-18T00:00:00.000Z", "2017-08-31")


class TestInterrupted:
    def test_killed_at_any_moment(self, tmp_path: Path) -> None:
        journal = tmp_path / "data" / "history" / "binance" / "BTC_USDT-1m.pages"
        words = ("--timerange", "20250101-20250109")
        with running_exchange() as exchange:
            for pages, new in ((1, 1), (4, 3)):
                # It cannot be done before it is killed: the page after these never comes.
                exchange.clear()
                exchange.fault("hang", endpoints=["klines"], first_request=new)
                with Daemon(*arguments(exchange, *words), folder=tmp_path) as process:
                    process.wait_until(partial(_holds, journal, pages * 48_000), "pages")
                    process.send(SIGKILL)
                    process.finish()
            # Torn, as by a power cut.
            os.truncate(journal, journal.stat().st_size - 7)
            exchange.clear()
            result = download(exchange, tmp_path, *words, "--json")
            assert result.code == 0
            before = asked(exchange)
        assert times(kept(tmp_path)) == minutes(JANUARY_MS, JANUARY_MS + 8 * DAY_MS)
        # Twelve pages, and each of the three interruptions costs the page in hand at most.
        assert len(set(before)) == 12
        assert len(before) <= 12 + 3

    def test_control_c_keeps_what_came(self, tmp_path: Path) -> None:
        journal = tmp_path / "data" / "history" / "binance" / "BTC_USDT-1m.pages"
        words = ("--timerange", "20250101-20250201")
        with running_exchange() as exchange:
            exchange.fault("slow", endpoints=["klines"], delay_s=0.15)
            with Daemon(*arguments(exchange, *words), folder=tmp_path) as process:
                process.wait_until(partial(_holds, journal, 48_000), "pages")
                result = process.stop(SIGINT)
        assert result.code == 130, result
        assert "Traceback" not in result.err
        assert "goes on where it was" in result.err
        assert "BTC/USDT 1m: " in result.out
        found = times(kept(tmp_path))
        assert len(found) >= 1000
        assert found == minutes(JANUARY_MS, found[-1] + 1)

    def test_a_limit_in_the_middle_is_kept(self, tmp_path: Path) -> None:
        with running_exchange() as exchange:
            exchange.fault("http429", endpoints=["klines"], first_request=2, end_request=3, retry_after_s=2)
            exchange.fault("reset", endpoints=["klines"], first_request=4, end_request=6)
            exchange.fault("truncated", endpoints=["klines"], first_request=7, end_request=8)
            exchange.fault("list200", endpoints=["klines"], first_request=9, end_request=10)
            result = download(exchange, tmp_path, "--timerange", "20250101-20250107")
            assert exchange.violations() == []
        assert result.code == 0, result
        assert result.err.count("rate_limit: ") == 1
        assert result.err.count("the exchange answers again") == result.err.count("the next try is in") <= 4
        assert times(kept(tmp_path)) == minutes(JANUARY_MS, JANUARY_MS + 6 * DAY_MS)

    def test_one_symbol_that_fails_hides_no_other(self, tmp_path: Path) -> None:
        with running_exchange() as exchange:
            exchange.fault("http403", endpoints=["klines"], symbols=["BTC/USDT"])
            words = ["--symbol", "btc-usdt", "--symbol", "ETH/USDT", "--timerange", "20250101-20250102"]
            result = download(exchange, tmp_path, *words, "--json")
        assert result.code == 1
        bad, good = result.document["files"]
        assert (bad["rows"], bad["ok"], good["rows"], good["ok"]) == (0, False, 1440, True)
        assert "blocked" in bad["problem"]


def test_mistakes(tmp_path: Path) -> None:
    mistakes = {
        ("--timeframe", "7m"): "binance has 1s, 1m",
        ("--timerange", "20250201-20250101"): "ends before it begins",
        ("--timerange", "20990101-"): "in the future",
        ("--timerange", "soon"): "write 20240101-20240201",
        ("--symbol", "BTX/USDT"): "did you mean BTC/USDT?",
    }
    with running_exchange() as exchange:
        results = together([arguments(exchange, *words) for words in mistakes], tmp_path)
    for result, words in zip(results, mistakes.values(), strict=True):
        assert (result.code, result.out) == (2, ""), result
        assert "Traceback" not in result.err
        assert words in result.err
    assert not list(tmp_path.iterdir())


def test_without_pyarrow(tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ModuleNotFoundError('No module named pyarrow', name='pyarrow')\n")
    with running_exchange() as exchange:
        words = arguments(exchange)
        result = paperloop(*words, folder=tmp_path, environment={"PYTHONPATH": str(tmp_path)})
    assert result.code == 2
    assert "pip install '.[parquet]'" in result.err
