"""The daemon, and the configuration that it would run with."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from bot.cli.shared import (
    EXIT_CONFIGURATION,
    AsJson,
    ConfigFiles,
    Overrides,
    application,
    config_verbs,
    fail,
    settings_of,
    show,
)


@application.command("run")
def run_verb(
    context: typer.Context,
    config: ConfigFiles = None,
    overrides: Overrides = None,
    max_speed: Annotated[
        bool, typer.Option("--max-speed", help="Simulated time, without waiting; from feed.simulated.start on.")
    ] = False,
    polls: Annotated[int | None, typer.Option("--polls", min=1, help="Stops after so many polls.")] = None,
    until_poll: Annotated[
        int | None, typer.Option("--until-poll", min=1, help="Stops when the ledger holds so many polls in all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Trades on paper until it is stopped (Ctrl-C or SIGTERM), then prints a summary."""
    settings = settings_of(config, overrides, strategies=True)
    from dataclasses import asdict

    from bot.app import RunOptions, run
    from bot.repositories.errors import RowsAltered
    from bot.service import render

    options = RunOptions(max_speed=max_speed, polls=polls, until_poll=until_poll)
    try:
        document = asdict(asyncio.run(run(settings, options, context.obj)))
    except RowsAltered as error:
        from bot.proof import told

        fail(asyncio.run(told(settings.storage.path, error))["error"], error.exit_code)
    show(document, as_json, lambda: render.summary(document))


@config_verbs.command("show")
def config_show(config: ConfigFiles = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """The configuration in force, and where each value comes from. Secrets are masked."""
    from bot.service import render
    from bot.settings import settings_with_origins

    settings, origins = settings_with_origins(config or (), overrides or ())
    show(settings.masked(), as_json, lambda: render.settings(settings.masked(), origins))


@config_verbs.command("check")
def config_check(config: ConfigFiles = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Says whether the daemon would start with this configuration; all problems at once, exit 78."""
    from bot.settings import SettingsError

    try:
        settings = settings_of(config, overrides, strategies=True)
        from bot.compose import plans_of

        plans = plans_of(settings)
    except SettingsError as error:
        if not as_json:
            raise
        show({"ok": False, "problems": error.problems}, as_json=True)
        raise typer.Exit(EXIT_CONFIGURATION) from None
    names = [plan.strategy.name for plan in plans]
    told = f"ok: {settings.feed.kind} prices of {', '.join(settings.feed.symbols)} for {', '.join(names)}\n"
    show({"ok": True, "problems": [], "strategies": names}, as_json, lambda: told)
