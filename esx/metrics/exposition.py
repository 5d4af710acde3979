"""Measured as OpenMetrics text, by prometheus-client."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.exposition import choose_encoder

from esx import __version__
from esx.metrics.figures import Measured
from esx.store.consume.report import ConsumerReport, ConsumerState
from esx.text import visible

MOST_CONSUMERS = 200
"""How many consumers are measured, the first by name."""


def expose(figures: Measured | None, accept: str) -> tuple[bytes, str]:
    """Return the text and its content type, in the format that the reader accepts; None is a store not reached."""
    registry = CollectorRegistry()
    registry.register(_Collected(figures))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collected:
    """What prometheus-client collects: figures that were read already."""

    def __init__(self, figures: Measured | None) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        yield _gauge("esx_up", "Whether the store could be read.", 0 if self._figures is None else 1)
        about = GaugeMetricFamily("esx_build", "The version of esx.", labels=["version"])
        about.add_metric([__version__], 1)
        yield about
        if self._figures is not None:
            yield from _store(self._figures)
            yield from _consumers(self._figures)


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=value)


def _store(figures: Measured) -> Iterator[Metric]:
    health = figures.health
    if health.numbered and health.head_exact:
        yield _gauge("esx_head", "The highest global_seq drawn.", health.head)
    if figures.safe is not None:
        yield _gauge("esx_safe_position", "The global_seq below which nothing can appear any more.", figures.safe)
    if figures.held is not None:
        yield _gauge("esx_feed_held_seconds", "For how long the oldest open writer has been writing.", figures.held)
    if not health.recovering:
        yield _gauge("esx_writers", "Transactions that are writing events.", len(health.writers))
    if health.events.known:
        yield _gauge("esx_events", "How many events there are, an estimate.", health.events.count)
    yield _gauge("esx_table_bytes", "The size of the table of events.", health.table_bytes)
    yield _gauge("esx_index_bytes", "The size of its indexes.", health.index_bytes)
    if not health.recovering:
        yield _gauge("esx_notification_queue_ratio", "The used part of the notification queue.", health.notify_queue)
    yield _gauge("esx_connections", "Connections to the server.", health.connections)
    yield _gauge("esx_max_connections", "Connections that the server allows.", health.max_connections)
    appended = CounterMetricFamily("esx_appends", "Events appended, by category.", labels=["category"])
    for category, count in figures.appended.items():
        appended.add_metric([category], count)
    yield appended
    if figures.findings is not None:
        found = GaugeMetricFamily("esx_doctor_findings", "What the doctor found, by severity.", labels=["severity"])
        for severity, count in figures.findings.items():
            found.add_metric([str(severity)], count)
        yield found


def _consumers(figures: Measured) -> Iterator[Metric]:
    labels = ["consumer", "kind"]
    listed = _distinct(figures.consumers)
    everything = len(figures.consumers) + len(figures.others.consumers)
    position = GaugeMetricFamily("esx_consumer_position", "The global_seq up to which it has handled.", labels=labels)
    lag = GaugeMetricFamily("esx_consumer_lag_events", "Visible events that it has not handled.", labels=labels)
    age = GaugeMetricFamily("esx_consumer_lag_seconds", "The age of the oldest of them.", labels=labels)
    rate = GaugeMetricFamily("esx_consumer_rate", "Events a second that it handled lately.", labels=labels)
    parked = GaugeMetricFamily("esx_consumer_parked_events", "Events that it has parked.", labels=labels)
    state = StateSetMetricFamily("esx_consumer_state", "What it does.", labels=labels)
    for name, report in listed.items():
        values = [name, report.kind]
        position.add_metric(values, report.position)
        lag.add_metric(values, report.lag)
        if report.lag_seconds is not None or not report.lag:
            age.add_metric(values, report.lag_seconds or 0.0)
        rate.add_metric(values, report.rate)
        if report.parked is not None:
            parked.add_metric(values, report.parked)
        state.add_metric(values, {str(each): each is report.state for each in ConsumerState})
    shown = len(listed)
    for other in figures.others.consumers:
        name = visible(other.name, limit=100)
        if other.lag is None or other.position is None or name in listed or shown >= MOST_CONSUMERS:
            continue
        listed[name] = other  # type: ignore[assignment]
        shown += 1
        position.add_metric([name, "other"], other.position)
        lag.add_metric([name, "other"], other.lag)
        if other.lag_seconds is not None:
            age.add_metric([name, "other"], other.lag_seconds)
    yield from (position, lag, age, rate, parked, state)
    if not figures.others.notes:  # what is left out is not counted
        yield _gauge("esx_consumers", "How many consumers there are.", everything)
        yield _gauge("esx_consumers_left_out", "Consumers that have no metrics here.", everything - shown)


def _distinct(reports: Iterable[ConsumerReport]) -> dict[str, ConsumerReport]:
    """Return the first consumers by a name that is safe to show; of two that look alike, one."""
    found: dict[str, ConsumerReport] = {}
    for report in reports:
        if len(found) < MOST_CONSUMERS:
            found.setdefault(visible(report.name, limit=100), report)
    return found
