"""Whether the books add up, and whether a replay of the tape makes the same ledger."""

from __future__ import annotations

import asyncio
import signal
from types import FrameType
from typing import Annotated

import typer

from bot.cli.shared import AsJson, ConfigFiles, Overrides, application, settings_of, show


def _interruptible() -> None:
    """Ctrl-C ends it at once: there is nothing to finish, and asyncio would wait for a task that never waits."""

    def interrupted(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupted)


@application.command()
def audit(config: ConfigFiles = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Adds the whole ledger up again: books, digests, tape, seals, the file itself. Exit 65 if it does not add up."""
    from bot.compose import tune_collector
    from bot.proof import audited
    from bot.service import render

    tune_collector()
    _interruptible()
    document = asyncio.run(audited(settings_of(config, overrides).storage.path))
    show(document, as_json, lambda: render.audit(document))
    if not document["ok"]:
        raise typer.Exit(document["exit_code"])


@application.command()
def verify(
    config: ConfigFiles = None,
    overrides: Overrides = None,
    steps: Annotated[bool, typer.Option("--steps", help="One poll at a time, as it ran live; slower.")] = False,
    as_json: AsJson = False,
) -> None:
    """Replays the recorded tape through the loop and compares every row. Exit 1 and the first difference otherwise."""
    from bot.compose import tune_collector
    from bot.proof import verified
    from bot.service import render

    path = settings_of(config, overrides).storage.path
    tune_collector()
    _interruptible()
    document = asyncio.run(verified(path, steps=steps))
    show(document, as_json, lambda: render.verify(document))
    if not document["ok"]:
        raise typer.Exit(1)
