"""What is known about the table of a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

from esx.layouts.layout import Layout
from esx.layouts.unique_index import Arbiter

T = TypeVar("T")


@dataclass(frozen=True)
class KnownTable:
    """What is known about the table of a store, and the statements made for it.

    `arbiter` is the unique index that decides between two writers, None if there is none. `as_user` are expressions
    that let triggers find names as the user does.
    """

    layout: Layout
    arbiter: Arbiter | None = None
    as_user: tuple[str, ...] = ()
    _made: dict[object, object] = field(default_factory=dict, compare=False, repr=False)

    def of(self, make: Callable[[KnownTable], T]) -> T:
        """Return `make(self)`, which is called once for each table."""
        made = self._made.get(make)
        if made is None:
            made = self._made[make] = make(self)
        return cast("T", made)
