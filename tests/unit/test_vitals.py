"""What is known of the daemon, and the one predicate of being alive."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from bot.domain import Account
from bot.repositories import open_database
from bot.service.vitals import Histogram, Vitals, judged, of_ledger
from tests.integration.daemon import paperloop, settings
from tests.observed import Machine, Seen, no_prices

STALE_S = 10.0


@pytest.mark.parametrize(
    ("age_s", "alive", "words"),
    [
        (None, False, "no prices yet"),
        (0.0, True, ""),
        (STALE_S, True, ""),
        (STALE_S + 0.1, False, "no prices for 10.1 s, stale after 10 s"),
        (-59.0, True, ""),  # the clock was set back a little
        (-61.0, False, "the last prices are 61 s ahead of this machine's clock"),
    ],
)
def test_alive_is_who_stepped_just_now(age_s: float | None, alive: bool, words: str) -> None:
    health = judged(age_s, STALE_S)
    assert (health.alive, health.reason) == (alive, words)
    assert health.document["alive"] is alive


class TestVitals:
    @pytest.fixture
    def machine(self) -> Machine:
        return Machine()

    @pytest.fixture
    def vitals(self, machine: Machine) -> Vitals:
        return Vitals(machine, STALE_S, {"one": "sma_cross"})

    def test_nothing_but_a_step_keeps_it_alive(self, machine: Machine, vitals: Vitals) -> None:
        assert not vitals.health().alive
        vitals.stepped(Seen())
        assert vitals.health().alive
        for _ in range(11):
            machine.passes(1.0)
            vitals.interrupted(no_prices(), 1.0)
            vitals.resumed(1.0, 1)
        assert vitals.health().reason == "no prices for 11.0 s, stale after 10 s"
        vitals.stepped(Seen())
        assert vitals.health().alive

    def test_a_suspended_machine_is_not_alive(self, machine: Machine, vitals: Vitals) -> None:
        vitals.stepped(Seen())
        machine.wall_s += 3600
        assert not vitals.health().alive

    def test_nor_one_whose_clock_was_set_back(self, machine: Machine, vitals: Vitals) -> None:
        vitals.stepped(Seen())
        machine.wall_s -= 3600
        machine.now_s += 11
        assert not vitals.health().alive

    def test_accounts_are_copies_valued_at_the_last_prices(self, machine: Machine, vitals: Vitals) -> None:
        account = Account("one", "USDT", Decimal(100), Decimal(40))
        position = account.position("BTC/USDT")
        position.quantity, position.basis = Decimal(2), Decimal(60)
        status = Seen(accounts={"one": account}, prices={"BTC/USDT": 35.0}, quoted={"BTC/USDT": 35.0}, timestamp=7)
        vitals.stepped(status)
        account.cash = Decimal(-1)  # the next step, not in the ledger yet
        (shown,) = vitals.accounts
        assert (shown["strategy"], shown["cash"], shown["equity"], shown["profit"]) == ("sma_cross", 40.0, 110.0, 10.0)
        assert shown["positions"][0]["unrealised_pnl"] == 10.0
        assert vitals.equity == {"one": 110.0}
        assert vitals.seen == {"BTC/USDT": (35.0, 7)}
        vitals.stepped(status)
        assert vitals.accounts[0]["cash"] == 40.0, "valued again too soon"
        machine.passes(1.0)
        vitals.stepped(status)
        assert vitals.accounts[0]["cash"] == -1.0

    def test_what_the_ledger_says_is_known_and_makes_nobody_alive(self, vitals: Vitals) -> None:
        account = {"account": "one", "equity": 5.0}
        counts = {"polls": 3, "ticks": 6, "signals": 2, "trades": 1}
        vitals.recovered({"accounts": [account], "digest": "ab", **counts}, 7)
        assert (vitals.equity, vitals.polls, vitals.trades) == ({"one": 5.0}, 3, 1)
        assert (vitals.digest, vitals.timestamp) == ("ab", 7)
        assert vitals.health().reason == "no prices yet"
        vitals.troubled("feed", "the exchange is down")
        assert vitals.trouble is not None
        assert vitals.interruptions["feed"] == 1

    def test_troubles_are_counted_by_kind_and_the_last_one_is_kept(self, machine: Machine, vitals: Vitals) -> None:
        vitals.interrupted(no_prices(), 1.0)
        machine.passes(1.0)
        vitals.interrupted(OSError("disk"), 1.0)
        assert vitals.interruptions == {"feed": 1, "ledger": 1}
        assert vitals.trouble is not None
        assert vitals.trouble.document == {"at": "2023-11-14T22:13:21.000Z", "kind": "ledger", "error": "disk"}
        assert vitals.outage_since_ms == machine.now_ms() - 1000

    def test_a_step_is_the_end_of_an_outage(self, machine: Machine, vitals: Vitals) -> None:
        # Of a start that waited for its exchange: the loop, which began after it, does not say that it trades again.
        vitals.troubled("feed", "the exchange answers 503")
        assert vitals.outage_since_ms == machine.now_ms()
        vitals.stepped(Seen())
        assert vitals.outage_since_ms is None
        assert vitals.trouble is not None


def test_steps_fall_into_buckets() -> None:
    steps = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.2, 5.0):
        steps.add(seconds)
    assert steps.counts == [2, 1, 1]
    assert steps.sum_s == pytest.approx(5.35)


async def test_the_ledger_says_the_same_from_outside(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with open_database(path) as database:
        assert (await of_ledger(database, lambda: 0, STALE_S)).reason == "no prices yet"
        database.cursor.polls, database.cursor.timestamp = 1, 5_000
        assert (await of_ledger(database, lambda: 6_000, STALE_S)).age_s == 1.0
        assert not (await of_ledger(database, lambda: 16_000, STALE_S)).alive
        # A clock that was set back by a day: it is alive by what it writes, and not by what it wrote.
        database.cursor.timestamp = database.written_ms + 86_400_000
        assert (await of_ledger(database, lambda: database.written_ms + 2_000, STALE_S)).age_s == 2.0
        assert not (await of_ledger(database, lambda: database.written_ms + 11_000, STALE_S)).alive
        assert not (await of_ledger(database, lambda: database.written_ms - 61_000, STALE_S)).alive
        database.cursor.polls = 0
    async with open_database(path, read_only=True) as database:
        assert (await of_ledger(database, lambda: 0, STALE_S)).reason == "no daemon is running on this ledger"


def test_the_health_check_of_nothing_fails_in_words(tmp_path: Path) -> None:
    result = paperloop("healthcheck", *settings(storage__path="none.db"), folder=tmp_path)
    assert (result.code, result.err) == (1, "")
    assert result.out.startswith("not alive: there is no ledger at")
    assert not paperloop("healthcheck", "--json", folder=tmp_path).document["alive"]
