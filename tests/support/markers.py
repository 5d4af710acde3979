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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = _without_repetitions(items)
    for item in items:
        for marker in set(_markers(item)):
            item.add_marker(marker)
    # The short ones last, so that no process has a long one left when the others are done.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


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
