"""Candles lived through by the loop: its fills against a list of bars and a pencil, and the ledger that it leaves."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from pathlib import Path
from signal import SIGKILL
from typing import Any

import numpy as np
import pytest

from bot import proof
from bot.app import RunOptions, run
from bot.backtest.event import Lived, lived
from bot.backtest.feed import CandleFeed
from bot.backtest.trades import Trade
from bot.clock import VirtualClock
from bot.compose import plans_of, recorded_config, recorded_settings, trading_loop
from bot.domain import MONEY, Account, Bars, Market, OrderSide
from bot.loop import Pace
from bot.ports import Silent, Strategy
from bot.repositories import LedgerError, TickRepository, open_database
from bot.service.stop import StopSignals
from bot.settings import Settings, SettingsError, load_settings
from bot.strategies import build
from bot.timeframes import DAY_MS, MINUTE_MS, TIMEFRAMES, Timeframe
from tests.integration.daemon import Daemon, books, polls_in, rows, together
from tests.integration.daemon import settings as sets

MINUTE = TIMEFRAMES["1m"]
ROOT = Path(__file__).resolve().parents[2]
START_MS = 1_735_689_600_000 - 40 * MINUTE_MS
# Candles from here on are traded.
LIVE_MS = START_MS + 120 * MINUTE_MS
SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
FEE = Decimal("0.001")
CENT, STEP = Decimal("0.01"), Decimal("0.001")
MARKETS = {symbol: Market(symbol, CENT, STEP) for symbol in SYMBOLS}
Candles = Mapping[str, Bars]
# Looks at all four prices of its bars, so that a wrong one turns up in a fill.
RANGING = """
import numpy as np

class Ranging:
    name, lookback = "ranging", 2

    def targets(self, bars):
        found = np.full(len(bars), np.nan)
        high, low, last = bars.high[1:], bars.low[1:], bars.close[1:]
        code = np.rint(100 * (bars.open[:-1] + 2 * high + 3 * low + 5 * last)).astype(int) % 5
        found[1:] = np.array([1.0, 0.0, -1.0, np.nan, 1.0])[code]
        return found
