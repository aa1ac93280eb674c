"""The server: bound before the daemon goes on, bounded in everything that others could make it spend."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from structlog.typing import FilteringBoundLogger

from bot.repositories import open_database
from bot.service.http.answers import Answers
from bot.service.http.errors import PortTaken
from bot.service.http.events import Events
from bot.service.http.guard import HEADERS, add_headers, error_as_json, guard
from bot.service.stalls import Stalls
from bot.service.vitals import Vitals
from bot.settings import HttpSettings, SettingsError

CONNECTIONS_MAX = 64
# A connection that asks for nothing is closed; so is one whose answer is not taken.
IDLE_S = 20.0
SLOW_S = 10.0
LINE_BYTES_MAX = 4096
HEADERS_MAX = 64
# What is still being answered when the daemon stops.
STOP_S = 0.2


class Server:
    """``observer`` is to hear of the loop's steps and ``run`` to be run beside it, until it is cancelled."""

    def __init__(self, observer: Events, port: int) -> None:
        self.observer, self.port = observer, port

    async def run(self) -> None:
        await self.observer.run()


@asynccontextmanager
async def serving(
    http: HttpSettings,
    token: str,
    vitals: Vitals,
    stalls: Stalls | None,
    ledger: Path,
    log: FilteringBoundLogger,
) -> AsyncIterator[Server]:
    """Answers until the end of the block. Raises PortTaken, or SettingsError for an address that cannot be had."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(ledger, read_only=True))
        answers = Answers(vitals, stalls, ledger, database)
        events = Events(answers.state)
        application = web.Application(middlewares=[guard(http, token, log)], client_max_size=1)
        application.add_routes([*answers.routes(), web.get("/api/events", events.answer)])
        application.on_response_prepare.append(add_headers)
        runner = web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=STOP_S)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        listening = await _listening(http, runner, log)
        stack.callback(events.end)
        stack.callback(listening.close)
        port = listening.sockets[0].getsockname()[1]
        log.info("http", at=f"http://{_in_url(http.host)}:{port}/", token="needed" if token else "none")
        yield Server(events, port)


async def _listening(http: HttpSettings, runner: web.AppRunner, log: FilteringBoundLogger) -> asyncio.Server:
    running, manager = asyncio.get_running_loop(), runner.server
    if manager is None:
        raise RuntimeError("the server is not set up")

    def connection() -> asyncio.Protocol:
        if len(manager.connections) >= CONNECTIONS_MAX:
            return _Full()
        return _Connection(manager, log, running)

    try:
        return await running.create_server(connection, http.host, http.port, backlog=CONNECTIONS_MAX)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            told = f"http.port = {http.port} is in use by another program on {http.host}"
            raise PortTaken(f"{told}: stop that, or set another port (0: any that is free)") from None
        key = f"http.port = {http.port}" if error.errno == errno.EACCES else f'http.host = "{http.host}"'
        reason = error.strerror if isinstance(error, socket.gaierror) else _reason(error)
        raise SettingsError([f"{key}: cannot listen there: {reason}"]) from None


def _reason(error: OSError) -> str:
    if error.errno == errno.EACCES:
        return "ports below 1024 are not for everybody; set another one"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return (error.strerror or str(error)).lower()


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Full(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _Connection(web.RequestHandler):
    """aiohttp's connection, whose errors go into the daemon's log and to whoever asked as one line of JSON."""

    __slots__ = ("_told",)

    def __init__(self, manager: web.Server, log: FilteringBoundLogger, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            manager,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=IDLE_S,
            lingering_time=0,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
            auto_decompress=False,
        )
        self._told = log

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no request, or no answer in time. Whoever talks nonsense is no news, nor is who has left."""
        if status >= 500 and exc is not None and not isinstance(exc, ConnectionError):
            self.log_exception("Unhandled exception", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        response = error_as_json(status, "no HTTP request that is understood here" if status < 500 else "no answer")
        response.headers.update(HEADERS)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        error = kw.get("exc_info")
        self._told.error("a connection failed", error=f"{type(error).__name__}: {error}")

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        try:
            async with asyncio.timeout(SLOW_S):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            raise ConnectionResetError("too slow") from None
