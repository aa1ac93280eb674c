"""The verbs. Results go to stdout, logs and errors to stderr; what a verb needs is imported when it runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from bot.repositories import Database
    from bot.service.stop import StopSignals
    from bot.settings import Settings

EXIT_USAGE = 2
EXIT_CONFIGURATION = 78
T = TypeVar("T")

application = typer.Typer(
    name="paperloop",
    help="A paper-trading daemon whose books can be proven. Without a verb: run.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_verbs = typer.Typer(help="Show or check the configuration.", no_args_is_help=True, rich_markup_mode=None)
application.add_typer(config_verbs, name="config")

ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="A configuration file; repeat to merge several, the later wins."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Overrides one setting, e.g. --set feed.poll_interval_s=5."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Prints one JSON document.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="How many, the newest.")]
Symbol = Annotated[str | None, typer.Option("--symbol", help="Only this symbol.")]
AccountName = Annotated[str | None, typer.Option("--account", help="Only this account.")]


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
    settings = _settings(config, overrides, strategies=True)
    from dataclasses import asdict

    from bot.app import RunOptions, run
    from bot.service import render

    options = RunOptions(max_speed=max_speed, polls=polls, until_poll=until_poll)
    document = asdict(asyncio.run(run(settings, options, context.obj)))
    _show(document, as_json, lambda: render.summary(document))


@application.command()
def status(config: ConfigFiles = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Accounts, positions, open orders and the age of the data."""
    from bot.clock import SystemClock
    from bot.service import inspect, render

    settings = _settings(config, overrides)
    # An interval longer than that makes no price stale before the next one is due.
    stale_after_s = max(settings.feed.stale_after_s, 3 * settings.feed.poll_interval_s)
    document = _read(settings, lambda database: inspect.status(database, SystemClock().now_ms(), stale_after_s))
    _show(document, as_json, lambda: render.status(document))


@application.command()
def trades(
    config: ConfigFiles = None,
    overrides: Overrides = None,
    limit: Limit = 20,
    symbol: Symbol = None,
    account: AccountName = None,
    as_json: AsJson = False,
) -> None:
    """The newest trades."""
    _list("trades", _settings(config, overrides), limit, symbol, account, as_json)


@application.command()
def signals(
    config: ConfigFiles = None,
    overrides: Overrides = None,
    limit: Limit = 20,
    symbol: Symbol = None,
    account: AccountName = None,
    as_json: AsJson = False,
) -> None:
    """The newest signals, each with its verdict."""
    _list("signals", _settings(config, overrides), limit, symbol, account, as_json)


@application.command()
def why(
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="For example BTC/USDT.")],
    time: Annotated[
        str, typer.Argument(metavar="TIME", help="UTC: 2025-01-01T12:00:00Z, 12:00:00 of today, milliseconds, or now.")
    ] = "now",
    config: ConfigFiles = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Why it traded, or did not, at a moment: the prices, the target, the verdict and its reason."""
    from bot.clock import SystemClock, parse_time
    from bot.service import inspect, render

    settings = _settings(config, overrides)
    try:
        timestamp = parse_time(time, SystemClock().now_ms())
    except ValueError as error:
        _fail(str(error), EXIT_USAGE)

    async def ask(database: Database) -> inspect.Document:
        wanted, _ = await _known(database, symbol, None)
        return await inspect.why(database, str(wanted), timestamp)

    document = _read(settings, ask)
    _show(document, as_json, lambda: render.why(document))


@config_verbs.command("show")
def config_show(config: ConfigFiles = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """The configuration in force, and where each value comes from. Secrets are masked."""
    from bot.service import render
    from bot.settings import settings_with_origins

    settings, origins = settings_with_origins(config or (), overrides or ())
    _show(settings.masked(), as_json, lambda: render.settings(settings.masked(), origins))


@config_verbs.command("check")
def config_check(config: ConfigFiles = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Says whether the daemon would start with this configuration; all problems at once, exit 78."""
    from bot.settings import SettingsError

    try:
        settings = _settings(config, overrides, strategies=True)
        from bot.app import plans_of

        plans = plans_of(settings)
    except SettingsError as error:
        if not as_json:
            raise
        _show({"ok": False, "problems": error.problems}, as_json=True)
        raise typer.Exit(EXIT_CONFIGURATION) from None
    names = [plan.strategy.name for plan in plans]
    told = f"ok: {settings.feed.kind} prices of {', '.join(settings.feed.symbols)} for {', '.join(names)}\n"
    _show({"ok": True, "problems": [], "strategies": names}, as_json, lambda: told)


