"""The page in a real browser, beside the real daemon."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.browser.chromium import NotStarted, Page, chromium, page_of, program
from tests.integration.daemon import ServedDaemon, settings

pytestmark = pytest.mark.skipif(program() is None, reason="needs Chromium: apt-get install chromium")

# What a strategy file of somebody else may be called, and what its accounts are called then.
HOSTILE = "<img src=x onerror=document.title=1>"
PLACES = ("#accounts", "#trades", "#signals", "#feed", "#facts", "#notice", "#account", "figcaption", ".tip")
STRATEGIES = [
    {"name": "sma_cross", "params": {"fast": 2, "slow": 4}},
    {"name": "rsi_reversion"},
    {"name": "sma_cross", "params": {"fast": 2, "slow": 4}, "account": "too_small", "quantity": 1e-9},
]


def toml(table: object) -> str:
    return json.dumps(table).replace('": ', '"=')


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ExitStack() as stack:
        try:
            address = stack.enter_context(chromium(tmp_path_factory.mktemp("browser")))
        except NotStarted as error:
            pytest.skip(f"Chromium does not start here: {error}")
        yield address


@pytest.fixture
async def page(browser: str) -> AsyncIterator[Page]:
    async with page_of(browser) as found:
        yield found


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedDaemon]:
    """One for all who only look at it."""
    with ServedDaemon(*keys(), folder=tmp_path_factory.mktemp("daemon")) as found:
        yield found


def keys(**more: object) -> list[str]:
    wanted = {"storage__path": "l.db", "http__enabled": "true", "http__port": 0, "feed__poll_interval_s": 0.05}
    return settings(**{**wanted, "strategy": toml(STRATEGIES), **more})


def text(selector: str) -> str:
    return f"document.querySelector({selector!r}).textContent"


def count(table: str) -> str:
    return f"document.querySelectorAll('#{table} tbody tr td:nth-child(2)').length"


async def test_it_shows_what_the_daemon_does_and_follows_it(daemon: ServedDaemon, page: Page) -> None:
    await page.shape(1200, 900)
    await page.go(daemon.address)
    await page.until(f"document.readyState === 'complete' && {text('#health')} === 'alive'")
    await page.until(f"{count('trades')} > 2 && {count('signals')} > 2 && {count('positions')} > 0")
    assert [await page.value(text(f"#accounts tr:nth-child({row}) td")) for row in (1, 2, 3)] == [
        "sma_cross",
        "rsi_reversion",
        "too_small",
    ]
    assert "fresh" in await page.value(text("#feed"))
    # The reason in words, and its name.
    await page.until(
        f"{text('#signals')}.includes('smaller than the market') && {text('#signals')}.includes('below_min')"
    )
    # Without a reload.
    await page.value("window.mark = 1")
    trades = "now.shown.trades"
    drawn = "chart.times[chart.times.length - 1]"
    await page.until(drawn)
    before = await page.value(f"[now.state.polls, {trades}, {drawn}]")
    await page.until(f"now.state.polls > {before[0] + 5} && {trades} > {before[1]} && {drawn} > {before[2]}")
    assert await page.value("window.mark") == 1
    ours = urlsplit(daemon.address).netloc
    assert {urlsplit(address).netloc for address in page.requests} == {ours}
    assert page.complaints == []


async def test_the_chart_has_a_line_and_tells_its_values(daemon: ServedDaemon, page: Page) -> None:
    await page.shape(1200, 900)
    await page.go(daemon.address)
    await page.until("typeof chart !== 'undefined' && chart.times.length > 3 && chart.x")
    pixels = "chart.pen.getImageData(0, 0, chart.canvas.width, chart.canvas.height).data.buffer"
    assert await page.value(f"new Set(new Uint32Array({pixels})).size") > 10
    place = "(box => [box.x + box.width / 2, box.y + box.height / 2])(chart.canvas.getBoundingClientRect())"
    await page.move_to(*await page.value(place))
    await page.until("!document.querySelector('.tip').hidden")
    assert "sma_cross" in await page.value(text(".tip"))
    # By the keyboard, too, and of one account in its currency.
    await page.value(
        "const choice = document.querySelector('#account'); choice.value = 'sma_cross';"
        " choice.dispatchEvent(new Event('change')); chart.canvas.focus(); chart.point(null)"
    )
    await page.press("Home")
    await page.until(f"{text('.tip')}.includes('sma_cross') && !{text('.tip')}.includes('rsi_reversion')")
    assert await page.value(text("#unit")) == "USDT"
    assert page.complaints == []


async def test_it_says_that_the_daemon_is_gone_and_comes_back_with_it(page: Page, tmp_path: Path) -> None:
    with ServedDaemon(*keys(), folder=tmp_path) as daemon:
        await page.go(daemon.address)
        await page.until(f"{text('#health')} === 'alive' && {count('trades')} > 0")
        port = urlsplit(daemon.address).port
        assert daemon.stop().code == 0
    await page.until(f"{text('#health')} === 'connection lost' && {text('#notice')}.includes('No connection')")
    assert await page.value("document.body.classList.contains('lost')")
    assert await page.value(count("trades")) > 0
    with ServedDaemon(*keys(http__port=port), folder=tmp_path) as again:
        await page.until(f"{text('#health')} === 'alive' && now.state.pid === {again.pid}")
        assert await page.value("document.querySelector('#notice').hidden")
    # The browser itself tells of requests that found nobody.
    other = [told for told in page.complaints if "ERR_CONNECTION" not in told and "ERR_INCOMPLETE" not in told]
    assert other == []


async def test_it_says_that_prices_have_stopped(page: Page, tmp_path: Path) -> None:
    with ServedDaemon(*keys(feed__stale_after_s=1), folder=tmp_path) as daemon:
        await page.go(daemon.address)
        await page.until(f"{text('#health')} === 'alive' && {text('#feed')}.includes('fresh')")
        daemon.send(signal.SIGSTOP)
        await page.until(f"{text('#health')} === 'not alive' && {text('#feed')}.includes('stale')")
        assert "no prices for" in await page.value(text("#notice"))
        daemon.send(signal.SIGCONT)
        await page.until(f"{text('#health')} === 'alive' && {text('#feed')}.includes('fresh')")
    assert [told for told in page.complaints if "ERR_" not in told] == []


async def test_what_others_named_is_text(daemon: ServedDaemon, page: Page) -> None:
    name = HOSTILE
    await page.go(daemon.address)
    await page.until(f"{text('#health')} === 'alive' && {count('trades')} > 0 && chart.x")
    # The settings refuse such names; a page must not depend on that. All at once: what is under way would overwrite it.
    hostile = json.dumps(name)
    shown = await page.value(
        f"now.stream.close(); const bad = {hostile}, state = structuredClone(now.state);"
        " Object.assign(state, {ledger: bad, outage_s: 1});"
        " state.last_trouble = {at: state.started_at, kind: bad, error: bad};"
        " state.refusals = state.feed_counts = {[bad]: 1}; state.feed[0].symbol = bad;"
        " for (const account of state.accounts) { account.account = account.strategy = bad;"
        "   for (const position of account.positions) position.symbol = bad; }"
        " past.values[bad] = past.times.map(() => 1); take(state);"
        " const row = {timestamp: 0, account: bad, symbol: bad, side: bad, quantity: 1, price: 1, fee: 1, pnl: 1};"
        " showTrades([row]); showSignals([{...row, target: 1, verdict: bad, reason: bad, reason_text: bad}]);"
        " chart.point(0); chart.draw();"
        f" Object.fromEntries({json.dumps(PLACES)}.map(each => [each, document.querySelector(each).textContent]))"
    )
    assert [place for place in PLACES if name not in shown[place]] == []
    assert await page.value("document.querySelectorAll('img').length") == 0
    assert await page.value("document.title") == "Paperloop"
    assert page.complaints == []


async def test_it_fits_a_telephone_and_can_be_read(daemon: ServedDaemon, page: Page) -> None:
    await page.shape(400, 800)
    await page.go(daemon.address)
    await page.until(f"{text('#health')} === 'alive' && {count('trades')} > 0 && chart.x")
    assert await page.value("document.documentElement.scrollWidth") <= 400
    backs = set()
    for dark in (False, True):
        await page.shape(400, 800, dark=dark)
        backs.add(await page.value("getComputedStyle(document.body).backgroundColor"))
        # WCAG's contrast of every text against what is behind it.
        least = await page.value(CONTRAST)
        assert least["ratio"] >= 4.5, least
    assert len(backs) == 2


CONTRAST = """(() => {
  const light = (color) => {
    const [red, green, blue] = color.match(/[0-9.]+/g).slice(0, 3).map((part) => {
      const value = part / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = (part) => {
    const color = getComputedStyle(part).backgroundColor;
    return color === "rgba(0, 0, 0, 0)" && part.parentElement ? behind(part.parentElement) : color;
  };
  let least = { ratio: 99 };
  for (const part of document.querySelectorAll("h1, h2, p, th, td, dt, dd, label, select, span")) {
    if (!part.textContent.trim()) continue;
    const [one, other] = [light(getComputedStyle(part).color), light(behind(part))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < least.ratio) least = { ratio, text: part.textContent.slice(0, 40), kind: part.className };
  }
  return least;
})()"""
