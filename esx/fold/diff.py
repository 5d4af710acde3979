"""The difference of two JSON values, path by path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypeAlias

from esx.fold.value import Path, dump, jsonpath

_Chain: TypeAlias = tuple["_Chain", str | int] | None


class MissingType:
    """The type of `MISSING`: no value, which is not null."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = MissingType()


@dataclass(frozen=True, slots=True)
class Change:
    """A value that was added, removed or changed. `old` or `new` is MISSING where there is none."""

    path: Path
    old: Any
    new: Any

    @property
    def op(self) -> str:
        """``added``, ``removed`` or ``changed``."""
        if self.old is MISSING:
            return "added"
        return "removed" if self.new is MISSING else "changed"

    def to_json(self) -> str:
        """Return ``{"path", "op", "old", "new"}`` as JSON, the path as JSONPath, null for a missing value."""
        old, new = ("null" if side is MISSING else dump(side) for side in (self.old, self.new))
        return f'{{"path": {dump(jsonpath(self.path))}, "op": "{self.op}", "old": {old}, "new": {new}}}'


def diff(old: Any, new: Any) -> Iterator[Change]:
    """Yield the changes between two values of `parse`, in the order of the new one, removed members last.

    Objects are compared by name. In arrays, equal elements at both ends are skipped and the others compared by place,
    so that one added or removed element is one change. An index is that in the new array; of a removed element, that
    in the old one. Values of another kind, and numbers with other digits, are changed as a whole.
    """
    prints = _Prints()
    # A path is a chain of steps, the innermost first; it becomes a tuple only for a change.
    todo: list[tuple[_Chain, Any, Any]] = [(None, old, new)]
    while todo:
        path, before, after = todo.pop()
        if isinstance(before, dict) and isinstance(after, dict):
            parts = [(name, before.get(name, MISSING), member) for name, member in after.items()]
            parts += [(name, member, MISSING) for name, member in before.items() if name not in after]
            todo += [((path, name), left, right) for name, left, right in reversed(parts) if left is not right]
        elif isinstance(before, list) and isinstance(after, list):
            parts_by_place = _elements(before, after, prints)
            todo += [((path, index), left, right) for index, left, right in reversed(parts_by_place)]
        elif type(before) is not type(after) or before != after:
            yield Change(_steps(path), before, after)


def _steps(chain: _Chain) -> Path:
    steps = []
    while chain is not None:
        chain, step = chain
        steps.append(step)
    return tuple(reversed(steps))


def _elements(before: Sequence[Any], after: Sequence[Any], prints: _Prints) -> list[tuple[int, Any, Any]]:
    old, new = list(map(prints.of, before)), list(map(prints.of, after))
    shorter = min(len(old), len(new))
    head = 0
    while head < shorter and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < shorter - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    left, right = before[head : len(before) - tail], after[head : len(after) - tail]
    pairs = zip_longest(left, right, fillvalue=MISSING)
    return [(place, *pair) for place, pair in enumerate(pairs, head)]


class _Prints:
    """The hash of each value, computed once, so that comparing elements is quick."""

    def __init__(self) -> None:
        self._made: dict[int, int] = {}

    def of(self, value: Any) -> int:
        """Return the hash of a value, which does not depend on the order of members."""
        made = self._made
        todo = [value]
        while todo:
            item = todo[-1]
            if not isinstance(item, dict | list) or id(item) in made:
                todo.pop()
                continue
            members = item.values() if isinstance(item, dict) else item
            missing = [part for part in members if isinstance(part, dict | list) and id(part) not in made]
            if missing:
                todo += missing
                continue
            if isinstance(item, dict):
                made[id(item)] = hash(("{", frozenset((name, self._print(part)) for name, part in item.items())))
            else:
                made[id(item)] = hash(("[", tuple(map(self._print, item))))
            todo.pop()
        return self._print(value)

    def _print(self, value: Any) -> int:
        return self._made[id(value)] if isinstance(value, dict | list) else hash((type(value), value))
