"""The metrics, for Prometheus. Read when they are asked for: between two scrapes they cost nothing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from bot import __version__
from bot.repositories.connect import log_path, size
from bot.service.http.document import feed_state, positions
from bot.service.stalls import Stalls
from bot.service.vitals import Vitals

OPENMETRICS = "application/openmetrics-text"
# Each needs a label: a family has as many samples as there are symbols, accounts, reasons or kinds.
Labelled = dict[tuple[str, ...], float]


def registry_of(vitals: Vitals, stalls: Stalls | None, ledger: Path) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Paperloop(vitals, stalls, ledger))
    ProcessCollector(registry=registry)
    return registry


def exposition(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """The metrics, and their content type: OpenMetrics for whoever takes that, else Prometheus' own text."""
    # The library would believe any version that is asked for, and fail on what is none.
    encode, content_type = choose_encoder(OPENMETRICS if OPENMETRICS in accept else "")
    return encode(registry), content_type


class _Paperloop(Collector):
    def __init__(self, vitals: Vitals, stalls: Stalls | None, ledger: Path) -> None:
        self._vitals, self._stalls, self._ledger = vitals, stalls, ledger

    def collect(self) -> Iterator[Metric]:
        vitals = self._vitals
        yield InfoMetricFamily("paperloop_build", "Which version runs.", {"version": __version__})
        yield _gauge("start_time_seconds", "When the daemon was started.", vitals.started_ms / 1000)
        yield from self._feed()
        # Before the first step nobody knows how far the ledger is; a count from 0 would look as if it had grown.
        if vitals.polls:
            yield from self._ledger_counts()
            yield from self._accounts()
        yield from self._since_start()
        yield from self._machine()

    def _feed(self) -> Iterator[Metric]:
        vitals, health = self._vitals, self._vitals.health()
        text = "1 if a step on fresh prices was committed lately, else 0: the one predicate of all health checks."
        yield _gauge("alive", text, float(health.alive))
        if health.age_s is not None:
            yield _gauge("step_age_seconds", "Since the last committed step.", health.age_s)
        ages: Labelled = {(each["symbol"],): each["age_s"] for each in feed_state(vitals) if each["age_s"] is not None}
        yield _gauges("price_age_seconds", "Since the last price of a symbol.", ("symbol",), ages)
        text = "Failed requests (failed_*) and refused quotes (refused_*) since the start, by kind."
        kinds: Labelled = {(kind,): count for kind, count in vitals.feed_counts().items()}
        yield _counters("feed_errors", text, ("kind",), kinds)
        text = "Steps that could not be made since the start, for want of prices (feed) or of a ledger to write to."
        stops: Labelled = {(kind,): vitals.interruptions[kind] for kind in ("feed", "ledger")}
        yield _counters("interruptions", text, ("kind",), stops)

    def _ledger_counts(self) -> Iterator[Metric]:
        vitals = self._vitals
        yield _counter("polls", "Polls in the ledger.", vitals.polls)
        yield _counter("ticks", "Prices in the ledger.", vitals.ticks)
        yield _counter("trades", "Trades in the ledger.", vitals.trades)

    def _accounts(self) -> Iterator[Metric]:
        accounts = self._vitals.accounts
        names = ("account", "currency")
        for key, text in (
            ("capital", "What an account began with."),
            ("cash", "Cash of an account."),
            ("equity", "Cash and positions of an account at the last prices."),
        ):
            worth: Labelled = {
                (each["account"], each["currency"]): each[key] for each in accounts if each[key] is not None
            }
            yield _gauges(key, text, names, worth)
        held = positions(self._vitals)
        names = ("account", "symbol")
        quantities: Labelled = {(each["account"], each["symbol"]): each["quantity"] for each in held}
        yield _gauges("position_quantity", "Held, in the base currency; negative: short.", names, quantities)
        values: Labelled = {
            (each["account"], each["symbol"]): each["value"] for each in held if each["value"] is not None
        }
        yield _gauges("position_value", "The same at the last price, in the account's currency.", names, values)

    def _since_start(self) -> Iterator[Metric]:
        vitals = self._vitals
        verdicts: Labelled = {("filled", ""): vitals.filled_count}
        verdicts |= {("refused", reason): count for reason, count in vitals.refusals.items()}
        yield _counters("signals", "Signals since the start, by verdict.", ("verdict", "reason"), verdicts)
        steps = vitals.steps
        bounds = [*map(str, steps.bounds_s), "+Inf"]
        buckets = list(zip(bounds, accumulate(steps.counts), strict=True))
        text = "How long a step took, from its prices to the commit."
        yield HistogramMetricFamily("paperloop_step_seconds", text, buckets=buckets, sum_value=steps.sum_s)
        for name, count in vitals.clock_events.items():
            yield _counter(name, "Since the start: beats that were skipped, or times that the clock was set.", count)

    def _machine(self) -> Iterator[Metric]:
        if self._stalls is not None:
            yield _gauge("loop_lag_seconds", "How long the event loop last took to answer.", self._stalls.lag_s)
            yield _counter("loop_blocked", "How often the event loop was blocked.", self._stalls.count)
        sizes: Labelled = {("ledger",): size(self._ledger), ("log",): size(log_path(self._ledger))}
        yield _gauges("ledger_bytes", "Size of the ledger, and of its write-ahead log.", ("file",), sizes)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"paperloop_{name}", text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"paperloop_{name}", text, value)


def _gauges(name: str, text: str, labels: tuple[str, ...], values: Labelled) -> Metric:
    family = GaugeMetricFamily(f"paperloop_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _counters(name: str, text: str, labels: tuple[str, ...], values: Labelled) -> Metric:
    family = CounterMetricFamily(f"paperloop_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
