"""Any one write or fsync of a run fails: what was reported is kept, the ledger is sound, the next start goes on."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.integration.daemon import Result, paperloop, rows, settings
from tests.integration.powercut import check_state, reported
from tests.integration.strace import SYNCS, WRITES, ledger_paths, need_strace, only, traced

# Many symbols on few polls: enough fills in so few commits that every single write can be made to fail.
SYMBOLS = [f"{first}{second}A/USDT" for first in "ABCDE" for second in "ABCDEFGH"]
POLLS = 5
FILLS_MIN = 50
LEDGER = "ledger.db"
OVERRIDES = settings(
    storage__path=LEDGER,
    feed__poll_interval_s=0.01,
    feed__symbols=json.dumps(SYMBOLS),
    strategy='[{name="sma_cross", quote_amount=100, params={fast=2, slow=3}}]',
    log__level="debug",  # every trade, whatever there is room for
)
RUN = ["run", *OVERRIDES, "--polls", str(POLLS)]
EXIT_STORAGE = 74


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """How often a run makes each call on its ledger."""
    folder = tmp_path_factory.mktemp("undisturbed")
    need_strace(folder)
    result, found = traced(*RUN, folder=folder, options=only(folder / LEDGER))
    assert result.code == 0, result
    assert sum(row.table == "trades" for row in reported(result.err.splitlines())) >= FILLS_MIN
    return Counter(call.name for call in found)


def failing(top: Path, call: str, error: str, number: int) -> tuple[bool, list[str]]:
    """A run whose ``number``-th call fails once: whether it came to that, and all that is wrong with what it left.

    strace counts thread by thread, and a single one writes to the ledger.
    """
    folder = top / f"{call}-{number}"
    folder.mkdir()
    fault = f"inject={call}:error={error}:when={number}"
    # What was written is read from the file: -s 0 keeps it out of the trace.
    result, found = traced(*RUN, folder=folder, options=(*only(folder / LEDGER), "-e", fault, "-s", "0"))
    told = reported(result.err.splitlines())
    reached = any(one.injected for one in found)
    # Whoever opens a ledger mends it: what is looked at is a copy, so that the next start finds what was left.
    left = folder / "left"
    left.mkdir()
    for path in filter(os.path.exists, ledger_paths(folder / LEDGER)):
        shutil.copy(path, left)
    problems = wrong_words(result, left / LEDGER)
    if reached and call in SYNCS and result.code == 0:
        problems.append("it went on after an fsync that failed")
    findings = check_state(left / LEDGER, told)
    problems += [f"reported and not in the file: {row}" for row in findings.lost] + findings.broken
    again = paperloop("run", *OVERRIDES, "--polls", "1", folder=folder)
    if again.code != 0:
        problems.append(f"the next start exits with {again.code}: {again.err[-300:]}")
    findings = check_state(folder / LEDGER, [*told, *reported(again.err.splitlines())])
    problems += [f"not in the file after the next start: {row}" for row in findings.lost] + findings.broken
    shutil.rmtree(folder)
    return reached, [f"{fault}, exit {result.code}: {problem}" for problem in problems]


def wrong_words(result: Result, ledger: Path) -> list[str]:
    problems = []
    if "Traceback" in result.err:
        problems.append(f"a traceback: {result.err[-1000:]}")
    if result.code == 0:
        counts = [int(result.summary[name]) for name in ("polls", "ticks", "signals", "trades")]
        stored = rows(ledger, "SELECT polls, ticks, signals, trades FROM cursor")[0]
        if (*counts, POLLS) != (*stored, counts[0]):
            problems.append(f"the summary says {counts}, the file {stored}")
    elif result.code != EXIT_STORAGE:
        problems.append(f"not an exit code for a failing disk: {result.err[-300:]}")
    elif not result.err.splitlines()[-1].startswith("paperloop: "):
        problems.append(f"the last line does not say why: {result.err[-300:]}")
    return problems


def each(attempt: Callable[[int], tuple[bool, list[str]]], count: int, step: int) -> list[str]:
    """Attempts every ``step``-th number, two at a time, and goes on to where a run has no such call any more."""
    numbers = range((count - 1) % step // 2 + 1, count + 1, step)
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(attempt, numbers))
    # Live prices differ from run to run, and so do the pages that they fill: only the last few may be out of reach.
    missed = [number for number, (reached, _) in zip(numbers, outcomes, strict=True) if not reached]
    assert all(number > 0.8 * count for number in missed), missed
    following = numbers[-1]
    while outcomes[-1][0]:
        following += step
        outcomes.append(attempt(following))
    return [problem for _, problems in outcomes for problem in problems]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("kind", [WRITES, SYNCS], ids=["write", "fsync"])
def test_one_call_that_fails_costs_nothing_that_was_reported(
    tmp_path: Path, pytestconfig: pytest.Config, undisturbed: Counter[str], kind: tuple[str, ...], error: str
) -> None:
    step = pytestconfig.getoption("--io-every")
    counts = {call: undisturbed[call] for call in kind if undisturbed[call]}
    assert counts
    problems = [
        problem
        for call, count in counts.items()
        for problem in each(partial(failing, tmp_path, call, error), count, step)
    ]
    assert not problems, "\n".join([f"{len(problems)} problems", *problems[:10]])
