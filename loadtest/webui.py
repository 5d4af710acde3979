"""esx in Locust's web UI."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from locust.env import Environment

    from loadtest.run import Run


def extend(environment: Environment, current: Callable[[], Run | None]) -> None:
    """Add our tab."""
