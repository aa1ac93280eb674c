"""How an answer's bytes reach the client, or fail to."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from tests.exchange.faults import BODIES, Active

REPLACED = {
    "html200": (b"<!DOCTYPE html><html><body>Just a moment...</body></html>", "text/html"),
    "empty200": (b"", "application/json"),
    "null200": (b"null", "application/json"),
    "list200": (b"[]", "application/json"),
    "dict200": (b"{}", "application/json"),
}
TICKERS = frozenset({"ticker", "book_ticker", "price"})
DECIMAL = re.compile(rb'"-?\d+\.\d+"')
NO_GZIP = b"\x1f\x8b\x08\x00" + b"this is no gzip stream" * 4
SLOW_S, SLOW_BODY_S, SLOW_BODY_PIECES = 0.3, 30.0, 40


@dataclass(slots=True)
class Reply:
    """An answer on its way out; ``sound`` is False when no client can read it."""

    status: int
    body: bytes
    content_type: str
    headers: dict[str, str]
    sound: bool = True


def body_fault(faults: list[Active]) -> Active | None:
    return next((active for active in faults if active.fault.name in BODIES), None)


def spoil_body(reply: Reply, name: str, endpoint: str) -> None:
    """The faults that are in the bytes themselves."""
    whole = reply.body
    if name in REPLACED:
        reply.body, reply.content_type = REPLACED[name]
    elif name == "truncated":
        reply.body = whole[: len(whole) // 2]
    elif name == "nan_json" and endpoint in TICKERS:
        reply.body = DECIMAL.sub(b"NaN", whole)
    elif name == "bad_gzip":
        reply.body = NO_GZIP
        reply.headers["Content-Encoding"] = "gzip"
    reply.sound = reply.body is whole and name != "mid_reset"


async def pause(seconds: float, closing: asyncio.Event) -> None:
    """Ends early when the server closes."""
    try:
        async with asyncio.timeout(seconds):
            await closing.wait()
    except TimeoutError:
        pass


async def send(
    request: web.BaseRequest, reply: Reply, fault: Active | None, closing: asyncio.Event
) -> web.StreamResponse:
    headers = {**reply.headers, "Content-Type": reply.content_type}
    name = fault.fault.name if fault else ""
    if fault is None or name not in {"mid_reset", "slow_body"}:
        return web.Response(status=reply.status, body=reply.body, headers=headers)
    response = web.StreamResponse(status=reply.status, headers=headers)
    response.content_length = len(reply.body)
    with suppress(ConnectionError):  # the client did not wait
        await response.prepare(request)
        if name == "mid_reset":
            # On loopback it is in the client's hands at once, and a reset does not take it away again.
            await response.write(reply.body[: len(reply.body) // 2])
            cut(request, reset=True)
        else:
            await _drip(response, reply.body, fault.fault.delay_s or SLOW_BODY_S, closing)
    return response


async def _drip(response: web.StreamResponse, body: bytes, seconds: float, closing: asyncio.Event) -> None:
    size = max(1, len(body) // SLOW_BODY_PIECES)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    for piece in pieces:
        await response.write(piece)
        await pause(seconds / len(pieces), closing)
    await response.write_eof()


def cut(request: web.BaseRequest, *, reset: bool) -> None:
    """Ends the connection: with a reset, or politely but without a word."""
    transport = request.transport
    if transport is None:
        return
    if not reset:
        transport.close()
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
