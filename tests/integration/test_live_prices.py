"""The daemon as a process, with the real ccxt client, on an exchange that does everything wrong that one can do."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bot.service.journal import OUTAGES_MAX
from tests.exchange import FakeExchange, running_exchange
from tests.exchange.handle import Kind
from tests.integration.daemon import MAIN, Daemon, paperloop, pause, polls_in, rows, settings, wait_until
from tests.integration.proofs import said, said_of

BTC, ETH = "BTC/USDT", "ETH/USDT"
POLL_S = 0.02
# What a request gets instead of an answer, or an answer that is none.
BROKEN = (
    *("http429", "http418", "rate_msg", "http400", "http500", "http500[json]", "http502", "http503", "http504"),
    *("http520", "reset", "close", "mid_reset", "hang", "slow", "slow_body", "truncated", "html200", "empty200"),
    *("null200", "list200", "dict200", "nan_json", "bad_gzip"),
)
# An answer with something wrong in it. Those that are not traded on at all, whatever else is right:
SPOILED = (
    *("crossed", "locked", "missing_symbol", "no_bidask", "price_empty", "price_inf", "price_nan", "price_negative"),
    *("price_null", "price_text", "price_zero", "wrong_symbol"),
)
# and those that a venue without times has no chance to notice.
UNTIMELY = ("backwards_ts", "future_ts", "sec_ts", "stale_ts")
HARMLESS = ("frozen", "last_null", "last_zero", "null_ts")
# One that stays is believed in the end: that is how a market that has really moved is let in.
ABSURD = ("price_absurd", "price_tiny")
STRATEGY = '[{name="sma_cross", params={fast=2, slow=4}}]'


def live(kind: str, url: str, **keys: object) -> list[str]:
    given: dict[str, object] = {
        "feed__kind": "ccxt",
        "feed__ccxt__exchange": kind,
        "feed__ccxt__base_url": url,
        "feed__ccxt__options": "{timeout=5000, rateLimit=1}",
        "feed__poll_interval_s": POLL_S,
        "feed__stale_after_s": 1,
        "storage__path": "ledger.db",
        "strategy": STRATEGY,
    }
    return ["run", *settings(**(given | keys))]


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def check_books(folder: Path) -> None:
    for verb in ("audit", "verify"):
        result = paperloop(verb, *settings(storage__path="ledger.db"), folder=folder)
        assert result.code == 0, result


def check_prices(exchange: FakeExchange, ledger: Path, including: Iterable[str]) -> None:
    """Every price on the tape, and every fill, is one that the exchange validly served."""
    for symbol in (BTC, ETH):
        served = exchange.served(symbol, tuple(including))
        quotes = rows(ledger, f"SELECT bid, ask FROM quotes WHERE symbol = '{symbol}'")  # noqa: S608
        assert {(Decimal(repr(bid)), Decimal(repr(ask))) for bid, ask in quotes} <= served
        fills = rows(ledger, f"SELECT side, price FROM trades WHERE symbol = '{symbol}'")  # noqa: S608
        assert len(fills) > 2
        sides = {"buy": {ask for _, ask in served}, "sell": {bid for bid, _ in served}}
        assert all(Decimal(price) in sides[side] for side, price in fills)


def outages(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events if event["event"] in ("no prices", "trading again")]


def faulty_hour(kind: Kind, folder: Path) -> None:
    ledger = folder / "ledger.db"
    with ExitStack() as stack:
        exchange = stack.enter_context(running_exchange(kind, symbols=2, volatility=5.0))
        log = stack.enter_context((folder / "log").open("w"))
        impatient = live(kind, exchange.url, feed__ccxt__options="{timeout=250, rateLimit=1}")
        daemon = stack.enter_context(Daemon(*impatient, folder=folder, stderr=log))
        daemon.wait_until(lambda: polls_in(ledger) > 20, "the first polls")
        untimely = UNTIMELY if kind == "binance" else ()
        harmless = HARMLESS if kind == "binance" else (*HARMLESS, *UNTIMELY)
        begun_mb = 0.0
        for name in (*BROKEN, *SPOILED, *untimely, *harmless, *ABSURD, "clock_skew"):
            exchange.fault(name, skew_ms=20_000, end_request=8 if name in ABSURD else 10**9)
            before = polls_in(ledger)
            pause(0.35)
            exchange.clear()
            # A poll that was answered before the fault began may still be on its way into the ledger.
            if name in BROKEN + SPOILED + untimely and name != "backwards_ts":  # where every other one is good
                assert polls_in(ledger) <= before + 2, name
            after = polls_in(ledger)
            daemon.wait_until(lambda after=after: polls_in(ledger) > after + 5, f"{kind} after {name}")  # type: ignore[misc]
            begun_mb = begun_mb or resident_mb(daemon.pid)
        # The connection is refused for a while.
        exchange.stop()
        pause(0.5)
        exchange.start()
        after = polls_in(ledger)
        daemon.wait_until(lambda: polls_in(ledger) > after + 5, "after the exchange was down")
        assert resident_mb(daemon.pid) < begun_mb + 12
        result = daemon.stop()
        assert result.code == 0, result
        assert exchange.violations() == []
        check_books(folder)
        check_prices(exchange, ledger, harmless)
    text = (folder / "log").read_text()
    assert "Traceback" not in text
    told = outages([json.loads(line) for line in text.splitlines()])
    assert told == ["no prices", "trading again"] * (len(told) // 2)
    # More are counted and not told.
    assert len(told) == 2 * OUTAGES_MAX


@pytest.mark.timeout(180)
def test_an_hour_of_faults(tmp_path: Path) -> None:
    """3,600 beats and more of both exchanges, a second of faults for a minute of an hour."""
    kinds: tuple[Kind, ...] = ("binance", "kraken")
    folders = {kind: tmp_path / kind for kind in kinds}
    for folder in folders.values():
        folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(faulty_hour, kind, folder) for kind, folder in folders.items()]:
            done.result()


@pytest.mark.parametrize(("kind", "name"), [("binance", "delist"), ("binance", "halt"), ("kraken", "delist")])
def test_a_delisted_symbol_stops_alone(tmp_path: Path, kind: Any, name: str) -> None:
    ledger = tmp_path / "ledger.db"
    count = f"SELECT count(*) FROM quotes WHERE symbol = '{ETH}'"  # noqa: S608
    with running_exchange(kind, symbols=2) as exchange:
        with Daemon(*live(kind, exchange.url), folder=tmp_path) as daemon:
            daemon.wait_until(lambda: polls_in(ledger) > 5, "the first polls")
            exchange.fault(name, symbols=[ETH])
            answered = polls_in(ledger)
            daemon.wait_until(lambda: polls_in(ledger) > answered + 2, "what was answered before")
            seen, polls = rows(ledger, count)[0][0], polls_in(ledger)
            daemon.wait_until(lambda: polls_in(ledger) > polls + 10, "BTC goes on")
            # A market that is halted still answers: its list of markets tells, hours later or at the next start.
            assert (rows(ledger, count)[0][0] == seen) is (name == "delist")
            result = daemon.stop()
        assert result.code == 0, result
        told = [event for event in result.events if event.get("symbols") == ETH]
        assert len(told) <= 3
        (tmp_path / "ledger.db.markets.json").unlink()
        with Daemon(*live(kind, exchange.url), folder=tmp_path) as daemon:
            polls = polls_in(ledger)
            daemon.wait_until(lambda: polls_in(ledger) > polls + 5, "BTC after the start")
            result = daemon.stop()
        assert rows(ledger, count)[0][0] >= seen
        assert any(event["event"] == "no longer traded on the exchange" for event in result.events)
    check_books(tmp_path)


def test_starts_while_the_exchange_is_down(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    with running_exchange("binance", symbols=2) as exchange:
        first = paperloop(*live("binance", exchange.url), "--polls", "3", folder=tmp_path)
        assert first.code == 0, first
        exchange.stop()
        log = tmp_path / "log"
        with log.open("w") as stream, Daemon(*live("binance", exchange.url), folder=tmp_path, stderr=stream) as daemon:
            daemon.wait_until(lambda: "no prices" in log.read_text(), "word of the outage")
            pause(0.5)
            exchange.start()
            daemon.wait_until(lambda: polls_in(ledger) > 3, "prices after the exchange is back")
            result = daemon.stop()
        assert result.code == 0, result
        assert outages([json.loads(line) for line in log.read_text().splitlines()]) == ["no prices", "trading again"]
    check_books(tmp_path)


def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    """With markets kept from before, and without any: it waits, says so once, and a signal ends it at once."""
    with running_exchange("binance", symbols=2) as exchange:
        assert paperloop(*live("binance", exchange.url), "--polls", "3", folder=tmp_path).code == 0
    kept = tmp_path / "ledger.db.markets.json"
    kept.write_text(kept.read_text().replace(exchange.url, "http://exchange.invalid"))
    log = tmp_path / "log"
    for told in ("no prices", "waiting for the exchange's markets"):
        arguments = live("binance", "http://exchange.invalid")
        with log.open("w") as stream, Daemon(*arguments, folder=tmp_path, stderr=stream) as daemon:
            daemon.wait_until(lambda told=told: bool(said_of(log, told)), told)  # type: ignore[misc]
            pause(1.0)
            result = daemon.stop(timeout_s=15)
        assert result.code == 0, result
        assert [event["event"] for event in said(log) if event["level"] == "warning"] == [told]
        kept.unlink(missing_ok=True)


def test_a_signal_ends_a_request_that_hangs(tmp_path: Path) -> None:
    with running_exchange("binance", symbols=2) as exchange:
        arguments = live("binance", exchange.url, feed__ccxt__options="{timeout=20000}")
        with Daemon(*arguments, folder=tmp_path) as daemon:
            daemon.wait_until(lambda: polls_in(tmp_path / "ledger.db") > 2, "the first polls")
            exchange.fault("hang")
            seen = len(exchange.requests("ticker"))
            wait_until(lambda: len(exchange.requests("ticker")) > seen, "a request that hangs")
            pause(0.2)
            result = daemon.stop(timeout_s=15)
    assert result.code == 0, result
    assert outages(result.events) == []


def test_maintenance_is_left_alone_for_a_while(tmp_path: Path) -> None:
    with (
        running_exchange("binance", symbols=2) as exchange,
        Daemon(*live("binance", exchange.url), folder=tmp_path) as daemon,
    ):
        daemon.wait_until(lambda: polls_in(tmp_path / "ledger.db") > 2, "the first polls")
        exchange.fault("maintenance")
        wait_until(lambda: any(each.fault for each in exchange.requests("ticker")), "the maintenance")
        pause(2.0)
        assert sum(each.fault == "maintenance" for each in exchange.requests("ticker")) == 1
        result = daemon.stop()
    assert result.code == 0, result
    assert outages(result.events) == ["no prices"]


def test_one_request_a_poll(tmp_path: Path) -> None:
    with running_exchange("binance", symbols=300) as exchange:
        symbols = str(exchange.symbols).replace("'", '"')
        arguments = live("binance", exchange.url, feed__symbols=symbols, feed__poll_interval_s=0.2)
        result = paperloop(*arguments, "--polls", "10", folder=tmp_path)
        assert result.code == 0, result
        # The first one is to be confirmed by the second.
        assert len(exchange.requests("ticker")) == 11
        assert len(exchange.requests()) == 11 + len(exchange.requests("markets")) + len(
            exchange.requests("time")
        ) + len(exchange.requests("futures"))
        assert len(exchange.requests("markets")) == len(exchange.requests("time")) == 1


WRONG = [
    ({"feed__ccxt__exchange": "binanse"}, 'did you mean "binance"?'),
    ({"feed__ccxt__exchange": "bitso"}, "cannot be asked for all tickers at once"),
    ({"feed__ccxt__options": "{rateLimt=5}"}, "did you mean rateLimit?"),
    ({"feed__ccxt__options": '{timeout="5000"}'}, "must be a number"),
    ({"feed__ccxt__options": '{apiKey="k", secret="s"}'}, "need no credentials"),
    ({"feed__symbols": '["BTC/USDT", "ETH/USTD"]'}, "keep to symbols with one quote currency"),
    ({"feed__symbols": '["BTC/USDT", "ETHH/USDT"]'}, "did you mean ETH/USDT?"),
]


@pytest.mark.parametrize(("keys", "told"), WRONG)
def test_a_wrong_configuration(tmp_path: Path, keys: dict[str, object], told: str) -> None:
    with running_exchange("binance", symbols=2) as exchange:
        result = paperloop(*live("binance", exchange.url, **keys), "--polls", "1", folder=tmp_path)
    assert result.code == 78, result
    assert told in result.err
    assert "Traceback" not in result.err


def test_nothing_is_asked_where_the_ledger_is_taken(tmp_path: Path) -> None:
    with (
        running_exchange("binance", symbols=2) as exchange,
        Daemon(*live("binance", exchange.url), folder=tmp_path) as daemon,
    ):
        daemon.wait_until(lambda: polls_in(tmp_path / "ledger.db") > 2, "the first polls")
        markets = len(exchange.requests("markets"))
        assert paperloop(*live("binance", exchange.url), folder=tmp_path).code == 73
        assert len(exchange.requests("markets")) == markets
        daemon.stop()


@pytest.mark.parametrize("name", ["binance", "kraken"])
def test_the_shipped_configuration_runs(tmp_path: Path, name: Kind) -> None:
    """As it is, but for the address and the symbols that a fake exchange has."""
    file = str(MAIN.with_name("config") / f"{name}.toml")
    check = paperloop("config", "check", "--config", file, folder=tmp_path)
    assert check.code == 0, check
    with running_exchange(name, symbols=3) as exchange:
        symbols = str(exchange.symbols).replace("'", '"')
        keys = settings(feed__ccxt__base_url=exchange.url, feed__symbols=symbols, feed__poll_interval_s=0.5)
        # Kraken's own distance between requests, with its candles of three symbols, would take a quarter of a minute.
        fast = settings(feed__ccxt__options="{rateLimit=1}", storage__path="ledger.db")
        result = paperloop("run", "--config", file, *keys, *fast, "--polls", "3", folder=tmp_path)
    assert result.code == 0, result
    assert rows(tmp_path / "ledger.db", "SELECT count(*) FROM ticks WHERE warmup = 1")[0][0] > 100
    check_books(tmp_path)


def test_a_ledger_has_the_prices_of_one_market(tmp_path: Path) -> None:
    """A position bought on one and sold on another makes a profit that nobody made."""
    simulated = paperloop("run", "--polls", "2", *settings(storage__path="ledger.db"), folder=tmp_path)
    assert simulated.code == 0, simulated
    with running_exchange("binance", symbols=2) as exchange:
        result = paperloop(*live("binance", exchange.url), "--polls", "2", folder=tmp_path)
        assert result.code == 78
        assert "has prices of simulated, and these would be of binance: set another storage.path" in result.err
        assert exchange.requests() == []


def test_a_position_that_nobody_watches_is_told(tmp_path: Path) -> None:
    with running_exchange("binance", symbols=2) as exchange:
        arguments = live("binance", exchange.url, strategy='[{name="buy_and_hold"}]')
        assert paperloop(*arguments, "--polls", "3", folder=tmp_path).code == 0
        fewer = [*arguments, *settings(feed__symbols='["BTC/USDT"]')]
        result = paperloop(*fewer, "--polls", "3", folder=tmp_path)
    (told,) = [event for event in result.events if event["level"] == "warning"]
    assert told["event"] == "holds what is no longer watched"
    assert (told["account"], told["symbol"]) == ("buy_and_hold", ETH)
