"""Every rule of the settings, and the words in which a broken one is told."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from bot.settings import FeedSettings, Settings, SettingsError, load_settings, settings_with_origins
from bot.settings.problems import Origin, Problem, showable
from bot.settings.schema import schema_of
from bot.settings.values import closest_symbol

SHIPPED = Path(__file__).parents[2] / "config" / "paperloop.toml"


def load(*overrides: str, files: Sequence[Path] = (), environ: Mapping[str, str] | None = None) -> Settings:
    return load_settings(files, overrides, environ or {}, default_file=None)


def problems(*overrides: str, files: Sequence[Path] = (), environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(*overrides, files=files, environ=environ)
    return caught.value.problems


def written(folder: Path, text: str, name: str = "my.toml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def in_file(folder: Path, text: str) -> list[str]:
    """The problems of one file, told without its folder."""
    file = written(folder, text)
    return [line.replace(str(file), "my.toml") for line in problems(files=[file])]


# --- defaults and the shipped file


def test_without_any_source_the_defaults_hold() -> None:
    settings = load()
    assert settings == Settings()
    assert settings.feed.symbols == ("BTC/USDT", "ETH/USDT")
    assert (settings.feed.poll_interval_ms, settings.feed.simulated.start_ms) == (1000, 1_735_689_600_000)
    first, second = settings.strategy
    assert (first.name, first.account, first.params) == ("sma_cross", "sma_cross", {"fast": 5, "slow": 20})
    assert (second.account, second.capital, second.timeframe) == ("rsi_reversion", Decimal(10_000), "tick")
    assert (first.quantity, first.quote_amount, first.equity_fraction) == (None, None, Decimal("0.25"))
    assert settings.execution.fee_rate is None
    assert settings.masked()["execution"] == {"slippage_bps": "0", "fill": "next_open"}


def test_the_shipped_file_says_exactly_the_defaults() -> None:
    assert load(files=[SHIPPED]) == Settings()


def table_keys(table: tuple[str, ...], keys: Any) -> Iterator[tuple[str, str]]:
    for key, node in keys.children.items():
        if not node.children:
            yield ".".join(table), key


KEYS = [pair for path, node in schema_of(Settings).tables() for pair in table_keys(path, node)]


@pytest.mark.parametrize(("table", "key"), KEYS, ids=lambda part: part or "top")
def test_the_shipped_file_explains_every_key(table: str, key: str) -> None:
    sections = re.split(r"^(?=\[)", SHIPPED.read_text(encoding="utf-8"), flags=re.MULTILINE)
    heads = (f"[{table}]\n", f"[[{table}]]\n") if table else ("#",)
    section = next(section for section in sections if section.startswith(heads))
    assert re.search(rf"^# .+\n(# )?{key} = ", section, flags=re.MULTILINE)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().feed.kind = "replay"


def test_a_model_built_in_code_is_checked_too_and_reads_no_environment() -> None:
    with pytest.raises(ValidationError):
        Settings(strategy=({"name": "a"}, {"name": "a"}))  # type: ignore[arg-type]
    assert Settings(feed=FeedSettings(symbols=("ADA/USDT",))).feed.symbols == ("ADA/USDT",)


# --- sources and their precedence


def test_later_sources_win(tmp_path: Path) -> None:
    one = written(tmp_path, "[feed]\npoll_interval_s = 1\nstale_after_s = 1\n[log]\nlevel = 'error'", "1.toml")
    two = written(tmp_path, "[feed]\npoll_interval_s = 2\nsymbols = ['ADA/USDT']", "2.toml")
    settings, origins = settings_with_origins(
        [one, two],
        ["feed.simulated.seed=4", "feed.simulated.seed=5"],
        {"PAPERLOOP_FEED__POLL_INTERVAL_S": "3", "PAPERLOOP_FEED__SIMULATED__SEED": "3", "OTHER": "x"},
    )
    assert (settings.feed.poll_interval_s, settings.feed.stale_after_s, settings.feed.simulated.seed) == (
        3,
        1,
        5,
    )
    assert settings.feed.symbols == ("ADA/USDT",)
    assert {
        key: origins[key]
        for key in ("feed.poll_interval_s", "feed.symbols", "log.level", "feed.simulated.seed", "http.port")
    } == {
        "feed.poll_interval_s": "PAPERLOOP_FEED__POLL_INTERVAL_S",
        "feed.symbols": str(two),
        "log.level": str(one),
        "feed.simulated.seed": "--set",
        "http.port": "default",
    }


def test_tables_merge_deeply_and_lists_are_replaced(tmp_path: Path) -> None:
    one = written(
        tmp_path,
        "[feed.ccxt.options]\na = 1\nb = {x = 1, y = [1, 2]}\n[[strategy]]\nname = 'one'",
        "1.toml",
    )
    two = written(tmp_path, "[feed.ccxt.options.b]\ny = [3]\n[[strategy]]\nname = 'three'", "2.toml")
    settings, origins = settings_with_origins([one, two], environ={})
    assert settings.feed.ccxt.options == {"a": 1, "b": {"x": 1, "y": [3]}}
    assert [entry.name for entry in settings.strategy] == ["three"]
    assert (origins["feed.ccxt.options.b.x"], origins["feed.ccxt.options.b.y"]) == (str(one), str(two))
    assert origins["strategy"] == str(two)


def test_the_default_file_is_read_if_it_exists_and_no_other_is_named(tmp_path: Path) -> None:
    default = written(tmp_path, "[http]\nport = 1", "default.toml")
    other = written(tmp_path, "[log]\nlevel = 'error'")
    assert load_settings(environ={}, default_file=default).http.port == 1
    assert load_settings([other], environ={}, default_file=default).http.port == 8080
    assert load_settings(environ={}, default_file=tmp_path / "none.toml") == Settings()


def test_a_broken_default_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is a folder, not a file"):
        load_settings(environ={}, default_file=tmp_path)


ENVIRONMENT: list[tuple[dict[str, str], dict[str, Any]]] = [
    ({"paperloop_feed__Kind": "simulated"}, {"kind": "simulated"}),
    ({"PAPERLOOP_FEED__SYMBOLS": '["ADA/USDT"]'}, {"symbols": ["ADA/USDT"]}),
    ({"PAPERLOOP_FEED": '{"poll_interval_s": 2.5}'}, {"poll_interval_s": 2.5}),
    ({"PAPERLOOP_FEED": "{poll_interval_s = 2.5}"}, {"poll_interval_s": 2.5}),
    (
        {"PAPERLOOP_FEED__POLL_INTERVAL_S": "4", "PAPERLOOP_FEED": "{poll_interval_s=2, stale_after_s=3}"},
        {"poll_interval_s": 4.0, "stale_after_s": 3.0},
    ),
    (
        {"PAPERLOOP_FEED__CCXT__OPTIONS__enableRateLimit": "true"},
        {"ccxt": {"options": {"enableRateLimit": True}}},
    ),
    ({"PAPERLOOP_FEED__REPLAY__PATH": "2024"}, {"replay": {"path": "2024"}}),
    (
        {"PAPERLOOP_FEED__SIMULATED__START": "2024-01-01T00:00:00Z"},
        {"simulated": {"start": "2024-01-01T00:00:00Z"}},
    ),
]


@pytest.mark.parametrize(("environ", "feed"), ENVIRONMENT)
def test_environment(environ: dict[str, str], feed: dict[str, Any]) -> None:
    assert load(environ=environ).feed == FeedSettings.model_validate(feed)


def test_the_environment_can_set_the_list_of_strategies() -> None:
    text = '[{"name": "a", "params": {"x": 0.5, "n": 3}, "capital": 12.50}]'
    (entry,) = load(environ={"PAPERLOOP_STRATEGY": text}).strategy
    assert (entry.params, entry.capital) == ({"x": 0.5, "n": 3}, Decimal("12.5"))
    assert isinstance(entry.params["x"], float)


@pytest.mark.parametrize("word", ["true", "True", "1", "yes", "on"])
def test_flags_have_the_usual_words_outside_files(word: str) -> None:
    assert load("storage.record_ticks=false", f"storage.record_ticks={word}").storage.record_ticks is True


OVERRIDES: list[tuple[str, tuple[str, ...], Any]] = [
    ("feed.kind=simulated", ("feed", "kind"), "simulated"),
    ('feed.kind="simulated"', ("feed", "kind"), "simulated"),
    ("storage.path=a=b", ("storage", "path"), "a=b"),
    ("storage.path=runs/2024 #1.db", ("storage", "path"), "runs/2024 #1.db"),
    ("storage.path=7", ("storage", "path"), "7"),
    ("execution.fee_rate=0.00100000000000001", ("execution", "fee_rate"), Decimal("0.00100000000000001")),
    ("feed.symbols = ['ADA/USDT']".replace(" = ", "= "), ("feed", "symbols"), ("ADA/USDT",)),
    ("http={port=9}", ("http", "port"), 9),
    ("feed.ccxt.options.apiKey=word", ("feed", "ccxt", "options"), {"apiKey": "word"}),
    ("feed.ccxt.options.a.b=1", ("feed", "ccxt", "options"), {"a": {"b": 1}}),
]


@pytest.mark.parametrize(("override", "path", "value"), OVERRIDES)
def test_overrides(override: str, path: tuple[str, ...], value: Any) -> None:
    found: Any = load(override)
    for name in path:
        found = getattr(found, name)
    assert found == value


def test_the_strategies_of_the_design_page() -> None:
    (entry,) = load('strategy=[{name="sma_cross", params={fast=5, slow=20}}]').strategy
    assert (entry.name, entry.params) == ("sma_cross", {"fast": 5, "slow": 20})


def test_live_prices() -> None:
    feed = load("feed.kind=ccxt", "feed.ccxt.exchange=kraken", "feed.ccxt.jump_max=1").feed
    assert (feed.kind, feed.ccxt.exchange, feed.ccxt.jump_max, feed.ccxt.frozen_after_s) == ("ccxt", "kraken", 1, 300)
    assert load("feed.ccxt.frozen_after_s=0").feed.ccxt.frozen_after_s == 0
    assert load(environ={"PAPERLOOP_FEED__CCXT__JUMP_MAX": "0.25"}).feed.ccxt.jump_max == 0.25


# --- values


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("BTC/USDT", "BTC/USDT"),
        ("btc-usdt", "BTC/USDT"),
        ("btc/usdt:usdt", "BTC/USDT:USDT"),
        ("BTC-USDT:USDT", "BTC/USDT:USDT"),
        ("1000SHIB/USDT", "1000SHIB/USDT"),
    ],
)
def test_symbols_have_one_spelling(given: str, stored: str) -> None:
    assert load(f'feed.symbols=["{given}"]').feed.symbols == (stored,)


@pytest.mark.parametrize(
    ("written_as", "value"),
    [
        ("10000", "10000"),
        ("0.1", "0.1"),
        ('"0.1"', "0.1"),
        ("1e4", "10000"),
        ("10000.50", "10000.5"),
        ('"1000000000000000"', "1000000000000000"),
        ("0.000000000000000001", "0.000000000000000001"),
    ],
)
def test_money_is_taken_exactly(written_as: str, value: str) -> None:
    (entry,) = load(f'strategy=[{{name="a", capital={written_as}}}]').strategy
    assert f"{entry.capital:f}" == value


def test_a_float_from_code_is_taken_as_it_prints() -> None:
    assert Settings(execution={"fee_rate": 0.1}).execution.fee_rate == Decimal("0.1")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", ["quantity", "quote_amount", "equity_fraction"])
def test_one_size_stands_alone(size: str) -> None:
    (entry,) = load(f'strategy=[{{name="a", {size}="0.5"}}]').strategy
    sizes = {
        "quantity": entry.quantity,
        "quote_amount": entry.quote_amount,
        "equity_fraction": entry.equity_fraction,
    }
    assert {name: value for name, value in sizes.items() if value is not None} == {size: Decimal("0.5")}


@pytest.mark.parametrize(
    "text",
    ["2024-06-01T12:00:00Z", '"2024-06-01T12:00:00Z"', "2024-06-01T14:00:00+02:00", "2024-06-01 12:00:00Z"],
)
def test_start_is_an_instant_in_utc(text: str) -> None:
    start = load(f"feed.simulated.start={text}").feed.simulated.start
    assert start == datetime(2024, 6, 1, 12, tzinfo=UTC)
    assert start.tzinfo is UTC


def test_a_file_may_begin_with_a_byte_order_mark_and_end_lines_as_windows_does(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_bytes(b"\xef\xbb\xbf[http]\r\nport = 9\r\n")
    assert load(files=[file]).http.port == 9


BETWEEN_POLLS = "must be between 0.01 and 86400 (seconds)"
WRONG_VALUES = [
    (
        "feed.kind=replayy",
        '= "replayy" from --set: must be one of "simulated", "ccxt", "replay"; did you mean "replay"?',
    ),
    (
        "feed.kind=Ccxt",
        '= "Ccxt" from --set: must be one of "simulated", "ccxt", "replay"; did you mean "ccxt"?',
    ),
    ("feed.kind=replay ", '= "replay " from --set: must not begin or end with a space'),
    ("feed.symbols=BTC/USDT", '= "BTC/USDT" from --set: must be a list such as ["BTC/USDT", "ETH/USDT"]'),
    ("feed.symbols=[]", "= [] from --set: must list between 1 and 1000 symbols"),
    (
        'feed.symbols=["BTCUSDT", "ADA/USDT", "A/A", 5]',
        (
            '= ["BTCUSDT", "ADA/USDT", "A/A", 5] from --set: must list symbols such as BTC/USDT'
            ' or BTC/USDT:USDT, unlike "BTCUSDT", "A/A", "5"'
        ),
    ),
    ('feed.symbols=["ADA/USDT "]', 'must list symbols such as BTC/USDT or BTC/USDT:USDT, unlike "ADA/USDT "'),
    ('feed.symbols=["ada-usdt","ADA/USDT"]', "must list every symbol once; ADA/USDT is there again"),
    ("feed.symbols=[1", '= "[1" from --set: is neither valid TOML nor valid JSON'),
    ("feed.poll_interval_s=0", f"= 0 from --set: {BETWEEN_POLLS}"),
    ("feed.poll_interval_s=86401", f"= 86401 from --set: {BETWEEN_POLLS}"),
    ("feed.poll_interval_s=nan", "= NaN from --set: must be a number between 0.01 and 86400 (seconds)"),
    ("feed.poll_interval_s=true", "= true from --set: must be a number between 0.01 and 86400 (seconds)"),
    ('feed.poll_interval_s="1"', '= "1" from --set: must be a number between 0.01 and 86400 (seconds)'),
    ("feed.poll_interval_s=", '= "" from --set: must be a number between 0.01 and 86400 (seconds)'),
    ("feed.poll_interval_s=0.0105", "must be a whole number of milliseconds, such as 0.25 or 1.5"),
    ("feed.stale_after_s=-inf", "= -Infinity from --set: must be a number between 0.01 and 604800 (seconds)"),
    ("feed.simulated.seed=-1", "must be between 0 and 9223372036854775807"),
    ("feed.simulated.seed=9223372036854775808", "must be between 0 and 9223372036854775807"),
    (f"feed.simulated.seed=0x{'f' * 5000}", "... from --set: must be between 0 and 9223372036854775807"),
    ("feed.simulated.seed=7.0", "= 7.0 from --set: must be a whole number between 0 and 9223372036854775807"),
    ("feed.simulated.volatility=0", "must be greater than 0 and at most 0.1"),
    ("feed.simulated.volatility=0.11", "must be greater than 0 and at most 0.1"),
    ("feed.simulated.start=2025-01-01", "must be a time such as 2025-01-01T00:00:00Z"),
    ("feed.simulated.start=soon", '= "soon" from --set: must be a time such as 2025-01-01T00:00:00Z'),
    ("feed.simulated.start=1735689600", "must be a time such as 2025-01-01T00:00:00Z"),
    (
        "feed.simulated.start=2025-01-01T00:00:00",
        "must say its time zone, such as 2025-01-01T00:00:00Z (Z is UTC)",
    ),
    (
        "feed.simulated.start=2100-01-01T00:00:00Z",
        "must be after 1970-01-01T00:00:00Z and before 2100-01-01T00:00:00Z",
    ),
    (
        "feed.simulated.start=1970-01-01T00:00:00Z",
        "must be after 1970-01-01T00:00:00Z and before 2100-01-01T00:00:00Z",
    ),
    ("feed.simulated.start=2025-01-01T00:00:00.0001Z", "must be a whole number of milliseconds"),
    ("feed.ccxt.exchange=Binance US", 'must be the name ccxt uses, such as "binance"'),
    ("feed.ccxt.base_url=ftp://x", 'must be empty or an address such as "https://api.example.com"'),
    ("feed.ccxt.options=3", "= 3 from --set: must be a table such as {fast = 5, slow = 20}"),
    ("feed.ccxt.jump_max=0", "= 0 from --set: must be between 0.001 and 1"),
    ("feed.ccxt.jump_max=1.01", "= 1.01 from --set: must be between 0.001 and 1"),
    ("feed.ccxt.jump_max=nan", "= NaN from --set: must be a number between 0.001 and 1"),
    ('feed.ccxt.jump_max="10%"', '= "10%" from --set: must be a number between 0.001 and 1'),
    ("feed.ccxt.frozen_after_s=-1", "= -1 from --set: must be between 0 and 604800 (seconds)"),
    ("feed.ccxt.frozen_after_s=604801", "= 604801 from --set: must be between 0 and 604800 (seconds)"),
    ("feed.ccxt.frozen_after_s=never", '= "never" from --set: must be a number between 0 and 604800 (seconds)'),
    ("execution.fee_rate=1", "= 1 from --set: must be at least 0 and less than 1"),
    ("execution.fee_rate=-0.001", "must be at least 0 and less than 1"),
    ("execution.fee_rate=0.0000000000000000001", "= 1E-19 from --set: must have at most 18 decimal places"),
    ("execution.fee_rate=1e-999999999", "must have at most 18 decimal places"),
    ("execution.fill=open", '= "open" from --set: must be one of "next_open", "close"; did you mean "next_open"?'),
    ("execution.slippage_bps=1001", "must be between 0 and 1000 (basis points)"),
    ('execution.slippage_bps="1_0"', "must be a number between 0 and 1000 (basis points)"),
    ("storage.path=", '= "" from --set: must be the path of a file'),
    ('storage.path="a\\nb"', "must not hold control characters"),
    ('storage.path="a', "is not a valid TOML string"),
    ("storage.record_ticks=perhaps", '= "perhaps" from --set: must be true or false'),
    (f"strategy_folder={'x' * 5000}", "must be a folder that exists"),
    ("strategy_folder=/no/such/folder", '= "/no/such/folder" from --set: must be a folder that exists'),
    ("log.level=warn", 'must be one of "debug", "info", "warning", "error"; did you mean "warning"?'),
    ("log.level=5", '= "5" from --set: must be one of "debug", "info", "warning", "error"'),
    ("log.format=JSON", 'must be one of "auto", "console", "json"; did you mean "json"?'),
    ("http.enabled=perhaps", '= "perhaps" from --set: must be true or false'),
    ("http.port=65536", "must be between 0 and 65535"),
    (
        "http.token=too-short",
        'http.token = "***" from --set: must be 16 to 256 letters, digits or signs, without spaces',
    ),
    ("http.token=with a space in it, long enough", "must be 16 to 256 letters, digits or signs, without spaces"),
    ("http.hosts=example.com", 'must be a list of at most 100 host names, such as ["paper.example.com"]'),
    (
        'http.hosts=["ok.example", "Example.com:80"]',
        'must be names in small letters, without a port; "Example.com:80" is none',
    ),
    ("http.host=a b", 'must be an address or host name such as "127.0.0.1"'),
    ("http.port=1\nx=2", "must be one value"),
    (
        "feed=3",
        "must be a table of kind, symbols, poll_interval_s, stale_after_s, simulated, ccxt, replay",
    ),
    ("strategy=sma_cross", 'must be a list of tables: [[strategy]] in a file, or [{name="sma_cross"}]'),
    ("strategy=[]", "= [] from --set: must list between 1 and 100 strategies"),
]


@pytest.mark.parametrize(("override", "end"), WRONG_VALUES, ids=[override[:40] for override, _ in WRONG_VALUES])
def test_wrong_value(override: str, end: str) -> None:
    (line,) = problems(override)
    assert line.startswith(f"{override.partition('=')[0]} = ")
    assert line.endswith(end)


IN_ENTRY = [
    ("", ".name from --set: is not set; every [[strategy]] needs the name of a strategy"),
    ('name="a b"', """.name = "a b" from --set: must be a strategy's name, or package.module:Class"""),
    ('name="a", account="x/y"', "must be 1 to 64 letters, digits or the characters _ . -"),
    (f'name="a", account="{"x" * 65}"', "must be 1 to 64 letters, digits or the characters _ . -"),
    (
        'name="a", timeframe="1min"',
        (
            'must be one of "tick", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h",'
            ' "1d", "3d", "1w", "1M"; did you mean "1m"?'
        ),
    ),
    ('name="a", capital=0', ".capital = 0 from --set: must be greater than 0 and at most 1000000000000000"),
    ('name="a", capital=true', "must be a number above 0 and at most 1000000000000000"),
    ('name="a", capital="10 000"', "must be a number above 0 and at most 1000000000000000"),
    ('name="a", capital=" 1"', "must be a number above 0 and at most 1000000000000000"),
    ('name="a", quantity=1e999999999999999999999', "must be a number above 0 and at most 1000000000000000"),
    ('name="a", equity_fraction=1.01', "must be greater than 0 and at most 1"),
    (
        'name="a", quantity=1, equity_fraction=1',
        (
            ".equity_fraction = 1 from --set: only one of quantity, quote_amount, equity_fraction may be set,"
            " and quantity is set too"
        ),
    ),
    ('name="a", params=3', ".params = 3 from --set: must be a table such as {fast = 5, slow = 20}"),
    ('name="a", params={n=inf}', ".params.n = Infinity from --set: must be a finite number"),
    ('name="a", params={n=1e400}', ".params.n = 1E+400 from --set: must be a finite number"),
    ('name="a", params={x=[1, "y "]}', '.params.x#2 = "y " from --set: must not begin or end with a space'),
    ('name="a", params={"n "=1}', '.params."n " = 1 from --set: must not begin or end with a space'),
    ('name="a", nam="b"', ".nam from --set: unknown key; did you mean name?"),
]


