"""The window of the numbers that a reader passed last."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from esx.store.feed.recent import WINDOW, Recent
from esx.store.feed.server import Server

if TYPE_CHECKING:
    from collections.abc import Sequence


def known(recent: Recent) -> tuple[int, int, int]:
    history = recent.history
    assert history is not None
    return history.position, history.low, history.count


@pytest.mark.parametrize("lengths", [(1, 5), (1000,), (3, 1000, 25_000)], ids=["single", "pages", "of all lengths"])
def test_the_window_holds_what_was_passed_last_with_and_without_gaps(lengths: Sequence[int]) -> None:
    draw = random.Random(7)
    recent = Recent(0)
    recent.server = Server(1, 1)
    passed: list[int] = []
    low = 0
    for _ in range(60_000 // max(lengths) if max(lengths) < WINDOW else 30):
        first = (passed[-1] if passed else 0) + draw.choice((1, 1, 1, 4))
        length = draw.choice(lengths)
        batch = range(first, first + length) if draw.random() < 0.8 else [first + 2 * n for n in range(length)]
        recent.passed(batch, batch[-1], ())
        passed += batch
        if len(passed) > 2 * WINDOW:
            low, passed = passed[-WINDOW - 1], passed[-WINDOW:]
        assert known(recent) == (passed[-1], low, len(passed))
    middle = len(passed) // 2
    copy = recent.up_to(passed[middle])
    assert known(copy) == (passed[middle], low, middle + 1)
    copy.passed(passed[middle + 1 :], passed[-1], ())
    assert known(copy) == known(recent)
