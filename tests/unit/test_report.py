"""What a backtest's report says, and that it says all of it: on a terminal, as JSON, as a page and as a picture."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.backtest.report import (
    PricePoints,
    Report,
    ReportError,
    checked,
    document,
    points_of_each,
    summary,
    text,
    write,
)
from bot.backtest.report import page as pages
from bot.backtest.report.hold import LINE_MAX, held
from bot.backtest.report.months import monthly_returns
from bot.backtest.report.page import page
from bot.backtest.report.words import amount, duration, moment, money, percent, price
from bot.backtest.trips import REASONS
from bot.timeframes import DAY_MS, HOUR_MS, MINUTE_MS
from tests.reports import START_MS, Metrics, idle, report, walk

ROOT = Path(__file__).resolve().parents[2]
EVIL = """</script><img src=x onerror="alert('1')">&amp;[red]$x_{$"""


class TestWords:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (None, "-"),
            (0.0, "0.00"),
            (-0.0, "0.00"),
            (-1e-15, "0.00"),
            (0.00001, "0.00001"),
            (-0.0000123456, "-0.00001235"),
            (0.05, "0.05"),
            (0.5, "0.50"),
            (0.99999, "1.00"),
            (1.005, "1.00"),
            (1234.5, "1,234.50"),
            (-10_000_000.125, "-10,000,000.12"),
        ],
    )
    def test_money(self, value: float | None, expected: str) -> None:
        assert money(value) == expected

    @pytest.mark.parametrize(
        ("value", "expected"),
        [(None, "-"), (64_123.456, "64,123.46"), (42.1, "42.1"), (0.0000123, "0.0000123"), (1 / 3, "0.333333")],
    )
    def test_prices(self, value: float | None, expected: str) -> None:
        assert price(value) == expected

    @pytest.mark.parametrize(
        ("value", "expected"), [(None, "-"), (0.0, "0"), (1e9, "1,000,000,000"), (0.1 + 0.2, "0.3"), (-2.0, "-2")]
    )
    def test_amounts(self, value: float | None, expected: str) -> None:
        assert amount(value) == expected

    @pytest.mark.parametrize(
        ("value", "expected"), [(None, "-"), (0.012345, "1.23%"), (-12.0, "-1,200.00%"), (-0.000001, "0.00%")]
    )
    def test_percents(self, value: float | None, expected: str) -> None:
        assert percent(value) == expected

    @pytest.mark.parametrize(
        ("ms", "expected"),
        [
            (None, "-"),
            (0, "0s"),
            (250.4, "250ms"),
            (59_999, "59s"),
            (HOUR_MS, "1h"),
            (HOUR_MS + MINUTE_MS, "1h 1m"),
            (2 * DAY_MS + 3 * HOUR_MS + 59 * MINUTE_MS, "2d 3h"),
            (1000 * DAY_MS, "1,000d"),
        ],
    )
    def test_durations(self, ms: float | None, expected: str) -> None:
        assert duration(ms) == expected

    def test_moments(self) -> None:
        assert [moment("2023-01-01T12:34:56.789Z"), moment(None)] == ["2023-01-01 12:34:56", "-"]


class TestMonths:
    def test_by_hand(self) -> None:
        days = [
            np.datetime64(day, "ms").astype(np.int64)
            for day in ("2022-11-30", "2023-01-05", "2023-01-31", "2023-03-01")
        ]
        rows = monthly_returns(np.array(days), np.array([110.0, 100.0, 99.0, 198.0]), 100.0)
        assert [row["year"] for row in rows] == [2022, 2023]
        first, second = (row["months"] for row in rows)
        none = [None] * 9
        assert first == [None, *none, pytest.approx(0.1), None]
        assert second == [pytest.approx(-0.1), None, pytest.approx(1.0), *none]
        assert [row["total"] for row in rows] == [pytest.approx(0.1), pytest.approx(0.8)]

    def test_of_nothing_and_of_ruin(self) -> None:
        assert monthly_returns(np.zeros(0, np.int64), np.zeros(0), 100.0) == []
        (row,) = monthly_returns(np.array([0, 31 * DAY_MS]), np.array([-5.0, -5.0]), 100.0)
        assert row["months"] == [pytest.approx(-1.05), *[None] * 11]

    @given(st.lists(st.floats(1.0, 1e6), min_size=1, max_size=30), st.integers(1, 90))
    def test_they_multiply_to_the_whole(self, equity: list[float], every: int) -> None:
        times = START_MS + every * DAY_MS * np.arange(len(equity))
        rows: Any = monthly_returns(times, np.array(equity), 1000.0)
        months = [value for row in rows for value in row["months"] if value is not None]
        for values in (months, [row["total"] for row in rows]):
            assert math.prod(1 + value for value in values) == pytest.approx(equity[-1] / 1000)


class TestPrices:
    @settings(max_examples=60)
    @given(
        st.integers(1, 400), st.integers(4, 60), st.sampled_from([1_000, MINUTE_MS, 7 * MINUTE_MS, DAY_MS]), st.data()
    )
    def test_extremes_are_kept_and_blocks_do_not_matter(
        self, count: int, most: int, step: int, data: st.DataObject
    ) -> None:
        bars = walk(count, count)
        skipped = data.draw(st.lists(st.integers(0, 50), min_size=count, max_size=count))
        bars = replace(bars, timestamp=START_MS + step * (np.arange(count) + np.cumsum(skipped)))
        cuts = [0, *sorted(data.draw(st.lists(st.integers(0, count), max_size=4))), count]
        blocks = [bars[first:end] for first, end in pairwise(cuts)]
        points, whole = PricePoints.empty(most), PricePoints.empty(most).after(bars)
        for block in blocks:
            points = points.after(block)
        assert points.width_ms == whole.width_ms
        for name in ("timestamp", "open", "high", "low", "close"):
            assert getattr(points, name).tolist() == getattr(whole, name).tolist()
        assert len(points) <= most
        assert (len(points) == count) or points.width_ms
        assert (points.high.max(), points.low.min()) == (bars.high.max(), bars.low.min())
        assert (points.open[0], points.close[-1]) == (bars.open[0], bars.close[-1])
        edges = np.searchsorted(bars.timestamp, points.timestamp)
        assert points.high.tolist() == np.maximum.reduceat(bars.high, edges).tolist()
        assert points.low.tolist() == np.minimum.reduceat(bars.low, edges).tolist()
        assert len(set((points.timestamp // (points.width_ms or 1)).tolist())) == len(points)

    def test_how_long_a_point_is(self) -> None:
        bars = walk(1, 100)
        assert PricePoints.empty(100).after(bars).step_ms == HOUR_MS
        assert PricePoints.empty(99).after(bars).step_ms == PricePoints.empty(99).after(bars).width_ms == 2 * HOUR_MS
        assert PricePoints.empty().step_ms == MINUTE_MS

    def test_many_symbols_share(self) -> None:
        assert [points_of_each(symbols) for symbols in (0, 1, 4, 8, 10_000)] == [20_000, 20_000, 20_000, 10_000, 400]

    def test_what_holding_made(self) -> None:
        made = report(symbols=("BTC/USDT", "ETH/USDT", "NEW/USDT"), bars=LINE_MAX, trades=2)
        late = PricePoints.empty().after(walk(9, LINE_MAX)[LINE_MAX // 2 :])
        prices = (*made.prices[:2], late, PricePoints.empty())
        times, worth = held(prices, made.run.end_ms)
        assert (times[0], times[-1], len(times)) == (START_MS, made.run.end_ms, LINE_MAX)
        assert worth[0] == 1.0
        assert worth[-1] == pytest.approx(np.mean([points.close[-1] / points.open[0] for points in prices[:3]]))
        assert [len(part) for part in held((PricePoints.empty(),), 0)] == [0, 0]


class TestDocument:
    def test_it_is_plain_json(self) -> None:
        made = document(report(symbols=("BTC/USDT", "ETH/USDT:USDT")))
        assert json.loads(orjson.dumps(made)) == made
        (strategy,) = made["strategies"]
        assert (made["start"], made["fee_rate"]) == ("2023-01-01T00:00:00.000Z", 0.001)
        assert strategy["metrics"]["drawdown"]["peak"] == "2023-01-01T00:00:00.000Z"
        assert strategy["metrics"]["drawdown"]["recovered"] is None
        assert strategy["metrics"]["best"]["opened"] == "2023-01-01T00:00:00.000Z"
        assert strategy["metrics"]["rejected_signals"] == {"insufficient_cash": 2}

    def test_the_rows_are_the_arrays(self) -> None:
        given_report = report(symbols=("BTC/USDT", "ETH/USDT"), trades=40)
        (outcome,), (strategy,) = given_report.outcomes, document(given_report)["strategies"]
        trades, curve = strategy["trades"], strategy["equity_curve"]
        assert [trade["profit"] for trade in trades] == outcome.trips.profit.tolist()
        assert [trade["side"] == "short" for trade in trades] == outcome.trips.short.tolist()
        assert {(trade["side"], trade["reason"]) for trade in trades} == {("long", REASONS[0]), ("short", REASONS[1])}
        assert [trade["symbol"] == "ETH/USDT" for trade in trades] == (outcome.trips.symbol == 1).tolist()
        assert [trade["held"] for trade in strategy["open_trades"]] == outcome.open_trips.held.tolist()
        assert sum(row["total_profit"] for row in strategy["symbols"]) == pytest.approx(
            strategy["total"]["total_profit"]
        )
        assert sum(row["total_profit_ratio"] for row in strategy["exit_reasons"]) == pytest.approx(
            sum(trade["profit"] for trade in trades) / 10_000
        )
        peak = -math.inf
        for point in curve:
            peak = max(peak, point["equity"])
            assert point["drawdown"] == pytest.approx(1 - point["equity"] / peak)

    def test_the_summary_has_all_but_the_long_lists(self) -> None:
        whole, short = document(report()), summary(report())
        for strategy in whole["strategies"]:
            assert len(strategy.pop("trades")) == 149
            assert len(strategy.pop("equity_curve")) == 2_001
        assert short == whole

    def test_what_is_no_number_is_none(self) -> None:
        made = with_metrics(Metrics(sharpe=math.nan, sortino=-math.inf, cagr=np.float64(0.5)))
        metrics = document(made)["strategies"][0]["metrics"]
        assert [metrics[name] for name in ("sharpe", "sortino", "cagr")] == [None, None, 0.5]
        assert type(metrics["cagr"]) is float

    def test_a_file_name_that_is_no_text(self) -> None:
        made = report()
        made = replace(made, run=replace(made.run, data=("\udcff.csv",)))
        assert json.loads(orjson.dumps(document(made)))["data"] == ["?.csv"]


def with_metrics(metrics: Metrics) -> Report:
    made = report()
    return replace(made, outcomes=(replace(made.outcomes[0], metrics=metrics),))


class TestTerminal:
    @pytest.mark.parametrize("width", [80, 200])
    def test_it_fits(self, width: int) -> None:
        made = report(
            symbols=("BTC/USDT", "1000SHIB/USDT:USDT"), accounts=("one", "a rather long name"), price=0.0000123
        )
        lines = text(summary(made), width).splitlines()
        assert max(map(len, lines)) <= width
        assert "\x1b" not in "".join(lines)
        shown = "\n".join(lines)
        for title in ("Symbols", "Exit reasons", "Still open at the end", "Summary", "Strategies"):
            assert f"\n{title}\n" in shown
        assert ("win %" in next(line for line in lines if line.startswith("symbol "))) == (width == 200)

    def test_the_figures(self) -> None:
        made = report()
        (strategy,) = summary(made)["strategies"]
        shown = text(summary(made), 80)
        total = strategy["total"]
        line = next(line for line in shown.splitlines() if line.startswith("TOTAL"))
        assert f"{total['trades']:,}" in line.split()
        assert f"{total['total_profit']:,.2f}" in line.split()
        assert f"{total['average_profit_ratio'] * 100:.2f}%" in line.split()
        assert re.search(r"Sharpe +1\.23\b", shown)
        assert re.search(r"best trade +7\.89%", shown)
        assert re.search(r"rejected signals +2 \(insufficient_cash 2\)", shown)
        assert re.search(r"drawdown start +2023-01-01 00:00:00", shown)
        assert "\nStrategies\n" not in shown

    def test_every_none_is_a_dash(self) -> None:
        shown = text(summary(idle()), 80)
        undefined = re.findall(r"^(\w[\w %]+?) {2,}- *$", shown, re.MULTILINE)
        assert undefined == [
            *("CAGR", "buy and hold", "trades per day", "win rate", "average trade", "median trade", "best trade"),
            *("worst trade", "average time", "time of winners", "time of losers", "exposure"),
            *("Sharpe", "Sortino", "Calmar", "SQN", "profit factor", "expectancy", "expectancy ratio"),
            *("max drawdown %", "max drawdown", "drawdown start", "drawdown end", "recovered"),
        ]
        assert not re.search("None|nan|inf", shown)

    def test_names_are_not_markup(self) -> None:
        shown = text(summary(report(accounts=(EVIL, "other"), symbols=(EVIL,))), 200)
        assert shown.count(EVIL) >= 4

    def test_room_is_made_for_long_numbers(self) -> None:
        made = report()
        (only,) = made.outcomes
        row = replace(only.total, name="1000000MOG/USDT:USDT", total_profit=-123_456_789_012.34, trades=1_234_567)
        shown = text(summary(replace(made, outcomes=(replace(only, by_symbol=[row]),))), 80)
        (line,) = [line for line in shown.splitlines() if line.startswith("1000000MOG/USDT:USDT ")]
        assert "-123,456,789,012.34" in line.split()
        assert "1,234,567" in line.split()
        assert len(line) <= 80


class Reader(HTMLParser):
    """Reads a page as strictly as XML: every element is closed, in order, and no identity is given twice."""

    def __init__(self, source: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(source.decode())
        self.close()
        assert self.open == []
        assert len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    @property
    def ids(self) -> list[str | None]:
        return self.all("id")

    def all(self, name: str) -> list[str | None]:
        return [value for attribute, value in self.attributes if attribute == name]

    @property
    def data(self) -> dict[str, Any]:
        """The numbers that the scripts read."""
        found: dict[str, Any] = json.loads(self.texts["script"][0])
        return found


EVERYTHING = report(accounts=("one", "two", "three"), symbols=("BTC/USDT", "ETH/USDT:USDT"))


class TestPage:
    @pytest.mark.parametrize("made", [report(), EVERYTHING, idle()], ids=["one", "several", "idle"])
    def test_it_needs_nothing_else(self, made: Report) -> None:
        source = page(made)
        reader = Reader(source)
        assert not re.search(rb"https?:|//\w+\.|\bws:|@import|url\(|\bimport\b|fetch\(|XMLHttp|data:", source)
        assert {name for name, _ in reader.attributes}.isdisjoint({"src", "href", "style", "srcset", "action"})
        assert not [name for name, _ in reader.attributes if name.startswith("on")]

    def test_only_its_own_scripts_may_run(self) -> None:
        reader = Reader(page(report()))
        (policy,) = [value for value in reader.all("content") if value and value.startswith("default-src 'none'")]
        named = set(re.findall(r"'sha256-([^']+)'", policy))
        (style,), (_, script) = reader.texts["style"], reader.texts["script"]
        hashes = {base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script)}
        assert named == hashes
        assert "unsafe" not in policy

    def test_what_comes_from_outside_is_text(self) -> None:
        made = report(accounts=(EVIL, "two"), symbols=(EVIL, "BTC/USDT"))
        (first, second), run = made.outcomes, replace(made.run, data=(EVIL,), engine=EVIL, currency="<i>")
        first = replace(first, strategy=EVIL, params={EVIL: EVIL}, sizing=EVIL, timeframe=EVIL)
        source = page(replace(made, run=run, outcomes=(first, second), reasons=(EVIL, *REASONS[1:])))
        reader = Reader(source)
        assert b"<img" not in source
        assert b"<i>" not in source
        assert source.count(b"</script>") == 2
        assert EVIL in reader.texts["td"]
        assert EVIL in reader.texts["option"]
        assert (reader.data["symbols"][0], reader.data["reasons"][0]) == (EVIL, EVIL)
        assert [strategy["name"] for strategy in reader.data["strategies"]] == [EVIL, "two"]

    def test_the_scripts_find_what_they_ask_for(self) -> None:
        reader, alone = Reader(page(EVERYTHING)), Reader(page(report()))
        assets = resources.files("bot.backtest.report") / "assets"
        script = (assets / "page.js").read_text()
        asked = set(re.findall(r"""(?:byId|on|getElementById)\("([\w-]+)\"""", script))
        assert asked >= {"trades", "page", "symbol", "whole", "marked"}
        assert asked <= set(reader.ids)
        # What there is nothing to choose from is not asked without looking.
        choosers = asked - set(alone.ids)
        assert choosers == {"strategy", "symbol", "trades-of"}
        assert all(f'if (byId("{name}"))' in script or f'byId("{name}") ?' in script for name in choosers)
        columns = re.findall(r'"(\w+)"', re.search(r"const COLUMNS = \[(.*)\]", script)[1])  # type: ignore[index]
        digits = re.findall(r"(\w+): ", re.search(r"const DIGITS = \{(.*)\}", script)[1])  # type: ignore[index]
        assert reader.all("data-column") == [*columns[:-1], *digits, columns[-1]]

    def test_the_numbers_inside(self) -> None:
        (outcome, _, _), data = EVERYTHING.outcomes, Reader(page(EVERYTHING)).data
        strategy = data["strategies"][0]
        assert np.cumsum(strategy["trades"]["opened"]).tolist() == outcome.trips.opened_ms.tolist()
        assert strategy["trades"]["profit"] == pytest.approx(outcome.trips.profit.tolist(), rel=1e-9)
        assert np.cumsum(strategy["fills"]["t"]).tolist() == outcome.fills.timestamp.tolist()
        assert strategy["fills"]["buy"] == outcome.fills.buy.astype(int).tolist()
        assert strategy["curve"]["equity"] == pytest.approx(outcome.curve.values.tolist())
        assert min(strategy["curve"]["drawdown_percent"]) < 0 == max(strategy["curve"]["drawdown_percent"])
        assert [len(points["h"]) for points in data["prices"]] == [len(points) for points in EVERYTHING.prices]
        assert data["prices"][1]["h"] == pytest.approx(EVERYTHING.prices[1].high.tolist())

    def test_it_stays_a_size_that_a_browser_opens(self) -> None:
        made = report(bars=1_000, trades=400)
        (only,) = made.outcomes
        more = only.trips.where(np.tile(np.arange(len(only.trips)), 150))
        source = page(replace(made, outcomes=(replace(only, trips=more),)))
        trades = Reader(source).data["strategies"][0]["trades"]
        assert len(trades["profit"]) == pages.TRADES_MAX
        assert trades["left_out"] == len(more.symbol) - pages.TRADES_MAX > 0
        assert trades["profit"][-1] == pytest.approx(only.trips.profit[-1])
        assert len(source) < 8_000_000


