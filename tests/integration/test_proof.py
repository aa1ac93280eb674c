"""What audit and verify say of a sound ledger, and that neither a row nor a price can be changed unnoticed."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from signal import SIGINT
from typing import Any

import numpy as np
import pytest

from bot.app import RunOptions, run
from bot.domain import OrderSide
from bot.execution import MockExecutor
from bot.proof import audited, verified
from bot.repositories import Retention, SignalRepository, TickRepository, TradeRepository, open_database
from bot.repositories.errors import LedgerTouched
from bot.service import inspect
from bot.service.stop import StopSignals
from bot.settings import load_settings
from tests.integration.daemon import Daemon, books, has_open, paperloop, rows, settings, wait_until
from tests.integration.old import of_first_version

CROSS = '[{name="sma_cross", params={fast=2, slow=3}, capital=1e6}, {name="rsi_reversion", account="dips"}]'
SLOWER = '[{name="sma_cross", params={fast=3, slow=9, short=true}, capital=1e6}, {name="buy_and_hold"}]'


def trade(ledger: Path, polls: int, **keys: object) -> dict[str, Any]:
    """A run of the real daemon at full speed; what it had to say at its end."""
    overrides = settings(storage__path=ledger, log__level="error", **{"strategy": CROSS, **keys})[1::2]
    summary = asyncio.run(run(load_settings((), overrides), RunOptions(max_speed=True, polls=polls), StopSignals()))
    return {name: getattr(summary, name) for name in ("polls", "ticks", "signals", "trades", "digest")}


def audit_of(ledger: Path) -> dict[str, Any]:
    return asyncio.run(audited(ledger))


def verify_of(ledger: Path, *, steps: bool = False) -> dict[str, Any]:
    return asyncio.run(verified(ledger, steps=steps))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several runs with changed parameters, accounts and symbols; seals between."""
    ledger = tmp_path_factory.mktemp("sound") / "ledger.db"
    trade(ledger, 6_000, feed__symbols='["BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT"]')
    trade(ledger, 7)
    trade(ledger, 600, strategy=SLOWER)
    trade(ledger, 400, strategy=SLOWER, feed__symbols='["ETH/USDT", "SOL/USDT"]')
    trade(ledger, 300)
    return ledger


@pytest.fixture
def ledger(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(sound, tmp_path / "ledger.db"))


def change(ledger: Path, *statements: str) -> None:
    with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount != 0, f"{statement} changed nothing"


def found(ledger: Path) -> str:
    """What audit or verify has to say against a ledger; empty if they have nothing."""
    document = audit_of(ledger)
    return str(document["error"] if not document["ok"] else verify_of(ledger)["error"] or "")