@pytest.mark.parametrize(("entry", "end"), IN_ENTRY, ids=[entry for entry, _ in IN_ENTRY])
def test_wrong_value_in_an_entry(entry: str, end: str) -> None:
    (line,) = problems(f'strategy=[{{name="first"}}, {{{entry}}}]')
    assert line.startswith("strategy#2.")
    assert line.endswith(end)


def test_an_entry_must_be_a_table(tmp_path: Path) -> None:
    assert in_file(tmp_path, "strategy = [1]") == ["strategy#1 = 1 in my.toml: must be a table with at least a name"]
    assert in_file(tmp_path, "[strategy]\nname = 'a'") == [
        (
            'strategy = {name = "a"} in my.toml: must be a list of tables: [[strategy]] in a file,'
            ' or [{name="sma_cross"}]'
        )
    ]


def test_two_entries_may_not_share_an_account(tmp_path: Path) -> None:
    entries = "[[strategy]]\nname = 'sma_cross'\n[[strategy]]\nname = 'rsi'\naccount = 'sma_cross'\ncapital = 0\n"
    assert in_file(tmp_path, entries) == [
        (
            'strategy#2.account = "sma_cross" in my.toml: strategy#1 (sma_cross) has this account too;'
            ' set account = "..." to give one of them its own'
        ),
        "strategy#2.capital = 0 in my.toml: must be greater than 0 and at most 1000000000000000",
    ]
    apart = 'strategy=[{name="sma_cross"}, {name="sma_cross", account="slow"}]'
    assert [entry.account for entry in load(apart).strategy] == ["sma_cross", "slow"]


