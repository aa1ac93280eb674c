"""A daemon that has stopped being useful is started anew, and then given all the time that its prices take."""

from __future__ import annotations

import pytest

from tests.exchange import FakeExchange, running_exchange
from tests.integration.daemon import pause, rows
from tests.systemd.service import FAST, Service, sound, strategies

pytestmark = pytest.mark.usefixtures("takes_seconds")

WATCHDOG = "WatchdogSec=2\n"
# More than a start takes on a busy machine, for its first word must come within that.
START_S = 5.0
IMPATIENT = f"TimeoutStartSec={START_S}\n"
BITTEN = "Watchdog timeout"
# When it is told to, once.
HANGS = """
import os
import threading
from pathlib import Path

from bot.strategies import build

hang = Path(os.environ["STATE_DIRECTORY"], "hang")


class Hangs:
    name = "hangs"
    lookback = 1

    def targets(self, bars):
        if hang.exists():
            hang.unlink()
            threading.Event().wait()
        return build("buy_and_hold").targets(bars)
"""


def asking(exchange: FakeExchange) -> str:
    connection = f'exchange = "{exchange.kind}"\nbase_url = "{exchange.url}"\noptions = {{ rateLimit = 1 }}\n'
    return f'{FAST}kind = "ccxt"\nstale_after_s = 1\n[feed.ccxt]\n{connection}'


def restarts(service: Service) -> int:
    return int(service.show("NRestarts"))


def test_prices_that_stop(service: Service) -> None:
    with running_exchange() as exchange:
        service.install(asking(exchange), WATCHDOG + IMPATIENT)
        service.start()
        exchange.fault("http503")
        service.wait_until(lambda: restarts(service) == 1, "the watchdog")
        assert any(BITTEN in line for line in service.said())
        service.wait_until(lambda: "503" in service.show("StatusText"), "what it waits for")
        # It asks for more time again and again, and is neither given up nor started anew.
        pause(START_S)
        assert (service.show("ActiveState"), restarts(service)) == ("activating", 1)
        polls = service.polls
        exchange.clear()
        service.wait_until(lambda: service.active, "trading again")
        assert service.polls > polls
        assert restarts(service) == 1
        service.systemctl("stop")
    assert service.show("Result") == "success"
    assert [reason for (reason,) in rows(service.ledger, "SELECT stop_reason FROM runs")] == [None, "stopped"]
    sound(service)


def test_a_first_start_without_an_exchange(service: Service) -> None:
    with running_exchange() as exchange:
        exchange.fault("http503")
        service.install(asking(exchange), WATCHDOG + IMPATIENT)
        service.systemctl("start", "--no-block")
        service.wait_until(lambda: "503" in service.show("StatusText"), "what it waits for")
        pause(START_S)
        assert (service.show("ActiveState"), restarts(service)) == ("activating", 0)
        exchange.clear()
        service.wait_until(lambda: service.active, "trading")
        assert service.polls > 0
        assert restarts(service) == 0


def test_stopped_while_it_waits_for_its_exchange(service: Service) -> None:
    with running_exchange() as exchange:
        exchange.fault("http503")
        service.install(asking(exchange))
        service.systemctl("start", "--no-block")
        service.wait_until(lambda: "503" in service.show("StatusText"), "what it waits for")
        assert service.systemctl("stop").returncode == 0
    assert (service.show("Result"), service.show("ExecMainStatus")) == ("success", "0")


def test_a_loop_that_is_blocked(service: Service) -> None:
    service.install(strategies(service, HANGS, "hangs") + FAST, WATCHDOG)
    service.start()
    service.ledger.with_name("hang").touch()
    service.wait_until(lambda: restarts(service) == 1 and service.active, "started anew")
    said = service.said()
    assert any(BITTEN in line for line in said)
    # Where it hung, from the interpreter itself.
    assert any('hangs.py"' in line and "in targets" in line for line in said)
    sound(service)


def test_a_process_that_stands_still(service: Service) -> None:
    service.install(FAST, WATCHDOG)
    service.start()
    service.kill("STOP")
    service.wait_until(lambda: restarts(service) == 1 and service.active, "started anew")
    assert any(BITTEN in line for line in service.said())
    sound(service)
