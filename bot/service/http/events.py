"""Server-sent events: the newest state to whoever listens, and never a queue of older ones."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

from bot.ports import Silent, Status
from bot.service.http.errors import Refused

CLIENTS_MAX = 16
EVERY_S = 1.0
# Without a step the state is told all the same: it grows old, and connections are to be seen alive.
QUIET_S = 5.0
# A client that has not taken a state for so long is dropped; until then this much of it waits, in bytes.
SLOW_S = 10.0
WAITING_BYTES = 65_536


class Events(Silent):
    """An observer of the loop. ``run`` tells the steps on, at most one a second."""

    def __init__(
        self, state: Callable[[], bytes], every_s: float = EVERY_S, quiet_s: float = QUIET_S, slow_s: float = SLOW_S
    ) -> None:
        """``state`` is a JSON document without line ends."""
        self._state, self._every_s, self._quiet_s, self._slow_s = state, every_s, quiet_s, slow_s
        self._stepped, self._never = asyncio.Event(), asyncio.Event()
        self._published, self._message = asyncio.Event(), b""
        self._ended = False
        self.clients = 0

    def stepped(self, status: Status) -> None:
        self._stepped.set()

    async def run(self) -> None:
        while True:
            await _within(self._quiet_s, self._stepped)
            self._stepped.clear()
            if self.clients:
                self._publish()
            await _within(self._every_s, self._never)

    def end(self) -> None:
        """Ends all streams, now and later."""
        self._ended = True
        self._published.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One stream, from the state as it is now on. Raises Refused."""
        if self._ended or self.clients >= CLIENTS_MAX:
            raise Refused(503, f"{CLIENTS_MAX} pages follow already: close one", {"Retry-After": "10"})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        self.clients += 1
        try:
            _bound(request)
            await response.prepare(request)
            if request.method == "GET":
                await self._follow(response)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("too slow") from None
        finally:
            self.clients -= 1
        return response

    async def _follow(self, response: web.StreamResponse) -> None:
        message = self._told()
        while not self._ended:
            published = self._published
            async with asyncio.timeout(self._slow_s):
                await response.write(message)
            if published is self._published:
                await published.wait()
            message = self._message

    def _publish(self) -> None:
        self._message = self._told()
        published, self._published = self._published, asyncio.Event()
        published.set()

    def _told(self) -> bytes:
        return b"retry: 2000\ndata: " + self._state() + b"\n\n"


def _bound(request: web.Request) -> None:
    """So that what a client does not read piles up neither here nor in the system."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("gone")
    transport.set_write_buffer_limits(WAITING_BYTES)
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WAITING_BYTES)


async def _within(seconds: float, event: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