def test_a_replay_needs_its_file() -> None:
    expected = 'feed.replay.path is not set: it must be the file to replay, because feed.kind = "replay"'
    assert problems("feed.kind=replay") == [expected]
    assert load("feed.kind=replay", "feed.replay.path=tape.db").feed.replay.path == "tape.db"


def test_only_the_value_in_force_is_judged(tmp_path: Path) -> None:
    file = written(tmp_path, "[feed]\nkind = 'kraken'")
    assert load("feed.kind=simulated", files=[file]).feed.kind == "simulated"


# --- unknown keys


UNKNOWN_IN_FILE = [
    (
        "[feed]\npoll_intervall_s = 1",
        "feed.poll_intervall_s in my.toml: unknown key; did you mean poll_interval_s?",
    ),
    ("[feed]\nKind = 'replay'", "feed.Kind in my.toml: unknown key; did you mean kind?"),
    ('[storage]\n"path " = "x"', 'storage."path " in my.toml: unknown key; did you mean path?'),
    ("[feed]\nseed = 1", "feed.seed in my.toml: unknown key; seed belongs in [feed.simulated]"),
    ("capital = 1", "capital in my.toml: unknown key; capital belongs in [[strategy]]"),
    ("[log]\npath = 'x'", "log.path in my.toml: unknown key; path belongs in [feed.replay] or in [storage]"),
    (
        "[log]\nstrategy_folder = 'x'",
        "log.strategy_folder in my.toml: unknown key; strategy_folder belongs at the top level",
    ),
    (
        "[feed]\nvolatillity = 1",
        "feed.volatillity in my.toml: unknown key; did you mean volatility in [feed.simulated]?",
    ),
    ("[strategys]\nx = 1", "strategys in my.toml: unknown key; did you mean strategy?"),
    (
        "[http]\ncolour = 1",
        "http.colour in my.toml: unknown key; [http] has enabled, host, port, hosts, token, token_file",
    ),
    (
        "[telegram]\ntoken = 'secret'",
        (
            "telegram in my.toml: unknown key;"
            " the top level has strategy_folder, feed, strategy, execution, storage, log, http, notify"
        ),
    ),
]


