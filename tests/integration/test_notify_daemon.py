"""Notifications by the real daemon: what goes out, what it costs, and that no secret shows on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.exchange import running_exchange
from tests.integration.daemon import Daemon, paperloop, rows, settings
from tests.integration.test_live_prices import live
from tests.integration.test_log_lines import PANIC
from tests.integration.test_notify import TOKEN, serving

pytest.importorskip("apprise", reason="notifications need apprise")

FAST = '[{name="sma_cross", params={fast=1, slow=2}}]'


def short(url: str, **more: object) -> list[str]:
    keys = {"notify__urls": json.dumps([url]), "feed__poll_interval_s": 0.02, "storage__path": "ledger.db"}
    return settings(**(keys | {"strategy": FAST} | more))


@pytest.mark.parametrize("status", [200, 500, 0], ids=["answers", "refuses", "never answers"])
def test_trades_go_out_and_do_not_depend_on_it(tmp_path: Path, status: int) -> None:
    with serving(status) as service, Daemon(*short(service.url()), "--polls", "60", folder=tmp_path) as daemon:
        result = daemon.finish()
        assert result.code == 0, result
        ((trades,),) = rows(tmp_path / "ledger.db", "SELECT trades FROM cursor")
        assert trades > 10
        assert service.messages[0]["title"] == f"Paperloop: {trades} trades"
    assert paperloop("verify", *settings(storage__path="ledger.db"), folder=tmp_path).code == 0
    assert TOKEN not in result.err
    assert TOKEN not in str(rows(tmp_path / "ledger.db", "SELECT config FROM runs"))
    ends = ["stopped"] + ["a notification was not delivered"] * (status == 500)
    ends += ["notifications were not delivered before the end"] * (status == 0)
    assert [event["event"] for event in result.events][-len(ends) :] == ends


def test_a_mistake_in_the_program_is_a_halt(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "odd.py").write_text(PANIC)
    with serving() as service:
        keys = short(service.url(), strategy_folder="mine", strategy='[{name="odd"}]')
        with Daemon(*keys, folder=tmp_path) as daemon:
            assert daemon.finish().code == 1
    ((title, body),) = [(message["title"], message["message"]) for message in service.messages]
    assert (title, body) == ("Paperloop: halt", "halted: Panic: a\\x0ab\\x1b[31m")


def test_an_exchange_that_repeats_a_secret(tmp_path: Path) -> None:
    """Whoever knows a password says it in the middle of a sentence."""
    log = tmp_path / "log"
    with running_exchange("binance", symbols=2) as exchange, log.open("w") as stream:
        exchange.fault("http500", text=f"hello {TOKEN}\n{TOKEN}", endpoints=["ticker"])
        keys = live("binance", exchange.url, log__level="debug", notify__urls=json.dumps([f"json://host/{TOKEN}"]))
        with Daemon(*keys, folder=tmp_path, stderr=stream) as daemon:
            daemon.wait_until(lambda: "no prices" in log.read_text(), "word of it")
            assert daemon.stop().code == 0
    assert "hello *** ***" in log.read_text()
    assert "hunter2" not in log.read_text()


def test_addresses_that_nobody_understands(tmp_path: Path) -> None:
    for verb in (["run"], ["config", "check"]):
        result = paperloop(*verb, *short(f"nonsense://{TOKEN}"), folder=tmp_path)
        assert (result.code, result.out) == (78, "")
        assert result.err == "paperloop: notify.urls: apprise does not understand address 1 (nonsense://...)\n"
