"""A pytest plugin: the markers that can be told by what a test uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.browser import needs_browser
from tests.support.kafka import needs_kafka
from tests.support.pgbouncer import needs_pgbouncer

if TYPE_CHECKING:
    from collections.abc import Iterator

_OLDER_POSTGRESQL = 16
_VERSION = ("server", "version", "logical")  # parameters
_NEEDS = {"browser": needs_browser.mark, "pooler": needs_pgbouncer.mark, "kafka": needs_kafka.mark}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items[:] = _without_repetitions(items)
    for item in items:
        for marker in set(_markers(item)):
            item.add_marker(marker)
    items[:] = _dealt(items, getattr(config, "workerinput", {}).get("workercount", 1))


def _dealt(items: list[pytest.Item], processes: int) -> Iterator[pytest.Item]:
    """Give each process of pytest-xdist its part of the slow tests, and then of the short ones.

    Each begins with as many as the others, one after another: so none has a long one left when the others are done.
    """
    slow = [item for item in items if item.get_closest_marker("slow")]
    short = [item for item in items if not item.get_closest_marker("slow")]
    for number in range(processes):
        for kind in (slow, short):
            yield from kind[len(kind) * number // processes : len(kind) * (number + 1) // processes]


def _without_repetitions(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """Leave out of tests that are marked with `one_older` what PostgreSQL 16 is asked again and again."""
    seen = set()
    for item in items:
        if item.get_closest_marker("one_older") and _older(item):
            name = item.nodeid.partition("[")[0]
            if name in seen:
                continue
            seen.add(name)
        yield item


def _older(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return False
    parameters = item.callspec.params
    return _OLDER_POSTGRESQL in [parameters.get(name) for name in _VERSION]


def _markers(item: pytest.Item) -> Iterator[str]:
    skips = list(item.iter_markers("skipif"))
    for marker, mark in _NEEDS.items():
        if mark in skips:
            yield marker
            yield "slow"  # a program more to start
    # The other version is tested too: it gives the quick answer.
    if _older(item):
        yield "slow"
