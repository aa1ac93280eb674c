"""The daemon, and the configuration that it would run with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from bot.settings import Settings


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
    import faulthandler
    from dataclasses import asdict

    from bot.app import RunOptions, run
    from bot.repositories.errors import RowsAltered

    options = RunOptions(
        max_speed=max_speed,
        polls=polls,
        until_poll=until_poll,
        reread=reread_from(config, overrides),
    )
    # Where it was, when a watchdog ends it: SIGABRT.
    faulthandler.enable()
    try:
        document = asdict(asyncio.run(run(settings, options, context.obj)))
    except RowsAltered as error:
        from bot.proof import told

        fail(asyncio.run(told(settings.storage.path, error))["error"], error.exit_code)
    # Not before: it is megabytes that the daemon has no use for.
    from bot.service import render

    failed = document.pop("failed")
    show(document, as_json, lambda: render.summary(document), patient=False)
    if failed:
        raise typer.Exit(1)


def reread_from(config: list[Path] | None, overrides: list[str] | None) -> Callable[[], Settings]:
    """Reads the settings of a daemon that runs once more, from the same files.

    Strategies are not looked at: they need a restart anyway, and somebody's file is not to be run beside the trading.
    """
    from bot.settings import DEFAULT_FILE, SettingsError

    # One that is gone by then is missed, and does not mean that everything is to be as built in.
    files = config or ([DEFAULT_FILE] if DEFAULT_FILE.exists() else None)

    def reread() -> Settings:
        if unread := [file for file in files or () if os.path.exists(file) and not os.path.isfile(file)]:
            raise SettingsError([f"{file}: it is no file, and cannot be read a second time" for file in unread])
        return settings_of(files, overrides)

    return reread


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
        settings.http.secret()
        if settings.notify.urls:
            from bot.service.notify import sender

            sender(settings.notify.urls)
    except SettingsError as error:
        if not as_json:
            raise
        show({"ok": False, "problems": error.problems}, as_json=True)
        raise typer.Exit(EXIT_CONFIGURATION) from None
    names = [plan.strategy.name for plan in plans]
    told = f"ok: {settings.feed.kind} prices of {', '.join(settings.feed.symbols)} for {', '.join(names)}\n"
    show({"ok": True, "problems": [], "strategies": names}, as_json, lambda: told)