@pytest.mark.parametrize(("text", "line"), UNKNOWN_IN_FILE)
def test_unknown_key_in_a_file(tmp_path: Path, text: str, line: str) -> None:
    assert in_file(tmp_path, text) == [line]


UNKNOWN_VARIABLES = [
    ("PAPERLOOP_FEED_KIND", "feed_kind from {name}: unknown key; did you mean PAPERLOOP_FEED__KIND?"),
    ("PAPERLOOP_FEED__KINDD", "feed.kindd from {name}: unknown key; did you mean kind?"),
    ("PAPERLOOP_PORT", "port from {name}: unknown key; port belongs in [http]"),
    ("PAPERLOOP_FEED__KIND__X", "feed.kind.x from {name}: feed.kind is a value, not a table"),
    (
        "PAPERLOOP_STRATEGY__0__NAME",
        (
            "strategy.0 from {name}: strategy is a list and is set as a whole,"
            """ as in --set 'strategy=[{{name="sma_cross"}}]'"""
        ),
    ),
    ("PAPERLOOP_", "{name}: the key is empty"),
    ("PAPERLOOP_FEED____KIND", "{name}: the key has a part that is empty"),
]


@pytest.mark.parametrize(("name", "line"), UNKNOWN_VARIABLES)
def test_unknown_variable(name: str, line: str) -> None:
    assert problems(environ={name: "1"}) == [line.format(name=name)]


