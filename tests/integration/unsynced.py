"""``python -m tests.integration.unsynced SYNCHRONOUS POLLS KEY=VALUE...``: a daemon that syncs less than FULL.

There is no such option: it exists to show that the power-cut simulator would see what it is looking for.
"""

from __future__ import annotations

import asyncio
import sys

from bot.app import RunOptions, run
from bot.service.stop import StopSignals
from bot.settings import load_settings

if __name__ == "__main__":
    synchronous, polls, *overrides = sys.argv[1:]
    settings = load_settings(overrides=overrides, default_file=None, strategies=True)
    options = RunOptions(polls=int(polls), synchronous="OFF" if synchronous == "OFF" else "NORMAL")
    asyncio.run(run(settings, options, StopSignals()))
