"""What a request asks for: parameters that are few and bounded, and said to be wrong where they are; and the search for
it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection

from aiohttp import web

from bot.repositories import Database
from bot.repositories.database import Row
from bot.service import inspect
from bot.service.http.errors import Refused

LIMIT, LIMIT_MAX = 100, 500
POINTS, POINTS_MAX = 300, 500
HOURS, HOURS_MAX = 24.0, 876_000
SHOWN_CHARS_MAX = 80
NAMES_MAX = 20
# A search looks at so many ids at once.
PART_ROWS = 65_536
Latest = Callable[..., Awaitable[list[Row]]]
_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,6})?", re.ASCII)


class Query:
    """The parameters of a request, each given once at most, and only those that are known. Raises Refused."""

    def __init__(self, request: web.Request, known: Collection[str]) -> None:
        for name in request.query:
            if name not in known:
                has = f"it has {', '.join(known)}" if known else "there are none"
                raise Refused(400, f"no such parameter: {name[:SHOWN_CHARS_MAX]}; {has}")
            if len(request.query.getall(name)) > 1:
                raise Refused(400, f"{name} is given more than once")
        self._given = request.query

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        return int(self._number(name, default, low, high, whole=True))

    def real(self, name: str, default: float, low: float, high: float) -> float:
        return self._number(name, default, low, high, whole=False)

    def text(self, name: str) -> str | None:
        return self._given.get(name)

    def _number(self, name: str, default: float, low: float, high: float, *, whole: bool) -> float:
        text = self._given.get(name)
        if text is None:
            return default
        match = _NUMBER.fullmatch(text)
        value = float(text) if match and not (whole and match[1]) else -1.0
        if match is None or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            raise Refused(400, f"{name} must be {kind} from {low:g} to {high}, unlike {text[:SHOWN_CHARS_MAX]!r}")
        return int(text) if whole else value


async def known_names(query: Query, database: Database) -> tuple[str | None, str | None]:
    """The symbol and the account that are asked for; raises Refused where the ledger has no such."""
    symbol, account = query.text("symbol"), query.text("account")
    if symbol is not None:
        symbol = symbol.upper().replace("-", "/")
        _check("symbol", symbol, await inspect.known_symbols(database))
    if account is not None:
        _check("account", account, await inspect.known_accounts(database))
    return symbol, account


def _check(kind: str, name: str, known: list[str]) -> None:
    if name not in known:
        more = f" and {len(known) - NAMES_MAX} more" if len(known) > NAMES_MAX else ""
        has = ", ".join(known[:NAMES_MAX]) or "none yet"
        raise Refused(400, f"the ledger has no such {kind}: {name[:SHOWN_CHARS_MAX]}; it has {has}{more}")


async def searched(latest: Latest, limit: int, after: int, until: int, part_rows: int = PART_ROWS) -> list[Row]:
    """The newest rows, newest first, where no index leads to them: in parts, so that none keeps the ledger's log from
    being written back."""
    found: list[Row] = []
    while until > after and len(found) < limit:
        start = max(after, until - part_rows)
        found += await latest(limit - len(found), after=start, until=until)
        until = start
    return found
