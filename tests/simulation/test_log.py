"""A log that fits on any disk: what a simulated day of it comes to, with all that there is to tell."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from bot.service.journal import BYTES_A_HEARTBEAT, BYTES_AT_FIRST
from bot.settings import Settings
from tests.simulation.polled import polled

DAY_S, DAY_BYTES_MAX = 86_400, 10**6
# What does not count: the first prices, and the end of an outage that was still to come.
ONCE_BYTES = 500
STRATEGIES: list[dict[str, Any]] = [
    {"name": "sma_cross", "params": {"fast": 5, "slow": 20}},
    {"name": "rsi_reversion"},
]
# Some that can pay for what they want, and some that cannot.
MOODY = [
    {"name": f"{__package__}.polled:Moody", "account": f"moody-{cash}", "capital": cash, "quote_amount": 900}
    for cash in (101, 102, 10_001, 10_002)
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("strategies", "failures"),
    [
        pytest.param(STRATEGIES, 0.0, id="the default configuration"),
        pytest.param([*STRATEGIES, *MOODY], 0.05, id="everything goes wrong"),
    ],
)
def test_a_day_of_it_is_less_than_a_megabyte(
    strategies: Sequence[dict[str, Any]], failures: float, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Half an hour of it by default, and four hours at most, of which the second half is as any other."""
    settings = Settings.model_validate({"strategy": strategies, "storage": {"path": f"{tmp_path / 'ledger.db'}"}})
    log = StringIO()
    seconds = polled(settings, min(4 * 3600, round(7_200 * request.config.getoption("--days"))), log, failures)
    lines = log.getvalue().splitlines(keepends=True)
    told = Counter(json.loads(line)["event"] for line in lines)
    written = sum(len(line.encode()) for line in lines)
    assert written <= BYTES_AT_FIRST + BYTES_A_HEARTBEAT * seconds / 60 + ONCE_BYTES
    beats = [place for place, line in enumerate(lines) if '"heartbeat"' in line]
    assert len(beats) > seconds / 120
    first, last = beats[len(beats) // 2], beats[-1]
    begin, end = (datetime.fromisoformat(json.loads(lines[place])["at"]).timestamp() for place in (first, last))
    a_second = sum(len(line.encode()) for line in lines[first:last]) / (end - begin)
    assert BYTES_AT_FIRST + a_second * DAY_S < DAY_BYTES_MAX
    assert told["trade"] > 20
    assert any("trades_not_shown" in line for line in lines), "or it proves nothing"
    if failures:
        assert told["no prices"] > 2
        assert told["strategy failed, target held"]
        assert any("refusals_not_shown" in line for line in lines)
