"""What an exception out of ccxt means, class by class."""

from __future__ import annotations

import ssl
from typing import Any

import aiohttp
import ccxt
import pytest

from bot.exchange.faults import RETRY_S, ExchangeFault, Kind, NotJson, kind_of, retry_s, told
from bot.ports import FeedError

URL = "https://api.example.com/api/v3/ticker/24hr"

# Class, status of the last answer, text, kind.
CCXT: list[tuple[str, int | None, str, Kind]] = [
    ("DDoSProtection", 429, "", Kind.RATE_LIMIT),
    ("DDoSProtection", 418, 'binance {"code":-1003,"msg":"banned until 1"}', Kind.RATE_LIMIT),
    ("DDoSProtection", 401, 'binance {"code":-2015,"msg":"Invalid API-key"}', Kind.CREDENTIALS),
    ("DDoSProtection", None, 'binance {"code": -2015, "msg": "Invalid API-key"}', Kind.CREDENTIALS),
    ("RateLimitExceeded", 400, "", Kind.RATE_LIMIT),
    ("RateLimitExceeded", 200, "kraken EGeneral:Too many requests", Kind.RATE_LIMIT),
    ("OnMaintenance", 503, "", Kind.MAINTENANCE),
    ("OnMaintenance", 403, "", Kind.MAINTENANCE),
    ("InvalidNonce", 400, "", Kind.CLOCK),
    ("RequestTimeout", None, "", Kind.TIMEOUT),
    ("RequestTimeout", 504, "", Kind.TIMEOUT),
    ("BadSymbol", 400, "", Kind.SYMBOL),
    ("BadSymbol", None, "binance does not have market symbol X/Y", Kind.SYMBOL),
    ("RestrictedLocation", 400, "", Kind.BLOCKED),
    ("ExchangeNotAvailable", 403, "", Kind.BLOCKED),
    ("ExchangeNotAvailable", 404, "", Kind.BLOCKED),
    ("ExchangeNotAvailable", 451, "", Kind.BLOCKED),
    ("ExchangeNotAvailable", 401, "", Kind.CREDENTIALS),
    *(("ExchangeNotAvailable", status, "", Kind.NETWORK) for status in (None, 400, 409, 410, 500, 502, 503, 520)),
    ("AuthenticationError", 401, "", Kind.CREDENTIALS),
    ("PermissionDenied", 403, "", Kind.CREDENTIALS),
    ("AccountSuspended", 200, "", Kind.CREDENTIALS),
    ("AccountNotEnabled", 200, "", Kind.CREDENTIALS),
    ("NotSupported", None, "", Kind.SETTINGS),
    ("ArgumentsRequired", None, "", Kind.SETTINGS),
    ("InvalidProxySettings", None, "", Kind.SETTINGS),
    ("BadResponse", 200, "", Kind.MALFORMED),
    ("NullResponse", 200, "", Kind.MALFORMED),
    ("NetworkError", None, "", Kind.NETWORK),
    ("OperationFailed", 500, 'binance {"code":-1000}', Kind.NETWORK),
    ("CancelPending", 200, "", Kind.NETWORK),
    ("ExchangeError", 200, 'kraken {"error":["EQuery:Unknown asset pair"]}', Kind.SYMBOL),
    ("ExchangeError", 400, "Invalid symbol.", Kind.SYMBOL),
    ("ExchangeError", 200, "kraken EGeneral:Internal error", Kind.REFUSED),
    ("ExchangeError", 200, "", Kind.REFUSED),
    ("BadRequest", 400, "", Kind.REFUSED),
    ("MarketClosed", 400, "", Kind.REFUSED),
    ("InvalidOrder", 400, "", Kind.REFUSED),
    ("InsufficientFunds", 400, "", Kind.REFUSED),
    ("OperationRejected", 400, "", Kind.REFUSED),
    ("ExchangeClosedByUser", None, "", Kind.REFUSED),
    ("BaseError", None, "", Kind.REFUSED),
]


@pytest.mark.parametrize(("name", "status", "text", "kind"), CCXT)
def test_what_ccxt_raises(name: str, status: int | None, text: str, kind: Kind) -> None:
    assert kind_of(getattr(ccxt, name)(text), status) is kind


def test_no_class_of_ccxt_is_taken_for_a_malformed_answer_by_mistake() -> None:
    """A release may have new ones: they are refused, or what their family is."""
    classes = [found for found in vars(ccxt).values() if isinstance(found, type) and issubclass(found, ccxt.BaseError)]
    assert len(classes) > 35
    malformed = {found.__name__ for found in classes if kind_of(found("x")) is Kind.MALFORMED}
    assert malformed == {"BadResponse", "NullResponse"}


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (aiohttp.ClientPayloadError("half"), Kind.NETWORK),
        (aiohttp.ServerDisconnectedError(), Kind.NETWORK),
        (aiohttp.ClientError(), Kind.NETWORK),
        (ValueError("x"), Kind.REFUSED),
        (None, Kind.REFUSED),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", ["ExchangeError", "BadRequest"])