def test_two_spellings_of_one_variable() -> None:
    assert problems(environ={"PAPERLOOP_LOG__LEVEL": "info", "paperloop_log__level": "debug"}) == [
        "log.level from paperloop_log__level: PAPERLOOP_LOG__LEVEL sets it too; keep one of them"
    ]


BAD_OVERRIDES = [
    ("feed.kind", "--set feed.kind: must be KEY=VALUE, such as --set feed.kind=simulated"),
    ("=3", "--set =...: the key is empty"),
    ("feed..kind=3", "--set feed..kind=...: the key has a part that is empty"),
    ("feed.kind =replay", 'feed."kind " from --set: unknown key; did you mean kind?'),
    ("feed.kind.x=1", "feed.kind.x from --set: feed.kind is a value, not a table"),
    (
        "strategy.0.name=x",
        (
            "strategy.0 from --set: strategy is a list and is set as a whole,"
            """ as in --set 'strategy=[{name="sma_cross"}]'"""
        ),
    ),
]


@pytest.mark.parametrize(("override", "line"), BAD_OVERRIDES)
def test_bad_override(override: str, line: str) -> None:
    assert problems(override) == [line]


# --- files that cannot be read


BROKEN_FILES = [
    (b"[feed]\nkind = \n", ", line 2, column 8: not valid TOML (invalid value)"),
    (b"a = 1\na = 2", ", line 2, column 6: not valid TOML (cannot overwrite a value)"),
    (b"x = [1,\n2", ", line 2, column 2: not valid TOML (unclosed array)"),
    (b"\nx = '\xff'", ", line 2, column 6: not UTF-8 text"),
    (b"x = " + b"[" * 5000, ": not valid TOML (nested too deeply)"),
    (b"[feed.ccxt.options" + b".a" * 3000 + b"]", ": tables and lists must not nest deeper than 20"),
]


