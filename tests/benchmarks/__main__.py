"""``python -m tests.benchmarks [NAME ...] [--scale 0.1]``: ratios to references timed in the same run."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.measure import MEASUREMENTS


def main() -> None:
    names = [measure.__name__ for measure in MEASUREMENTS]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(names)}")
    parser.add_argument("--scale", type=float, default=1.0, help="less work, for a quick look")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(names)):
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(names)}")
    table = Table("what", "this", "reference", "ratio", "bar", box=None)
    for measure in MEASUREMENTS:
        if arguments.names and measure.__name__ not in arguments.names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            for line in measure(Path(folder), arguments.scale):
                ratio = "" if line.ratio is None else f"{line.ratio:.2f}"
                table.add_row(line.what, line.figure, line.reference, ratio, line.bar)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
