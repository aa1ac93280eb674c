"""Paper orders are judged and charged as the market says, and a replay of the ledger does the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bot import engine, fills, proof
from bot.clock import VirtualClock
from bot.compose import plans_of, recorded_config, recorded_markets, recorded_settings, trading_loop
from bot.domain import MONEY, Block, Market
from bot.feeds import ArrayFeed
from bot.loop import Pace
from bot.ports import Silent
from bot.repositories import RunRepository, TickRepository, open_database
from bot.service.inspect import REASONS
from bot.settings import Settings
from tests.integration.daemon import rows

START_MS = 1_735_689_600_000
POLLS = 80
CENT, MILLI = Decimal("0.01"), Decimal("0.001")


def market(base: str, **said: str) -> Market:
    return Market(f"{base}/USDT", CENT, MILLI, **{key: Decimal(value) for key, value in said.items()})


SILENT, GENEROUS, DEAR = market("SILENT"), market("FREE", taker="0", maker="0"), market("DEAR", taker="0.0026")
# What each of them says of an order of one unit, at prices of about 100.
REFUSING = {
    market("FEW", min_amount="1.001"): "below_min_amount",
    market("CHEAP", min_cost="150"): "below_min_cost",
    market("MANY", max_amount="0.999"): "above_max_amount",
    market("ATONCE", max_amount="5", max_market_amount="0.999"): "above_max_amount",
    market("RICH", max_cost="50"): "above_max_cost",
}
MARKETS = {each.symbol: each for each in (SILENT, GENEROUS, DEAR, *REFUSING)}
NEW_KEYS = ("max_amount", "max_cost", "max_market_amount", "taker", "maker")


def tape(symbols: tuple[str, ...]) -> Block:
    rng = np.random.default_rng(3)
    last = np.round(100 + np.cumsum(rng.integers(-9, 10, (len(symbols), POLLS)), axis=1) / 100, 2)
    times = START_MS + np.arange(POLLS, dtype=np.int64) * 1000
    return Block(symbols, times, np.round(last - 0.01, 2), np.round(last + 0.01, 2), last)


def configured(markets: Mapping[str, Market], *, execution: dict[str, Any] | None = None, **size: Any) -> Settings:
    sma = {"name": "sma_cross", "params": {"fast": 1, "slow": 2}}
    keys: dict[str, Any] = {"feed": {"symbols": list(markets)}, "strategy": [sma | size], "execution": execution or {}}
    return Settings(**keys)


async def traded(
    ledger: Path,
    settings: Settings,
    markets: Mapping[str, Market],
    *,
    prices: Block | None = None,
    told: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: config,
) -> None:
    """A ledger as the daemon would have written it; ``told`` is what is done to the configuration it records."""
    plans, feed = plans_of(settings), ArrayFeed(prices or tape(tuple(markets)), markets)
    async with open_database(ledger) as database:
        tick_rows, clock = TickRepository(database), VirtualClock(START_MS, 16)
        loop = await trading_loop(settings, plans, database, tick_rows, feed, clock, Pace(1000), Silent())
        config = told(recorded_config(settings, plans, markets, loop.window))
        await RunRepository(database).start(START_MS, "0.1.0", config)
        await loop.run()


async def proven(ledger: Path) -> None:
    for document in (await proof.audited(ledger), await proof.verified(ledger)):
        assert document["ok"], document


def fee_rates(ledger: Path) -> dict[str, set[Decimal]]:
    found: dict[str, set[Decimal]] = {}
    with localcontext(MONEY):
        for symbol, cost, fee in rows(ledger, "SELECT symbol, cost, fee FROM trades"):
            found.setdefault(symbol, set()).add(Decimal(fee) / Decimal(cost))
    return found


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


async def test_verdicts_and_fees_are_those_of_the_market(ledger: Path) -> None:
    await traded(ledger, configured(MARKETS, quantity=1), MARKETS)
    verdicts = Counter(rows(ledger, "SELECT symbol, reason FROM signals WHERE target <> 0"))
    assert set(verdicts) == {
        *((each.symbol, None) for each in (SILENT, GENEROUS, DEAR)),
        *((each.symbol, reason) for each, reason in REFUSING.items()),
    }
    assert min(verdicts.values()) > 10
    assert fee_rates(ledger) == {
        SILENT.symbol: {Decimal("0.001")},
        GENEROUS.symbol: {Decimal(0)},
        DEAR.symbol: {Decimal("0.0026")},
    }
    await proven(ledger)


@pytest.mark.parametrize("rate", ["0", "0.0005"])
async def test_a_rate_that_is_set_wins_for_all(ledger: Path, rate: str) -> None:
    markets = {each.symbol: each for each in (SILENT, GENEROUS, DEAR)}
    await traded(ledger, configured(markets, execution={"fee_rate": rate}, quantity=1), markets)
    assert fee_rates(ledger) == {symbol: {Decimal(rate)} for symbol in markets}
    await proven(ledger)


@pytest.mark.parametrize("said", [SILENT, GENEROUS, DEAR, market("HALF", taker="0.5")], ids=lambda each: each.base)
async def test_all_of_the_equity_can_be_spent_whatever_the_fee(ledger: Path, said: Market) -> None:
    markets = {said.symbol: said}
    await traded(ledger, configured(markets, equity_fraction=1), markets)
    assert rows(ledger, "SELECT count(*) FROM signals WHERE reason = 'insufficient_cash'") == [(0,)]
    first = rows(ledger, "SELECT cost, fee FROM trades WHERE side = 'buy' LIMIT 1")[0]
    assert Decimal("9999.8") < sum(map(Decimal, first)) <= 10_000
    await proven(ledger)


async def test_a_position_below_the_limits_stays(ledger: Path) -> None:
    """What was bought for more than the least cost is worth less when it is to be sold."""
    held = market("LEFT", min_cost="100")
    last = np.array([[100.0, 100.5, 99.0, 99.5, 98.0, 101.0, 100.2]])
    times = START_MS + np.arange(last.shape[1], dtype=np.int64) * 1000
    markets = {held.symbol: held}
    prices = Block((held.symbol,), times, last, last, last)
    await traded(ledger, configured(markets, quantity=1), markets, prices=prices)
    assert rows(ledger, "SELECT target, reason FROM signals ORDER BY id") == [
        (1, None),
        (0, "below_min_cost"),  # worth 99
        (1, "no_change"),  # it is still there
        (0, "below_min_cost"),
        (1, "no_change"),
        (0, None),
    ]
    await proven(ledger)


def as_before(config: dict[str, Any]) -> dict[str, Any]:
    """As it was recorded when markets had no upper limits and no fees, and the settings always had a fee."""
    for entry in config["markets"]:
        for key in NEW_KEYS:
            assert entry.pop(key) is None
    assert config["settings"]["execution"] == {"fee_rate": "0.001", "slippage_bps": "0", "fill": "next_open"}
    return config


async def test_a_ledger_whose_markets_were_recorded_without_fees_and_upper_limits(ledger: Path) -> None:
    markets = {each.symbol: each for each in (SILENT, market("SMALL", min_amount="0.5", min_cost="5"))}
    settings = configured(markets, execution={"fee_rate": 0.001}, equity_fraction=0.3)
    await traded(ledger, settings, markets, told=as_before)
    assert fee_rates(ledger) == {symbol: {Decimal("0.001")} for symbol in markets}
    await proven(ledger)


def test_what_is_recorded_is_read_back() -> None:
    settings = configured(MARKETS, quantity=1)
    config = recorded_config(settings, plans_of(settings), MARKETS, 1)
    assert recorded_markets(config) == MARKETS
    assert recorded_settings(config).execution == settings.execution
    assert recorded_settings(config).execution.fee_rate is None
    set_to_zero = configured(MARKETS, execution={"fee_rate": 0}, quantity=1)
    assert recorded_settings(recorded_config(set_to_zero, plans_of(set_to_zero), MARKETS, 1)).execution.fee_rate == 0


def test_every_reason_is_explained() -> None:
    words = {value for name, value in vars(engine).items() if name.isupper() and type(value) is str}
    assert words | {fills.INSUFFICIENT_CASH, fills.INSUFFICIENT_MARGIN} == set(REASONS)
