"""The settings: one frozen model, merged from defaults, files, environment and ``--set``."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from bot.settings import values
from bot.settings.problems import MASK, Origin, Problem, SettingsError, show_key, showable
from bot.settings.schema import schema_of
from bot.settings.secrets import secret_file, secrets_in, too_open
from bot.settings.sources import Layer, Sources
from bot.settings.strategies import problems_of

__all__ = ["Settings", "SettingsError", "load_settings", "settings_with_origins"]

DEFAULT_FILE = Path("config/paperloop.toml")
DEFAULT_EQUITY_FRACTION = Decimal("0.25")
STRATEGIES_MAX = 100
_SIZES = ("quantity", "quote_amount", "equity_fraction")
_LAYERS = "layers_of_settings"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SimulatedFeedSettings(_Table):
    seed: values.Seed = 7
    volatility: values.Volatility = 0.0005
    start: values.Instant = datetime(2025, 1, 1, tzinfo=UTC)

    @property
    def start_ms(self) -> int:
        return round(self.start.timestamp() * 1000)


class CcxtFeedSettings(_Table):
    exchange: values.Exchange = "binance"
    base_url: values.Url = ""
    # A key to an exchange is worth money: not even a debugging print of the settings shows it.
    options: values.FreeTable = Field(default={}, repr=False)
    jump_max: values.JumpMax = 0.1
    frozen_after_s: values.FrozenAfter = 300.0


class ReplayFeedSettings(_Table):
    path: values.OptionalPath = ""


class FeedSettings(_Table):
    kind: values.Kind = "simulated"
    symbols: values.Symbols = ("BTC/USDT", "ETH/USDT")
    poll_interval_s: values.PollInterval = 1.0
    stale_after_s: values.StaleAfter = 10.0
    simulated: SimulatedFeedSettings = SimulatedFeedSettings()
    ccxt: CcxtFeedSettings = CcxtFeedSettings()
    replay: ReplayFeedSettings = Field(default=ReplayFeedSettings(), validate_default=True)

    @property
    def poll_interval_ms(self) -> int:
        return round(self.poll_interval_s * 1000)

    @field_validator("replay")
    @classmethod
    def _replay_needs_a_file(cls, replay: ReplayFeedSettings, info: ValidationInfo) -> ReplayFeedSettings:
        if info.data.get("kind") == "replay" and not replay.path:
            raise values.InnerError('it must be the file to replay, because feed.kind = "replay"', ("path",))
        return replay


class StrategySettings(_Table):
    """One strategy and its account. Exactly one of the three sizes is set."""

    name: values.StrategyName
    params: values.FreeTable = {}
    timeframe: values.Timeframe = "tick"
    account: values.Name = Field(default_factory=lambda data: data["name"])
    capital: values.Amount = Decimal(10_000)
    quantity: values.Amount | None = None
    quote_amount: values.Amount | None = None
    equity_fraction: values.Fraction | None = Field(
        default_factory=lambda data: None if _sizes_set(data) else DEFAULT_EQUITY_FRACTION
    )

    @field_validator(*_SIZES)
    @classmethod
    def _one_size(cls, size: Decimal | None, info: ValidationInfo) -> Decimal | None:
        others = _sizes_set(info.data)
        if size is not None and others:
            raise ValueError(f"only one of {', '.join(_SIZES)} may be set, and {others[0]} is set too")
        return size


def _sizes_set(data: Mapping[str, Any]) -> list[str]:
    return [name for name in _SIZES if data.get(name) is not None]


class ExecutionSettings(_Table):
    # None: each market's own.
    fee_rate: values.FeeRate | None = None
    slippage_bps: values.BasisPoints = Decimal(0)
    fill: values.Fill = "next_open"


class StorageSettings(_Table):
    path: values.FilePath = "data/paperloop.db"
    record_ticks: values.Flag = True
    keep_ticks_days: values.Days = 30


class LogSettings(_Table):
    level: values.Level = "info"
    format: values.Format = "auto"


class HttpSettings(_Table):
    enabled: values.Flag = False
    host: values.Host = "127.0.0.1"
    port: values.Port = 8080
    hosts: values.HostNames = ()
    token: values.Token = SecretStr("")
    token_file: values.OptionalPath = Field(default="", validate_default=True)

    @field_validator("token_file")
    @classmethod
    def _one_token(cls, file: str, info: ValidationInfo) -> str:
        """Whoever can reach the address can read the books: beyond this machine only with a token."""
        token = info.data.get("token")
        if file and token and token.get_secret_value():
            raise ValueError("http.token is set too; leave one of the two out")
        host = info.data.get("host", "127.0.0.1")
        bare = token is not None and not file and not token.get_secret_value()
        if info.data.get("enabled") and bare and not values.is_loopback(host):
            raise ValueError(f"{host} is reachable from other machines: this or http.token must be set")
        return file

    def secret(self) -> str:
        """What is asked for: the token, or what its file holds; empty: nothing. Raises SettingsError."""
        if not self.token_file:
            return self.token.get_secret_value()
        try:
            return values.token(secret_file(Path(self.token_file))).get_secret_value()
        except ValueError as error:
            raise SettingsError([f"http.token_file: {self.token_file} {error}"]) from None


class NotifySettings(_Table):
    urls: values.NotifyUrls = ()
    events: values.NewsKinds = ("trades", "outages", "halts")
    outage_after_s: values.OutageAfter = 60.0
    per_hour_max: values.PerHour = 30


class Settings(BaseSettings):
    """``Settings()`` is the built-in defaults and reads nothing; ``load_settings`` reads the sources."""

    # What is refused may be a secret in the wrong place, and pydantic's own words would show it.
    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    strategy_folder: values.Folder = ""
    feed: FeedSettings = FeedSettings()
    strategy: tuple[StrategySettings, ...] = (
        StrategySettings(name="sma_cross", params={"fast": 5, "slow": 20}),
        StrategySettings(name="rsi_reversion"),
    )
    execution: ExecutionSettings = ExecutionSettings()
    storage: StorageSettings = StorageSettings()
    log: LogSettings = LogSettings()
    http: HttpSettings = HttpSettings()
    notify: NotifySettings = NotifySettings()

    @property
    def stale_after_ms(self) -> int:
        """An interval longer than ``stale_after_s`` makes no price stale before the next one is due."""
        return round(1000 * max(self.feed.stale_after_s, 3 * self.feed.poll_interval_s))

    def masked(self) -> dict[str, Any]:
        """As JSON can hold it: decimals as text, secrets as ``***``, what is not set left out."""
        return {name: showable(value, name) for name, value in self}

    def secrets(self) -> tuple[str, ...]:
        """What must not be in a log or a message, wherever it comes from: the longest first, in every spelling."""
        # A strategy's parameter may be called key without being one.
        return secrets_in({name: value for name, value in self if name != "strategy"})

    @field_validator("strategy", mode="wrap")
    @classmethod
    def _one_account_each(cls, entries: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        """Judges the accounts as they were given: a wrong value elsewhere in an entry hides no clash."""
        if isinstance(entries, list | tuple) and not 1 <= len(entries) <= STRATEGIES_MAX:
            raise ValueError(f"must list between 1 and {STRATEGIES_MAX} strategies")
        clashes = _account_clashes(entries)
        if not clashes:
            return validate(entries)
        try:
            validate(entries)
        except ValidationError as error:
            clashes = [*map(_again, error.errors()), *clashes]
        raise ValidationError.from_exception_data(cls.__name__, clashes)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        layers: Sequence[Layer] = ()
        if isinstance(init_settings, InitSettingsSource):
            layers = init_settings.init_kwargs.pop(_LAYERS, ())
        return (init_settings, *(_LayerSource(settings_cls, layer) for layer in reversed(layers)))


class _LayerSource(PydanticBaseSettingsSource):
    def __init__(self, settings_cls: type[BaseSettings], layer: Layer) -> None:
        super().__init__(settings_cls)
        self._table = dict(layer.table)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._table.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._table


def load_settings(
    config_files: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    default_file: Path | None = DEFAULT_FILE,
    *,
    strategies: bool = False,
) -> Settings:
    """Merges all sources, the later winning; raises SettingsError with every problem of every source.

    ``overrides`` are the texts of ``--set``; ``environ`` is os.environ if None; ``default_file`` is read if
    it exists and no config file is named; with ``strategies`` the problems tell of their names and parameters too.
    """
    return settings_with_origins(config_files, overrides, environ, default_file, strategies=strategies)[0]


def settings_with_origins(
    config_files: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    default_file: Path | None = DEFAULT_FILE,
    *,
    strategies: bool = False,
) -> tuple[Settings, dict[str, str]]:
    """As ``load_settings``, and for each dotted key who set it: "default", a file, a variable or "--set"."""
    sources = Sources(schema_of(Settings))
    for file in config_files:
        sources.add_file(file)
    if not config_files and default_file is not None:
        sources.add_file(default_file, optional=True)
    sources.add_environment(os.environ if environ is None else environ)
    for override in overrides:
        sources.add_override(override)
    problems = list(sources.problems)
    arguments: dict[str, Any] = {_LAYERS: sources.layers}
    try:
        settings = Settings(**arguments)
    except ValidationError as error:
        problems += [_problem(details, sources.layers) for details in error.errors() if _is_cause(details)]
    lines = [problem.line for problem in sorted(problems)]
    if strategies:
        lines += problems_of(sources.layers)
    if lines:
        raise SettingsError(lines)
    leaves = _leaves(settings.masked(), ())
    origins = {path: _origin(path, sources.layers) for path in leaves}
    if lines := list(_exposed(leaves, origins)):
        raise SettingsError(lines)
    return settings, {show_key(path): origin.text for path, origin in origins.items()}


def _leaves(table: Mapping[str, Any], path: tuple[str, ...]) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for key, value in table.items():
        full = (*path, key)
        found |= _leaves(value, full) if isinstance(value, Mapping) and value else {full: value}
    return found


def _exposed(leaves: Mapping[tuple[str, ...], Any], origins: Mapping[tuple[str, ...], Origin]) -> Iterator[str]:
    """A line for each secret in a file that everybody may read, or that others may change."""
    for path, value in leaves.items():
        # A strategy's parameter may be called key without being one.
        if origins[path].word == "in" and path[0] != "strategy" and MASK in str(value):
            with suppress(OSError):
                if told := too_open(os.stat(origins[path].text).st_mode):
                    yield f"{show_key(path)} {origins[path]}: it is to be kept secret, and the file {told}"


def _origin(path: tuple[str | int, ...], layers: Sequence[Layer]) -> Origin:
    setting = (layer.origin for layer in reversed(layers) if layer.sets(path))
    return next(setting, Origin(0, "default"))


def _account_clashes(entries: Any) -> list[InitErrorDetails]:
    users: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for position, entry in enumerate(entries if isinstance(entries, list | tuple) else ()):
        given = entry.model_dump() if isinstance(entry, StrategySettings) else entry
        name = given.get("name") if isinstance(given, Mapping) else None
        account = given.get("account", name) if isinstance(given, Mapping) else None
        if isinstance(account, str):
            users[account].append((position, str(name)))
    return [_clash(position, account, first) for account, (first, *more) in users.items() for position, _ in more]


def _clash(position: int, account: str, first: tuple[int, str]) -> InitErrorDetails:
    other = f"strategy#{first[0] + 1} ({first[1]})"
    text = f'{other} has this account too; set account = "..." to give one of them its own'
    return InitErrorDetails(
        type=PydanticCustomError("shared_account", "{text}", {"text": text}),
        loc=(position, "account"),
        input=account,
    )


def _again(details: ErrorDetails) -> InitErrorDetails:
    return InitErrorDetails(
        type=details["type"], loc=details["loc"], input=details["input"], ctx=details.get("ctx", {})
    )


def _is_cause(details: ErrorDetails) -> bool:
    return details["type"] != "default_factory_not_called"


def _problem(details: ErrorDetails, layers: Sequence[Layer]) -> Problem:
    path, value = details["loc"], details["input"]
    inner = getattr(details.get("ctx", {}).get("error"), "path", ())
    for part in inner:
        value = value[part] if isinstance(value, Mapping | list) and part in value else ""
    path += inner
    origin = _origin(path, layers)
    if details["type"] == "missing":
        return Problem.at(origin, path, "is not set; every [[strategy]] needs the name of a strategy")
    if not origin.rank:
        return Problem(0, show_key(path), f"{show_key(path)} is not set: {_reason(details)}")
    return Problem.with_value(origin, path, value, _reason(details))


def _reason(details: ErrorDetails) -> str:
    match details["type"]:
        case "value_error":
            return str(details["ctx"]["error"])
        case "tuple_type":
            return """must be a list of tables: [[strategy]] in a file, or [{name="sma_cross"}]"""
        case "model_type" | "model_attributes_type":
            return "must be a table with at least a name"
        case _:
            return details["msg"]
