"""The HTTP server: from a request, through the faults, to an answer and a line in the log."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import orjson
from aiohttp import web

from tests.exchange.delivery import SLOW_S, Reply, body_fault, cut, pause, send, spoil_body
from tests.exchange.faults import REFUSALS, Active, FaultBoard
from tests.exchange.log import Log, Request
from tests.exchange.venue import Call, Refused, Venue

CLOSE_S = 1.0
JSON = "application/json"
MOVED_TO = "/moved"


class Server:
    """Serves one venue on one socket of the running loop, until ``closing`` is set."""

    def __init__(
        self, venue: Venue, board: FaultBoard, log: Log, now_ms: Callable[[], int], monotonic: Callable[[], float]
    ) -> None:
        self._venue, self._board, self._log = venue, board, log
        self._now_ms, self._monotonic = now_ms, monotonic
        self.closing = asyncio.Event()
        self.bugs: list[Exception] = []

    async def run(self, listening: socket.socket, ready: Callable[[], None]) -> None:
        server = web.Server(self._handle, handler_cancellation=True)  # a hang is over when its client is gone
        runner = web.ServerRunner(server, shutdown_timeout=CLOSE_S)
        await runner.setup()
        try:
            await web.SockSite(runner, listening).start()
            ready()
            await self.closing.wait()
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        arrived = self._monotonic()
        endpoint = self._venue.paths.get(request.path, "")
        entry = Request(arrived, request.method, request.path, dict(request.query), endpoint)
        self._log.add(entry)
        if not endpoint:
            return await self._finish(request, entry, Reply(404, b"<html>not found</html>", "text/html", {}), None)
        faults: list[Active] = []
        try:
            asked = self._venue.asked_for(endpoint, entry.query)
            faults = self._board.hits(endpoint, asked, arrived)
            entry.fault = ",".join(active.fault.name for active in faults)
            return await self._answer(request, entry, faults)
        except Refused as refused:
            reply = Reply(refused.status, orjson.dumps(refused.payload), JSON, {})
            return await self._finish(request, entry, reply, body_fault(faults))
        except Exception as error:  # noqa: BLE001 - a bug of the fake must not pass for a fault of the exchange
            self.bugs.append(error)
            return await self._finish(request, entry, Reply(500, repr(error).encode(), "text/plain", {}), None)

    async def _answer(self, request: web.BaseRequest, entry: Request, faults: list[Active]) -> web.StreamResponse:
        for active in faults:
            name = active.fault.name
            if name in REFUSALS and not (name == "maintenance" and entry.endpoint == "status"):
                return await self._refuse(request, entry, active)
        fault = body_fault(faults)
        if fault is not None and fault.fault.name == "slow":
            await pause(SLOW_S if fault.fault.delay_s is None else fault.fault.delay_s, self.closing)
        call = Call(entry.endpoint, entry.query, self._server_ms(), faults)
        payload = self._venue.answer(call)
        reply = Reply(200, orjson.dumps(payload), JSON, self._venue.headers(call.endpoint, call.query, call.now_ms))
        if fault is not None:
            spoil_body(reply, fault.fault.name, entry.endpoint)
        if reply.sound:
            entry.quotes, entry.spoiled = call.quotes, call.spoiled
        return await self._finish(request, entry, reply, fault)

    def _server_ms(self) -> int:
        return self._now_ms() + self._board.skew_ms(self._monotonic())

    async def _refuse(self, request: web.BaseRequest, entry: Request, active: Active) -> web.StreamResponse:
        entry.fault = name = active.fault.name
        if name == "hang":
            await self.closing.wait()
        if name in {"hang", "reset", "close"}:
            cut(request, reset=name == "reset")
            return web.Response()
        headers: dict[str, str] = {}
        if name == "redirect":
            headers["Location"] = MOVED_TO
            return await self._finish(request, entry, Reply(302, b"", "text/html", headers), None)
        if name in {"http429", "http418"} and active.fault.retry_after_s is not None:
            headers["Retry-After"] = str(active.fault.retry_after_s)
            entry.retry_after_s = active.fault.retry_after_s
        refusal = self._venue.refusal(active, self._server_ms())
        return await self._finish(
            request, entry, Reply(refusal.status, refusal.body, refusal.content_type, headers), None
        )

    async def _finish(
        self, request: web.BaseRequest, entry: Request, reply: Reply, fault: Active | None
    ) -> web.StreamResponse:
        entry.status, entry.answered = reply.status, self._monotonic()
        return await send(request, reply, fault, self.closing)


def bound(port: int) -> socket.socket:
    """A socket on 127.0.0.1 that does not listen yet: who connects is refused."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", port))
    except OSError:
        made.close()
        raise
    return made