@pytest.mark.parametrize(("content", "end"), BROKEN_FILES, ids=[end for _, end in BROKEN_FILES])
def test_broken_file(tmp_path: Path, content: bytes, end: str) -> None:
    file = tmp_path / "my.toml"
    file.write_bytes(content)
    assert problems(files=[file]) == [f"{file}{end}"]


def test_a_named_file_must_exist_and_be_a_file(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert problems(files=[missing, tmp_path]) == [
        f"{missing}: there is no such file",
        f"{tmp_path}: is a folder, not a file",
    ]


def test_a_path_through_a_file_is_unreadable(tmp_path: Path) -> None:
    file = written(tmp_path, "") / "more.toml"
    assert problems(files=[file]) == [f"{file}: cannot be read (Not a directory)"]


def test_nesting_from_the_command_line_is_bounded_too() -> None:
    expected = ["--set: tables and lists must not nest deeper than 20"]
    assert problems(f"feed.ccxt.options{'.a' * 3000}=1") == expected
    assert problems("feed.ccxt.options.a=" + "[" * 30 + "]" * 30) == expected


# --- who may read the books


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_no_token(host: str) -> None:
    assert load("http.enabled=true", f"http.host={host}").http.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_others_do(host: str) -> None:
    told = f'http.token_file = "" is not set: {host} is reachable from other machines: this or http.token must be set'
    assert problems("http.enabled=true", f'http.host="{host}"') == [told.replace(' = ""', "")]
    assert load(f'http.host="{host}"').http.host == host
    token = "0123456789abcdef"
    assert (
        load("http.enabled=true", f'http.host="{host}"', f"http.token={token}").http.token.get_secret_value() == token
    )
    assert load("http.enabled=true", f'http.host="{host}"', "http.token_file=/run/t").http.token_file == "/run/t"


def test_one_token_is_enough() -> None:
    lines = problems("http.token=0123456789abcdef", "http.token_file=/run/t")
    assert lines == ['http.token_file = "/run/t" from --set: http.token is set too; leave one of the two out']


def test_a_token_is_never_shown() -> None:
    given = load("http.token=0123456789abcdef")
    assert "0123456789abcdef" not in repr(given)
    assert given.masked()["http"]["token"] == "***"


# --- all at once


def test_all_problems_of_all_sources_come_at_once_in_order(tmp_path: Path) -> None:
    one = written(tmp_path, "[http]\nport = -1\n[feed]\nsymbol = 'x'\nkind = 'kraken'", "1.toml")
    two = written(tmp_path, "x = ", "2.toml")
    lines = problems(
        "feed.poll_interval_s=0",
        "log.colour=1",
        files=[one, two],
        environ={"PAPERLOOP_FEED__STALE_AFTER_S": "never", "PAPERLOOP_LOG__FORMAT": "xml"},
    )
    assert [line.partition(": ")[0] for line in lines] == [
        f'feed.kind = "kraken" in {one}',
        f"feed.symbol in {one}",
        f"http.port = -1 in {one}",
        f"{two}, line 1, column 5",
        'feed.stale_after_s = "never" from PAPERLOOP_FEED__STALE_AFTER_S',
        'log.format = "xml" from PAPERLOOP_LOG__FORMAT',
        "feed.poll_interval_s = 0 from --set",
        "log.colour from --set",
    ]


def test_an_error_prints_its_problems() -> None:
    assert str(SettingsError(["one", "two"])) == "one\ntwo"


def test_a_long_value_is_cut() -> None:
    (line,) = problems(f"log.level={'x' * 500}")
    assert line.startswith(f'log.level = "{"x" * 76}... from --set: ')


# --- secrets


def test_secrets_are_masked() -> None:
    settings = load(
        'feed.ccxt.options={apiKey="k1", secret="k2", password="", timeout=5, inner=[{aToken="k3"}]}',
        "feed.ccxt.options.d=2024-01-01",
        "feed.ccxt.options.proxy=http://me:k4@host:1",
    )
    shown = settings.masked()
    assert shown["feed"]["ccxt"]["options"] == {
        "apiKey": "***",
        "secret": "***",
        "password": "",
        "timeout": 5,
        "inner": [{"aToken": "***"}],
        "d": "2024-01-01",
        "proxy": "http://***@host:1",
    }
    assert settings.feed.ccxt.options["apiKey"] == "k1"
    assert "k1" not in repr(settings)


def test_a_secret_type_is_masked_whatever_its_name() -> None:
    class Table(BaseModel):
        pin: SecretStr = SecretStr("1234")
        unset: SecretStr = SecretStr("")

    assert showable(Table()) == {"pin": "***", "unset": ""}


@pytest.mark.parametrize(
    "override",
    [
        'feed.ccxt.options.apiKey="hidden ',
        'feed.ccxt.options={apiKey="hidden "}',
        'feed.ccxt.options=[{secret="hidden"}]',
        'strategy=[{name="a", params=[{token="hidden"}]}]',
        'log.level={password="hidden"}',
        'feed.ccxt.options={apiKey="hidden"',
        "feed.ccxt.options={proxy = [http://me:hidden@host]}",
        "log.level=http://me:hidden@host",
    ],
)
def test_no_problem_tells_a_secret(override: str) -> None:
    assert "hidden" not in str(problems(override))


def test_what_is_shown_is_json_and_can_be_read_again(tmp_path: Path) -> None:
    settings = load("execution.fee_rate=0.00075", 'strategy=[{name="a", quantity="0.01", params={x=0.5}}]')
    shown = json.loads(json.dumps(settings.masked(), allow_nan=False))
    assert shown["execution"]["fee_rate"] == "0.00075"
    assert shown["strategy"][0].keys() == {"name", "params", "timeframe", "account", "capital", "quantity"}
    assert Settings(**shown) == settings


def test_problems_sort_by_source_then_key() -> None:
    first, second = Origin(1, "a.toml", "in"), Origin(2, "--set")
    lines = [Problem.at(second, ("a",), "x"), Problem.at(first, ("b",), "x"), Problem.at(first, ("a",), "x")]
    assert [problem.line for problem in sorted(lines)] == [
        "a in a.toml: x",
        "b in a.toml: x",
        "a from --set: x",
    ]


@pytest.mark.parametrize(
    ("symbol", "meant"),
    [
        ("ETHH/USDT", "ETH/USDT"),
        ("SOL/USDT", "SOL/USD"),
        ("BTC/USD", "BTC/USDT"),
        ("DOGE/USDT", None),
    ],
)
def test_the_symbol_that_was_meant(symbol: str, meant: str | None) -> None:
    assert closest_symbol(symbol, ("BTC/EUR", "BTC/USDT", "ETH/USDT", "SOL/USD", "SOL/USD:USD")) == meant