def _settings(config: list[Path] | None, overrides: list[str] | None, *, strategies: bool = False) -> Settings:
    from bot.settings import load_settings

    return load_settings(config or (), overrides or (), strategies=strategies)


def _list(
    kind: Literal["trades", "signals"],
    settings: Settings,
    limit: int,
    symbol: str | None,
    account: str | None,
    as_json: bool,
) -> None:
    """The newest rows of a table, narrowed to a symbol or an account that the ledger knows."""
    from bot.service import inspect, render

    read, text = (inspect.trades, render.trades) if kind == "trades" else (inspect.signals, render.signals)

    async def ask(database: Database) -> list[inspect.Document]:
        return await read(database, limit, *await _known(database, symbol, account))

    rows = _read(settings, ask)
    _show(rows, as_json, lambda: text(rows))


def _read(settings: Settings, ask: Callable[[Database], Awaitable[T]]) -> T:
    """An answer from the ledger over a read-only connection, which a running daemon does not notice."""
    from bot.repositories import open_database

    async def answer() -> T:
        async with open_database(settings.storage.path, read_only=True) as database:
            return await ask(database)

    return asyncio.run(answer())


async def _known(database: Database, symbol: str | None, account: str | None) -> tuple[str | None, str | None]:
    """The symbol, as the ledger writes it, and the account; ends with exit code 2 if the ledger has no such."""
    from bot.service import inspect

    wanted = _norm(symbol)
    symbols, accounts = await inspect.known_symbols(database), await inspect.known_accounts(database)
    if wanted is not None and wanted not in symbols:
        _fail(f"{symbol}: the ledger has no such symbol; it has {', '.join(symbols) or 'none yet'}", EXIT_USAGE)
    if account is not None and account not in accounts:
        _fail(f"{account}: the ledger has no such account; it has {', '.join(accounts) or 'none yet'}", EXIT_USAGE)
    return wanted, account


def _norm(symbol: str | None) -> str | None:
    return None if symbol is None else symbol.upper().replace("-", "/")


def _show(document: Any, as_json: bool, render: Callable[[], str] = str) -> None:
    """The one way to stdout. A reader that has left is no failure: `paperloop trades | head -1`."""
    import orjson

    options = orjson.OPT_APPEND_NEWLINE | (orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0)
    text = orjson.dumps(document, option=options).decode() if as_json else render()
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
    except OSError as error:
        _drop_stdout()
        _fail(f"cannot write the result: {error.strerror}", 1)


def _drop_stdout() -> None:
    # The interpreter flushes once more at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(text: str, code: int) -> NoReturn:
    typer.echo(f"paperloop: {text}", err=True)
    raise typer.Exit(code)


def _with_verb(arguments: list[str]) -> list[str]:
    """``run`` is what no verb means; its options then stand where the verb would."""
    if arguments and (not arguments[0].startswith("-") or arguments[0] in {"-h", "--help"}):
        return arguments
    return ["run", *arguments]


def run_command(arguments: list[str], stop: StopSignals) -> None:
    """Runs a verb and ends the process with its exit code. Only ``run`` has something to finish when it is stopped."""
    arguments = _with_verb(arguments)
    if arguments[:1] != ["run"]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        application(arguments, prog_name="paperloop", obj=stop)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - what is not the user's to mend is raised again
        code, lines = _told(error)
        for line in lines:
            typer.echo(f"paperloop: {line}", err=True)
        sys.exit(code)


def _told(error: Exception) -> tuple[int, list[str]]:
    """Exit code and words for an error that is the user's to mend; any other is raised again, with its traceback."""
    from bot.repositories import LedgerError
    from bot.settings import SettingsError

    if isinstance(error, SettingsError):
        return EXIT_CONFIGURATION, error.problems
    if isinstance(error, LedgerError):
        return error.exit_code, [str(error)]
    raise error
