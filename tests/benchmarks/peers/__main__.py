"""``python -m tests.benchmarks.peers [--quick] [--work N] [--only NAME] [--peer-python [NAME=]PATH] [--json]``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import compress, pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.peers.processes import OURS, PEERS, REFERENCE, Engine, EngineFailed, Installed, installed, running
from tests.benchmarks.peers.wholes import fresh, memory
from tests.benchmarks.peers.works import TIMED, TIMED_QUICKLY, Row, Tapes, timed

WORKS = {
    "1": "vectorised, warm",
    "2": "event-driven; only this project's fills are durable",
    "3": "a sweep over parameters",
    "4": "from the start of a process to printed figures",
    "5": "peak memory, in a process of its own",
}


def main() -> None:
    names = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description="This project and others.")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: about a minute")
    parser.add_argument("--work", action="append", choices=list(WORKS), help="; ".join(map(": ".join, WORKS.items())))
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"some of: {', '.join(names)}")
    parser.add_argument(
        "--peer-python",
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="an interpreter that has this peer, or all that it has; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="everything that was measured, as JSON")
    arguments = parser.parse_args()
    try:
        found = installed(arguments.peer_python)
    except ValueError as error:
        parser.error(str(error))
    found = [each for each in found if not arguments.only or each.peer.name in arguments.only]
    works = sorted(arguments.work or WORKS)
    console = Console(width=160, stderr=arguments.json)
    missing = [name for name in arguments.only or names if name not in {each.peer.name for each in found}]
    if missing:
        console.print(f"not installed: {', '.join(missing)}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for work, part in measured(found, works, Tapes(Path(folder)), arguments.quick):
            rows += part
            console.print(table(WORKS[work], part))
    if arguments.json:
        json.dump([dataclasses.asdict(row) for row in rows], sys.stdout, indent=1)


def measured(
    found: Sequence[Installed], works: Sequence[str], tapes: Tapes, quick: bool
) -> Iterator[tuple[str, list[Row]]]:
    """Each work with its rows, as soon as they are there."""
    cases = {work: (TIMED_QUICKLY if quick else TIMED)[work] for work in works if work in TIMED}
    if cases:
        with ExitStack() as stack:
            engines, broken = started(found, stack)
            for work, some in cases.items():
                yield work, [*broken, *(row for case in some for row in timed(case, engines, tapes))]
                broken = []
    if "4" in works:
        yield "4", fresh(found, tapes, rounds=1 if quick else 5, quick=quick)
    if "5" in works:
        yield "5", list(memory(found, tapes, quick))


def started(found: Sequence[Installed], stack: ExitStack) -> tuple[list[Engine], list[Row]]:
    """This project's engine and the reference, then the peers; and a row for each that does not start."""
    engines, broken = [], []
    for each in (Installed(OURS, sys.executable), Installed(REFERENCE, sys.executable), *found):
        try:
            engines.append(stack.enter_context(running(each.peer, each.python)))
        except EngineFailed as error:
            broken.append(Row("start", "", each.peer.name, each.peer.name, 0, problem=str(error)))
    return engines, broken


HEADINGS = ("", "engine", "time", "bars/s", "memory", "fills", "x ours", "min-max", "bar", "")


def table(title: str, rows: Sequence[Row]) -> Table:
    """Without the columns in which nothing was measured."""
    lines = [[row.title, row.engine, *_figures(row), row.problem or row.note] for row in rows]
    for before, line in reversed(list(pairwise(lines))):
        line[0] = "" if line[0] == before[0] else line[0]
    wanted = [any(column) for column in zip(*lines, strict=True)]
    shown = Table(*compress(HEADINGS, wanted), box=None, title=title, title_justify="left")
    for row, line in zip(rows, lines, strict=True):
        shown.add_row(*compress(line, wanted), style="bold" if row.name == OURS.name else None)
    return shown


def _figures(row: Row) -> list[str]:
    ratio = least = bar = speed = time = ""
    if row.median is not None:
        time = f"{row.median:.2f} s" if row.median >= 1 else f"{row.median * 1e3:.2f} ms"
        speed = "" if row.work == "fresh" else _short(row.bars / row.median)
    if row.ratios and row.name != OURS.name:
        ratio = f"{statistics.median(row.ratios):.2f}"
        least = f"{min(row.ratios):.2f}-{max(row.ratios):.2f}"
        bar = "" if row.bar is None else f">= {row.bar:.0f}" if row.bar >= 1 else f">= {row.bar:.2f}"
    memory_mb = "" if row.peak_mb is None else f"{row.peak_mb:,.0f} MB"
    fills = "" if row.fills is None else f"{row.fills:,}"
    return [time, speed, memory_mb, fills, ratio, least, bar]


def _short(value: float) -> str:
    return f"{value / 1e6:.3g}M" if value >= 1e6 else f"{value / 1e3:.3g}k"


if __name__ == "__main__":
    main()
