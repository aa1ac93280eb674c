"""A recorded ledger against a backtest of the same time: no gap on its own tape; each planted one told by its cause."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bot import __version__
from bot.backtest.compare import Candles, Recording, Stretch, compared, document, outline_of, recording_of, text
from bot.backtest.compare.candles import within
from bot.backtest.compare.causes import Cause
from bot.backtest.event import lived
from bot.clock import VirtualClock
from bot.compose import plans_of, recorded_config, trading_loop
from bot.domain import Account, Bars, Block, Market, OrderSide, iso8601
from bot.execution import MockExecutor
from bot.feeds import ArrayFeed
from bot.loop import Pace
from bot.ports import Silent
from bot.repositories import AccountRepository, Retention, RunRepository, TickRepository, TradeRepository, open_database
from bot.settings import Settings
from bot.timeframes import MINUTE_MS, TIMEFRAMES
from tests.integration.daemon import paperloop, rows, settings
from tests.integration.test_parity import PARAMS, SIZES, candles, market

START = 1_735_689_600_000  # 2025-01-01
# Three polls a minute.
INTERVAL_MS = 20_000
BARS = 240
SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
MINUTE = TIMEFRAMES["1m"]
CROSS: dict[str, Any] = {
    "name": "sma_cross",
    "params": {"fast": 1, "slow": 3, "short": True},
    "timeframe": "1m",
    "quantity": "1.5",
}


def configured(*entries: Mapping[str, Any], symbols: Sequence[str] = SYMBOLS[:1], **execution: str) -> Settings:
    values: dict[str, Any] = {
        "strategy": entries or [CROSS],
        "feed": {"symbols": symbols, "poll_interval_s": INTERVAL_MS / 1000},
        "execution": {"fee_rate": "0.001", **execution},
    }
    return Settings(**values)


def untaped(given_: Settings) -> Settings:
    return given_.model_copy(update={"storage": given_.storage.model_copy(update={"record_ticks": False})})


def markets(symbols: Sequence[str] = SYMBOLS, **limits: Decimal) -> dict[str, Market]:
    return {symbol: Market(symbol, Decimal("0.01"), Decimal("0.001"), **limits) for symbol in symbols}


async def run(ledger: Path, given_: Settings, feed: ArrayFeed, clock: VirtualClock, until: int | None = None) -> None:
    """One life of the daemon, put together as ``bot.app`` does it."""
    plans = plans_of(given_, polled=False)
    async with open_database(ledger, synchronous="OFF") as database:
        pace = Pace(given_.feed.poll_interval_ms, until_poll=until)
        ticks = TickRepository(database) if given_.storage.record_ticks else None
        loop = await trading_loop(given_, plans, database, ticks, feed, clock, pace, Silent())
        config = recorded_config(given_, plans, feed.markets, loop.window)
        await RunRepository(database).start(START, __version__, config)
        await loop.run()


def live(ledger: Path, given_: Settings, prices: Block, **limits: Decimal) -> None:
    feed = ArrayFeed(prices, markets(prices.symbols, **limits))
    asyncio.run(run(ledger, given_, feed, VirtualClock(int(prices.timestamp[0]), 1_024)))


def walk(seed_: int, symbols: Sequence[str] = SYMBOLS[:1], spread: float = 0.0) -> Block:
    """Whole minutes of polls."""
    rng = np.random.default_rng(seed_)
    last = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.002, (len(symbols), 3 * BARS)), axis=1)), 2)
    times = START + np.arange(3 * BARS) * INTERVAL_MS
    return Block(tuple(symbols), times, np.round(last - spread, 2), np.round(last + spread, 2), last)


def minutes(prices: Block) -> dict[str, Bars]:
    """The candles of an exchange where every trade was polled."""
    found = {}
    for symbol, row in zip(prices.symbols, prices.last, strict=True):
        each = row.reshape(-1, 3)
        found[symbol] = Bars.from_arrays(
            prices.timestamp[::3], each[:, 0], each.max(axis=1), each.min(axis=1), each[:, 2]
        )
    return found


def recorded(ledger: Path, cut: Callable[[Stretch], Stretch | None] = lambda stretch: stretch) -> Recording:
    outline = asyncio.run(outline_of(ledger))
    stretches = [part for stretch in outline.stretches if (part := cut(stretch))]
    return asyncio.run(recording_of(ledger, outline, stretches))


def told(
    ledger: Path, bars: Mapping[str, Bars] | None = None, limit: int = 1_000, **execution: object
) -> dict[str, Any]:
    against = None if bars is None else Candles(bars, MINUTE, None, execution)
    return documented(list(compared(recorded(ledger), against)), limit)


def documented(found: Any, limit: int = 1_000) -> dict[str, Any]:
    made = document(found, ledger="ledger.db", against=(), notes=(), limit=limit)
    for money in made["money"]:
        parts = [cause["effect"] for cause in money["causes"]]
        assert sum(parts) + money["open_positions"] == pytest.approx(money["difference"], abs=1e-8)
    # Whatever there is to say, it can be said, on any terminal.
    for width in (80, 160):
        assert max(map(len, text(made, width).splitlines())) <= width
    return made


def causes(made: Mapping[str, Any]) -> dict[str, int]:
    (money,) = made["money"]
    return {row["cause"]: row["gaps"] for row in money["causes"]}


class TestOwnTape:
    """A replay proves the loop by the loop; here the other engine has to come to the same."""

    @pytest.mark.parametrize("number", [1, 4, 5, 6, 7])
    def test_whatever_happened(self, tmp_path: Path, number: int) -> None:
        turbulent(tmp_path / "ledger.db", number)
        made = told(tmp_path / "ledger.db")
        assert made["ok"], text(made, 160)
        assert made["trades_same"] == made["trades_live"] == made["trades_backtest"]
        for each in made["accounts"]:
            assert each["refused_live"] == each["refused_backtest"]

    def test_that_was_all_there_is(self, tmp_path: Path) -> None:
        """What the test before is about does happen in such ledgers."""
        reasons: set[str] = set()
        held, stretches, restarts, trades = 0, 0, 0, 0
        for number in (4, 7):
            ledger = tmp_path / f"{number}.db"
            turbulent(ledger, number)
            parts = recorded(ledger).parts
            stretches += len(parts)
            restarts += sum(part.stretch.runs - 1 for part in parts)
            for part in parts:
                polled = part.stretch.settings.feed.symbols
                held += any(name not in polled for each in part.accounts.values() for name in each.positions)
                for side in part.sides.values():
                    reasons.update(side.reasons.values())
                    trades += len(side.trades)
            assert rows(ledger, "SELECT count(*) FROM ticks WHERE warmup = 1 AND poll > 100")[0][0] > 20
        assert {"insufficient_cash", "insufficient_margin", "no_change", "above_max_amount"} <= reasons
        assert min(held, stretches - 2, restarts) > 0
        assert trades > 150

    def test_profits_are_those_of_the_books(self, tmp_path: Path) -> None:
        ledger, prices = tmp_path / "ledger.db", walk(1)
        live(
            ledger, configured(CROSS, {**CROSS, "account": "part", "equity_fraction": "0.7", "quantity": None}), prices
        )
        made = told(ledger)
        for each in made["accounts"]:
            query = "SELECT cash, capital, quantity FROM accounts JOIN positions ON account = name WHERE name = '{}'"
            cash, capital, quantity = map(float, rows(ledger, query.format(each["account"]))[0])
            assert each["profit_live"] == pytest.approx(cash - capital + quantity * prices.last[0, -1], abs=1e-8)
        assert made["money"][0]["difference"] == 0

    @pytest.mark.parametrize(
        ("column", "cause"),
        [("fee", Cause.FEE), ("pnl", Cause.PROFIT), ("price", Cause.PRICE), ("quantity", Cause.QUANTITY)],
    )
    def test_a_row_that_is_another_one(self, tmp_path: Path, column: str, cause: Cause) -> None:
        live(tmp_path / "ledger.db", configured(), walk(2))
        recording = recorded(tmp_path / "ledger.db")
        ((name, side),) = recording.parts[0].sides.items()
        columns: dict[str, Any] = {name: getattr(side.trades, name).copy() for name in (column, "fee")}
        columns[column][7] += 1e-6
        if column == "quantity":
            columns["fee"][7] *= 1 + 1e-6 / side.trades.quantity[7]
        recording.parts[0].sides[name] = side._replace(trades=replace(side.trades, **columns))
        made = documented(list(compared(recording)))
        (gap,) = made["first_gaps"]
        assert gap["cause"] == cause
        assert gap["timestamp"] == side.trades.timestamp[7]
        assert not made["ok"]

    def test_engines_that_disagree(self, tmp_path: Path) -> None:
        """A backtest that is shown another price than the loop was decides otherwise, and nothing excuses it."""
        live(tmp_path / "ledger.db", configured(), walk(2))
        recording = recorded(tmp_path / "ledger.db")
        recording.ticks["BTC/USDT"].last[3 * 100 + 2] *= 1.1
        made = documented(list(compared(recording)))
        assert set(causes(made)) == {"time", "profit"}
        assert text(made, 160).splitlines()[2].startswith("both saw the same prices")

    def test_a_refusal_for_another_reason(self, tmp_path: Path) -> None:
        live(tmp_path / "ledger.db", configured({**CROSS, "capital": "100"}), walk(2))
        recording = recorded(tmp_path / "ledger.db")
        ((_, side),) = recording.parts[0].sides.items()
        first = next(iter(side.reasons))
        side.reasons[first] = "no_equity"  # type: ignore[index]
        made = documented(list(compared(recording)))
        assert made["gaps"] == 2
        assert {gap["details"]["refused_on"] for gap in made["first_gaps"]} == {"live", "data"}
        assert made["money"][0]["difference"] == 0

    def test_a_part_of_the_time(self, tmp_path: Path) -> None:
        live(tmp_path / "ledger.db", configured({**CROSS, "equity_fraction": "0.5", "quantity": None}), walk(3))
        whole = told(tmp_path / "ledger.db")
        first_ms, end_ms = START + 71 * MINUTE_MS + 20_000, START + 155 * MINUTE_MS
        part = recorded(tmp_path / "ledger.db", lambda stretch: stretch.within(first_ms, end_ms))
        made = documented(list(compared(part)))
        assert made["ok"], text(made, 160)
        expected = rows(
            tmp_path / "ledger.db",
            f"SELECT count(*) FROM trades WHERE timestamp >= {first_ms} AND timestamp < {end_ms}",  # noqa: S608
        )[0][0]
        assert 10 < made["trades_live"] == expected < whole["trades_live"]
        assert not recorded(tmp_path / "ledger.db", lambda stretch: stretch.within(0, START)).parts

    @pytest.mark.parametrize("fill", ["next_open", "close"])
    def test_a_ledger_of_a_backtest(self, tmp_path: Path, fill: str) -> None:
        """Its tape has the ticks that candles were made into, and those candles make the same trades once more."""
        random = np.random.default_rng(5)
        base = TIMEFRAMES["1m"]
        entries = [
            {"name": name, "params": PARAMS[name], "timeframe": timeframe, "account": f"{name}-{timeframe}", **size}
            for name, timeframe, size in zip(
                ["sma_cross", "donchian_breakout", "rsi_reversion", "macd"],
                ["1m", "3m", "15m", "1h"],
                SIZES,
                strict=True,
            )
        ]
        bars = {symbol: candles(random, base, 0.1) for symbol in SYMBOLS[:2]}
        given_ = configured(*entries, symbols=SYMBOLS[:2], fill=fill, slippage_bps="3")
        rules = {symbol: market(random, symbol) for symbol in bars}
        ledger = tmp_path / "ledger.db"
        streams = {symbol: [each] for symbol, each in bars.items()}
        start_ms = int(bars["BTC/USDT"].timestamp[50]) + 777
        asyncio.run(lived(given_, streams, base, rules, start_ms=start_ms, persist=ledger))
        for made in (told(ledger), told(ledger, bars)):
            assert made["ok"], text(made, 160)
            assert made["trades_same"] > 150

    def test_what_begins_another_stretch(self, tmp_path: Path) -> None:
        """Another configuration does, a restart or another pace does not; each begins with the books as they were."""
        ledger, prices = tmp_path / "ledger.db", walk(7, SYMBOLS)
        short = {**CROSS, "quantity": None, "quote_amount": "300"}
        slower = {**short, "params": {"fast": 2, "slow": 4, "short": True}}
        several: list[tuple[Settings, Market]] = [
            (configured(short, symbols=SYMBOLS), markets()["BTC/USDT"]),
            (configured(short, symbols=SYMBOLS), markets()["BTC/USDT"]),
            (configured(slower, symbols=SYMBOLS), markets()["BTC/USDT"]),
            (configured(slower, symbols=SYMBOLS, slippage_bps="1"), markets()["BTC/USDT"]),
            (configured(slower, symbols=SYMBOLS[::-1], slippage_bps="1"), markets()["BTC/USDT"]),
            (configured(slower, symbols=SYMBOLS[::-1], slippage_bps="1"), markets(min_cost=Decimal(1))["BTC/USDT"]),
        ]
        known = []
        for number, (given_, rule) in enumerate(several, start=1):
            rules = {**markets(given_.feed.symbols), "BTC/USDT": rule}
            chosen = [SYMBOLS.index(symbol) for symbol in given_.feed.symbols]
            bid, ask, last = (column[chosen] for column in (prices.bid, prices.ask, prices.last))
            feed = ArrayFeed(Block(given_.feed.symbols, prices.timestamp, bid, ask, last), rules)
            asyncio.run(run(ledger, given_, feed, VirtualClock(START, 7), until=100 * number))
            known.append(asyncio.run(books(ledger)))
        parts = recorded(ledger).parts
        assert [part.stretch.runs for part in parts] == [2, 1, 1, 1, 1]
        assert [part.stretch.first_poll for part in parts] == [1, 201, 301, 401, 501]
        assert [part.accounts["sma_cross"] for part in parts[1:]] == known[1:5]
        assert max(each.short_basis for each in known[1:5]) > 100
        assert told(ledger)["ok"]

    def test_orders_made_by_hand(self, tmp_path: Path) -> None:
        ledger, prices = tmp_path / "ledger.db", walk(4)
        feed = ArrayFeed(prices, markets(SYMBOLS[:1]))

        async def lives() -> None:
            await run(ledger, configured(), feed, VirtualClock(START, 100), until=300)
            async with open_database(ledger, synchronous="OFF") as database:
                executor = MockExecutor(TradeRepository(database))
                for _ in range(3):
                    await executor.execute_order("DOGE/USDT", OrderSide.BUY, 2, price=7)
            await run(ledger, configured(), feed, VirtualClock(START, 100))

        asyncio.run(lives())
        assert told(ledger)["ok"]
        (note,) = asyncio.run(outline_of(ledger)).notes
        assert note == "3 orders made from Python (account 'manual') are left out"

    def test_deleted_prices(self, tmp_path: Path) -> None:
        """Compared is what follows the ticks that are gone, from the accounts as they were then."""
        ledger = tmp_path / "ledger.db"
        rng = np.random.default_rng(8)
        symbols = ("A/USDT", "B/USDT", "C/USDT", "D/USDT")
        last = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.001, (4, 18_000)), axis=1)), 2)
        prices = Block(symbols, START + np.arange(18_000) * MINUTE_MS, last, last, last)
        hours = {**CROSS, "timeframe": "1h", "params": {"fast": 2, "slow": 9, "short": True}, "account": "hours"}
        given_ = configured(hours, {**CROSS, "timeframe": "15m"}, symbols=symbols)
        live(ledger, given_, prices)
        whole = told(ledger)

        async def tidied() -> None:
            async with open_database(ledger, synchronous="OFF") as database:
                await Retention(database, 1).tidy()

        asyncio.run(tidied())
        made = told(ledger)
        assert made["ok"], text(made, 160)
        assert 10 < made["trades_live"] < whole["trades_live"] / 5
        (note,) = asyncio.run(outline_of(ledger)).notes
        assert note.startswith(f"prices up to {iso8601(START + 16_383 * MINUTE_MS)} were deleted")

    def test_polls_without_a_tape(self, tmp_path: Path) -> None:
        ledger, prices = tmp_path / "ledger.db", walk(4)
        feed = ArrayFeed(prices, markets(SYMBOLS[:1]))
        given_ = configured()

        async def lives() -> None:
            await run(ledger, given_, feed, VirtualClock(START, 100), until=300)
            await run(ledger, untaped(given_), feed, VirtualClock(START, 100), until=400)
            await run(ledger, given_, feed, VirtualClock(START, 100))

        asyncio.run(lives())
        outline = asyncio.run(outline_of(ledger))
        assert [stretch.runs for stretch in outline.stretches] == [1, 1]
        assert outline.notes == ["100 polls have no tape (storage.record_ticks = false), and are left out"]
        made = told(ledger)
        assert made["ok"], text(made, 160)
        assert 0 < made["trades_live"] < rows(ledger, "SELECT count(*) FROM trades")[0][0]

    @pytest.mark.parametrize("taped", [True, False])
    def test_what_is_held_and_not_polled_any_more(self, tmp_path: Path, taped: bool) -> None:
        """It is worth its last price, or what it cost where nobody has recorded that."""
        ledger, prices = tmp_path / "ledger.db", walk(4, SYMBOLS[:2])
        entry = {**CROSS, "quantity": None, "equity_fraction": "0.3"}
        whole = Block(SYMBOLS[:1], prices.timestamp, prices.bid[:1], prices.ask[:1], prices.last[:1])
        other = Block(SYMBOLS[1:2], prices.timestamp, prices.bid[1:], prices.ask[1:], prices.last[1:])

        async def lives() -> None:
            first = configured(entry) if taped else untaped(configured(entry))
            await run(ledger, first, ArrayFeed(whole, markets()), VirtualClock(START, 100), until=200)
            second = configured(entry, symbols=SYMBOLS[1:2])
            await run(ledger, second, ArrayFeed(other, markets()), VirtualClock(START, 100))

        asyncio.run(lives())
        part = recorded(ledger).parts[-1]
        assert "BTC/USDT" in part.accounts["sma_cross"].positions
        made = told(ledger)
        assert made["ok"], text(made, 160)
        assert made["trades_same"] > 10


async def books(ledger: Path) -> Account:
    """The account, with what it holds, as the ledger has it."""
    async with open_database(ledger, read_only=True) as database:
        account = (await AccountRepository(database).load())["sma_cross"]
    account.positions = {symbol: each for symbol, each in account.positions.items() if each.quantity}
    return account


def turbulent(ledger: Path, number: int) -> None:
    """Restarts, other strategies, other symbols, polls that are missed and come as history, symbols that halt, orders
    that are refused."""
    rng = np.random.default_rng(number)
    polls = 600
    last = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.003, (3, polls)), axis=1)), 2)
    away = rng.random((3, polls // 30)) < 0.2
    away[rng.integers(0, 3, polls // 30), np.arange(polls // 30)] = False
    last[np.repeat(away, 30, axis=1)] = np.nan
    times = START - 7_000 + np.cumsum(np.where(rng.random(polls) < 0.02, rng.integers(1, 60, polls), 1)) * INTERVAL_MS
    rules = markets(min_cost=Decimal(40), max_amount=Decimal(40))
    given_ = some(rng, SYMBOLS)
    at = 0
    for length in rng.multinomial(polls, np.ones(4) / 4).tolist():
        if rng.random() < 0.6:
            given_ = some(rng, rng.permutation(SYMBOLS)[: rng.integers(1, 4)].tolist())
        symbols = given_.feed.symbols
        chosen = [SYMBOLS.index(symbol) for symbol in symbols]
        seen = last[chosen, : at + length]
        prices = Block(symbols, times[: at + length], np.round(seen - 0.01, 2), np.round(seen + 0.01, 2), seen)
        begin = at + (int(rng.integers(1, 60)) if at else 0)
        if (seen[:, begin:] == seen[:, begin:]).any():
            clock = VirtualClock(int(times[begin]), int(rng.choice([1, 7, 1_000])))
            asyncio.run(run(ledger, given_, ArrayFeed(prices, {name: rules[name] for name in symbols}), clock))
        at += length


def some(rng: np.random.Generator, symbols: Sequence[str]) -> Settings:
    entries = []
    for number, capital in enumerate((700, 150, 5_000)):
        name = str(rng.choice(sorted(set(PARAMS) - {"buy_and_hold"})))
        params = {**PARAMS[name], "short": bool(rng.random() < 0.5)}
        timeframe = str(rng.choice(["tick", "1m", "3m", "5m"]))
        size = SIZES[rng.integers(len(SIZES))]
        entries.append(
            {
                "name": name,
                "params": params,
                "account": f"a{number}",
                "capital": capital,
                "timeframe": timeframe,
                **size,
            }
        )
    return configured(*entries, symbols=symbols, slippage_bps=str(rng.choice(["0", "2.5"])))


@pytest.fixture(scope="module")
def prices() -> Block:
    return walk(11)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory, prices: Block) -> Path:
    """Polls that saw every price that candles are made of."""
    path = tmp_path_factory.mktemp("compare") / "ledger.db"
    live(path, configured(), prices)
    return path


def without(bars: Bars, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> Bars:
    columns = (bars.timestamp, bars.open, bars.high, bars.low, bars.close, bars.volume)
    return Bars(*(column[~chosen] for column in columns))


class TestAgainstCandles:
    def test_the_same_prices(self, ledger: Path, prices: Block) -> None:
        made = told(ledger, minutes(prices))
        assert made["ok"], text(made, 160)
        assert made["trades_same"] > 80

    def test_several_symbols_and_timeframes(self, tmp_path: Path) -> None:
        prices = walk(5, SYMBOLS)
        entries = [
            {**CROSS, "timeframe": timeframe, "account": timeframe, "quantity": None, "equity_fraction": "0.4"}
            for timeframe in ("1m", "5m", "15m")
        ]
        live(tmp_path / "ledger.db", configured(*entries, symbols=SYMBOLS), prices)
        made = told(tmp_path / "ledger.db", minutes(prices))
        assert made["ok"], text(made, 160)
        assert all(each["trades_same"] > 5 for each in made["accounts"])

    def test_candles_that_are_missing(self, ledger: Path, prices: Block) -> None:
        ((symbol, bars),) = minutes(prices).items()
        gone = (bars.timestamp >= START + 100 * MINUTE_MS) & (bars.timestamp < START + 130 * MINUTE_MS)
        made = told(ledger, {symbol: without(bars, gone)})
        assert set(causes(made)) == {"missing data"}
        assert made["gaps"] >= 5
        edges = {"missing_on": "data", "missing_from": iso8601(START + 100 * MINUTE_MS)}
        inside = [gap for gap in made["first_gaps"] if gap["timestamp"] < START + 130 * MINUTE_MS]
        assert inside
        for gap in inside:
            assert gap["details"] == {**edges, "missing_to": iso8601(START + 130 * MINUTE_MS)}
            assert gap["live"]
            assert gap["backtest"] is None
        assert inside[0]["text"].startswith("the data has no candle from 01:40:00 to 02:10:00, and live ")

    def test_an_outage(self, tmp_path: Path, prices: Block) -> None:
        """The daemon was down, and the first thing it does is what it would have done before."""
        first, end = START + 100 * MINUTE_MS + 20_000, START + 130 * MINUTE_MS + 20_000
        seen = prices.columns((prices.timestamp < first) | (prices.timestamp >= end))
        live(tmp_path / "ledger.db", configured(), seen)
        made = told(tmp_path / "ledger.db", minutes(prices))
        found = causes(made)
        assert found["missing data"] >= 5
        assert set(found) <= {"missing data", "time"}
        inside = [gap for gap in made["first_gaps"] if gap["timestamp"] < START + 130 * MINUTE_MS]
        assert inside
        edges = {"missing_from": iso8601(first - 20_000), "missing_to": iso8601(end)}
        assert all(gap["details"] == {"missing_on": "live", **edges} and gap["live"] is None for gap in inside)

    def test_an_outage_whose_candles_were_fetched(self, tmp_path: Path, prices: Block) -> None:
        """What came as history fills the windows; nothing was traded on it."""
        ledger, feed = tmp_path / "ledger.db", ArrayFeed(prices, markets(SYMBOLS[:1]))
        asyncio.run(run(ledger, configured(), feed, VirtualClock(START, 100), until=301))
        asyncio.run(run(ledger, configured(), feed, VirtualClock(START + 130 * MINUTE_MS + 20_000, 100)))
        assert told(ledger)["ok"]
        made = told(ledger, minutes(prices))
        assert causes(made) == {"missing data": made["gaps"]}
        assert made["gaps"] >= 5
        edges = {"missing_from": iso8601(START + 100 * MINUTE_MS), "missing_to": iso8601(START + 7_820_000)}
        assert all(gap["details"] == {"missing_on": "live", **edges} for gap in made["first_gaps"])

    def test_a_missed_beat(self, tmp_path: Path, ledger: Path, prices: Block) -> None:
        fills = rows(ledger, "SELECT timestamp, side FROM trades ORDER BY id")
        when, side = fills[20]
        live(tmp_path / "late.db", configured(), prices.columns(prices.timestamp != when))
        made = told(tmp_path / "late.db", minutes(prices))
        assert causes(made) == {"time": 1}
        (gap,) = made["first_gaps"]
        assert (gap["live"]["timestamp"], gap["backtest"]["timestamp"]) == (when + 20_000, when)
        assert (gap["details"], gap["side"]) == ({"seconds_later": 20.0}, side)
        sign = 1 if side == "buy" else -1
        dearer = sign * (gap["live"]["price"] - gap["backtest"]["price"])
        assert gap["effect"] == pytest.approx(-gap["live"]["quantity"] * dearer, abs=0.01)

    def test_a_close_that_makes_another_signal(self, ledger: Path, prices: Block) -> None:
        ((symbol, bars),) = minutes(prices).items()
        close = bars.close.copy()
        close[150] = 1.1 * bars.close[150]
        made = told(ledger, {symbol: replace(bars, close=close, high=np.maximum(bars.high, close))})
        assert set(causes(made)) == {"signal"}
        first = made["first_gaps"][0]
        assert first["details"]["bar"] == iso8601(int(bars.timestamp[150]))
        assert first["details"]["price"] == "close"
        assert (first["details"]["live"], first["details"]["data"]) == (bars.close[150], close[150])
        assert "live, " in first["text"]
        assert {"wanted_since", "bar"} & set(made["first_gaps"][-1]["details"])

    def test_another_fee(self, ledger: Path, prices: Block) -> None:
        made = told(ledger, minutes(prices), fee_rate=Decimal("0.0004"))
        assert causes(made) == {"fee": made["trades_live"]}
        cost = sum(float(row[0]) for row in rows(ledger, "SELECT cost FROM trades"))
        assert made["money"][0]["difference"] == pytest.approx(-0.0006 * cost)
        assert made["first_gaps"][0]["details"] == {"rate_live": 0.001, "rate_backtest": 0.0004}

    def test_slippage(self, ledger: Path, prices: Block) -> None:
        made = told(ledger, minutes(prices), slippage_bps=Decimal(20))
        assert causes(made) == {"price": made["trades_live"]}
        assert made["money"][0]["difference"] > 0
        for gap in made["first_gaps"]:
            cost = gap["details"]["cost"]
            assert abs(cost["spread"]) + abs(cost["movement"]) < 1e-9
            assert cost["slippage"] == pytest.approx(
                -abs(gap["live"]["price"] - gap["backtest"]["price"]) * gap["backtest"]["quantity"]
            )

    def test_a_spread(self, tmp_path: Path) -> None:
        prices = walk(11, spread=0.03)
        live(tmp_path / "ledger.db", configured(), prices)
        made = told(tmp_path / "ledger.db", minutes(prices))
        assert causes(made) == {"price": made["trades_live"]}
        for gap in made["first_gaps"]:
            assert gap["details"]["cost"]["spread"] == pytest.approx(0.03 * gap["live"]["quantity"], abs=1e-9)
            assert gap["details"]["cost"]["movement"] == pytest.approx(0, abs=1e-9)

    def test_another_price_than_the_candle_opened_with(self, ledger: Path, prices: Block) -> None:
        ((symbol, bars),) = minutes(prices).items()
        made = told(ledger, {symbol: replace(bars, open=bars.open + 0.25)})
        assert causes(made) == {"price": made["trades_live"]}
        for gap in made["first_gaps"]:
            sign = -1 if gap["side"] == "buy" else 1
            assert gap["details"]["cost"]["movement"] == pytest.approx(sign * 0.25 * gap["live"]["quantity"], abs=1e-9)

    def test_another_size(self, tmp_path: Path, prices: Block) -> None:
        """One late fill, and from then on the account is worth another amount."""
        given_ = configured({**CROSS, "quantity": None, "equity_fraction": "0.9"})
        live(tmp_path / "ledger.db", given_, prices)
        times = [row[0] for row in rows(tmp_path / "ledger.db", "SELECT timestamp FROM trades ORDER BY id")]
        live(tmp_path / "late.db", given_, prices.columns(prices.timestamp != times[4]))
        made = told(tmp_path / "late.db", minutes(prices))
        found = causes(made)
        assert found["time"] == 1
        assert set(found) == {"time", "quantity"}
        assert made["trades_same"] >= 4
        assert made["first_gaps"][1]["details"] == {"sizing": "equity_fraction 0.9"}

    def test_refused(self, tmp_path: Path, prices: Block) -> None:
        dear = configured({**CROSS, "params": {"fast": 1, "slow": 3}, "capital": "155"}, slippage_bps="500")
        live(tmp_path / "ledger.db", dear, prices)
        made = told(tmp_path / "ledger.db", minutes(prices), slippage_bps=Decimal(0))
        first = made["first_gaps"][0]
        assert first["details"]["refused"] == "insufficient_cash"
        assert first["text"].startswith("live was refused: insufficient_cash (the account has not enough cash")
        assert first["cause"] == "signal"
        often = [made["accounts"][0][f"refused_{side}"]["insufficient_cash"] for side in ("live", "backtest")]
        assert often[0] > often[1]

    def test_ticks_on_candles(self, tmp_path: Path, prices: Block) -> None:
        live(tmp_path / "ledger.db", configured({**CROSS, "timeframe": "tick"}), prices)
        against = Candles(minutes(prices), MINUTE, MINUTE, {})
        made = documented(list(compared(recorded(tmp_path / "ledger.db"), against)))
        assert made["trades_live"] > made["trades_backtest"] > 0
        texts = [gap["text"] for gap in made["first_gaps"]]
        assert any(text.endswith("live decides on ticks, the backtest on candles") for text in texts)

    def test_candles_of_a_part_of_the_time(self, ledger: Path, prices: Block) -> None:
        ((symbol, bars),) = minutes(prices).items()
        part = Candles({symbol: bars[40:200]}, MINUTE, None, {})
        outline = asyncio.run(outline_of(ledger))
        stretches, notes = within(outline.stretches, part)
        assert notes == [
            f"the candles begin at {iso8601(START + 40 * MINUTE_MS)}: what was traded before is not compared",
            f"the candles end at {iso8601(START + 200 * MINUTE_MS)}: what was traded from then on is not compared",
        ]
        made = documented(list(compared(asyncio.run(recording_of(ledger, outline, stretches)), part)))
        # The first decisions look back on candles that are not there.
        assert all(gap["timestamp"] < START + 44 * MINUTE_MS for gap in made["first_gaps"])
        assert set(causes(made)) <= {"missing data", "signal"}
        assert made["trades_same"] > 40

    def test_begun_within_a_candle(self, tmp_path: Path, prices: Block) -> None:
        """The backtest decides on what was closed by then, at the open of the candle that the daemon was started in."""
        feed = ArrayFeed(prices, markets(SYMBOLS[:1]))
        clock = VirtualClock(START + 10 * MINUTE_MS + INTERVAL_MS, 100)
        asyncio.run(run(tmp_path / "ledger.db", configured(), feed, clock))
        made = told(tmp_path / "ledger.db", minutes(prices))
        assert causes(made) == {"time": 1}
        assert made["first_gaps"][0]["backtest"]["timestamp"] == START + 10 * MINUTE_MS

    def test_at_the_close_instead(self, ledger: Path, prices: Block) -> None:
        """A moment earlier, at the price that the candle closed with; and not beyond the end of what is compared."""
        against = Candles(minutes(prices), MINUTE, None, {"fill": "close"})
        end_ms = rows(ledger, "SELECT timestamp FROM trades ORDER BY id")[20][0] - 1
        part = recorded(ledger, lambda stretch: stretch.within(0, end_ms))
        made = documented(list(compared(part, against)))
        assert causes(made) == {"time": 20}
        assert {gap["details"]["seconds_later"] for gap in made["first_gaps"]} == {0.001}

    def test_a_longer_tolerance(self, tmp_path: Path, ledger: Path, prices: Block) -> None:
        when = rows(ledger, "SELECT timestamp FROM trades ORDER BY id")[20][0]
        live(tmp_path / "late.db", configured(), prices.columns(prices.timestamp != when))
        against = Candles(minutes(prices), MINUTE, None, {})
        found = documented(list(compared(recorded(tmp_path / "late.db"), against, tolerance_ms=19_999)))
        assert found["gaps"] == 2
        assert Counter(gap["live"] is None for gap in found["first_gaps"]) == {True: 1, False: 1}


def test_command_line(tmp_path: Path) -> None:
    strategies = (
        '[{name="sma_cross", params={fast=3, slow=8}, timeframe="1m", quantity=0.01},'
        ' {name="rsi_reversion", params={period=2}, account="dips"}]'
    )
    run_ = ["run", "--max-speed", "--polls", "3000", *settings(storage__path="l.db", strategy=strategies)]
    csv = tmp_path / "BTC_USDT-1m.csv"
    csv.write_text(
        "timestamp,open,high,low,close,volume\n"
        + "".join(
            f"{START + number * MINUTE_MS},{100 + number % 7},{107},{100},{100 + number % 5},1\n"
            for number in range(90)
        )
    )
    command = partial(paperloop, folder=tmp_path)
    assert command(*run_).code == 0
    own = command("compare", "l.db")
    assert (own.code, own.err) == (0, "")
    assert own.out.splitlines()[0].endswith(" trades matched, no gaps")
    simulated = command("compare", "l.db", "--data", "simulated", "--limit", "2", "--json")
    assert (simulated.code, simulated.err) == (1, "")
    made = simulated.document
    assert causes(made) == {"price": made["gaps"]}
    assert made["trades_same"] + made["gaps"] == made["trades_live"] > 10
    assert len(made["first_gaps"]) == 2
    assert made["notes"][0].startswith("dips: left out, decided on ticks")
    dips = command("compare", "l.db", "--data", "simulated", "--timeframe", "5m", "--account", "dips")
    assert dips.code == 1
    assert "dips: decided on ticks live, and in the backtest on candles of 5m" in dips.out
    assert command("compare", "l.db", "--timerange", "20250102-").out.startswith("0 trades matched, no gaps")
    for words, code, says in (
        (["none.db"], 1, "there is no ledger"),
        (["BTC_USDT-1m.csv"], 65, "not a ledger"),
        (["l.db", "--account", "nobody"], 2, "the ledger has no such account; it has dips, sma_cross"),
        (["l.db", "--fee-rate", "0.1"], 2, "go with --data"),
        (["l.db", "--data", "none.csv"], 2, "there is no file none.csv"),
        (["l.db", "--data", "l.db"], 2, "candles"),
        (["l.db", "--data", "."], 2, "has no file of ETH/USDT"),
        (["l.db", "--data", "BTC_USDT-1m.csv"], 2, "ETH/USDT"),
        (["l.db", "--data", "simulated", "--account", "dips"], 2, "--timeframe 1m, say"),
        (["l.db", "--data", "simulated", "--timeframe", "7m"], 2, "--timeframe must be one of"),
        (["l.db", "--data", "simulated", "--fee-rate", "much"], 78, "execution.fee_rate"),
        (["l.db", "--data", "simulated", "--timerange", "soon"], 2, "--timerange soon"),
        (["l.db", "--tolerance", "-1"], 2, "--tolerance"),
    ):
        result = command("compare", *words)
        assert (result.code, result.out) == (code, ""), (words, result)
        assert says in result.err, (words, result)
        assert "Traceback" not in result.err, (words, result)