class TestFiles:
    @pytest.mark.parametrize("name", ["report.pdf", "report", "report.html.gz", ".html"])
    def test_what_it_cannot_write(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ReportError, match=r"must end in \.html or \.png$"):
            checked(tmp_path / name)

    def test_where_it_cannot_write(self, tmp_path: Path) -> None:
        (tmp_path / "folder.html").mkdir()
        for path, word in ((tmp_path / "none" / "a.html", "no folder"), (tmp_path / "folder.html", "is a folder")):
            with pytest.raises(ReportError, match=word):
                checked(path)
        with pytest.raises(ReportError, match="too long"):
            checked(tmp_path / f"{'a' * 300}.html")
        with pytest.raises(ReportError, match=r"cannot write .*folder\.html"):
            write(tmp_path / "folder.html", idle())
        assert [path.name for path in tmp_path.iterdir()] == ["folder.html"]

    def test_a_page_takes_the_place_of_another(self, tmp_path: Path) -> None:
        path = tmp_path / "Report.HTML"
        path.write_text("before")
        checked(path)
        write(path, idle())
        assert path.read_bytes() == page(idle())
        assert list(tmp_path.iterdir()) == [path]

    def test_without_matplotlib(self, tmp_path: Path) -> None:
        (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError('gone', name='matplotlib')\n")
        code = (
            "from pathlib import Path; from bot.backtest.report import ReportError, checked\n"
            "try: checked(Path('a.png'))\nexcept ReportError as error: print(error)"
        )
        path = f"{tmp_path}:{ROOT}"
        result = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
        )
        assert "pip install '.[report]'" in result.stdout
        assert len(result.stdout.splitlines()) == 1


def test_pictures(tmp_path: Path) -> None:
    picture = pytest.importorskip("bot.backtest.report.picture", reason="needs matplotlib: pip install '.[report]'")
    reader, most = pytest.importorskip("matplotlib.image"), picture.MARKS_MAX
    many = report(accounts=(EVIL, "two"), symbols=("\u6bd4\u7279/USDT", EVIL), bars=most * 2, trades=most - 1)
    colors = (picture.EQUITY, picture.HOLD, picture.UP, picture.DOWN)
    counts = {}
    for name, made in {"many": many, "idle": idle()}.items():
        path = tmp_path / f"{name}.png"
        checked(path)
        write(path, made)
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        image = np.rint(reader.imread(path) * 255).astype(np.uint8)
        assert image.shape[:2] == (1200, 1600)
        shades = [tuple(bytes.fromhex(color[1:])) for color in colors]
        counts[name] = [int((image[:, :, :3] == shade).all(axis=2).sum()) for shade in shades]
    # A line from side to side in both; of the others one has no more than the legend's.
    assert min(counts["many"][0], counts["idle"][0]) > 1_000
    assert all(most > least > 0 for most, least in zip(counts["many"][1:], counts["idle"][1:], strict=True)), counts
