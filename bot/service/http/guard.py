"""Who may ask what: checked before any answer is made. And the headers that every answer carries."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import orjson
from aiohttp import web
from structlog.typing import FilteringBoundLogger

from bot.repositories import LedgerError
from bot.service.http.errors import Refused
from bot.service.plain import printable
from bot.settings import HttpSettings

METHODS = ("GET", "HEAD")
SHOWN_CHARS_MAX = 80
FOREIGN = ("cross-site", "same-site")
PORTS = {"http": 80, "https": 443}
HEADERS = {
    "Server": "paperloop",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self';"
        " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def as_json(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")


def error_as_json(status: int, text: str) -> web.Response:
    return as_json({"error": printable(text)}, status)


async def add_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def guard(http: HttpSettings, token: str, log: FilteringBoundLogger) -> Any:
    """The middleware that lets a request through or answers it with an error, as one line of JSON."""
    known = {"localhost", http.host.lower(), *http.hosts}
    wanted = token.encode()

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _check(request, known, wanted)
            return await handler(request)
        except Refused as refusal:
            response = error_as_json(refusal.status, str(refusal))
            response.headers.update(refusal.headers or {})
            return response
        except web.HTTPException as error:
            return error_as_json(error.status, f"{request.path[:SHOWN_CHARS_MAX]}: {error.reason.lower()}")
        except LedgerError as error:
            return error_as_json(503, str(error))
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:
            log.error("a request failed", path=request.path, error=f"{type(error).__name__}: {error}", exc_info=error)
            return error_as_json(500, "internal error: the daemon's log has more")

    return guarded


def _check(request: web.Request, known: set[str], token: bytes) -> None:
    if request.method not in METHODS:
        raise Refused(405, "only GET and HEAD: nothing here changes anything", {"Allow": ", ".join(METHODS)})
    if request.body_exists:
        raise Refused(413, "a request has no body here", {"Connection": "close"})
    host, port = _checked_host(request, known)
    origin = request.headers.get("Origin")
    if origin is not None and not _is_same(origin, host, port):
        raise Refused(403, "asked for by a page of another site")
    if request.headers.get("Sec-Fetch-Site") in FOREIGN and request.headers.get("Sec-Fetch-Mode") != "navigate":
        # An image or a script has no Origin. A link may lead here.
        raise Refused(403, "part of a page of another site")
    if token and not hmac.compare_digest(_presented(request.headers.get("Authorization", "")), token):
        asked = {"WWW-Authenticate": 'Basic realm="paperloop", charset="UTF-8"'}
        raise Refused(401, "needs the token of http.token, as a bearer token or as the password of any user", asked)


def _checked_host(request: web.Request, known: set[str]) -> tuple[str, int | None]:
    """A site may give its own name this machine's address: only a name that is known is answered, and any number."""
    given = request.headers.getall("Host", [])
    if len(given) != 1:
        raise Refused(400, "needs one Host header")
    try:
        parts = urlsplit(f"//{given[0]}")
        host, port = (parts.hostname or "").removesuffix("."), parts.port
        if parts.netloc != given[0] or "@" in given[0]:
            raise ValueError(given[0])
    except ValueError:
        raise Refused(400, "the Host header is no host and port") from None
    if host not in known and not _is_address(host):
        raise Refused(421, f'not known here as "{host[:SHOWN_CHARS_MAX]}": http.hosts lists the names that are')
    return host, port


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_same(origin: str, host: str, port: int | None) -> bool:
    """A proxy may speak another scheme to the browser, so the ports that go without saying are those of either."""
    try:
        parts = urlsplit(origin)
        usual = PORTS.get(parts.scheme)
        return (
            usual is not None and parts.hostname == host and (parts.port or usual) == (usual if port is None else port)
        )
    except ValueError:
        return False


def _presented(header: str) -> bytes:
    """The token in an Authorization header; nothing where there is none."""
    scheme, _, rest = header.partition(" ")
    text = rest.strip().encode(errors="surrogateescape")
    match scheme.lower():
        case "bearer":
            return text
        case "basic":
            try:
                return base64.b64decode(text, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return b""
    return b""
