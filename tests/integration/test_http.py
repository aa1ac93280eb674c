"""The endpoint: who is answered, what is answered, and what it can be made to spend."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain_metrics
from structlog.testing import LogCapture

from bot.clock import SystemClock
from bot.domain import Signal
from bot.ports import FeedError
from bot.repositories import AccountRepository, TickRepository, TradeRepository, open_database
from bot.service import inspect
from bot.service.http.equity import curve
from bot.service.http.events import CLIENTS_MAX, Events
from bot.service.http.guard import HEADERS
from bot.service.http.queries import LIMIT_MAX, searched
from bot.service.http.server import CONNECTIONS_MAX, Server, serving
from bot.service.vitals import Vitals
from bot.settings import HttpSettings
from tests.integration.daemon import Result, ServedDaemon, paperloop, rows, settings
from tests.observed import Seen

TOKEN = "a-token-of-24-characters"
WAIT_S = 20.0
# Enough for a seal, so that the past begins with one.
POLLS = 33_000
JSON_PATHS = ["/healthz", "/api/status", "/api/positions", "/api/trades", "/api/signals", "/api/equity"]
PATHS = ["/", "/app.js", "/chart.js", "/style.css", "/icon.svg", "/metrics", *JSON_PATHS]
NAMED = "paper.example.com"


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("http")
    result = paperloop("run", "--max-speed", "--polls", str(POLLS), *settings(storage__path="l.db"), folder=folder)
    assert result.code == 0, result
    return folder / "l.db"


async def seen(ledger: Path) -> Seen:
    """What the loop says that has just written a ledger."""
    async with open_database(ledger, read_only=True) as database:
        cursor, prices = database.cursor, await TickRepository(database).last_prices()
        accounts = await AccountRepository(database).load()
        return Seen(
            polls=cursor.polls,
            ticks=cursor.ticks,
            signals=cursor.signals,
            trades=cursor.trades,
            timestamp=cursor.timestamp,
            digest=database.digest,
            step_s=0.004,
            quoted=prices,
            prices=prices,
            accounts=accounts,
            missed_beats=3,
        )


@dataclass
class Service:
    server: Server
    vitals: Vitals
    status: Seen
    client: aiohttp.ClientSession
    lines: LogCapture

    async def ask(self, path: str, method: str = "GET", **more: Any) -> tuple[int, Mapping[str, str], bytes]:
        address = f"http://127.0.0.1:{self.server.port}{path}"
        async with asyncio.timeout(WAIT_S), self.client.request(method, address, **more) as answer:
            return answer.status, answer.headers, await answer.read()

    async def document(self, path: str) -> Any:
        status, _, body = await self.ask(path)
        assert status == 200, body
        return json.loads(body)

    async def raw(self, data: bytes) -> bytes:
        """All that comes back until the connection is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(data)
        async with asyncio.timeout(WAIT_S):
            found = await reader.read()
        writer.close()
        return found


@asynccontextmanager
async def service(ledger: Path, *, stepped: bool = True, token: str = "", **more: Any) -> AsyncIterator[Service]:
    lines = LogCapture()
    log = structlog.wrap_logger(None, processors=[lines], wrapper_class=structlog.make_filtering_bound_logger(0))
    strategies = {"sma_cross": "sma_cross", "rsi_reversion": "rsi_reversion"}
    vitals, status = Vitals(SystemClock(), 600.0, strategies, ("BTC/USDT", "ETH/USDT", "XRP/USDT")), await seen(ledger)
    http = HttpSettings(enabled=True, port=0, **more)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiohttp.ClientSession())
        group = await stack.enter_async_context(asyncio.TaskGroup())
        server = await stack.enter_async_context(serving(http, token, vitals, None, ledger, log))
        task = group.create_task(server.run())
        stack.callback(task.cancel)
        if stepped:
            vitals.stepped(status)
            server.observer.stepped(status)
        yield Service(server, vitals, status, client, lines)
    assert "a connection failed" not in [line["event"] for line in lines.entries]


@pytest.fixture
async def served(ledger: Path) -> AsyncIterator[Service]:
    async with service(ledger, hosts=(NAMED,)) as found:
        yield found


def reason_of(body: bytes) -> str:
    reason = json.loads(body)["error"]
    assert isinstance(reason, str)
    assert reason
    assert "\n" not in reason
    return reason


