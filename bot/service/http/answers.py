"""What is answered under which path."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TypeVar

import orjson
from aiohttp import web

from bot.repositories import Database, SignalRepository, TradeRepository
from bot.repositories.database import Row
from bot.service import inspect
from bot.service.http import document, metrics
from bot.service.http.equity import curve
from bot.service.http.errors import Refused
from bot.service.http.guard import as_json
from bot.service.http.queries import (
    HOURS,
    HOURS_MAX,
    LIMIT,
    LIMIT_MAX,
    POINTS,
    POINTS_MAX,
    Latest,
    Query,
    known_names,
    searched,
)
from bot.service.inspect import Document
from bot.service.stalls import Stalls
from bot.service.vitals import Vitals

ASSETS = {
    "index.html": "text/html",
    "app.js": "text/javascript",
    "chart.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}
# So many requests may wait for the ledger; one more is asked to come again.
WAITING_MAX = 8
CURVES_KEPT = 8
CURVE_FRESH_S = 5.0
T = TypeVar("T")


class Answers:
    def __init__(self, vitals: Vitals, stalls: Stalls | None, ledger: Path, database: Database) -> None:
        self._vitals, self._stalls, self._ledger, self._database = vitals, stalls, ledger, database
        self._registry = metrics.registry_of(vitals, stalls, ledger)
        self._turn, self._waiting = asyncio.Lock(), 0
        self._curves: dict[tuple[float, int], tuple[float, bytes]] = {}

    def state(self) -> bytes:
        return orjson.dumps(document.state(self._vitals, self._stalls, self._ledger))

    def routes(self) -> list[web.RouteDef]:
        answers = {
            "/healthz": self._healthz,
            "/metrics": self._metrics,
            "/api/status": self._status,
            "/api/positions": self._positions,
            "/api/trades": self._trades,
            "/api/signals": self._signals,
            "/api/equity": self._equity,
        }
        pages = [_page(name, kind) for name, kind in ASSETS.items()]
        return [*(web.get(path, answer) for path, answer in answers.items()), *pages]

    async def _healthz(self, request: web.Request) -> web.Response:
        health = self._vitals.health()
        return as_json(health.document, 200 if health.alive else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = metrics.exposition(self._registry, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _status(self, request: web.Request) -> web.Response:
        Query(request, ())
        return web.Response(body=self.state(), content_type="application/json")

    async def _positions(self, request: web.Request) -> web.Response:
        query = Query(request, ("symbol", "account"))
        symbol, account = await self._read(lambda: known_names(query, self._database))
        held = document.positions(self._vitals)
        wanted = [each for each in held if symbol in {None, each["symbol"]} and account in {None, each["account"]}]
        return as_json(wanted)

    async def _trades(self, request: web.Request) -> web.Response:
        return as_json(await self._rows(request, TradeRepository(self._database).latest, inspect.trade))

    async def _signals(self, request: web.Request) -> web.Response:
        rows = await self._rows(request, SignalRepository(self._database).latest, inspect.signal)
        return as_json([{**row, "reason_text": inspect.REASONS.get(row["reason"])} for row in rows])

    async def _rows(
        self,
        request: web.Request,
        latest: Latest,
        told: Callable[[Row], Document],
    ) -> list[Document]:
        """The newest rows with a later id than ``after``, oldest of them first."""
        query = Query(request, ("limit", "after", "symbol", "account"))
        limit, after = query.whole("limit", LIMIT, 1, LIMIT_MAX), query.whole("after", 0, 0, 2**53)

        async def read() -> list[Row]:
            symbol, account = await known_names(query, self._database)
            if symbol is None and account is None:
                return await latest(limit, after=after)
            until = (await self._database.fetch("SELECT decisions FROM cursor"))[0][0]
            return await searched(partial(latest, symbol=symbol, account=account), limit, after, until)

        return [told(row) for row in reversed(await self._read(read))]

    async def _equity(self, request: web.Request) -> web.Response:
        query = Query(request, ("hours", "points"))
        everything = query.text("hours") == "all"
        hours = 0.0 if everything else query.real("hours", HOURS, 0.01, HOURS_MAX)
        points = query.whole("points", POINTS, 2, POINTS_MAX)
        body = await self._read(lambda: self._curve(hours, points))
        return web.Response(body=body, content_type="application/json")

    async def _curve(self, hours: float, points: int) -> bytes:
        now_s = self._vitals.clock.monotonic()
        made_s, body = self._curves.get((hours, points), (now_s - CURVE_FRESH_S, b""))
        if now_s - made_s < CURVE_FRESH_S:
            return body
        held = document.positions(self._vitals)
        prices = {each["symbol"]: each["price"] for each in held if each["price"] is not None}
        body = orjson.dumps(await curve(self._database, hours or None, points, prices))
        while len(self._curves) >= CURVES_KEPT:
            self._curves.pop(next(iter(self._curves)))
        self._curves.pop((hours, points), None)
        self._curves[hours, points] = self._vitals.clock.monotonic(), body
        return body

    async def _read(self, ask: Callable[[], Awaitable[T]]) -> T:
        """One at a time: there is one connection, and a long answer is many short questions."""
        if self._waiting >= WAITING_MAX:
            raise Refused(503, "too many requests wait for the ledger", {"Retry-After": "1"})
        self._waiting += 1
        try:
            async with self._turn:
                return await ask()
        finally:
            self._waiting -= 1


def _page(name: str, kind: str) -> web.RouteDef:
    body = resources.files("bot.service.http").joinpath("assets", name).read_bytes()

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8")

    return web.get("/" if name == "index.html" else f"/{name}", answer)
