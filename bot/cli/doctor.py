"""What could keep the daemon from running well."""

from __future__ import annotations

import asyncio
import sys

import typer

from bot.cli.shared import AsJson, ConfigFiles, Overrides, application, settings_of, show


@application.command("doctor")
def doctor_verb(config: ConfigFiles = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Looks at the machine, the ledger and the exchange; a line each. Exit 1 if anything would keep it from running."""
    settings = settings_of(config, overrides, strategies=True)
    from bot.compose import plans_of

    plans_of(settings)
    from rich.console import Console

    from bot.doctor import State, examined
    from bot.service import render

    with Console(file=sys.stderr).status("looking around ..."):
        checks = asyncio.run(examined(settings))
    good = all(check.state is not State.FAILED for check in checks)
    document = {"ok": good, "checks": [check.document() for check in checks]}
    show(document, as_json, lambda: render.doctor(document))
    if not good:
        raise typer.Exit(1)
