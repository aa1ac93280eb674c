"""The types of the settings' values: what each accepts, and the sentence it answers with otherwise.

Every check is a pydantic validator that raises ValueError("must be ..."), so that a message reads the same
whether the value came from a file, the environment or the command line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, SecretStr

from bot import timeframes

FeedKind = Literal["simulated", "ccxt", "replay"]
FillRule = Literal["next_open", "close"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]
News = Literal["trades", "outages", "halts"]

SYMBOLS_MAX = 1000
NOTIFY_URLS_MAX = 20
MONEY_MAX = 10**15
# With MONEY_MAX this keeps every product of two amounts inside the 120 digits that the ledger computes with.
DECIMAL_PLACES_MAX = 18

_SYMBOL = re.compile(r"([A-Z0-9]{1,20})[/-]([A-Z0-9]{1,20})(:[A-Z0-9]{1,20})?")
_NOTIFY_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://.{1,4000}")
_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END_OF_TIME = datetime(2100, 1, 1, tzinfo=UTC)

Check = Callable[[Any], Any]


class InnerError(ValueError):
    """A problem somewhere inside a free table; ``path`` leads to it from the table."""

    def __init__(self, message: str, path: tuple[str | int, ...]) -> None:
        super().__init__(message)
        self.path = path


def closest(word: str, known: tuple[str, ...]) -> str | None:
    """The known word that ``word`` is most likely a slip of, upper and lower case being the smallest slip."""
    for candidate in known:
        if candidate.lower() == word.strip().lower():
            return candidate
    return next(iter(get_close_matches(word, known, n=1)), None)


def closest_symbol(symbol: str, known: tuple[str, ...]) -> str | None:
    """The known symbol that was most likely meant: of the same base in another currency, or of a base spelt alike."""
    base, _, quote = symbol.partition("/")
    bases = {each.partition("/")[0] for each in known}
    near = base if base in bases else closest(base, tuple(sorted(bases)))
    quotes = {each.partition("/")[2]: each for each in known if near and each.startswith(f"{near}/")}
    alike = quote if quote in quotes else closest(quote, tuple(sorted(quotes))) or min(quotes, default=None)
    return None if alike is None else quotes[alike]


@dataclass(frozen=True, slots=True)
class Range:
    low: Decimal | int
    high: Decimal | int
    low_open: bool = False
    high_open: bool = False
    unit: str = ""

    def __contains__(self, number: Decimal | int) -> bool:
        above = number > self.low if self.low_open else number >= self.low
        return above and (number < self.high if self.high_open else number <= self.high)

    def __str__(self) -> str:
        unit = f" ({self.unit})" if self.unit else ""
        if not self.low_open and not self.high_open:
            return f"between {self.low} and {self.high}{unit}"
        low = f"greater than {self.low}" if self.low_open else f"at least {self.low}"
        high = f"less than {self.high}" if self.high_open else f"at most {self.high}"
        return f"{low} and {high}{unit}"


def _finite(value: Any) -> Decimal | None:
    """The number as it was written, or None for what is no finite number; True and "1" are none."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return number if number.is_finite() else None


def _real(limits: Range) -> BeforeValidator:
    def check(value: Any) -> float:
        number = _finite(value)
        if number is None:
            raise ValueError(f"must be a number {_as_part(limits)}")
        if number not in limits:
            raise ValueError(f"must be {limits}")
        return float(number)

    return BeforeValidator(check)


def _whole(limits: Range) -> BeforeValidator:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be a whole number {_as_part(limits)}")
        if value not in limits:
            raise ValueError(f"must be {limits}")
        return value

    return BeforeValidator(check)


def _exact(limits: Range) -> BeforeValidator:
    def check(value: Any) -> Decimal:
        is_text = isinstance(value, str) and _DECIMAL.fullmatch(value)
        number = Decimal(value) if is_text else _finite(value)
        if number is None:
            raise ValueError(f"must be a number {_as_part(limits)}")
        if number not in limits:
            raise ValueError(f"must be {limits}")
        return _plain(number)

    return BeforeValidator(check)


def _as_part(limits: Range) -> str:
    return str(limits).replace("greater than", "above", 1) if limits.low_open else str(limits)


def _plain(number: Decimal) -> Decimal:
    """One spelling a value: 1E+4, 10000.0 and 10000 are all stored and shown as 10000."""
    exponent = number.as_tuple().exponent
    digits = f"{number:f}" if isinstance(exponent, int) and exponent >= -100 else ""
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    if not digits or len(digits.partition(".")[2]) > DECIMAL_PLACES_MAX:
        raise ValueError(f"must have at most {DECIMAL_PLACES_MAX} decimal places")
    return abs(Decimal(digits))


