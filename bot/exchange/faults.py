"""What can go wrong with a request, sorted by what is to be done about it.

ccxt's classes do not say it by themselves: a body cut short is an ``ExchangeError``, a 403 is one that calls for trying
again, a page of HTML is no error at all, and a price of "NaN" raises a plain ``ValueError``. They are told by name,
so that nothing here needs ccxt.
"""

from __future__ import annotations

import re
from enum import StrEnum

from bot.ports import FeedError

_TEXT_MAX = 200
_READ_MAX = 10_000
_USER = re.compile(r"//[^/\s]*@")
# Hundreds of symbols: what the exchange said stands behind them.
_QUERY = re.compile(r"(https?://[^\s?]{0,200})\?\S*")


class Kind(StrEnum):
    STOPPED = "stopped"
    NETWORK = "network"
    TIMEOUT = "timeout"
    RATE_LIMIT = "rate_limit"
    MAINTENANCE = "maintenance"
    BLOCKED = "blocked"
    MALFORMED = "malformed"
    SYMBOL = "symbol"
    CLOCK = "clock"
    CREDENTIALS = "credentials"
    REFUSED = "refused"
    SETTINGS = "settings"


# The first that fits counts.
_BY_NAME: tuple[tuple[Kind, frozenset[str]], ...] = (
    (Kind.RATE_LIMIT, frozenset({"DDoSProtection", "RateLimitExceeded"})),
    (Kind.MAINTENANCE, frozenset({"OnMaintenance"})),
    (Kind.CLOCK, frozenset({"InvalidNonce"})),
    (Kind.TIMEOUT, frozenset({"RequestTimeout", "TimeoutError"})),
    (Kind.SYMBOL, frozenset({"BadSymbol"})),
    (Kind.BLOCKED, frozenset({"RestrictedLocation"})),
    (Kind.CREDENTIALS, frozenset({"AuthenticationError", "PermissionDenied"})),
    (Kind.SETTINGS, frozenset({"NotSupported", "ArgumentsRequired", "InvalidProxySettings"})),
    (Kind.MALFORMED, frozenset({"BadResponse", "NotJson"})),
    (Kind.NETWORK, frozenset({"NetworkError", "OperationFailed", "OSError", "ClientError"})),
)
# Not mapped by ccxt: Kraken's word for a pair that is gone.
_UNKNOWN_SYMBOL = ("unknown asset pair", "invalid symbol")
_BLOCKING = {401: Kind.CREDENTIALS, 403: Kind.BLOCKED, 404: Kind.BLOCKED, 451: Kind.BLOCKED}
# How long nothing is asked after the first of its kind, and at most; the others are left to the loop's back-off.
RETRY_S = {
    Kind.MAINTENANCE: (30.0, 60.0),
    Kind.BLOCKED: (30.0, 300.0),
    Kind.CREDENTIALS: (60.0, 300.0),
    Kind.SETTINGS: (60.0, 300.0),
}


class NotJson(Exception):
    """A success by its status, and nothing that can be read: a page of HTML, half an answer, none."""


class ExchangeFault(FeedError):
    """A request that failed. ``kind`` says what sort of failure it was."""

    def __init__(self, kind: Kind, text: str, retry_s: float | None = None) -> None:
        super().__init__(f"{kind.value}: {text}", retry_s=retry_s)
        self.kind = kind


def kind_of(error: BaseException, status: int | None = None) -> Kind:
    """What an exception out of ccxt, or out of what it calls, means; ``status`` is that of the last HTTP answer."""
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error).lower()
    if "DDoSProtection" in names and '"code":-2015' in text.replace(" ", ""):
        # A revoked key looks like a ban.
        return Kind.CREDENTIALS
    if "ExchangeNotAvailable" in names and "OnMaintenance" not in names and status in _BLOCKING:
        return _BLOCKING[status]
    by_name = next((kind for kind, wanted in _BY_NAME if names & wanted), None)
    if by_name is not None:
        return by_name
    if "BaseError" not in names:
        # Something in the answer was not what ccxt took for granted.
        return Kind.MALFORMED
    if type(error).__name__ == "ExchangeError" and _is_from_aiohttp(error.__cause__):
        return Kind.NETWORK
    return Kind.SYMBOL if any(word in text for word in _UNKNOWN_SYMBOL) else Kind.REFUSED


def _is_from_aiohttp(cause: BaseException | None) -> bool:
    return cause is not None and any(kind.__name__ == "ClientError" for kind in type(cause).__mro__)


def told(error: BaseException) -> str:
    """An exception in one short line: an answer's body can be a whole page, and an address can hold a password."""
    text = " ".join(str(error)[:_READ_MAX].split())
    text = _QUERY.sub(r"\1?…", _USER.sub("//***@", text))
    name = type(error).__name__
    text = text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"
    cause = error.__cause__
    inner = f" ({type(cause).__name__})" if cause is not None else ""
    return f"{name}: {text}{inner}" if text else f"{name}{inner}"


def retry_s(kind: Kind, times: int) -> float | None:
    """How long to leave it after so many of a kind in a row; None: as the loop sees fit."""
    if kind not in RETRY_S:
        return None
    first, longest = RETRY_S[kind]
    return min(longest, first * 2.0 ** min(times - 1, 16))
