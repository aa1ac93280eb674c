"""Is the daemon alive? For whoever starts it again: docker, a monitor, a cron job."""

from __future__ import annotations

import typer

from bot.cli.shared import AsJson, ConfigFiles, Overrides, application, settings_of, show


@application.command()
def healthcheck(config: ConfigFiles = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Exit 0 only if a daemon has committed a step on fresh prices just now; else 1, and why not."""
    from bot.cli.shared import read
    from bot.clock import SystemClock
    from bot.repositories import LedgerError
    from bot.service import vitals

    settings = settings_of(config, overrides)
    stale_after_s, now_ms = settings.stale_after_ms / 1000, SystemClock().now_ms
    try:
        health = read(settings, lambda database: vitals.of_ledger(database, now_ms, stale_after_s))
    except LedgerError as error:
        health = vitals.Health(False, str(error), None)
    show(health.document, as_json, lambda: f"{'alive' if health.alive else f'not alive: {health.reason}'}\n")
    if not health.alive:
        raise typer.Exit(1)
