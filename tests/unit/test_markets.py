"""What ccxt says of a market, as orders are judged by it; held against what ccxt itself makes of an amount."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, localcontext
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.domain import MONEY, UNKNOWN_FEE_RATE, Market, OrderType, plain
from bot.exchange.markets import DECIMAL_PLACES, SIGNIFICANT_DIGITS, TICK_SIZE, market_of

BTC = "BTC/USDT"
# As ccxt 4.5.90 parses binance's exchangeInfo and kraken's AssetPairs.
BINANCE: dict[str, Any] = {
    "id": "BTCUSDT", "symbol": BTC, "base": "BTC", "quote": "USDT", "spot": True, "active": True,
    "contract": False, "contractSize": None, "linear": None, "inverse": None, "taker": 0.001, "maker": 0.001,
    "precision": {"amount": 1e-05, "price": 0.01, "cost": None, "base": 1e-08, "quote": 1e-08},
    "limits": {
        "leverage": {"min": None, "max": None},
        "amount": {"min": 1e-05, "max": 9000.0},
        "price": {"min": 0.01, "max": 1000000.0},
        "cost": {"min": 5.0, "max": 9000000.0},
        "market": {"min": 0.0, "max": 71.58462137},
    },
}  # fmt: skip
KRAKEN: dict[str, Any] = {
    "id": "XXBTZUSD", "symbol": "BTC/USD", "base": "BTC", "quote": "USD", "spot": True, "active": True,
    "contract": False, "contractSize": None, "linear": None, "inverse": None, "taker": 0.0026, "maker": 0.0016,
    "precision": {"amount": 1e-08, "price": 0.1, "cost": None},
    "limits": {
        "leverage": {"min": 1.0, "max": 10.0},
        "amount": {"min": 5e-05, "max": None},
        "price": {"min": None, "max": None},
        "cost": {"min": 0.5, "max": None},
    },
}  # fmt: skip


def bare(**fields: Any) -> dict[str, Any]:
    return {"symbol": BTC, "precision": {"amount": 0.001, "price": 0.01}, **fields}


BINANCE_RAW: dict[str, Any] = {
    "symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT", "baseAssetPrecision": 8,
    "quotePrecision": 8, "orderTypes": ["LIMIT", "MARKET"], "isSpotTradingAllowed": True, "permissionSets": [["SPOT"]],
    "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00000000", "tickSize": "0.01000000"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001000", "maxQty": "9000.00000000", "stepSize": "0.00001000"},
        {"filterType": "MARKET_LOT_SIZE", "minQty": "0.00000000", "maxQty": "71.58462137", "stepSize": "0.00000000"},
        {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True,
         "maxNotional": "9000000.00000000", "applyMaxToMarket": False, "avgPriceMins": 5},
    ],
}  # fmt: skip


@pytest.mark.parametrize("parsed", [True, False])
def test_binance(parsed: bool) -> None:
    market = BINANCE
    if parsed:
        venue = exchange("binance")
        venue.options |= {"crossMarginPairsData": [], "isolatedMarginPairsData": []}  # fetch_markets asks for these
        venue.set_markets([venue.parse_market(BINANCE_RAW)])
        market = venue.market(BTC)
    assert market_of(market, TICK_SIZE) == Market(
        BTC,
        Decimal("0.01"),
        Decimal("0.00001"),
        min_amount=Decimal("0.00001"),
        min_cost=Decimal(5),
        max_amount=Decimal(9000),
        max_cost=Decimal(9_000_000),
        max_market_amount=Decimal("71.58462137"),
        taker=Decimal("0.001"),
        maker=Decimal("0.001"),
    )


def test_kraken() -> None:
    assert market_of(KRAKEN, TICK_SIZE) == Market(
        "BTC/USD",
        Decimal("0.1"),
        Decimal("0.00000001"),
        min_amount=Decimal("0.00005"),
        min_cost=Decimal("0.5"),
        taker=Decimal("0.0026"),
        maker=Decimal("0.0016"),
    )


@pytest.mark.parametrize("kind", [float, str, lambda number: Decimal(repr(number))], ids=["float", "text", "Decimal"])
def test_numbers_of_every_kind_are_spelled_alike(kind: Any) -> None:
    def told(found: Any) -> Any:
        if isinstance(found, Mapping):
            return {key: told(value) for key, value in found.items()}
        return kind(found) if isinstance(found, float) else found

    market = market_of(told(BINANCE), TICK_SIZE)
    spelled = [plain(number) for number in (market.amount_step, market.min_cost, market.max_amount) if number]
    assert spelled == ["0.00001", "5", "9000"]
    assert str(market.amount_step) == "0.00001"
    assert market == market_of(BINANCE, TICK_SIZE)


@pytest.mark.parametrize("limits", [None, {}, {"amount": None, "cost": {}}, {"amount": {"min": None, "max": None}}])
def test_what_is_not_said_is_not_known(limits: Any) -> None:
    expected = Market(BTC, Decimal("1e-8"), Decimal("1e-8"))
    assert market_of({"symbol": BTC, "precision": None, "limits": limits}, TICK_SIZE) == expected
    assert market_of({"symbol": BTC, "precision": {"price": None}, "limits": limits}, TICK_SIZE) == expected


def test_a_limit_of_zero_is_none_and_a_fee_of_zero_is_one() -> None:
    none = {"min": 0.0, "max": "0.00000000"}
    market = market_of(bare(limits={"amount": none, "cost": none, "market": none}, taker=0, maker=0.0), TICK_SIZE)
    assert market == Market(BTC, Decimal("0.01"), Decimal("0.001"), taker=Decimal(0), maker=Decimal(0))
    assert {market.fee_rate(kind) for kind in OrderType} == {Decimal(0)}
    rebate = market_of(bare(taker=0.001, maker="-0.0001"), TICK_SIZE)
    assert (rebate.taker, rebate.maker) == (Decimal("0.001"), Decimal(0))
    silent = market_of(bare(taker=None), TICK_SIZE)
    assert {silent.fee_rate(kind) for kind in OrderType} == {UNKNOWN_FEE_RATE}
    taker, maker = (market_of(KRAKEN, TICK_SIZE).fee_rate(kind) for kind in (OrderType.MARKET, OrderType.LIMIT))
    assert (taker, maker) == (Decimal("0.0026"), Decimal("0.0016"))


def test_the_least_amount_is_that_of_a_market_order() -> None:
    limits = {"amount": {"min": 0.01}, "market": {"min": 0.5}}
    assert market_of(bare(limits=limits), TICK_SIZE).min_amount == Decimal("0.5")


def test_floats_are_meant_to_have_an_end() -> None:
    limits = {"amount": {"min": 0.1 * 3, "max": 1e300}, "cost": {"min": 1e-30}}
    market = market_of(bare(limits=limits, taker=0.1 * 0.003), TICK_SIZE)
    assert (market.min_amount, market.min_cost) == (Decimal("0.30000000000000004"), None)
    assert (market.taker, market.max_amount) == (Decimal("0.0003"), Decimal(10) ** 15)


@pytest.mark.parametrize(
    ("mode", "precision", "price_step", "amount_step"),
    [
        (TICK_SIZE, {"price": 0.25, "amount": 100.0}, "0.25", "100"),
        (TICK_SIZE, {"price": 5, "amount": 1}, "5", "1"),
        (DECIMAL_PLACES, {"price": 2, "amount": 8}, "0.01", "0.00000001"),
        (DECIMAL_PLACES, {"price": 0, "amount": 3.0}, "1", "0.001"),
        (SIGNIFICANT_DIGITS, {"price": 5, "amount": 8}, "1e-8", "1e-8"),  # bitfinex
        (SIGNIFICANT_DIGITS, {"price": 5, "amount": 2}, "1e-8", "0.01"),
    ],
)
def test_precision_modes(mode: int, precision: Any, price_step: str, amount_step: str) -> None:
    market = market_of(bare(precision=precision), mode)
    assert (market.price_step, market.amount_step) == (Decimal(price_step), Decimal(amount_step))


def test_contracts_are_counted_in_the_base_currency() -> None:
    swap = {"symbol": "BTC/USDT:USDT", "contract": True, "linear": True, "contractSize": 0.01}
    swap |= {"precision": {"amount": 0.1, "price": 0.1}, "limits": {"amount": {"min": 1, "max": 500}}}
    market = market_of(swap, TICK_SIZE)
    assert (market.amount_step, market.min_amount, market.max_amount) == (
        Decimal("0.001"),
        Decimal("0.01"),
        Decimal(5),
    )


BAD: list[tuple[str, Any, str]] = [
    ("precision", {"price": float("nan")}, "precision.price must be a number, got nan"),
    ("precision", {"amount": float("nan")}, "precision.amount must be a number, got nan"),
    ("precision", {"price": 0}, "precision.price must be above zero, got 0"),
    ("precision", {"amount": 0.0}, "precision.amount must be above zero, got 0.0"),
    ("precision", {"amount": 1e-19}, "precision.amount must be above zero, got 1e-19"),
    ("precision", {"amount": -0.001}, "precision.amount must not be negative, got -0.001"),
    ("precision", {"amount": "n/a"}, "precision.amount must be a number, got 'n/a'"),
    ("precision", {"price": True}, "precision.price must be a number, got True"),
    ("precision", {"price": [1]}, "precision.price must be a number, got [1]"),
    ("precision", 0.01, "precision.price must be in tables, got 0.01"),
    ("limits", {"amount": {"min": float("inf")}}, "limits.amount.min must be a number, got inf"),
    ("limits", {"amount": {"max": -1}}, "limits.amount.max must not be negative, got -1"),
    ("limits", {"cost": {"min": ""}}, "limits.cost.min must be a number, got ''"),
    ("limits", {"cost": {"max": Decimal("sNaN")}}, "limits.cost.max must be a number, got Decimal('sNaN')"),
    ("limits", {"market": {"min": -1}}, "limits.market.min must not be negative, got -1"),
    ("limits", {"market": {"max": "1;2"}}, "limits.market.max must be a number, got '1;2'"),
    ("limits", {"cost": [5]}, "limits.cost.min must be in tables, got [5]"),
    ("taker", 1, "taker must be less than 1, got 1"),
    ("maker", float("nan"), "maker must be a number, got nan"),
    ("maker", "free", "maker must be a number, got 'free'"),
    ("contractSize", 0, "contractSize must be above zero, got 0"),
    ("inverse", True, "inverse: contracts that are paid in the base currency cannot be booked"),
]


@pytest.mark.parametrize(("field", "value", "told"), BAD)
def test_what_is_wrong_is_named(field: str, value: Any, told: str) -> None:
    with pytest.raises(ValueError, match=r"^BTC/USDT: ") as caught:
        market_of(bare(contract=True, **{field: value}) if field != "precision" else bare() | {field: value}, TICK_SIZE)
    assert str(caught.value) == f"BTC/USDT: {told}"


@pytest.mark.parametrize("mode", [DECIMAL_PLACES, SIGNIFICANT_DIGITS])
@pytest.mark.parametrize("decimals", [0.5, 19])
def test_so_many_decimals_there_cannot_be(mode: int, decimals: float) -> None:
    with pytest.raises(ValueError, match=r"^BTC/USDT: precision.amount must be a whole number of decimals, at most 18"):
        market_of(bare(precision={"amount": decimals}), mode)


def test_other_nonsense() -> None:
    with pytest.raises(ValueError, match="symbol must be text, got None"):
        market_of({}, TICK_SIZE)
    with pytest.raises(ValueError, match=r"precision.price: there is no precision mode 7"):
        market_of(bare(), 7)


def test_the_constants_are_ccxts() -> None:
    import ccxt  # noqa: PLC0415

    assert (DECIMAL_PLACES, SIGNIFICANT_DIGITS, TICK_SIZE) == (
        ccxt.DECIMAL_PLACES,
        ccxt.SIGNIFICANT_DIGITS,
        ccxt.TICK_SIZE,
    )


@cache
def exchange(name: str) -> Any:
    import ccxt  # noqa: PLC0415

    return getattr(ccxt, name)()


STEPS = [1e-08, 1e-05, 0.001, 0.01, 0.1, 1.0, 10.0, 1000.0, 0.0005, 0.025, 0.3, 5.0]


@settings(max_examples=400, deadline=None)
@given(
    amount=st.one_of(st.floats(1e-9, 1e9), st.integers(1, 10**16).map(lambda units: units / 10**8)),
    step=st.sampled_from(STEPS),
    name=st.sampled_from(["binance", "kraken"]),
)
def test_amounts_are_rounded_as_ccxt_does(amount: float, step: float, name: str) -> None:
    # ccxt changes the context's rounding for good.
    with localcontext():
        import ccxt  # noqa: PLC0415

        venue = exchange(name)
        told = {**(BINANCE if name == "binance" else KRAKEN), "precision": {"amount": step, "price": 0.01}}
        venue.set_markets([told])
        symbol = told["symbol"]
        try:
            theirs = Decimal(venue.amount_to_precision(symbol, amount))
        except ccxt.InvalidOrder:
            theirs = Decimal(0)
        parsed = venue.market(symbol)
    with localcontext(MONEY):
        assert market_of(parsed, venue.precisionMode).whole_steps(Decimal(repr(amount))) == theirs


@settings(max_examples=300, deadline=None)
@given(amount=st.floats(1e-9, 1e9), decimals=st.integers(0, 10))
def test_amounts_are_cut_as_bitfinex_does(amount: float, decimals: int) -> None:
    with localcontext():
        venue = exchange("bitfinex")
        venue.set_markets([bare(id="tBTCUSD", spot=True, precision={"amount": decimals, "price": 5})])
        theirs = Decimal(venue.amount_to_precision(BTC, amount))
        parsed = venue.market(BTC)
    with localcontext(MONEY):
        market = market_of(parsed, venue.precisionMode)
        assert market.whole_steps(Decimal(repr(amount))) == theirs


@given(units=st.integers(-(10**24), 10**24), step=st.sampled_from(STEPS))
def test_whole_steps_are_towards_zero(units: int, step: float) -> None:
    market = market_of(bare(precision={"amount": step}), TICK_SIZE)
    with localcontext(MONEY):
        quantity = Decimal(units).scaleb(-10)
        rounded = market.whole_steps(quantity)
        assert rounded % market.amount_step == 0
        assert abs(rounded) <= abs(quantity) < abs(rounded) + market.amount_step
        assert rounded * quantity >= 0
