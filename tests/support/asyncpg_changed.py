"""An asyncpg that has changed inside, as a later version may: for esx alone, as asyncpg itself would not work."""

from __future__ import annotations

import inspect
import itertools
from typing import TYPE_CHECKING, Any

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

if TYPE_CHECKING:
    import pytest

_INTERNALS = {
    asyncpg.Connection: ("_protocol", "_transport", "_server_caps", "_top_xact"),
    PreparedStatement: ("_state",),
}


class _Gone:
    """An attribute that asyncpg finds and esx does not."""

    def __init__(self, name: str, attribute: Any) -> None:
        self._name = name
        self._attribute = attribute

    def __get__(self, owner: object, kind: type) -> Any:
        if owner is None:
            return self
        if _asked_by_esx():
            raise AttributeError(f"{kind.__name__!r} object has no attribute {self._name!r}")
        return self._attribute.__get__(owner, kind)

    def __set__(self, owner: object, value: object) -> None:
        if _asked_by_esx():
            raise AttributeError(f"attribute {self._name!r} is not writable")
        self._attribute.__set__(owner, value)


class _Different(_Gone):
    """An attribute whose value, where esx has it, is something of which every method takes other arguments."""

    def __get__(self, owner: object, kind: type) -> Any:
        return _Refusing() if owner is not None and _asked_by_esx() else self._attribute.__get__(owner, kind)


class _Refusing:
    def __getattr__(self, name: str) -> Any:
        def refuse() -> None: ...

        return refuse


def _asked_by_esx() -> bool:
    frame = inspect.currentframe()
    for _ in range(2):
        frame = frame and frame.f_back
    return frame is not None and str(frame.f_globals["__name__"]).startswith("esx.")


_VERSIONS = itertools.count(1)


def another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let asyncpg have a version of which nothing has been logged yet: that is done once a version."""
    monkeypatch.setattr(asyncpg, "__version__", f"99.{next(_VERSIONS)}")


def change_asyncpg(monkeypatch: pytest.MonkeyPatch, how: type[Exception]) -> None:
    """Change what asyncpg does not document: with AttributeError it is gone, with TypeError it is called otherwise."""
    another_version(monkeypatch)
    for kind, names in _INTERNALS.items():
        for name in names:
            if name in vars(kind):
                changed = _Gone if how is AttributeError else _Different
                monkeypatch.setattr(kind, name, changed(name, vars(kind)[name]))
