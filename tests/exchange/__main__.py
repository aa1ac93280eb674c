"""``python -m tests.exchange --kind binance --port 8123 --symbols 300``: a fake exchange, until it is interrupted."""

from __future__ import annotations

import argparse
import signal
import sys
from queue import SimpleQueue

from tests.exchange.faults import NAMES, Fault
from tests.exchange.handle import KINDS, running_exchange

LOG_SIZE = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.exchange", description=__doc__)
    parser.add_argument("--kind", choices=sorted(KINDS), default="binance")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--symbols", type=int, default=2, help="how many markets (default: 2)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--volatility", type=float, default=1.0)
    parser.add_argument("--fault", action="append", default=[], metavar="NAME", help=", ".join(sorted(NAMES)))
    given = parser.parse_args()
    # Not sigwait: a thread of a library, which does not block the signal, could get it and end the process.
    stop: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stop.put(number))
    with running_exchange(
        given.kind,
        port=given.port,
        symbols=given.symbols,
        seed=given.seed,
        volatility=given.volatility,
        log_size=LOG_SIZE,
    ) as exchange:
        exchange.plan([Fault(name) for name in given.fault])
        sys.stdout.write(f"{exchange.kind} with {given.symbols} markets on {exchange.url}\n")
        sys.stdout.flush()
        stop.get()


if __name__ == "__main__":
    main()
