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
    for item in items:
        for marker in set(_markers(item)):
            item.add_marker(marker)
    # The short ones last, so that no process has a long one left when the others are done.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def _markers(item: pytest.Item) -> Iterator[str]:
    skips = list(item.iter_markers("skipif"))
    for marker, mark in _NEEDS.items():
        if mark in skips:
            yield marker
            yield "slow"  # a program more to start
    # The other version is tested too: it gives the quick answer.
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        parameters = item.callspec.params
        if _OLDER_POSTGRESQL in [parameters.get(name) for name in _VERSION]:
            yield "slow"