class TestSound:
    def test_it_adds_up_and_replays(self, sound: Path) -> None:
        assert rows(sound, "SELECT count(*) FROM seals")[0][0] >= 1
        audit, verify = audit_of(sound), verify_of(sound)
        assert audit["ok"], audit
        assert verify["ok"], verify
        assert verify["polls"] == audit["polls"] == 7_307
        assert verify["decisions"] == audit["signals"] > 9_000
        assert audit["digest"] == verify["digest"] == rows(sound, "SELECT digest FROM cursor")[0][0]
        counts = {table: rows(sound, f"SELECT count(*) FROM {table}")[0][0] for table in ("ticks", "trades")}  # noqa: S608
        assert {table: audit[table] for table in counts} == counts

    def test_one_poll_at_a_time(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        trade(ledger, 800)
        trade(ledger, 300, strategy=SLOWER)
        assert verify_of(ledger, steps=True)["ok"]

    def test_neither_writes(self, ledger: Path) -> None:
        before = ledger.read_bytes()
        assert audit_of(ledger)["ok"]
        assert verify_of(ledger)["ok"]
        assert ledger.read_bytes() == before

    def test_the_sums_are_those_of_the_rows(self, sound: Path) -> None:
        for account in audit_of(sound)["accounts"]:
            flows = rows(sound, f"SELECT side, cost, fee FROM trades WHERE account = '{account['account']}'")  # noqa: S608
            spent = sum(float(cost) * (1 if side == "buy" else -1) + float(fee) for side, cost, fee in flows)
            assert float(account["capital"]) - spent == pytest.approx(float(account["cash"]), abs=1e-4)

    def test_what_the_verbs_say(self, sound: Path) -> None:
        for verb in ("audit", "verify"):
            told = paperloop(verb, *settings(storage__path=sound), folder=sound.parent)
            assert (told.code, told.out.split()[0], told.err) == (0, "ok", "")
            document = paperloop(verb, "--json", *settings(storage__path=sound), folder=sound.parent).document
            assert document["ok"] is True


def numbered(table: str) -> str:
    return "rowid" if table != "orders" else "id"


COLUMNS = {
    "signals": ("id", "poll", "timestamp", "account", "symbol", "target", "bid", "ask", "verdict", "reason"),
    "orders": (
        "id", "signal_id", "account", "symbol", "side", "type", "quantity", "price", "status", "timestamp",
    ),
    "trades": (
        "id", "order_id", "account", "symbol", "side", "price", "quantity", "cost", "fee", "fee_currency", "pnl",
        "timestamp",
    ),
    "ticks": ("id", "poll", "symbol_id", "timestamp", "bid", "ask", "last", "warmup"),
}  # fmt: skip
KEYS = {"signals": "id", "orders": "id", "trades": "id", "ticks": "id"}


def altered(value: Any) -> str:
    """Another value that the column could hold, as SQL."""
    if value is None:
        return "'1'"
    if isinstance(value, str):
        return f"'{value[:-1]}{'1' if value[-1] != '1' else '2'}'"
    return repr(value + 1)


def some_keys(ledger: Path, table: str, count: int) -> list[Any]:
    """Keys of the first, the last, and some rows between."""
    keys = [row[0] for row in rows(ledger, f"SELECT id FROM {table} ORDER BY id")]  # noqa: S608
    rng = np.random.default_rng(len(keys))
    return [keys[0], keys[-1], *(keys[place] for place in rng.integers(1, len(keys) - 1, count - 2).tolist())]


class TestNoRowCanBeChanged:
    @pytest.mark.parametrize(("table", "column"), [(table, name) for table in COLUMNS for name in COLUMNS[table]])
    def test_altering(self, sound: Path, tmp_path: Path, table: str, column: str) -> None:
        for key in some_keys(sound, table, 3):
            ledger = Path(shutil.copy(sound, tmp_path / "ledger.db"))
            value = rows(ledger, f"SELECT {column} FROM {table} WHERE id = {key!r}")[0][0]  # noqa: S608
            into = altered(value)
            if column == "id":
                into = f"'{value}x'" if table == "orders" else "9e9"
            change(ledger, f"UPDATE {table} SET {column} = CAST({into} AS {kind(value)}) WHERE id = {key!r}")  # noqa: S608
            assert found(ledger), f"{table}.{column} of {key} became {into}"

    @pytest.mark.parametrize("table", COLUMNS)
    def test_deleting(self, sound: Path, tmp_path: Path, table: str) -> None:
        for key in some_keys(sound, table, 4):
            ledger = Path(shutil.copy(sound, tmp_path / "ledger.db"))
            change(ledger, f"DELETE FROM {table} WHERE id = {key!r}")  # noqa: S608
            assert found(ledger), f"{table} {key} is gone"

    @pytest.mark.parametrize("table", COLUMNS)
    def test_adding(self, sound: Path, tmp_path: Path, table: str) -> None:
        for beyond in (True, False):
            ledger = Path(shutil.copy(sound, tmp_path / "ledger.db"))
            key = some_keys(ledger, table, 3)[2]
            new = (
                {True: "'zzz'", False: "'0'"}[beyond] if table == "orders" else {True: "10000000", False: "-1"}[beyond]
            )
            others = ", ".join(COLUMNS[table][1:])
            change(ledger, f"INSERT INTO {table} SELECT {new}, {others} FROM {table} WHERE id = {key!r}")  # noqa: S608
            assert found(ledger), f"a copy of {key} was added to {table} as {new}"

    @pytest.mark.parametrize("table", COLUMNS)
    def test_reordering(self, sound: Path, tmp_path: Path, table: str) -> None:
        ledger = Path(shutil.copy(sound, tmp_path / "ledger.db"))
        one, other = some_keys(ledger, table, 4)[2:]
        spare = "'spare'" if table == "orders" else "9999999"
        moves = ((repr(one), spare), (repr(other), repr(one)), (spare, repr(other)))
        change(ledger, *(f"UPDATE {table} SET id = {new} WHERE id = {old}" for old, new in moves))  # noqa: S608
        assert found(ledger)

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE accounts SET cash = cash || '1' WHERE name = 'dips'",
            "UPDATE accounts SET capital = '1000001' WHERE name = 'sma_cross'",
            "DELETE FROM accounts WHERE name = 'dips'",
            "INSERT INTO accounts VALUES ('more', 'USDT', '5', '6')",
            "UPDATE positions SET quantity = quantity || '1' WHERE rowid = 0 OR account = 'dips'",
            "UPDATE positions SET target = target + 0.5 WHERE account = 'dips' AND symbol = 'BTC/USDT'",
            "DELETE FROM positions WHERE account = 'buy_and_hold' AND symbol = 'SOL/USDT'",
            "UPDATE cursor SET polls = polls + 1",
            "UPDATE cursor SET timestamp = timestamp + 1",
            "UPDATE cursor SET signals = signals + 1",
            "UPDATE cursor SET digest = replace(digest, substr(digest, 1, 1), 'x')",
            "UPDATE cursor SET tape_seed = 'aa'",
            "UPDATE cursor SET base = 1",
            "DELETE FROM cursor",
            "UPDATE symbols SET decimals = decimals + 1 WHERE id = 1",
            "UPDATE runs SET config = replace(config, 'fast', 'slow') WHERE id = 1",
            "DELETE FROM runs WHERE id = 2",
            "UPDATE seals SET digest = 'x' WHERE id = 1",
            "UPDATE seals SET ticks = ticks + 1 WHERE id = 1",
            "UPDATE seals SET signals = signals + 1 WHERE id = 1",
            "UPDATE seals SET polls = polls - 1 WHERE id = 1",
            "UPDATE seals SET timestamp = timestamp - 1 WHERE id = 1",
            "UPDATE sealed_accounts SET cash = '5' WHERE seal = 1 AND name = 'dips'",
            "UPDATE sealed_positions SET basis = '5' WHERE seal = 1 AND account = 'dips'",
            "DELETE FROM sealed_positions WHERE seal = 1 AND account = 'dips' AND symbol = 'BTC/USDT'",
        ],
    )
    def test_the_sums_that_a_start_relies_on(self, ledger: Path, statement: str) -> None:
        change(ledger, statement.replace("rowid = 0 OR ", ""))
        assert not audit_of(ledger)["ok"]