"""


@dataclass(frozen=True)
class Entry:
    """A strategy, as the settings name it."""

    name: str
    account: str
    timeframe: str
    params: Mapping[str, Any]
    quantity: str = "1"

    @property
    def table(self) -> str:
        params = ", ".join(f"{key}={json.dumps(value)}" for key, value in self.params.items())
        return (
            f'{{name="{self.name}", account="{self.account}", timeframe="{self.timeframe}", capital=10000000,'
            f" quantity={self.quantity}, params={{{params}}}}}"
        )


CROSS = {"fast": 1, "slow": 3, "short": True}
ENTRIES = (
    Entry("sma_cross", "minutes", "1m", CROSS),
    Entry("ranging", "fives", "5m", {}, "0.5"),
    Entry("sma_cross", "ticks", "tick", {"fast": 2, "slow": 5}),
    Entry("ranging", "hours", "1h", {}),
)
TIMED = [entry for entry in ENTRIES if entry.timeframe != "tick"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "ranging.py").write_text(RANGING)
    return tmp_path


def configured(folder: Path, *entries: Entry, fill: str = "next_open", symbols: Sequence[str] = SYMBOLS) -> Settings:
    overrides = [
        f"strategy=[{', '.join(entry.table for entry in entries or ENTRIES)}]",
        f"feed.symbols={json.dumps(list(symbols))}",
        f"execution.fee_rate={FEE}",
        f"execution.fill={fill}",
        f"strategy_folder={folder / 'own'}",
    ]
    return load_settings((), overrides, {}, None)


def history(seed: int, count: int = 400, *, gaps: float = 0.2, symbols: Sequence[str] = SYMBOLS) -> dict[str, Bars]:
    """A candle a minute and symbol, many flat ones, with some missing by themselves and some by the dozen."""
    rng = np.random.default_rng(seed)
    found = {}
    for symbol in symbols:
        paths = np.round(100 + np.cumsum(rng.integers(-9, 10, (count, 4)).ravel()) / 100, 2).reshape(count, 4)
        level = rng.random(count) < 0.2
        paths[level] = paths[level, :1]
        away = np.repeat(rng.random(count // 20) < gaps, 20) | (rng.random(count) < gaps / 4)
        kept = np.flatnonzero(~away)
        path = paths[kept]
        times = START_MS + kept * MINUTE_MS
        found[symbol] = Bars.from_arrays(times, path[:, 0], path.max(axis=1), path.min(axis=1), path[:, 3])
    return found


def streamed(candles: Candles, size: int = 97) -> dict[str, Iterator[Bars]]:
    return {symbol: in_parts(bars, size) for symbol, bars in candles.items()}


def in_parts(bars: Bars, size: int) -> Iterator[Bars]:
    return (bars[start : start + size] for start in range(0, len(bars), size))


def backtest(settings: Settings, candles: Candles, **options: Any) -> Lived:
    return asyncio.run(lived(settings, streamed(candles), MINUTE, MARKETS, **options))


def strategy_of(entry: Entry, folder: Path) -> Strategy:
    if entry.name != "ranging":
        return build(entry.name, **entry.params)
    scope: dict[str, Any] = {}
    exec(RANGING, scope)  # noqa: S102 - the text above
    strategy: Strategy = scope["Ranging"]()
    return strategy


def resampled(candles: Bars, timeframe: Timeframe) -> list[tuple[int, float, float, float, float, int]]:
    """Bars of a longer timeframe, each with the number of its last candle."""
    found: list[list[Any]] = []
    for number, time in enumerate(candles.timestamp.tolist()):
        start = timeframe.open_of(time)
        first, high, low, last = (
            float(column[number]) for column in (candles.open, candles.high, candles.low, candles.close)
        )
        if not found or found[-1][0] != start:
            found.append([start, first, high, low, last, number])
        bar = found[-1]
        bar[2:] = [max(bar[2], high), min(bar[3], low), last, number]
    return [(*bar,) for bar in found]


def quotes_of(candles: Bars, entry: Entry, fill: str, start_ms: int) -> list[tuple[int, float, int]]:
    """For each bar that is decided on: when, at which price, and its number."""
    timeframe = TIMEFRAMES["1m" if entry.timeframe == "tick" else entry.timeframe]
    made = resampled(candles, timeframe)
    found: dict[int, tuple[int, float, int]] = {}
    opens = list(zip(candles.timestamp.tolist(), candles.open.tolist(), strict=True))
    for number, (start, *_, last) in enumerate(made):
        ends = opens[last][0] + MINUTE_MS == timeframe.back(start, -1)
        if fill == "close" and ends and opens[last][0] >= start_ms:
            found[number] = (opens[last][0] + MINUTE_MS - 1, float(candles.close[last]), number)
            continue
        # The next candle there is; where that is history, the first one that is not.
        following = [each for each in opens[last + 1 :] if each[0] >= start_ms]
        if following:
            found[number] = (*following[0], number)
    # Of several bars that are closed by one tick the newest is decided on.
    newest = {time: number for number, (time, _, _) in found.items()}
    return [found[number] for number in newest.values()]


def fills_by_hand(
    candles: Candles, entry: Entry, strategy: Strategy, fill: str, start_ms: int = 0
) -> list[tuple[int, str, OrderSide, Decimal, Decimal, Decimal, Decimal]]:
    """Bar after bar: the strategy is asked of the bars up to it, and what changes is bought or sold."""
    decisions = []
    for place, (symbol, each) in enumerate(candles.items()):
        timeframe = TIMEFRAMES["1m" if entry.timeframe == "tick" else entry.timeframe]
        made = resampled(each, timeframe)
        for time, price, number in quotes_of(each, entry, fill, start_ms):
            window = made[max(0, number + 1 - strategy.lookback) : number + 1]
            if len(window) == strategy.lookback:
                columns = list(zip(*window, strict=True))
                target = float(strategy.targets(Bars.from_arrays(columns[0], *columns[1:5]))[-1])
                decisions.append((time, place, symbol, price, target))
    account = Account("by hand", "USDT", Decimal(0), Decimal(0))
    wanted: dict[str, float] = {}
    fills = []
    with localcontext(MONEY):
        for time, _, symbol, price, target in sorted(decisions):
            if np.isnan(target) or target == wanted.get(symbol, 0.0):
                continue
            wanted[symbol] = target
            position, paid = account.position(symbol), Decimal(repr(price))
            change = Decimal(int(target)) * Decimal(entry.quantity) - position.quantity
            side = OrderSide.BUY if change > 0 else OrderSide.SELL
            pnl = position.apply_fill(side, abs(change), paid)
            fills.append((time, symbol, side, paid, abs(change), abs(change) * paid * FEE, pnl))
    return fills


def as_trades(fills: Sequence[tuple[Any, ...]]) -> list[Trade]:
    return [Trade(time, symbol, side, *map(float, amounts)) for time, symbol, side, *amounts in fills]


class TestFills:
    @pytest.mark.parametrize("fill", ["next_open", "close"])
    @pytest.mark.parametrize("start", [0, 83.5, 120])
    @pytest.mark.parametrize("seed", [1, 2])
    def test_they_are_those_of_a_pencil(self, folder: Path, fill: str, start: float, seed: int) -> None:
        candles = history(seed)
        # In the middle of a candle: that one is history as a whole.
        start_ms = START_MS + int(start * MINUTE_MS)
        found = backtest(configured(folder, fill=fill), candles, start_ms=start_ms)
        assert found.reason == "the feed has ended"
        for entry in ENTRIES:
            trades = found.trades[entry.account]
            expected = as_trades(fills_by_hand(candles, entry, strategy_of(entry, folder), fill, start_ms))
            assert trades.symbols == SYMBOLS
            assert list(trades) == expected
            assert len(expected) > (3 if entry.timeframe == "1h" else 30)
            self.check_account(found.accounts[entry.account], expected)
        times = np.concatenate([trades.timestamp for trades in found.trades.values()]) % MINUTE_MS
        assert {0} < {*times.tolist()} <= {0, MINUTE_MS - 1} if fill == "close" else not times.any()

    @staticmethod
    def check_account(account: Account, trades: Sequence[Trade]) -> None:
        cash, held = account.capital, dict.fromkeys(SYMBOLS, Decimal(0))
        for trade in trades:
            sign = 1 if trade.side is OrderSide.BUY else -1
            quantity, price = Decimal(repr(trade.quantity)), Decimal(repr(trade.price))
            cash -= sign * quantity * price * (1 + sign * FEE)
            held[trade.symbol] += sign * quantity
        assert account.cash == cash
        assert {symbol: account.position(symbol).quantity for symbol in SYMBOLS} == held

    @pytest.mark.parametrize("fill", ["next_open", "close"])
    def test_on_days_over_weeks_and_months(self, folder: Path, fill: str) -> None:
        base = history(5, 200, gaps=0.05, symbols=SYMBOLS[:1])[SYMBOLS[0]]
        days = (base.timestamp - START_MS) // MINUTE_MS * DAY_MS + 1_735_689_600_000
        candles = {SYMBOLS[0]: Bars(days, base.open, base.high, base.low, base.close, base.volume)}
        names = ("1d", "3d", "1w", "1M")
        entries = [Entry("sma_cross", f"on_{name}", name, {"fast": 1, "slow": 2, "short": True}) for name in names]
        settings = configured(folder, *entries, fill=fill, symbols=SYMBOLS[:1])
        found = asyncio.run(lived(settings, streamed(candles), TIMEFRAMES["1d"], MARKETS))
        (bars,) = candles.values()
        for entry in entries:
            trades, timeframe = found.trades[entry.account], TIMEFRAMES[entry.timeframe]
            assert len(trades) >= 3
            for time, price in zip(trades.timestamp.tolist(), trades.price.tolist(), strict=True):
                row = int(np.searchsorted(bars.timestamp, time, side="right")) - 1
                opened = int(bars.timestamp[row])
                if time == opened:
                    assert price == bars.open[row]
                    assert timeframe.open_of(opened) != timeframe.open_of(int(bars.timestamp[row - 1]))
                else:
                    assert (fill, time) == ("close", opened + DAY_MS - 1)
                    assert price == bars.close[row]
                    assert timeframe.open_of(time + 1) == time + 1

    def test_refusals_are_counted(self, folder: Path) -> None:
        entry = Entry("sma_cross", "poor", "1m", CROSS, "1000000")
        found = backtest(configured(folder, entry), history(1))
        assert not len(found.trades["poor"])
        assert found.refused["poor"].keys() == {"insufficient_cash", "insufficient_margin"}
        assert found.accounts["poor"].cash == found.accounts["poor"].capital

    def test_no_candles(self, folder: Path) -> None:
        nothing = {symbol: bars[:0] for symbol, bars in history(1).items()}
        found = backtest(configured(folder), nothing)
        assert (found.polls, found.reason) == (0, "the feed has ended")
        assert [len(trades) for trades in found.trades.values()] == [0] * len(ENTRIES)

    def test_how_far_it_is(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bot.backtest.event.BLOCK_TICKS", 300)
        told: list[int] = []
        candles = history(1)
        backtest(configured(folder), candles, progress=told.append)
        assert len(told) > 10
        assert told == sorted(told)
        assert max(bars.timestamp[-1] for bars in candles.values()) <= told[-1] < START_MS + 400 * MINUTE_MS

    def test_a_strategy_that_raises_is_heard_of(self, folder: Path) -> None:
        (folder / "own" / "broken.py").write_text(
            RANGING.replace("return found", "raise RuntimeError('no')").replace('"ranging"', '"broken"')
        )
        heard: list[str] = []
        entry = Entry("broken", "broken", "1m", {})
        found = backtest(
            configured(folder, entry), history(1, 60), failed=lambda name, error: heard.append(f"{name}: {error}")
        )
        assert not len(found.trades["broken"])
        assert {*heard} == {"broken: no"}


class TestLedger:
    @pytest.mark.parametrize("fill", ["next_open", "close"])
    def test_it_proves_itself(self, folder: Path, fill: str) -> None:
        ledger, settings, candles = folder / "kept.db", configured(folder, fill=fill), history(3)
        found = backtest(settings, candles, start_ms=LIVE_MS, persist=ledger)
        assert backtest(settings, candles, start_ms=LIVE_MS).digest == found.digest
        assert asyncio.run(proof.audited(ledger))["digest"] == found.digest
        for steps in (False, True):
            told = asyncio.run(proof.verified(ledger, steps=steps))
            assert told["ok"], told
            assert told["polls"] == found.polls > 500
        ((config, reason),) = rows(ledger, "SELECT config, stop_reason FROM runs")
        recorded = json.loads(config)["settings"]
        assert (recorded["feed"]["kind"], recorded["execution"]["fill"]) == ("backtest", fill)
        assert reason == "the feed has ended"
        ((last, first),) = rows(
            ledger,
            "SELECT max(timestamp) FILTER (WHERE warmup = 1), min(timestamp) FILTER (WHERE warmup = 0) FROM ticks",
        )
        assert last < LIVE_MS <= first
        for entry in ENTRIES:
            ((count,),) = rows(ledger, f"SELECT count(*) FROM trades WHERE account = '{entry.account}'")  # noqa: S608
            assert len(found.trades[entry.account]) == count > 0

    @pytest.mark.parametrize("fill", ["next_open", "close"])
    def test_a_replay_of_it_has_the_same_rows(self, folder: Path, fill: str) -> None:
        ledger, again = folder / "kept.db", folder / "again.db"
        settings = configured(folder, *TIMED, fill=fill)
        digest = backtest(settings, history(4), start_ms=LIVE_MS, persist=ledger).digest
        update = {
            "feed": settings.feed.model_copy(
                update={"kind": "replay", "replay": settings.feed.replay.model_copy(update={"path": str(ledger)})}
            ),
            "storage": settings.storage.model_copy(update={"path": str(again)}),
            "log": settings.log.model_copy(update={"level": "error"}),
        }
        summary = asyncio.run(run(settings.model_copy(update=update), RunOptions(), StopSignals()))
        assert summary.digest == digest
        assert books(again) == books(ledger)

    @pytest.mark.parametrize("fill", ["next_open", "close"])
    @pytest.mark.parametrize("seed", range(3))
    def test_in_parts(self, folder: Path, fill: str, seed: int) -> None:
        """As it would be after restarts: in the middle of a candle, of a bar, and right after its last tick."""
        settings, candles = configured(folder, *TIMED, fill=fill), history(seed)
        whole, parted = folder / "whole.db", folder / "parted.db"
        polls = backtest(settings, candles, start_ms=LIVE_MS, persist=whole).polls
        rng = np.random.default_rng(seed)
        closes = [row[0] for row in rows(whole, "SELECT DISTINCT poll FROM ticks WHERE timestamp % 300000 = 299999")]
        stops = sorted({*rng.integers(1, polls, 5).tolist(), *rng.choice(closes, 3).tolist(), polls})

        async def part(stop: int, ahead: int) -> None:
            async with open_database(parted) as database:
                feed = CandleFeed(streamed(candles), MINUTE, MARKETS, at_close=fill == "close")
                clock, pace = VirtualClock(LIVE_MS, ahead), Pace(1, until_poll=stop)
                plans, ticks = plans_of(settings, polled=False), TickRepository(database)
                loop = await trading_loop(settings, plans, database, ticks, feed, clock, pace, Silent())
                assert await loop.run() == "the polls are done"

        for stop in stops:
            asyncio.run(part(stop, int(rng.integers(1, 50))))
        assert books(parted) == books(whole)

    def test_the_verbs_read_it(self, folder: Path) -> None:
        ledger = folder / "kept.db"
        found = backtest(configured(folder, fill="close"), history(3), persist=ledger)
        of_it = sets(storage__path=ledger)
        verbs = (["audit"], ["verify"], ["status"], ["trades", "-n", "100000"], ["export", "-o", str(folder / "out")])
        results = together([[*verb, "--json", *of_it] for verb in verbs], folder)
        assert [(result.code, result.err) for result in results] == [(0, "")] * len(verbs)
        audit, verify, status, trades, _ = (result.document for result in results)
        assert audit["digest"] == verify["digest"] == status["digest"] == found.digest
        assert len(trades) == sum(map(len, found.trades.values()))
        assert (folder / "out" / "trades.csv").is_file()
        (refused,) = together([["run", "--max-speed", "--polls", "1", *of_it]], folder)
        assert refused.code == 78
        assert "kept.db has prices of backtest, and these would be of simulated" in refused.err

    def test_a_killed_one_is_a_whole_ledger(self, folder: Path) -> None:
        ledger = folder / "kept.db"
        code = ENDLESS.format(ledger=ledger)
        with Daemon(folder=folder, program=("-c", code), environment={"PYTHONPATH": str(ROOT)}) as process:
            process.wait_until(lambda: polls_in(ledger) > 20_000, "some blocks")
            process.stop(SIGKILL)
        assert polls_in(ledger) > 20_000
        assert asyncio.run(proof.audited(ledger))["ok"]
        assert asyncio.run(proof.verified(ledger))["ok"]
        assert rows(ledger, "SELECT stop_reason FROM runs") == [(None,)]

    def test_it_is_never_one_that_is_there(self, folder: Path) -> None:
        ledger, settings = folder / "kept.db", configured(folder)
        ledger.write_bytes(b"dear")
        with pytest.raises(
            LedgerError, match=r"kept\.db exists already: a backtest is kept in a ledger of its own"
        ) as told:
            backtest(settings, history(1), persist=ledger)
        assert told.value.exit_code == 78
        assert ledger.read_bytes() == b"dear"
        (folder / "link.db").symlink_to(folder / "nowhere.db")
        with pytest.raises(LedgerError, match="exists already"):
            backtest(settings, history(1), persist=folder / "link.db")

    def test_without_one_nothing_is_left(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(folder / "own"))
        backtest(configured(folder), history(1))
        disordered = {symbol: bars[::-1] for symbol, bars in history(1).items()}
        with pytest.raises(ValueError, match="not in the order of time"):
            backtest(configured(folder), disordered)
        assert [path.name for path in (folder / "own").iterdir()] == ["ranging.py"]

    def test_candles_that_cannot_be_read_leave_none(self, folder: Path) -> None:
        broken = {symbol: bars[::-1] for symbol, bars in history(1).items()}
        with pytest.raises(ValueError, match="not in the order of time"):
            backtest(configured(folder), broken, persist=folder / "kept.db")
        assert not (folder / "kept.db").exists()

    def test_prices_that_no_ledger_can_hold(self, folder: Path) -> None:
        candles = {symbol: replace(bars, close=bars.close / 3000) for symbol, bars in history(1).items()}
        settings = configured(folder)
        with pytest.raises(
            SettingsError, match="has more than 15 decimals, and a ledger keeps its prices exactly: round"
        ):
            backtest(settings, candles, persist=folder / "kept.db")
        assert asyncio.run(proof.audited(folder / "kept.db"))["ok"]
        assert len(backtest(settings, candles).trades["minutes"])


class TestSettings:
    def test_bars_that_the_candles_do_not_add_up_to(self, folder: Path) -> None:
        names = ("1m", "5m", "15m", "1h", "12h", "3d", "1w")
        entries = [Entry("sma_cross", f"on_{name}", name, CROSS) for name in names]
        with pytest.raises(SettingsError) as told:
            asyncio.run(lived(configured(folder, *entries), {}, TIMEFRAMES["3m"], MARKETS))
        assert told.value.problems == [
            f'strategy#{number}.timeframe = "{name}": candles of 3m do not add up to that'
            for number, name in ((1, "1m"), (2, "5m"))
        ]

    def test_fills_at_the_close_are_not_for_prices_that_are_polled(self) -> None:
        settings = load_settings((), ["execution.fill=close"], {}, None)
        with pytest.raises(SettingsError) as told:
            plans_of(settings)
        (problem,) = told.value.problems
        assert problem.startswith('execution.fill = "close" is for candles and their replay: of simulated prices')
        assert plans_of(settings, polled=False)

    def test_an_old_run_filled_at_the_next_open(self) -> None:
        settings = load_settings((), [], {}, None)
        config = recorded_config(settings, plans_of(settings), MARKETS, 1)
        assert config["settings"]["execution"].pop("fill") == "next_open"
        assert recorded_settings(config).execution.fill == "next_open"


ENDLESS = """
import asyncio
from decimal import Decimal
from pathlib import Path
import numpy as np
from bot.backtest.event import lived
from bot.domain import Bars, Market
from bot.settings import load_settings
from bot.timeframes import TIMEFRAMES

def candles():
    place, rng = 0, np.random.default_rng(1)
    while True:
        times = 1_735_689_600_000 + (place + np.arange(4096)) * 60_000
        price = np.round(100 + rng.integers(-99, 100, (4, 4096)) / 100, 2)
        yield Bars(times, price[0], price.max(axis=0), price.min(axis=0), price[3], price[0])
        place += 4096

strategy = 'strategy=[{{name="sma_cross", timeframe="5m", quantity=1, params={{fast=1, slow=3}}}}]'
settings = load_settings((), [strategy, 'feed.symbols=["BTC/USDT"]', "execution.fill=close"], {{}}, None)
markets = {{"BTC/USDT": Market("BTC/USDT", Decimal("0.01"))}}
asyncio.run(lived(settings, {{"BTC/USDT": candles()}}, TIMEFRAMES["1m"], markets, persist=Path("{ledger}")))
"""