def tidy(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    if value != value.strip():
        raise ValueError("must not begin or end with a space")
    if not value.isprintable():
        raise ValueError("must not hold control characters")
    return value


def _text(pattern: str, allowed: str) -> BeforeValidator:
    compiled = re.compile(pattern)

    def check(value: Any) -> str:
        text = tidy(value)
        if not compiled.fullmatch(text):
            raise ValueError(f"must be {allowed}")
        return text

    return BeforeValidator(check)


def one_of(words: tuple[str, ...]) -> Check:
    listed = ", ".join(f'"{word}"' for word in words)

    def check(value: Any) -> Any:
        if isinstance(value, str) and value in words:
            return value
        near = closest(value, words) if isinstance(value, str) else None
        hint = f'; did you mean "{near}"?' if near else ""
        raise ValueError(f"must be one of {listed}{hint}")

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token(value: Any) -> SecretStr:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if text and not (isinstance(text, str) and re.fullmatch(r"[!-~]{16,256}", text)):
        raise ValueError("must be 16 to 256 letters, digits or signs, without spaces")
    return SecretStr(tidy(text))


def _host_names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > 100:
        raise ValueError('must be a list of at most 100 host names, such as ["paper.example.com"]')
    for name in value:
        if not re.fullmatch(r"[a-z0-9._-]{1,253}", tidy(name)):
            raise ValueError(f'must be names in small letters, without a port; "{name}" is none')
    return tuple(value)


def _whole_milliseconds(seconds: float) -> float:
    if Decimal(repr(seconds)) * 1000 % 1:
        raise ValueError("must be a whole number of milliseconds, such as 0.25 or 1.5")
    return seconds


def _symbols(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError('must be a list such as ["BTC/USDT", "ETH/USDT"]')
    if not 1 <= len(value) <= SYMBOLS_MAX:
        raise ValueError(f"must list between 1 and {SYMBOLS_MAX} symbols")
    symbols = {position: _symbol(text) for position, text in enumerate(value)}
    bad = ", ".join(f'"{value[position]}"' for position, symbol in symbols.items() if symbol is None)
    if bad:
        raise ValueError(f"must list symbols such as BTC/USDT or BTC/USDT:USDT, unlike {bad}")
    known = [symbol for symbol in symbols.values() if symbol]
    twice = sorted({symbol for symbol in known if known.count(symbol) > 1})
    if twice:
        raise ValueError(f"must list every symbol once; {', '.join(twice)} is there again")
    return tuple(known)


def _symbol(text: Any) -> str | None:
    match = _SYMBOL.fullmatch(text.upper()) if isinstance(text, str) and text.isascii() else None
    if match is None or match[1] == match[2]:
        return None
    return f"{match[1]}/{match[2]}{match[3] or ''}"


def _notify_urls(value: Any) -> tuple[SecretStr, ...]:
    """What is wrong is told without a word of an address: all of it may be somebody's key."""
    if not isinstance(value, list | tuple):
        raise ValueError('must be a list of addresses such as ["json://host/path"]')
    if len(value) > NOTIFY_URLS_MAX:
        raise ValueError(f"must list at most {NOTIFY_URLS_MAX} addresses")
    texts = [entry.get_secret_value() if isinstance(entry, SecretStr) else entry for entry in value]
    for number, text in enumerate(texts, start=1):
        try:
            sound = bool(_NOTIFY_URL.fullmatch(tidy(text)))
        except ValueError as error:
            raise ValueError(f"address {number} {error}") from None
        if not sound:
            raise ValueError(f"address {number} must be one that apprise knows, such as json://host/path")
    if len(set(texts)) < len(texts):
        raise ValueError("must list every address once")
    return tuple(map(SecretStr, texts))


def _news(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list of some of {', '.join(get_args(News))}")
    check = one_of(get_args(News))
    found = tuple(check(entry) for entry in value)
    if not 1 <= len(found) == len(set(found)):
        raise ValueError("must list one kind of news at least, and none twice")
    return found


def _instant(value: Any) -> datetime:
    example = "2025-01-01T00:00:00Z"
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(tidy(value))
        except ValueError:
            raise ValueError(f"must be a time such as {example}") from None
    if not isinstance(value, datetime):
        raise ValueError(f"must be a time such as {example}")
    if value.tzinfo is None:
        raise ValueError(f"must say its time zone, such as {example} (Z is UTC)")
    if not _EPOCH < value < _END_OF_TIME:
        raise ValueError("must be after 1970-01-01T00:00:00Z and before 2100-01-01T00:00:00Z")
    if value.microsecond % 1000:
        raise ValueError("must be a whole number of milliseconds")
    return value.astimezone(UTC)


def free_table(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("must be a table such as {fast = 5, slow = 20}")
    return {key: _free_value(entry, (key,)) for key, entry in value.items()}


def _free_value(value: Any, path: tuple[str | int, ...]) -> Any:
    """Numbers as Python's own, since a strategy or a library gets them; text as strict as elsewhere."""
    try:
        tidy(str(path[-1]))
        if isinstance(value, str):
            return tidy(value)
    except ValueError as error:
        raise InnerError(str(error), path) from None
    if isinstance(value, Mapping):
        return {key: _free_value(entry, (*path, key)) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_free_value(entry, (*path, position)) for position, entry in enumerate(value)]
    if value is None or isinstance(value, bool | date | time):
        return value
    number = _finite(value)
    if number is None or float(number) in (float("inf"), float("-inf")):
        raise InnerError("must be a finite number", path)
    return value if isinstance(value, int) else float(number)


def _folder(text: str) -> str:
    if text and not os.path.isdir(text):
        raise ValueError("must be a folder that exists")
    return text


Flag = Annotated[bool, BeforeValidator(_flag)]
Kind = Annotated[FeedKind, BeforeValidator(one_of(get_args(FeedKind)))]
Timeframe = Annotated[str, BeforeValidator(one_of(timeframes.NAMES))]
Fill = Annotated[FillRule, BeforeValidator(one_of(get_args(FillRule)))]
Level = Annotated[LogLevel, BeforeValidator(one_of(get_args(LogLevel)))]
Format = Annotated[LogFormat, BeforeValidator(one_of(get_args(LogFormat)))]

Name = Annotated[str, _text(r"[A-Za-z0-9_.-]{1,64}", "1 to 64 letters, digits or the characters _ . -")]
StrategyName = Annotated[str, _text(r"[A-Za-z0-9_.:-]{1,200}", "a strategy's name, or package.module:Class")]
Exchange = Annotated[
    str, AfterValidator(str.lower), _text(r"[A-Za-z0-9_]{1,64}", 'the name ccxt uses, such as "binance"')
]
Url = Annotated[str, _text(r"(https?://[^\s/].*)?", 'empty or an address such as "https://api.example.com"')]
Host = Annotated[str, _text(r"[A-Za-z0-9._:%-]{1,253}", 'an address or host name such as "127.0.0.1"')]
HostNames = Annotated[tuple[str, ...], BeforeValidator(_host_names)]
Token = Annotated[SecretStr, BeforeValidator(token)]
FilePath = Annotated[str, _text(r".{1,4096}", "the path of a file")]
OptionalPath = Annotated[str, BeforeValidator(tidy)]
Folder = Annotated[str, AfterValidator(_folder), BeforeValidator(tidy)]

NotifyUrls = Annotated[tuple[SecretStr, ...], BeforeValidator(_notify_urls)]
NewsKinds = Annotated[tuple[News, ...], BeforeValidator(_news)]
Symbols = Annotated[tuple[str, ...], BeforeValidator(_symbols)]
Instant = Annotated[datetime, BeforeValidator(_instant)]
FreeTable = Annotated[dict[str, Any], BeforeValidator(free_table)]

PollInterval = Annotated[
    float, AfterValidator(_whole_milliseconds), _real(Range(Decimal("0.01"), 86_400, unit="seconds"))
]
StaleAfter = Annotated[float, _real(Range(Decimal("0.01"), 604_800, unit="seconds"))]
JumpMax = Annotated[float, _real(Range(Decimal("0.001"), 1))]
FrozenAfter = Annotated[float, _real(Range(0, 604_800, unit="seconds"))]
OutageAfter = Annotated[float, _real(Range(0, 86_400, unit="seconds"))]
PerHour = Annotated[int, _whole(Range(1, 3600, unit="messages"))]
Volatility = Annotated[float, _real(Range(0, Decimal("0.1"), low_open=True))]
Seed = Annotated[int, _whole(Range(0, 2**63 - 1))]
Days = Annotated[int, _whole(Range(0, 36_500, unit="days"))]
Port = Annotated[int, _whole(Range(0, 65_535))]
Amount = Annotated[Decimal, _exact(Range(0, MONEY_MAX, low_open=True))]
Fraction = Annotated[Decimal, _exact(Range(0, 1, low_open=True))]
FeeRate = Annotated[Decimal, _exact(Range(0, 1, high_open=True))]
BasisPoints = Annotated[Decimal, _exact(Range(0, 1000, unit="basis points"))]
