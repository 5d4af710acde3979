"""Runs of numbers, each counted once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from esx.capsule.runs import Runs


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(-1, 10)), max_size=12), st.integers(-1, 40))
def test_only_new_numbers_come_back(added: list[tuple[int, int]], forgotten: int) -> None:
    runs, known = Runs(), set[int]()
    for first, length in added:
        new = {number for begin, end in runs.add(first, first + length) for number in range(begin, end + 1)}
        wanted = set(range(first, first + length + 1))
        assert new == wanted - known
        known |= wanted
    runs.forget(forgotten)
    left = {number for begin, end in runs.add(0, 60) for number in range(begin, end + 1)}
    assert left >= set(range(61)) - known
    assert not left & {number for number in known if number > forgotten}