class TestWhoIsAnswered:
    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({}, 200),
            ({"Host": "localhost:8080"}, 200),
            ({"Host": "LOCALHOST."}, 200),
            ({"Host": "192.0.2.7:80"}, 200),
            ({"Host": "[::1]:8080"}, 200),
            ({"Host": NAMED}, 200),
            ({"Host": f"{NAMED}:8443"}, 200),
            ({"Host": "evil.example"}, 421),
            ({"Host": "127.0.0.1.evil.example"}, 421),
            ({"Host": f"not-{NAMED}"}, 421),
            ({"Host": ""}, 421),
            ({"Host": "evil.example@127.0.0.1"}, 400),
            ({"Host": "127.0.0.1/evil.example"}, 400),
            ({"Host": "127.0.0.1:port"}, 400),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": "http://127.0.0.1:1"}, 403),
            ({"Origin": "file://"}, 403),
            ({"Origin": "http://localhost:8080", "Host": "localhost:8080"}, 200),
            ({"Origin": f"https://{NAMED}", "Host": NAMED}, 200),
            ({"Origin": f"https://{NAMED}:444", "Host": NAMED}, 403),
            ({"Origin": f"http://{NAMED}", "Host": f"{NAMED}:80"}, 200),
            ({"Origin": "http://[", "Host": NAMED}, 403),
            ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
            ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
            ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
            ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
            ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
        ],
    )
    async def test_only_by_a_known_name_and_for_no_other_site(
        self, served: Service, headers: dict[str, str], status: int
    ) -> None:
        found, _, body = await served.ask("/api/status", headers=headers)
        assert found == status, body
        if status != 200:
            reason_of(body)

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
    @pytest.mark.parametrize("path", ["/", "/api/status", "/nowhere"])
    async def test_nothing_can_be_changed(self, served: Service, method: str, path: str) -> None:
        status, headers, body = await served.ask(path, method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
        reason_of(body)

    async def test_a_request_with_a_body_is_not_read(self, served: Service) -> None:
        assert (await served.ask("/healthz", data=b"x"))[0] == 413

    @pytest.mark.parametrize("path", [*PATHS, "/api/events", "/nowhere"])
    async def test_with_a_token_nothing_is_answered_without_it(self, ledger: Path, path: str) -> None:
        async with service(ledger, token=TOKEN) as served:
            status, headers, body = await served.ask(path)
            assert (status, headers["WWW-Authenticate"].split()[0]) == (401, "Basic")
            reason_of(body)

    async def test_how_a_token_is_given(self, ledger: Path) -> None:
        def basic(text: str) -> str:
            return f"Basic {base64.b64encode(text.encode()).decode()}"

        right = [f"Bearer {TOKEN}", f"bearer  {TOKEN}", basic(f"anybody:{TOKEN}"), basic(f":{TOKEN}")]
        wrong = ["", TOKEN, "Bearer", "Bearer x", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Digest {TOKEN}"]
        wrong += [
            basic(TOKEN),
            basic(f"{TOKEN}:"),
            basic(f"a:{TOKEN}:"),
            "Basic",
            "Basic ?",
            "Basic \u00e9",
            "Bearer \u00e9",
        ]
        async with service(ledger, token=TOKEN) as served:
            for status, given in ((200, right), (401, wrong)):
                for header in given:
                    assert (await served.ask("/healthz", headers={"Authorization": header}))[0] == status, header

    @pytest.mark.parametrize("path", [*PATHS, "/nowhere", "/api/trades?limit=0"])
    async def test_every_answer_has_the_headers_and_head_is_get_without_a_body(
        self, served: Service, path: str
    ) -> None:
        status, headers, body = await served.ask(path)
        assert {name: headers[name] for name in HEADERS} == HEADERS
        again, same, nothing = await served.ask(path, "HEAD")
        assert (again, nothing) == (status, b"")
        assert {name: same[name] for name in HEADERS} == HEADERS
        assert same["Content-Type"] == headers["Content-Type"]
        if path not in {"/healthz", "/api/status", "/metrics"}:
            # Their ages change, and with them their length.
            assert same["Content-Length"] == headers["Content-Length"] == str(len(body))

    @pytest.mark.parametrize(
        "data",
        [
            b"\x16\x03\x01nonsense\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: x\r\n" * 100 + b"\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
        ],
    )
    async def test_what_is_no_request_is_told_so_in_a_line(self, served: Service, data: bytes) -> None:
        head, _, body = (await served.raw(data)).partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), head
        assert b"Server: paperloop\r\n" in head + b"\r\n"
        reason_of(body)
        assert [line["event"] for line in served.lines.entries] == ["http"]


class TestWhatIsAnswered:
    async def test_health_is_the_one_predicate(self, ledger: Path) -> None:
        async with service(ledger, stepped=False) as served:
            status, _, body = await served.ask("/healthz")
            assert (status, json.loads(body)) == (503, {"alive": False, "reason": "no prices yet", "age_s": None})
            served.vitals.stepped(served.status)
            status, _, body = await served.ask("/healthz")
            assert (status, json.loads(body)["alive"]) == (200, True)

    async def test_status_is_in_the_words_of_the_command_line(self, served: Service, ledger: Path) -> None:
        found = await served.document("/api/status")
        said = paperloop("status", "--json", *settings(storage__path=ledger), folder=ledger.parent).document
        same = set(said) & set(found) - {"running", "pid", "data_age_s", "stale"}
        assert {"accounts", "digest", "ledger", "polls", "prices", "last_price_at", "ticks", "trades"} <= same
        assert {name: found[name] for name in same} == {name: said[name] for name in same}
        feed = {each["symbol"]: (each["price"], each["stale"]) for each in found["feed"]}
        assert feed == {**{name: (price, False) for name, price in said["prices"].items()}, "XRP/USDT": (None, True)}

    async def test_what_went_wrong_is_in_the_status(self, served: Service) -> None:
        served.vitals.feed_counts = lambda: {"failed_timeout": 2, "refused_crossed": 0}
        served.vitals.interrupted(FeedError("no answer\nfrom <b>\ud800" + "x" * 1000), 5.0)
        served.vitals.refused(Signal(1, 1, 1, "one", "BTC/USDT", 1.0, 1.0, 1.0), "no_equity")
        found = await served.document("/api/status")
        assert found["feed_counts"] == {"failed_timeout": 2}
        assert (found["interruptions"], found["refusals"]) == ({"feed": 1}, {"no_equity": 1})
        assert found["last_trouble"]["error"].startswith(r"no answer\x0afrom <b>\ud800x")
        assert len(found["last_trouble"]["error"]) < 500
        assert found["outage_s"] >= 0

    async def test_trades_and_signals_are_those_of_the_command_line(self, served: Service, ledger: Path) -> None:
        for kind in ("trades", "signals"):
            for more in ({}, {"limit": 7}, {"symbol": "ETH/USDT", "limit": 3}, {"account": "rsi_reversion"}):
                words = [word for name, value in {"limit": 100, **more}.items() for word in (f"--{name}", str(value))]
                said = paperloop(kind, "--json", *words, *settings(storage__path=ledger), folder=ledger.parent).document
                query = "&".join(f"{name}={value}" for name, value in more.items())
                found = await served.document(f"/api/{kind}?{query}")
                for row in found:
                    assert kind == "trades" or row.pop("reason_text") == inspect.REASONS.get(row["reason"])
                assert found == said
                assert len(found) > 2

    async def test_only_what_is_newer(self, served: Service) -> None:
        newest = [row["id"] for row in await served.document("/api/trades?limit=5")]
        assert [row["id"] for row in await served.document(f"/api/trades?after={newest[2]}")] == newest[3:]
        assert await served.document(f"/api/signals?symbol=btc-usdt&after={newest[4]}") == []

    async def test_a_search_in_parts_finds_the_same(self, ledger: Path) -> None:
        async with open_database(ledger, read_only=True) as database:
            latest = partial(TradeRepository(database).latest, account="rsi_reversion")
            last = database.cursor.decisions
            for limit in (1, 60, 10_000):
                for after in (0, last // 2, last):
                    whole = await latest(limit, after=after)
                    assert bool(whole) is (after < last)
                    for part_rows in (47, 1_000, last):
                        assert await searched(latest, limit, after, last, part_rows) == whole

    async def test_a_price_grows_old_with_every_step_that_brings_none(self, served: Service) -> None:
        status = served.status
        status.polls, status.timestamp = POLLS + 1, status.timestamp + 601_000
        status.quoted = {"BTC/USDT": 5.0}
        served.vitals.stepped(status)
        feed = {each["symbol"]: each for each in (await served.document("/api/status"))["feed"]}
        assert [feed[name]["stale"] for name in ("BTC/USDT", "ETH/USDT")] == [False, True]
        assert feed["ETH/USDT"]["age_s"] >= 601 > feed["BTC/USDT"]["age_s"]

    async def test_positions(self, served: Service) -> None:
        held = await served.document("/api/positions")
        accounts = (await served.document("/api/status"))["accounts"]
        assert [each["symbol"] for each in held] == [
            position["symbol"] for account in accounts for position in account["positions"]
        ]
        assert await served.document("/api/positions?account=rsi_reversion&symbol=ETH/USDT") == [
            each for each in held if (each["account"], each["symbol"]) == ("rsi_reversion", "ETH/USDT")
        ]

    @pytest.mark.parametrize(
        "path",
        [
            *(
                f"trades?limit={text}"
                for text in ("0", "-1", str(LIMIT_MAX + 1), "1.5", "x", "", "1e2", "%D9%A1", "9" * 30)
            ),
            "trades?after=-1",
            "trades?limit=1&limit=2",
            "trades?offset=1",
            "trades?symbol=",
            "trades?symbol=NO/SUCH",
            "signals?account=nobody",
            "signals?account=%27%20OR%201=1--",
            "positions?account=%3Cb%3E",
            "positions?limit=1",
            "status?verbose=1",
            *(f"equity?{text}" for text in ("hours=0", "hours=nan", "hours=inf", "hours=-1", "points=1", "points=501")),
        ],
    )
    async def test_a_wrong_parameter_is_told_in_a_line(self, served: Service, path: str) -> None:
        status, _, body = await served.ask(f"/api/{path}")
        assert status == 400
        name = path.partition("?")[2].partition("=")[0]
        assert name in reason_of(body)

    async def test_a_ledger_that_cannot_be_read_is_told_of(self, ledger: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copy(ledger, tmp_path / "l.db"))
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("DROP TABLE trades")
        async with service(copy) as served:
            status, _, body = await served.ask("/api/trades")
            assert status == 503
            assert "damaged" in reason_of(body)
            assert (await served.ask("/api/status"))[0] == 200

    async def test_a_mistake_of_ours_is_in_the_log_and_not_in_the_answer(self, served: Service) -> None:
        def broken() -> dict[str, int]:
            raise KeyError(1)

        served.vitals.feed_counts = broken
        for path in ("/api/status", "/metrics"):
            status, _, body = await served.ask(path)
            assert status == 500
            assert reason_of(body) == "internal error: the daemon's log has more"
        told = [line for line in served.lines.entries if line["event"] == "a request failed"]
        assert [(line["path"], line["error"]) for line in told] == [
            ("/api/status", "KeyError: 1"),
            ("/metrics", "KeyError: 1"),
        ]


class TestMetrics:
    async def test_their_own_parser_reads_them(self, served: Service) -> None:
        vitals = served.vitals
        vitals.feed_counts = lambda: {"failed_timeout": 2}
        vitals.interrupted(FeedError("no"), 5.0)
        vitals.refused(Signal(1, 1, 1, "one", "BTC/USDT", 1.0, 1.0, 1.0), "no_equity")
        formats: dict[str, Callable[[str], Iterable[Metric]]] = {
            "text/plain": plain_metrics,
            "application/openmetrics-text; version=1.0.0": openmetrics,
        }
        for accept, parse in formats.items():
            _, headers, body = await served.ask("/metrics", headers={"Accept": accept})
            assert headers["Content-Type"].startswith(accept.partition(";")[0])
            families = list(parse(body.decode()))
            samples = {(s.name, *sorted(s.labels.items())): s.value for f in families for s in f.samples}
            assert samples["paperloop_alive",] == 1
            assert samples["paperloop_polls_total",] == POLLS
            assert samples["paperloop_trades_total",] == vitals.trades
            assert samples["paperloop_feed_errors_total", ("kind", "failed_timeout")] == 2
            assert samples["paperloop_interruptions_total", ("kind", "feed")] == 1
            assert samples["paperloop_signals_total", ("reason", "no_equity"), ("verdict", "refused")] == 1
            assert samples["paperloop_step_seconds_bucket", ("le", "0.005")] == 1
            assert samples["paperloop_missed_beats_total",] == 3
            assert samples["process_resident_memory_bytes",] > 2**20
            assert samples["paperloop_ledger_bytes", ("file", "ledger")] > POLLS
            assert ("paperloop_price_age_seconds", ("symbol", "BTC/USDT")) in samples
            for account in vitals.accounts:
                labels = (("account", account["account"]), ("currency", "USDT"))
                assert samples["paperloop_equity", *labels] == account["equity"]
            assert all(f.name.startswith(("paperloop_", "process_")) and f.documentation for f in families)
            assert {s.name[-6:] for f in families if f.type == "counter" for s in f.samples} == {"_total"}

    async def test_before_the_first_step_nothing_is_counted_from_zero(self, ledger: Path) -> None:
        async with service(ledger, stepped=False) as served:
            _, _, body = await served.ask("/metrics")
            names = {family.name for family in plain_metrics(body.decode())}
            assert "paperloop_alive" in names
            assert not names & {"paperloop_ticks", "paperloop_trades", "paperloop_equity"}

    @pytest.mark.parametrize("version", ["x", "1.0.0.0.0.0", "\u00e9", ";", "9999999999"])
    async def test_whatever_is_asked_for(self, served: Service, version: str) -> None:
        accept = {"Accept": f"application/openmetrics-text; version={version}, text/plain; version={version}"}
        status, headers, body = await served.ask("/metrics", headers=accept)
        assert (status, headers["Content-Type"].split(";")[:2]) == (
            200,
            ["application/openmetrics-text", " version=1.0.0"],
        )
        assert body.endswith(b"# EOF\n")


class TestEquity:
    async def test_it_is_what_the_ledger_says_of_each_moment(self, served: Service, ledger: Path) -> None:
        assert rows(ledger, "SELECT count(*) FROM seals")[0][0] > 0
        for query in ("hours=all&points=40", "hours=1&points=30", "hours=0.4&points=2", "hours=0.05&points=9"):
            found = await served.document(f"/api/equity?{query}")
            times = found["timestamps"]
            assert 2 <= len(times) <= int(query.rpartition("=")[2])
            async with open_database(ledger, read_only=True) as database:
                for place in {0, 1, len(times) // 2, len(times) - 1}:
                    then = await inspect.status_at(database, times[place])
                    for account in then["accounts"]:
                        value = found["accounts"][account["account"]][place]
                        assert value == pytest.approx(account["equity"], abs=1e-6), (query, place)

    async def test_of_what_is_not_kept_any_more_there_is_none(self, ledger: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copy(ledger, tmp_path / "l.db"))
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            seal = connection.execute("SELECT id, ticks, timestamp FROM seals ORDER BY id LIMIT 1").fetchone()
            connection.execute("UPDATE cursor SET base = ?", seal[:1])
            # All but some that strategies may still look back on.
            connection.execute("DELETE FROM ticks WHERE id <= ? - 10", seal[1:2])
        async with open_database(copy, read_only=True) as database:
            found = await curve(database, None, 10, {})
            assert found["ticks_deleted"]
            assert found["timestamps"][0] > seal[2]
            now = {each["account"]: each["equity"] for each in (await inspect.status(database, 0, 1))["accounts"]}
        last = {name: values[-1] for name, values in found["accounts"].items()}
        assert last == pytest.approx(now, abs=1e-6)

    async def test_what_has_no_price_any_more_is_worth_what_it_was(self, ledger: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copy(ledger, tmp_path / "l.db"))
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            connection.execute("DELETE FROM ticks WHERE symbol_id = 2")
        async with open_database(copy, read_only=True) as database:
            held = {row[0] for row in rows(copy, "SELECT DISTINCT account FROM trades WHERE symbol = 'ETH/USDT'")}
            without = (await curve(database, None, 10, {}))["accounts"]
            known = (await curve(database, None, 10, {"ETH/USDT": 3000.0}))["accounts"]
        assert any(None in without[name] for name in held)
        assert not any(None in values for values in known.values())

    async def test_of_an_empty_ledger_there_is_no_curve(self, tmp_path: Path) -> None:
        async with open_database(tmp_path / "l.db"):
            pass
        async with open_database(tmp_path / "l.db", read_only=True) as database:
            found = await curve(database, 24.0, 10, {})
        assert (found["timestamps"], found["accounts"], found["since"]) == ([], {}, None)


async def next_state(stream: aiohttp.ClientResponse) -> dict[str, Any]:
    async with asyncio.timeout(WAIT_S):
        while line := await stream.content.readline():
            if line.startswith(b"data: "):
                return dict(json.loads(line[6:]))
    raise AssertionError("the stream has ended")


class TestEvents:
    async def test_the_state_now_and_at_each_step(self, served: Service) -> None:
        async with served.client.get(f"http://127.0.0.1:{served.server.port}/api/events") as stream:
            assert stream.headers["Content-Type"] == "text/event-stream"
            assert {name: stream.headers[name] for name in HEADERS} == HEADERS
            assert (await next_state(stream))["polls"] == POLLS
            served.status.polls = POLLS + 1
            served.vitals.stepped(served.status)
            served.server.observer.stepped(served.status)
            while (await next_state(stream))["polls"] != POLLS + 1:
                pass

    async def test_no_more_clients_than_that_and_who_left_makes_room(self, served: Service) -> None:
        address = f"http://127.0.0.1:{served.server.port}/api/events"
        async with AsyncExitStack() as stack:
            for _ in range(CLIENTS_MAX):
                stream = await stack.enter_async_context(served.client.get(address))
                await next_state(stream)
            status, headers, body = await served.ask("/api/events")
            assert (status, headers["Retry-After"]) == (503, "10")
            reason_of(body)
            stream.close()
            async with asyncio.timeout(WAIT_S):
                while (await served.ask("/api/events", "HEAD"))[0] != 200:
                    pass

    async def test_a_stop_ends_every_stream(self, ledger: Path) -> None:
        async with aiohttp.ClientSession() as client:
            async with service(ledger) as served:
                stream = await client.get(f"http://127.0.0.1:{served.server.port}/api/events")
                await next_state(stream)
            async with asyncio.timeout(WAIT_S):
                await stream.read()

    async def test_who_does_not_read_is_dropped_and_keeps_nobody_up(self) -> None:
        made = 0

        def state() -> bytes:
            nonlocal made
            made += 1
            return b"%09d" % made + b"x" * 200_000

        events = Events(state, every_s=0.001, slow_s=0.3)
        application = web.Application()
        application.add_routes([web.get("/", events.answer)])
        runner = web.AppRunner(application, handler_cancellation=True, access_log=None)
        await runner.setup()
        listening = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listening).start()
        with socket.create_connection(listening.getsockname()) as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group, aiohttp.ClientSession() as client:
                running = group.create_task(events.run())
                while events.clients < 1:
                    await asyncio.get_running_loop().run_in_executor(None, state)
                host, port = listening.getsockname()
                async with client.get(f"http://{host}:{port}/") as stream:
                    while events.clients > 1 or made < 50:
                        events.stepped(None)  # type: ignore[arg-type]
                        line = await stream.content.readuntil(b"\n\n")
                        assert len(line) < 201_000
                running.cancel()
        await runner.cleanup()


class TestBounds:
    async def test_so_many_connections_and_no_more(self, ledger: Path) -> None:
        async with service(ledger) as served:
            open_ones = []
            for _ in range(CONNECTIONS_MAX):
                reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                async with asyncio.timeout(WAIT_S):
                    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
                open_ones.append(writer)
            assert await served.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
            for writer in open_ones:
                writer.close()
            async with asyncio.timeout(WAIT_S):
                while not await served.raw(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n"):
                    pass

    async def test_a_port_in_use_and_an_address_that_is_not_ours(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            taken = run(tmp_path, http__port=port)
            assert taken.code == 75
            assert f"http.port = {port} is in use" in taken.err.splitlines()[-1]
        away = run(tmp_path, http__host="192.0.2.1", http__token=TOKEN)
        assert away.code == 78
        assert 'http.host = "192.0.2.1"' in away.err.splitlines()[-1]
        assert "Traceback" not in taken.err + away.err


def run(folder: Path, **keys: Any) -> Result:
    wanted = settings(storage__path="l.db", http__enabled="true", **keys)
    return paperloop(*wanted, "--polls", "1", folder=folder)


async def test_the_daemon_with_a_page_that_follows_it_stops_as_ever(tmp_path: Path) -> None:
    keys = settings(storage__path="l.db", http__enabled="true", http__port=0, feed__poll_interval_s=1.1)
    with ServedDaemon(*keys, folder=tmp_path) as daemon:
        async with aiohttp.ClientSession() as client, client.get(f"{daemon.address}api/events") as stream:
            states = [await next_state(stream)]
            # At a step, and not only now and then: from one state to the next there is one poll.
            while len(states) < 2 or states[-1]["polls"] != states[-2]["polls"] + 1:
                assert len(states) < 6
                states.append(await next_state(stream))
            assert states[-1]["health"]["alive"]
            assert (states[-1]["pid"], states[-1]["loop"]["blocked"]) == (daemon.pid, 0)
            daemon.send(signal.SIGTERM)
            async with asyncio.timeout(WAIT_S):
                await stream.read()
        assert daemon.finish().code == 0
    events = [event["event"] for event in daemon.events]
    assert events[-1] == "stopped"
    assert not {"a side task ended, so the daemon stops", "a request failed", "a connection failed"} & set(events)
