"""Where the process begins: what must be there before anything that takes time to import."""

from __future__ import annotations

import os
import sys

from bot import __version__
from bot.service.stop import StopSignals

VERSION = "--version"


def main() -> None:
    """The command ``paperloop``."""
    if sys.argv[1:2] == [VERSION]:
        sys.stdout.write(f"paperloop {__version__}\n")
        return
    _open_missing_streams()
    stop = StopSignals()
    # Before numpy is imported: its linear algebra would start a thread for every processor, and nothing here uses it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from bot.cli import run_command

    run_command(sys.argv[1:], stop)


def _open_missing_streams() -> None:
    """A daemon may be started with closed descriptors; the ledger must not be given the number of one of them."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the process's life