def test_half_an_answer_is_an_exchange_error_by_its_class_only(
    name: str, cause: BaseException | None, kind: Kind
) -> None:
    error = getattr(ccxt, name)("x")
    error.__cause__ = cause
    assert kind_of(error, 200) is (kind if name == "ExchangeError" else Kind.REFUSED)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (AttributeError("'str' object has no attribute 'get'"), Kind.MALFORMED),
        (TypeError(), Kind.MALFORMED),
        (KeyError("symbol"), Kind.MALFORMED),
        (IndexError(), Kind.MALFORMED),
        (ValueError("could not convert string to float: 'n/a'"), Kind.MALFORMED),
        (ArithmeticError(), Kind.MALFORMED),
        (RecursionError(), Kind.MALFORMED),
        (NotJson("GET x answered 200 with no JSON"), Kind.MALFORMED),
        (TimeoutError(), Kind.TIMEOUT),
        (aiohttp.ServerTimeoutError(), Kind.TIMEOUT),
        (ConnectionResetError(), Kind.NETWORK),
        (BrokenPipeError(), Kind.NETWORK),
        (ssl.SSLError(1, "x"), Kind.NETWORK),
        (OSError(24, "Too many open files"), Kind.NETWORK),
        (aiohttp.ClientPayloadError(), Kind.NETWORK),
        (aiohttp.ClientConnectionError(), Kind.NETWORK),
    ],
    ids=repr,
)
@pytest.mark.parametrize("status", [None, 200, 403])
def test_what_is_not_ccxts(error: BaseException, kind: Kind, status: int | None) -> None:
    assert kind_of(error, status) is kind


def test_a_fault_is_a_feed_error_with_its_kind_in_front() -> None:
    fault = ExchangeFault(Kind.BLOCKED, "403", 30.0)
    assert isinstance(fault, FeedError)
    assert (str(fault), fault.kind, fault.retry_s) == ("blocked: 403", Kind.BLOCKED, 30.0)
    assert ExchangeFault(Kind.NETWORK, "x").retry_s is None


class TestTold:
    def test_is_one_short_line(self) -> None:
        found = told(ccxt.ExchangeNotAvailable("<html>\n<body>" + "no \t\r\n" * 100_000))
        assert found.startswith("ExchangeNotAvailable: <html> <body>no no no")
        assert len(found) < 250
        assert "\n" not in found

    def test_without_a_text_there_is_the_name(self) -> None:
        assert told(KeyError()) == "KeyError"
        assert told(TimeoutError("")) == "TimeoutError"

    def test_names_the_cause(self) -> None:
        error = ccxt.ExchangeError("binance")
        error.__cause__ = aiohttp.ClientPayloadError("secret")
        assert told(error) == "ExchangeError: binance (ClientPayloadError)"

    @pytest.mark.parametrize(
        "address",
        [
            "http://me:hidden@10.0.0.1:3128",
            "https://me:hidden@proxy.example.com/path",
            "socks5://hidden@host",
            "http://me:hid@hidden@host",
            "http://me:hidden@host and http://you:hidden@host",
            "x" * 190 + "http://me:hidden@host",
        ],
    )
    @pytest.mark.parametrize("kind", [ccxt.NetworkError, ValueError, KeyError])
    def test_masks_a_password(self, address: str, kind: Any) -> None:
        assert "hid" not in told(kind(f"cannot connect to {address} now"))

    def test_what_the_exchange_said_stands_behind_the_names_of_hundreds_of_symbols(self) -> None:
        symbols = ",".join(f"%22COIN{number}USDT%22" for number in range(300))
        found = told(ccxt.NetworkError(f'binance GET {URL}?symbols=[{symbols}] 403 Forbidden {{"code":-1}}'))
        assert found == f'NetworkError: binance GET {URL}?… 403 Forbidden {{"code":-1}}'

    def test_whatever_the_answer_it_takes_no_time(self) -> None:
        for text in ("http://" * 500_000, "//a:b" * 500_000, "http://x?" * 500_000, "@" * 5_000_000):
            assert len(told(ValueError(text))) < 250


class TestHowLongToLeaveIt:
    @pytest.mark.parametrize("kind", list(RETRY_S))
    def test_longer_and_longer_up_to_a_limit(self, kind: Kind) -> None:
        first, longest = RETRY_S[kind]
        waits = [retry_s(kind, times) for times in (1, 2, 3, 20, 10_000)]
        assert waits == [first, first * 2, min(longest, first * 4), longest, longest]

    @pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in RETRY_S])
    def test_the_others_are_left_to_the_loop(self, kind: Kind) -> None:
        assert retry_s(kind, 1) is None