def kind(value: Any) -> str:
    return "TEXT" if value is None or isinstance(value, str) else "INTEGER" if isinstance(value, int) else "REAL"


class TestWhatIsNamed:
    def test_the_row_that_arithmetic_finds(self, ledger: Path) -> None:
        change(ledger, "UPDATE trades SET price = '1' WHERE id = 5000")
        assert audit_of(ledger)["error"].startswith("trade 5000: ")

    def test_the_row_that_only_a_replay_finds(self, ledger: Path) -> None:
        change(ledger, "UPDATE signals SET target = 0.5 WHERE id = 5000")
        document = audit_of(ledger)
        assert "decision 5000 at 2025-" in document["error"]
        assert (document["difference"]["stored"]["target"], document["exit_code"]) == (0.5, 65)
        assert document["difference"]["replayed"]["target"] != 0.5

    def test_both_versions_side_by_side(self, ledger: Path) -> None:
        change(ledger, "UPDATE signals SET bid = bid + 0.5 WHERE id = 4321")
        told = paperloop("verify", *settings(storage__path=ledger), folder=ledger.parent)
        assert told.code == 1
        assert "decision 4321 at 2025-" in told.out.splitlines()[0]
        marked = [line.split()[0] for line in told.out.splitlines() if line.rstrip().endswith("<")]
        assert marked == ["bid"]

    def test_a_price_that_changed_nothing(self, ledger: Path) -> None:
        change(ledger, "UPDATE ticks SET last = last + 1 WHERE id = 12345")
        audit = audit_of(ledger)["error"]
        assert audit.startswith("one of the ticks ")
        assert not verify_of(ledger)["ok"]

    @pytest.mark.parametrize(
        ("statement", "named"),
        [
            ("UPDATE trades SET price = '1' WHERE id = (SELECT max(id) FROM trades)", "trade "),
            ("UPDATE signals SET target = 0.5 WHERE id = (SELECT max(id) FROM signals)", "by a replay it is decision "),
            ("UPDATE accounts SET cash = '7' WHERE name = 'dips'", "account dips: cash is 7"),
            ("UPDATE ticks SET bid = bid + 1 WHERE id = (SELECT max(id) FROM ticks)", "one of the ticks "),
        ],
    )
    def test_the_daemon_refuses_to_trade_on_it(self, ledger: Path, statement: str, named: str) -> None:
        change(ledger, statement)
        before = ledger.read_bytes()
        told = paperloop("run", "--max-speed", "--polls", "5", *settings(storage__path=ledger), folder=ledger.parent)
        assert (told.code, told.out) == (65, "")
        assert named in told.err
        assert ledger.read_bytes() == before


