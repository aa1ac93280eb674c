"""The command line in the hands of its users: mistakes are named in one line each, and a pipe may end any time."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import sqlite3
import struct
import termios
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from bot.repositories import open_database
from tests.integration.daemon import Daemon, Result, paperloop, polls_in, settings, together

VERBS = (
    "run", "status", "trades", "signals", "why", "config", "doctor", "download", "backtest", "check", "compare",
    "optimize",
)  # fmt: skip
READING = (["status"], ["trades"], ["signals"], ["why", "BTC/USDT"])
STATUS_KEYS = {
    "ledger", "running", "pid", "polls", "ticks", "signals", "orders", "trades", "digest", "last_price_at",
    "data_age_s", "stale", "prices", "accounts", "open_orders",
}  # fmt: skip
ACCOUNT_KEYS = {"account", "strategy", "currency", "capital", "cash", "equity", "profit", "positions"}
POSITION_KEYS = {"symbol", "quantity", "average_price", "price", "value", "unrealised_pnl"}
TRADE_KEYS = {
    "id", "order_id", "account", "symbol", "side", "price", "quantity", "cost", "fee", "fee_currency", "pnl",
    "timestamp", "datetime",
}  # fmt: skip
SIGNAL_KEYS = {
    "id", "poll", "timestamp", "account", "symbol", "target", "bid", "ask", "verdict", "reason", "datetime",
}  # fmt: skip
WHY_KEYS = {"symbol", "time", "ticks_deleted", "quotes", "accounts"}
START = "2025-01-01T00:10:00Z"


# What is given, and what the answer must name.
MISTAKES: list[tuple[list[str], list[str]]] = [
    (settings(feed__sybmols='["BTC/USDT"]'), ["feed.sybmols", "did you mean", "symbols"]),
    (settings(**{"feed__kind ": "simulated"}), ["kind"]),
    (settings(feed__poll_interval_s=-1), ["feed.poll_interval_s = -1", "between"]),
    (settings(feed__kind="replay"), ["feed.replay.path"]),
    (settings(feed__kind="replay", feed__replay__path="none.db"), ["none.db", "no such file"]),
    (settings(feed__symbols='["BTC/USDT", "ETH/EUR"]'), ["EUR", "USDT", "one quote currency"]),
    (settings(strategy='[{name="sma_crss"}]'), ["sma_crss", "did you mean", "sma_cross"]),
    (settings(strategy='[{name="sma_cross", params={fats=5}}]'), ["fats", "did you mean", "fast"]),
    (settings(strategy='[{name="sma_cross", params={fast=0}}]'), ["fast", "got 0"]),
    (settings(strategy='[{name="sma_cross", params={fast=9, slow=5}}]'), ["fast must be below slow"]),
    (settings(strategy='[{name="sma_cross"}, {name="sma_cross"}]'), ["sma_cross", "account"]),
    (["--set", "feed.kind"], ["feed.kind", "="]),
    (["--config", "none.toml"], ["none.toml"]),
    (["--config", "."], ["."]),
]
SLIPS: list[tuple[list[str], list[str]]] = [
    (["stauts"], ["stauts"]),
    (["--sett", "a=b"], ["--sett"]),
    (["status", "--max-speed"], ["--max-speed"]),
    (["--polls", "0"], ["--polls"]),
    (["--polls", "many"], ["--polls", "integer"]),
    (["--until-poll", "-1"], ["--until-poll"]),
    (["trades", "--limit", "0"], ["--limit"]),
    (["why"], ["SYMBOL"]),
    (["run", "now"], ["now"]),
    (["config", "chekc"], ["chekc"]),
]


def refused(result: Result, code: int, *words: str) -> Result:
    """A mistake of the user: the right code, nothing on stdout, and lines that name it."""
    assert "Traceback" not in result.err, result.err
    assert result.code == code, result
    assert result.out == ""
    for line in result.err.splitlines():
        assert line.startswith("paperloop: "), result.err
    for word in words:
        assert word in result.err
    return result


def misused(result: Result, *words: str) -> None:
    """What the option parser refuses."""
    assert "Traceback" not in result.err
    assert result.code == 2, result
    assert result.out == ""
    for word in words:
        assert word in result.err


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with some hundred trades and an open position."""
    folder = tmp_path_factory.mktemp("traded")
    result = paperloop(*settings(storage__path="ledger.db"), "--max-speed", "--polls", "1200", folder=folder)
    assert result.code == 0, result
    return folder / "ledger.db"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Result]:
    """To all mistakes and all slips."""
    calls = [[*settings(storage__path="ledger.db"), *given] for given, _ in MISTAKES]
    found: Sequence[Result] = together([*calls, *(given for given, _ in SLIPS)], tmp_path_factory.mktemp("mistakes"))
    return found


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger that was opened and never written to."""
    ledger = tmp_path_factory.mktemp("empty") / "ledger.db"

    async def create() -> None:
        async with open_database(ledger):
            pass

    asyncio.run(create())
    return ledger


def asked(ledger: Path, *arguments: str) -> Result:
    return paperloop(*arguments, *settings(storage__path=ledger), folder=ledger.parent)


class TestConfiguration:
    @pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[" ".join(given)[:50] for given, _ in MISTAKES])
    def test_a_mistake_is_named(self, answers: Sequence[Result], number: int) -> None:
        refused(answers[number], 78, *MISTAKES[number][1])

    def test_a_mistake_leaves_nothing_behind(self, tmp_path: Path) -> None:
        for keys in (settings(log__level="loud"), settings(strategy='[{name="nothing"}]')):
            refused(paperloop(*settings(storage__path="ledger.db"), *keys, folder=tmp_path), 78)
        assert not list(tmp_path.iterdir())

    def test_a_missing_recording_leaves_nothing_behind(self, tmp_path: Path) -> None:
        keys = settings(storage__path="ledger.db", feed__kind="replay", feed__replay__path="none.db")
        refused(paperloop(*keys, folder=tmp_path), 78)
        assert not list(tmp_path.iterdir())

    def test_bad_toml_says_where(self, tmp_path: Path) -> None:
        (tmp_path / "mine.toml").write_text('[feed]\nkind = "simulated\n')
        refused(paperloop("--config", "mine.toml", folder=tmp_path), 78, "mine.toml", "line 2")

    def test_all_mistakes_of_all_sources_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "mine.toml").write_text('[feed]\nkind = "simulate"\npol_interval_s = 2\n')
        arguments = ["--config", "mine.toml", *settings(log__level="loud", execution__fee_rate=2)]
        environment = {"PAPERLOOP_STORAGE__PATHS": "x.db"}
        result = paperloop("config", "check", *arguments, folder=tmp_path, environment=environment)
        words = [
            "feed.kind",
            "feed.pol_interval_s",
            "log.level",
            "execution.fee_rate",
            "PAPERLOOP_STORAGE__PATHS",
        ]
        refused(result, 78, "mine.toml", *words)
        assert len(result.err.splitlines()) == 5

    def test_all_mistakes_of_all_strategies_at_once(self, tmp_path: Path) -> None:
        arguments = settings(strategy='[{name="nothing"}, {name="sma_cross", params={fast=0, slwo=2}}]')
        result = refused(paperloop(*arguments, folder=tmp_path), 78, "nothing", "fast", "slwo")
        assert "strategy#1" in result.err
        assert "strategy#2" in result.err

    def test_mistakes_of_settings_and_of_strategies_at_once(self, tmp_path: Path) -> None:
        arguments = settings(log__level="loud", strategy='[{name="nothing"}]')
        refused(paperloop(*arguments, folder=tmp_path), 78, "log.level", "nothing")

    def test_check_for_people_and_machines(self, tmp_path: Path) -> None:
        good = paperloop("config", "check", folder=tmp_path)
        assert (good.code, good.err) == (0, "")
        assert good.out.startswith("ok: simulated prices of BTC/USDT, ETH/USDT for sma_cross, rsi_reversion")
        good = paperloop("config", "check", "--json", folder=tmp_path)
        assert good.document == {"ok": True, "problems": [], "strategies": ["sma_cross", "rsi_reversion"]}
        bad = paperloop("config", "check", "--json", *settings(log__level="loud"), folder=tmp_path)
        assert (bad.code, bad.document["ok"], len(bad.document["problems"])) == (78, False, 1)
        assert "log.level" in bad.document["problems"][0]

    def test_show_for_people_and_machines(self, tmp_path: Path) -> None:
        (tmp_path / "mine.toml").touch(mode=0o600)
        (tmp_path / "mine.toml").write_text('[feed.ccxt.options]\nsecret = "abc123"\n')
        arguments = ["config", "show", "--config", "mine.toml", *settings(feed__poll_interval_s=2.5)]
        people = paperloop(*arguments, folder=tmp_path, environment={"PAPERLOOP_LOG__LEVEL": "debug"})
        machines = paperloop(*arguments, "--json", folder=tmp_path)
        assert people.code == machines.code == 0
        assert "abc123" not in people.out + machines.out
        lines = {line.split()[0]: line for line in people.out.splitlines()}
        assert lines["feed.poll_interval_s"].split()[1:] == ["2.5", "--set"]
        assert "PAPERLOOP_LOG__LEVEL" in lines["log.level"]
        assert "mine.toml" in lines["feed.ccxt.options.secret"]
        assert set(machines.document) == {
            "strategy_folder", "feed", "strategy", "execution", "storage", "log", "http", "notify",
        }  # fmt: skip
        assert machines.document["feed"]["poll_interval_s"] == 2.5

    def test_a_strategy_of_ones_own_that_is_broken(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "broken.py").write_text("import sys\n\nsys.exit(3)\n")
        arguments = settings(strategy_folder="mine", strategy='[{name="broken"}]')
        refused(paperloop(*arguments, folder=tmp_path), 78, "broken.py line 3")


class TestUsage:
    @pytest.mark.parametrize("number", range(len(SLIPS)), ids=[" ".join(given) for given, _ in SLIPS])
    def test_a_slip_is_named(self, answers: Sequence[Result], number: int) -> None:
        misused(answers[len(MISTAKES) + number], *SLIPS[number][1])

    def test_help_of_every_verb(self, tmp_path: Path) -> None:
        verbs: list[list[str]] = [[], *([verb] for verb in VERBS), ["config", "show"], ["config", "check"]]
        calls = [["-h"], *([*verb, "--help"] for verb in verbs)]
        results = together(calls, tmp_path)
        for call, result in zip(calls, results, strict=True):
            assert (result.code, result.err) == (0, ""), call
            assert result.out.startswith(f"Usage: paperloop {' '.join(call[:-1])}".rstrip()), call
        assert all(verb in results[0].out for verb in VERBS)

    def test_version(self, tmp_path: Path) -> None:
        result = paperloop("--version", folder=tmp_path)
        assert result.code == 0
        assert result.out.startswith("paperloop ")


class TestLedgerFile:
    def test_another_capital(self, tmp_path: Path) -> None:
        keys = [*settings(storage__path="ledger.db"), "--max-speed", "--until-poll", "5"]
        assert paperloop(*keys, folder=tmp_path).code == 0
        other = settings(strategy='[{name="sma_cross", params={fast=5, slow=20}, capital=5000}]')
        result = paperloop(*keys, *other, folder=tmp_path)
        words = ["10000", "5000", "sma_cross", "--set storage.path=", "ledger.db"]
        assert result.code == 78
        assert "Traceback" not in result.err
        for word in words:
            assert word in result.err
        assert polls_in(tmp_path / "ledger.db") == 5

    def test_a_folder(self, tmp_path: Path) -> None:
        for verb in ("run", "status"):
            refused(paperloop(verb, *settings(storage__path=tmp_path), folder=tmp_path), 78, str(tmp_path), "folder")

    def test_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        refused(paperloop(*settings(storage__path="file/ledger.db"), folder=tmp_path), 78, "file/ledger.db")

    @pytest.mark.parametrize("verb", [["run"], ["status"]], ids=" ".join)
    @pytest.mark.parametrize("content", [b"Dear diary, ", b"x" * 5000])
    def test_no_database(self, tmp_path: Path, verb: list[str], content: bytes) -> None:
        ledger = tmp_path / "ledger.db"
        ledger.write_bytes(content)
        refused(asked(ledger, *verb), 65, "ledger.db", "not a ledger")
        assert ledger.read_bytes() == content

    @pytest.mark.parametrize("verb", [["run"], ["trades"]], ids=" ".join)
    def test_a_database_of_another_program(self, tmp_path: Path, verb: list[str]) -> None:
        ledger = tmp_path / "ledger.db"
        with closing(sqlite3.connect(ledger)) as connection:
            connection.execute("CREATE TABLE trades (id)")
        before = ledger.read_bytes()
        refused(asked(ledger, *verb), 65, "ledger.db", "another program")
        assert ledger.read_bytes() == before

    @pytest.mark.parametrize("verb", [["run"], ["signals"]], ids=" ".join)
    def test_a_later_version(self, tmp_path: Path, empty: Path, verb: list[str]) -> None:
        ledger = tmp_path / "ledger.db"
        ledger.write_bytes(empty.read_bytes())
        with closing(sqlite3.connect(ledger)) as connection:
            connection.execute("PRAGMA user_version = 99")
        refused(asked(ledger, *verb), 78, "ledger.db", "later version", "99")

    def test_rows_that_are_not_those_that_were_written(self, tmp_path: Path, traded: Path) -> None:
        ledger = tmp_path / "ledger.db"
        ledger.write_bytes(traded.read_bytes())
        with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
            connection.execute("UPDATE trades SET price = '1' WHERE id = 3")
        refused(asked(ledger, "run", "--polls", "1", "--max-speed"), 65, "trade 3: ")

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        folder = tmp_path if os.geteuid() else Path("/sys")
        if os.geteuid():
            folder.chmod(0o500)
        try:
            os.close(os.open(folder / "probe", os.O_CREAT | os.O_WRONLY))
        except PermissionError:
            result = paperloop(*settings(storage__path=folder / "ledger.db"), folder=tmp_path)
        except OSError as error:
            pytest.skip(f"a root user may write everywhere here, and {folder} answers {error}")
        else:
            pytest.skip(f"{folder} can be written to by this user")
        refused(result, 74, f"{folder}/ledger.db", "Permission denied")

    @pytest.mark.parametrize("verb", READING, ids=lambda verb: verb[0])
    def test_not_there_yet(self, tmp_path: Path, verb: list[str]) -> None:
        result = paperloop(*verb, *settings(storage__path="ledger.db"), folder=tmp_path)
        refused(result, 1, "no ledger at", "ledger.db", "paperloop run")
        assert not list(tmp_path.iterdir())

    def test_only_just_created(self, tmp_path: Path) -> None:
        """What a reader meets when the daemon is at its very first start, or was killed in it."""
        ledger = tmp_path / "ledger.db"
        ledger.touch()
        result = asked(ledger, "status")
        assert "Traceback" not in result.err
        assert result.code in {1, 65}
        assert asked(ledger, "--max-speed", "--polls", "1").code == 0


class TestWhy:
    def test_an_unknown_symbol(self, traded: Path) -> None:
        refused(asked(traded, "why", "DOGE/USDT"), 2, "DOGE/USDT", "BTC/USDT, ETH/USDT")

    @pytest.mark.parametrize("time", ["yesterday", "25:00", "2025-13-01", ""])
    def test_a_bad_time(self, traded: Path, time: str) -> None:
        refused(asked(traded, "why", "BTC/USDT", time), 2, "is no time", "2025-01-01T12:00:00Z")

    @pytest.mark.parametrize("time", ["9" * 18, "9" * 23, "²" * 13])
    def test_an_absurd_time(self, traded: Path, time: str) -> None:
        refused(asked(traded, "why", "BTC/USDT", time), 2, "is no time")

    @pytest.mark.parametrize("symbol", ["BTC/USDT", "btc-usdt", "BTC-USDT"])
    def test_symbols_as_people_write_them(self, traded: Path, symbol: str) -> None:
        result = asked(traded, "why", symbol, START, "--json")
        assert result.document["symbol"] == "BTC/USDT"

    def test_explains(self, traded: Path) -> None:
        document = asked(traded, "why", "BTC/USDT", START, "--json").document
        assert set(document) == WHY_KEYS
        assert [quote["datetime"][:19] for quote in document["quotes"]] == [
            f"2025-01-01T00:{clock}" for clock in ("09:57", "09:58", "09:59", "10:00", "10:01", "10:02", "10:03")
        ]
        assert [account["account"] for account in document["accounts"]] == ["rsi_reversion", "sma_cross"]
        for account in document["accounts"]:
            assert set(account) == {"account", "explanation", "last_signal", "next_signal"}
            last = account["last_signal"]
            assert last["timestamp"] <= document["quotes"][3]["timestamp"] < account["next_signal"]["timestamp"]
            assert set(last) == SIGNAL_KEYS | {"trades"}
            assert set(last["trades"][0]) == TRADE_KEYS
        people = asked(traded, "why", "BTC/USDT", START).out
        assert all(account["explanation"] in people for account in document["accounts"])

    def test_without_a_tape_the_signals_are_still_there(self, tmp_path: Path) -> None:
        keys = settings(storage__path="ledger.db", storage__record_ticks="false")
        assert paperloop(*keys, "--max-speed", "--polls", "900", folder=tmp_path).code == 0
        result = paperloop("why", "BTC/USDT", START, "--json", *keys, folder=tmp_path)
        assert result.code == 0
        assert any(account["last_signal"] for account in result.document["accounts"])


class TestJson:
    def test_of_a_ledger_in_use(self, traded: Path) -> None:
        status = asked(traded, "status", "--json").document
        assert set(status) == STATUS_KEYS
        assert (status["polls"], status["running"], status["open_orders"]) == (1200, False, [])
        assert [set(account) for account in status["accounts"]] == [ACCOUNT_KEYS] * 2
        held = [position for account in status["accounts"] for position in account["positions"]]
        assert held
        assert all(set(position) == POSITION_KEYS for position in held)
        assert {row["strategy"] for row in status["accounts"]} == {"sma_cross", "rsi_reversion"}
        assert set(status["prices"]) == {"BTC/USDT", "ETH/USDT"}
        trades = asked(traded, "trades", "--json", "--limit", "5").document
        assert len(trades) == 5
        assert [row["id"] for row in trades] == sorted({row["id"] for row in trades})
        assert all(set(row) == TRADE_KEYS for row in trades)
        signals = asked(traded, "signals", "--json", "-n", "7").document
        assert [row["id"] for row in signals] == list(range(status["signals"] - 6, status["signals"] + 1))
        assert all(set(row) == SIGNAL_KEYS for row in signals)

    def test_narrowed(self, traded: Path) -> None:
        trades = asked(traded, "trades", "--json", "--symbol", "eth-usdt", "--account", "sma_cross").document
        assert {(row["symbol"], row["account"]) for row in trades} == {("ETH/USDT", "sma_cross")}
        refused(asked(traded, "signals", "--json", "--symbol", "DOGE/USDT"), 2, "DOGE/USDT", "ETH/USDT")
        refused(asked(traded, "trades", "--account", "nobody"), 2, "nobody", "sma_cross")

    def test_of_an_empty_ledger(self, empty: Path) -> None:
        status = asked(empty, "status", "--json").document
        assert set(status) == STATUS_KEYS
        assert (status["polls"], status["last_price_at"], status["data_age_s"]) == (0, None, None)
        assert asked(empty, "trades", "--json").document == []
        assert asked(empty, "signals", "--json").document == []

    def test_for_people_of_an_empty_ledger(self, empty: Path) -> None:
        for verb, words in (
            ("status", "no prices yet"),
            ("trades", "no trades yet"),
            ("signals", "no signals yet"),
        ):
            result = asked(empty, verb)
            assert (result.code, result.err) == (0, "")
            assert words in result.out

    def test_a_target_that_is_no_finite_number(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "endless.py").write_text(
            "import numpy as np\n\n"
            "class Endless:\n"
            "    lookback = 1\n\n"
            "    def targets(self, bars):\n"
            "        return np.full(len(bars), np.inf)\n"
        )
        keys = settings(storage__path="ledger.db", strategy_folder="mine", strategy='[{name="endless"}]')
        assert paperloop(*keys, "--max-speed", "--polls", "3", folder=tmp_path).code == 0
        rows = paperloop("signals", "--json", *keys, folder=tmp_path).document
        assert [(row["verdict"], row["reason"]) for row in rows] == [("refused", "invalid_target")] * 2


class TestPipes:
    """A reader such as ``head`` that leaves is no failure worth a traceback."""

    @pytest.fixture
    def left(self) -> Iterator[int]:
        reader, writer = os.pipe()
        os.close(reader)
        yield writer
        os.close(writer)

    @pytest.mark.parametrize(
        "arguments",
        [
            ["trades", "--limit", "5"],
            ["trades", "--limit", "1000"],
            ["signals", "--limit", "1000", "--json"],
            ["status"],
            ["config", "show"],
            ["--help"],
            ["--max-speed", "--polls", "1"],
        ],
        ids=" ".join,
    )
    def test_nobody_reads(self, traded: Path, tmp_path: Path, left: int, arguments: Sequence[str]) -> None:
        copy = tmp_path / "ledger.db"
        copy.write_bytes(traded.read_bytes())
        given = [] if arguments[-1] == "--help" else settings(storage__path=copy)
        with Daemon(*arguments, *given, folder=tmp_path, stdout=left) as process:
            result = process.finish()
        assert "Traceback" not in result.err
        assert "BrokenPipe" not in result.err
        assert "Exception ignored" not in result.err

    def test_nobody_reads_the_summary(self, tmp_path: Path, left: int) -> None:
        keys = settings(storage__path="ledger.db")
        with Daemon(*keys, "--max-speed", "--polls", "1", folder=tmp_path, stdout=left) as process:
            assert process.finish().code == 0

    def test_only_the_first_line_is_read(self, traded: Path) -> None:
        reader, writer = os.pipe()
        with Daemon(
            "trades", "-n", "5000", *settings(storage__path=traded), folder=traded.parent, stdout=writer
        ) as process:
            os.close(writer)
            with os.fdopen(reader) as lines:
                assert lines.readline().split()[0] == "id"
            result = process.finish()
        assert result.err == ""

    def test_lines_are_whole_in_a_pipe(self, traded: Path) -> None:
        rows = asked(traded, "trades", "--json", "-n", "30").document
        lines = asked(traded, "trades", "-n", "30").out.splitlines()
        assert len(lines) == 31
        for row, line in zip(rows, lines[1:], strict=True):
            assert row["datetime"] in line
            assert row["account"] in line

    def test_json_is_one_line_in_a_pipe(self, traded: Path) -> None:
        out = asked(traded, "status", "--json").out
        assert out.count("\n") == 1
        assert json.loads(out)


class TestTerminal:
    """On a terminal of the usual width nothing that matters is cut off."""

    @staticmethod
    def shown(ledger: Path, *arguments: str) -> list[str]:
        main, terminal = pty.openpty()
        try:
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
            environment = {"TERM": "dumb", "NO_COLOR": "1"}
            arguments = (*arguments, *settings(storage__path=ledger))
            with Daemon(*arguments, folder=ledger.parent, environment=environment, stdout=terminal) as process:
                assert process.finish().code == 0
            os.set_blocking(main, False)
            return os.read(main, 65_536).decode().splitlines()
        finally:
            os.close(main)
            os.close(terminal)

    def test_status(self, traded: Path) -> None:
        assert "…" not in "".join(self.shown(traded, "status"))

    def test_trades(self, traded: Path) -> None:
        (trade,) = asked(traded, "trades", "-n", "1", "--json").document
        text = "\n".join(self.shown(traded, "trades", "-n", "1"))
        for key in ("id", "symbol", "side", "quantity"):
            assert str(trade[key]) in text

    def test_signals(self, traded: Path) -> None:
        (row,) = asked(traded, "signals", "-n", "1", "--json").document
        text = "\n".join(self.shown(traded, "signals", "-n", "1"))
        for key in ("id", "symbol", "verdict"):
            assert str(row[key]) in text
        assert "reason" in text
