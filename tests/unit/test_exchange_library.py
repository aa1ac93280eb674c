"""As little of ccxt as is needed, and what is wrong with the settings of its client."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ccxt.async_support
import pytest

from bot.exchange.library import CREDENTIALS, exchange_class, exchange_names, problems_of

ROOT = Path(__file__).parents[2]


def fresh(script: str) -> str:
    """What a new interpreter prints."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_names_are_those_that_ccxt_has() -> None:
    assert set(exchange_names()) == set(ccxt.async_support.exchanges)


def test_names_need_no_import() -> None:
    script = """
import sys
from bot.exchange.library import exchange_names
names = exchange_names()
print(len(names) > 90, "kraken" in names, [name for name in sys.modules if name.startswith("ccxt")])
"""
    assert fresh(script) == "True True []"


IMPORTS = """
import sys
from bot.exchange.library import exchange_class
kind = exchange_class("kraken")
print(kind.__name__, exchange_class("kraken") is kind)
loaded = [name for name in sys.modules if name.startswith("ccxt.async_support.")]
print("ccxt" in sys.modules, "ccxt.async_support" in sys.modules, "ccxt.async_support.binance" in sys.modules)
print(len([name for name in loaded if name.count(".") == 2 and "base" not in name]))
import ccxt, ccxt.async_support
print(len(ccxt.exchanges) > 90, ccxt.async_support.kraken is kind, ccxt.__file__.endswith("__init__.py"))
print(issubclass(kind, ccxt.async_support.Exchange), ccxt.async_support.NetworkError is ccxt.NetworkError)
print(ccxt.kraken is not kind, issubclass(ccxt.kraken, ccxt.Exchange))
raised = sys.modules[kind.__module__].ExchangeError
print(raised is ccxt.ExchangeError, exchange_class("binance") is ccxt.async_support.binance)
"""


def test_one_exchange_and_not_the_rest() -> None:
    assert fresh(IMPORTS).splitlines() == [
        "kraken True",
        "False False False",
        "1",
        "True True True",
        "True True",
        "True True",
        "True True",
    ]


def test_after_all_of_ccxt_it_is_the_same_class() -> None:
    script = """
import ccxt, ccxt.async_support
from bot.exchange.library import exchange_class
import sys
print(exchange_class("kraken") is ccxt.async_support.kraken, sys.modules["ccxt"] is ccxt)
"""
    assert fresh(script) == "True True"


def test_two_exchanges_share_what_they_are_made_of() -> None:
    script = """
from bot.exchange.library import exchange_class
one, other = exchange_class("kraken"), exchange_class("coinbase")
print(one.__mro__[1] in other.__mro__, one.__mro__[1].__module__)
"""
    assert fresh(script) == "True ccxt.async_support.base.exchange"


@pytest.mark.parametrize("name", ["krake", "", "base", "__init__", "../binance", "Kraken", "ccxt", "binance "])
def test_an_unknown_exchange(name: str) -> None:
    with pytest.raises(LookupError):
        exchange_class(name)


@pytest.mark.parametrize(
    ("name", "hint"), [("krakn", '; did you mean "kraken"?'), ("Binance", '; did you mean "binance"?'), ("qqqqqq", "")]
)
def test_an_unknown_exchange_is_told_with_the_nearest(name: str, hint: str) -> None:
    assert problems_of(name, {"timeoutt": 1}) == [f'feed.ccxt.exchange = "{name}": ccxt has no such exchange{hint}']


class TestOptions:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"timeout": 5000},
            {"timeout": 5000.0, "enableRateLimit": False, "rateLimit": 20},
            {"httpsProxy": "http://10.0.0.1:3128"},
            {"options": {"fetchMarkets": {"types": ["spot", "linear"]}}, "urls": {"api": {}}},
            {"hostname": "api.binance.us", "headers": {"X-One": "1"}},
        ],
        ids=str,
    )
    def test_good_ones(self, options: dict[str, Any]) -> None:
        assert problems_of("binance", options) == []

    def test_a_slip_is_told_with_what_was_meant(self) -> None:
        assert problems_of("binance", {"rateLimt": 5}) == [
            "feed.ccxt.options.rateLimt: ccxt's client for binance has no such key; did you mean rateLimit?"
        ]
        assert problems_of("binance", {"qqqqqqqqqq": 5}) == [
            "feed.ccxt.options.qqqqqqqqqq: ccxt's client for binance has no such key"
        ]

    @pytest.mark.parametrize("key", ["fetch_ticker", "__class__", "_session", "close", "describe", ""])
    def test_what_is_no_setting_is_no_key(self, key: str) -> None:
        (line,) = problems_of("binance", {key: 5})
        assert "has no such key" in line

    @pytest.mark.parametrize(
        ("key", "value", "kind"),
        [
            ("timeout", "5000", "a number"),
            ("timeout", True, "a number"),
            ("timeout", {}, "a number"),
            ("timeout", None, "a number"),
            ("timeout", -1, "a number"),
            ("enableRateLimit", "false", "true or false"),
            ("enableRateLimit", 0, "true or false"),
            ("options", 5, "a table"),
            ("options", [1], "a table"),
            ("urls", "http://x", "a table"),
            ("version", 5, "text"),
        ],
    )
    def test_wrong_types(self, key: str, value: Any, kind: str) -> None:
        (line,) = problems_of("bybit", {key: value})
        assert line == f"feed.ccxt.options.{key} = {json.dumps(value)} must be {kind}"

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_what_is_no_finite_number(self, value: float) -> None:
        assert problems_of("bybit", {"rateLimit": value}) == [f"feed.ccxt.options.rateLimit = {value} must be a number"]

    def test_a_value_of_a_wrong_type_may_hold_a_secret(self) -> None:
        (line,) = problems_of("binance", {"headers": "Authorization: Bearer hidden"})
        assert line == 'feed.ccxt.options.headers = "***" must be a table'

    def test_all_problems_come_at_once(self) -> None:
        assert len(problems_of("kraken", {"timeoutt": 1, "timeout": "x", "rateLimit": 5})) == 2

    def test_credentials_are_refused_and_not_shown(self) -> None:
        assert problems_of("binance", {"secret": "hidden", "apiKey": "hidden"}) == [
            "feed.ccxt.options: prices are public and need no credentials; remove apiKey, secret"
        ]

    def test_ccxt_knows_no_other_credentials(self) -> None:
        assert set(ccxt.async_support.Exchange.requiredCredentials) <= set(CREDENTIALS)

    @pytest.mark.parametrize("key", ["apikey", "API_KEY", "Secret", "passwd"])
    def test_nor_is_a_misspelt_one_shown(self, key: str) -> None:
        assert "hidden" not in str(problems_of("binance", {key: "hidden"}))
