"""What can be said of the fake exchange without a client."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.exchange.faults import Fault, FaultBoard
from tests.exchange.handle import running_exchange
from tests.exchange.log import Log, Request
from tests.exchange.pair import BTC, COIN, ETH, NOW_MS
from tests.exchange.prices import Prices, markets


def test_one_seed_one_price() -> None:
    with running_exchange(seed=7) as first, running_exchange(seed=7, symbols=9) as same, running_exchange() as other:
        times = [NOW_MS + 777 * i for i in range(50)]
        one, two, three = ([e.prices.at(BTC, at_ms) for at_ms in times] for e in (first, same, other))
    assert one == two != three
    assert len(set(one)) > 40


def test_a_price_stays_what_it_was() -> None:
    """The numbers are what the first version gave; a test may have some of them written down."""
    known = Prices(markets(3), seed=1)
    assert [known.at(symbol, NOW_MS) for symbol in (BTC, ETH, COIN)] == [5917808, 307249, 3967422]


def test_a_plan_by_seconds_and_requests() -> None:
    board = FaultBoard()
    plan = [
        Fault("http503", start_s=10, end_s=20, endpoints="ticker"),
        Fault("price_nan", first_request=1, end_request=3, symbols=[BTC]),
    ]
    board.add(plan, 1_000.0)

    def names(endpoint: str, symbols: list[str] | None, at_s: float) -> list[str]:
        return [active.fault.name for active in board.hits(endpoint, symbols, 1_000.0 + at_s)]

    assert names("ticker", [ETH], 9.9) == []
    assert names("ticker", [ETH], 10.0) == ["http503"]
    assert names("klines", [ETH], 10.0) == []
    assert names("ticker", [ETH], 20.0) == []
    found = [names("ticker", symbols, 30.0) for symbols in ([BTC], [ETH], None, [BTC, ETH], [BTC])]
    assert found == [[], [], ["price_nan"], ["price_nan"], []]
    assert names("book_ticker", None, 30.0) == []  # counted for itself


def test_violations_are_requests_inside_a_retry_after() -> None:
    log = Log(size=10)
    told = {10.0: 2, 11.5: 3}
    for arrived in (9.0, 10.0, 10.05, 11.5, 12.0, 14.65, 14.75):
        request = Request(arrived, "GET", "/", {}, "ticker", answered=arrived + 0.1)
        request.retry_after_s = told.get(arrived)
        log.add(request)
    assert [request.arrived for request in log.violations()] == [11.5, 12.0]


def test_by_hand() -> None:
    command = [sys.executable, "-m", "tests.exchange", "--kind", "kraken", "--symbols", "3", "--fault", "locked"]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().split()[-1]
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
            connection.request("GET", "/0/public/Ticker?pair=XBT/USDT")
            ticker = json.loads(connection.getresponse().read())["result"]["XBTUSDT"]
            connection.close()
        finally:
            process.terminate()
        assert process.wait(10) == 0
    assert ticker["a"][0] == ticker["b"][0] == ticker["c"][0]


def test_an_unknown_fault_is_refused() -> None:
    with running_exchange() as exchange, pytest.raises(ValueError, match="no fault is called 'http999'"):
        exchange.fault("http999")