class TestHistories:
    def test_a_run_without_a_tape_cannot_be_verified(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        trade(ledger, 500)
        trade(ledger, 300, storage__record_ticks="false")
        trade(ledger, 400)
        assert audit_of(ledger)["ok"]
        document = verify_of(ledger)
        assert (document["ok"], document["unrecorded_polls"], document["difference"]) == (False, 300, None)
        assert "record_ticks" in document["error"]

    def test_orders_made_from_python_stand_between_those_of_the_loop(self, tmp_path: Path) -> None:
        async def by_hand(ledger: Path) -> None:
            async with open_database(ledger) as database:
                executor = MockExecutor(TradeRepository(database), SignalRepository(database))
                await executor.execute_order("BTC/USDT", OrderSide.BUY, 0.5, price=50_000.0)
                await MockExecutor(TradeRepository(database)).execute_order("ETH/USDT", OrderSide.SELL, 2)

        ledger = tmp_path / "ledger.db"
        asyncio.run(by_hand(ledger))
        trade(ledger, 400)
        asyncio.run(by_hand(ledger))
        trade(ledger, 400)
        assert audit_of(ledger)["ok"]
        assert verify_of(ledger)["ok"]
        change(ledger, "UPDATE trades SET pnl = '5' WHERE account = 'manual' AND id = 1")
        assert "trade 1: " in audit_of(ledger)["error"]

    def test_a_strategy_whose_code_has_changed(self, tmp_path: Path) -> None:
        code = tmp_path / "mine.py"
        text = (
            "import numpy as np\n\n\nclass Mine:\n    name, lookback = 'mine', 2\n\n    def targets(self, bars):\n"
            "        return np.where(bars.close > {}, 1.0, 0.0)\n"
        )
        code.write_text(text.format(48_300), encoding="utf-8")
        ledger = tmp_path / "ledger.db"
        keys = settings(storage__path=ledger, strategy_folder=tmp_path, strategy='[{name="mine"}]')
        assert paperloop("run", "--max-speed", "--polls", "3000", *keys, folder=tmp_path).code == 0
        verify = ["verify", *settings(storage__path=ledger)]
        assert paperloop(*verify, folder=tmp_path).code == 0
        code.write_text(text.format(48_400), encoding="utf-8")
        told = " ".join(paperloop(*verify, folder=tmp_path).out.split())
        assert "decides otherwise" in told
        assert "the code of strategy mine has changed" in told

    def test_an_empty_ledger(self, tmp_path: Path) -> None:
        async def create() -> None:
            async with open_database(tmp_path / "ledger.db"):
                pass

        asyncio.run(create())
        assert audit_of(tmp_path / "ledger.db")["ok"]
        assert verify_of(tmp_path / "ledger.db")["ok"]

    def test_beside_a_running_daemon(self, sound: Path, ledger: Path) -> None:
        """What a daemon commits meanwhile is neither missed nor half seen."""

        async def both() -> tuple[dict[str, Any], dict[str, Any]]:
            async with open_database(ledger) as database:
                executor = MockExecutor(TradeRepository(database))

                async def write() -> None:
                    for _ in range(50):
                        await executor.execute_order("BTC/USDT", OrderSide.BUY, 1)

                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(write())
                    found = tasks.create_task(audited(ledger)), tasks.create_task(verified(ledger))
                return found[0].result(), found[1].result()

        audit, verify = asyncio.run(both())
        assert (audit["ok"], verify["ok"]) == (True, True), (audit, verify)


class TestStatusAt:
    def test_it_is_what_status_said_then(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        then = []
        for polls, strategy in ((700, CROSS), (4000, CROSS), (900, SLOWER), (6000, CROSS)):
            trade(ledger, polls, strategy=strategy)
            then.append(self.ask(ledger, None))
        assert rows(ledger, "SELECT count(*) FROM seals")[0][0] >= 1
        for before in then:
            timestamp = rows(ledger, f"SELECT timestamp FROM ticks WHERE poll = {before['polls']}")[-1][0]  # noqa: S608
            now = self.ask(ledger, timestamp)
            for key in ("polls", "ticks", "signals", "orders", "trades", "digest", "prices", "last_price_at"):
                assert now[key] == before[key], key
            assert now["accounts"] == before["accounts"]

    def test_before_the_first_price(self, sound: Path) -> None:
        told = self.ask(sound, 1_000_000_000_000)
        assert (told["polls"], told["trades"], told["prices"]) == (0, 0, {})
        assert {account["cash"] for account in told["accounts"]} == {1e6, 1e4}

    @staticmethod
    def ask(ledger: Path, timestamp: int | None) -> dict[str, Any]:
        async def read() -> dict[str, Any]:
            async with open_database(ledger, read_only=True) as database:
                if timestamp is None:
                    return await inspect.status(database, 0, 1)
                return await inspect.status_at(database, timestamp)

        return asyncio.run(read())


MINUTE = {"feed__poll_interval_s": 60, "feed__symbols": '["A/USDT", "B/USDT", "C/USDT", "D/USDT"]'}
CALM = '[{name="sma_cross", params={fast=20, slow=50}, capital=1e6}, {name="rsi_reversion", account="dips"}]'


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 days of a price a minute."""
    ledger = tmp_path_factory.mktemp("long") / "ledger.db"
    for polls in (20_000, 20_000, 20_000, 4_800):
        trade(ledger, polls, strategy=CALM, **MINUTE)
    return ledger


class TestRetention:
    @staticmethod
    def tidied(ledger: Path, days: int) -> int:
        """How many ticks are left after all that is due was deleted."""

        async def work() -> None:
            async with open_database(ledger) as database:
                retention, base = Retention(database, days), None
                # As a daemon does after every poll; it looks again at once where something was deleted.
                while base != (base := await database.fetch("SELECT base FROM cursor")):
                    await retention.tidy()

        asyncio.run(work())
        return int(rows(ledger, "SELECT count(*) FROM ticks")[0][0])

    def test_the_rest_still_proves_itself(self, long: Path, tmp_path: Path) -> None:
        ledger = Path(shutil.copy(long, tmp_path / "ledger.db"))
        whole = int(rows(ledger, "SELECT count(*) FROM ticks")[0][0])
        left = self.tidied(ledger, 15)
        assert whole * 15 / 45 < left < whole * 22 / 45
        audit, verify = audit_of(ledger), verify_of(ledger)
        assert audit["ok"], audit
        assert verify["ok"], verify
        assert 1 < verify["first_poll"] < 64_800 - 15 * 1440
        assert verify["first_poll"] + verify["polls"] - 1 == 64_800
        assert books(ledger) == books(long)

    def test_what_follows_is_as_if_nothing_had_been_deleted(self, long: Path, tmp_path: Path) -> None:
        kept, cut = (Path(shutil.copy(long, tmp_path / name)) for name in ("kept.db", "cut.db"))
        self.tidied(cut, 10)
        wider = '[{name="sma_cross", params={fast=50, slow=400}, capital=1e6}]'
        for strategy in (CROSS, SLOWER, wider):
            for ledger in (kept, cut):
                trade(ledger, 3_000, **MINUTE, strategy=strategy)
            self.tidied(cut, 5)
        assert books(cut) == books(kept)
        assert audit_of(cut)["digest"] == audit_of(kept)["digest"]
        assert verify_of(cut)["ok"]

    def test_bars_are_kept_as_long_as_they_are_looked_back_on(self, long: Path, tmp_path: Path) -> None:
        """Of a bar that is older than the tape four ticks are left, and they make the very bar."""
        kept, cut = (Path(shutil.copy(long, tmp_path / name)) for name in ("kept.db", "cut.db"))
        bars = (
            '[{name="sma_cross", params={fast=1, slow=9, short=true}, timeframe="1d", account="days"},'
            ' {name="donchian_breakout", params={period=60, exit_period=20}, timeframe="1h"},'
            ' {name="bollinger_breakout", params={period=5, deviations=1}, timeframe="15m"},'
            ' {name="rsi_reversion", params={period=4}, account="dips"}]'
        )
        left = []
        for polls in (3_000, 1_500, 20_000, 1, 1_501, 3_000):
            for ledger in (kept, cut):
                trade(ledger, polls, **MINUTE, strategy=bars)
            left.append(self.tidied(cut, 3))
            assert verify_of(cut)["ok"]
        assert left[-1] < rows(kept, "SELECT count(*) FROM ticks")[0][0] / 8
        assert books(cut) == books(kept)
        assert audit_of(cut)["digest"] == audit_of(kept)["digest"]
        assert verify_of(kept)["ok"]
        accounts = {row[0] for row in rows(cut, "SELECT DISTINCT account FROM trades WHERE timestamp > 1739600000000")}
        assert accounts >= {"days", "donchian_breakout", "bollinger_breakout"}

    def test_the_tape_before_it_cannot_be_changed_either(self, long: Path, tmp_path: Path) -> None:
        ledger = Path(shutil.copy(long, tmp_path / "ledger.db"))
        self.tidied(ledger, 15)
        first = rows(ledger, "SELECT min(id), max(id) FROM ticks")[0]
        for tick in (first[0], first[0] + 1, first[1] - 50_000):
            shutil.copy(ledger, tmp_path / "altered.db")
            change(tmp_path / "altered.db", f"UPDATE ticks SET last = last + 1 WHERE id = {tick}")  # noqa: S608
            assert not audit_of(tmp_path / "altered.db")["ok"], tick

    def test_nothing_is_deleted_before_it_is_old(self, long: Path, tmp_path: Path) -> None:
        ledger = Path(shutil.copy(long, tmp_path / "ledger.db"))
        whole = rows(ledger, "SELECT count(*) FROM ticks")[0][0]
        assert self.tidied(ledger, 46) == whole

    def test_a_tape_costs_less_than_40_bytes_a_tick(self, long: Path) -> None:
        tables = "('ticks', 'seals', 'sealed_accounts', 'sealed_positions')"
        query = f"SELECT sum(pgsize) FROM dbstat WHERE name IN {tables}"  # noqa: S608
        try:
            used = rows(long, query)[0][0]
        except sqlite3.OperationalError as error:
            pytest.skip(f"this SQLite cannot tell: {error}")
        assert used / rows(long, "SELECT count(*) FROM ticks")[0][0] < 40


class TestMigration:
    def test_a_ledger_of_the_first_version_goes_on(self, ledger: Path, tmp_path: Path) -> None:
        old = of_first_version(ledger, tmp_path / "old.db")
        told = paperloop("status", *settings(storage__path=old), folder=tmp_path)
        assert (told.code, "earlier version" in told.err) == (65, True)
        trade(old, 100)
        trade(ledger, 100)
        assert books(old) == books(ledger)
        assert audit_of(old)["ok"]
        assert verify_of(old)["ok"]

    def test_the_old_one_is_kept_beside_it(self, ledger: Path, tmp_path: Path) -> None:
        old = of_first_version(ledger, tmp_path / "old.db")
        before = rows(old, "SELECT * FROM trades")
        trade(old, 10)
        copy = tmp_path / "old.db.schema1"
        assert rows(copy, "SELECT * FROM trades") == before
        assert rows(copy, "PRAGMA user_version") == [(1,)]
        assert copy.stat().st_mode & 0o777 == 0o600
        assert not list(tmp_path.glob("*.part"))

    async def test_ticks_are_read_alike(self, ledger: Path, tmp_path: Path) -> None:
        old = of_first_version(ledger, tmp_path / "old.db")
        async with open_database(old) as database, open_database(ledger, read_only=True) as new:
            one, other = [await TickRepository(each).read(0, 100_000) for each in (database, new)]
            assert (one == other).all()


class TestWhatAReviewFound:
    def test_a_checkpoint_by_the_daemon_does_not_disturb_a_replay(self, ledger: Path) -> None:
        """The replay reads one moment; what happens to the file meanwhile is the daemon's affair."""

        async def work() -> dict[str, Any]:
            async with open_database(ledger) as database:
                task = asyncio.get_running_loop().create_task(verified(ledger))
                executor = MockExecutor(TradeRepository(database))
                while not task.done():
                    await executor.execute_order("BTC/USDT", OrderSide.BUY, 1)
                    await database.run(lambda connection: connection.execute("PRAGMA wal_checkpoint").fetchall())
                return task.result()

        assert asyncio.run(work())["ok"]

    def test_a_parameter_that_is_called_like_a_secret(self, tmp_path: Path) -> None:
        (tmp_path / "keyed.py").write_text(
            "import numpy as np\n\n\nclass Keyed:\n    name = 'keyed'\n\n    def __init__(self, *, key: int = 2):\n"
            "        self.lookback = key\n\n    def targets(self, bars):\n        return (bars.close % 2 < 1) * 1.0\n",
            encoding="utf-8",
        )
        ledger = tmp_path / "ledger.db"
        trade(ledger, 500, strategy_folder=tmp_path, strategy='[{name="keyed", params={key=7}}]')
        assert verify_of(ledger)["ok"]
        assert '"key":7' in rows(ledger, "SELECT config FROM runs")[0][0]

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE accounts SET cash = '99999' WHERE name = 'dips'",
            "UPDATE positions SET quantity = '1' WHERE account = 'dips'",
            "UPDATE cursor SET digest = 'deadbeef'",
        ],
    )
    def test_verify_looks_at_the_sums_too(self, ledger: Path, statement: str) -> None:
        change(ledger, statement)
        assert not verify_of(ledger)["ok"]

    @pytest.mark.parametrize(
        "statement",
        [
            "DROP TABLE seals",
            "DROP TABLE positions",
            "UPDATE runs SET config = 'x'",
            "UPDATE runs SET config = '{}'",
            "DELETE FROM symbols",
            "UPDATE ticks SET symbol_id = 99 WHERE id = 700",
            "UPDATE accounts SET cash = 'abc'",
        ],
    )
    def test_damage_is_told_in_one_line(self, ledger: Path, statement: str) -> None:
        change(ledger, statement)
        for verb in ("audit", "verify", "status"):
            told = paperloop(verb, *settings(storage__path=ledger), folder=ledger.parent)
            assert "Traceback" not in told.err, (verb, told.err)
            assert told.code in ({0, 65} if verb == "status" else {1, 65})

    def test_a_look_at_the_file_by_another_program_stops_nobody(self, tmp_path: Path) -> None:
        async def work() -> None:
            async with open_database(tmp_path / "ledger.db") as database:
                executor = MockExecutor(TradeRepository(database))
                for _ in range(3):
                    await executor.execute_order("BTC/USDT", OrderSide.BUY, 1)
                    with closing(sqlite3.connect(tmp_path / "ledger.db")) as other:
                        other.execute("PRAGMA wal_checkpoint").fetchall()
                    (tmp_path / "ledger.db").touch()

        asyncio.run(work())
        assert audit_of(tmp_path / "ledger.db")["trades"] == 3

    async def test_but_a_row_that_it_changed_does(self, tmp_path: Path) -> None:
        async with open_database(tmp_path / "ledger.db") as database:
            executor = MockExecutor(TradeRepository(database))
            await executor.execute_order("BTC/USDT", OrderSide.BUY, 1)
            change(tmp_path / "ledger.db", "UPDATE trades SET pnl = '5'", "PRAGMA wal_checkpoint")
            with pytest.raises(LedgerTouched):
                await executor.execute_order("BTC/USDT", OrderSide.BUY, 1)

    def test_what_a_run_without_a_tape_was_at_a_moment(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.db"
        trade(ledger, 600, storage__record_ticks="false")
        (timestamp,) = rows(ledger, "SELECT timestamp FROM signals WHERE id = 50")[0]
        told = TestStatusAt.ask(ledger, timestamp)
        assert told["signals"] >= 50
        assert told["polls"] == rows(ledger, "SELECT poll FROM signals WHERE id = 50")[0][0]

    def test_a_moment_whose_ticks_were_deleted(self, long: Path, tmp_path: Path) -> None:
        ledger = Path(shutil.copy(long, tmp_path / "ledger.db"))
        TestRetention.tidied(ledger, 15)
        early = 1735689600000 + 86_400_000
        assert TestStatusAt.ask(ledger, early)["ticks_deleted"]
        told = paperloop("why", "A/USDT", str(early), *settings(storage__path=ledger), folder=tmp_path)
        assert "were deleted" in told.out

    @pytest.mark.parametrize("arguments", [["audit"], ["verify"], ["verify", "--steps"]], ids=" ".join)
    def test_an_interrupt_ends_it(self, long: Path, arguments: list[str]) -> None:
        with Daemon(*arguments, *settings(storage__path=long), folder=long.parent) as process:
            wait_until(lambda: process.ended or has_open(process.pid, long.resolve()), "the work, after the imports")
            result = process.stop(SIGINT)
        assert result.code in {130, 0}
        assert "Traceback" not in result.err
