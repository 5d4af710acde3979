"""What folds a stream to its state: JSON merge by default, or a function that the user names."""

from __future__ import annotations

import copy
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esx.fold.value import dump, parse
from esx.store.errors import EsxError
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from esx.store.model import Event


class ReducerFailed(EsxError):
    """A reducer could not be loaded, raised at an event, or returned what has no form in JSON."""


@dataclass(frozen=True)
class Reducer:
    """A named ``function(state, event) -> state``.

    The state before the first event is a copy of `initial`. A function that is not `pure` may change the state it is
    given and return it.
    """

    name: str
    function: Callable[[Any, Event], Any]
    initial: Any = None
    pure: bool = False

    def start(self) -> Any:
        """Return the state before the first event."""
        return self.keep(self.initial)

    def apply(self, state: Any, event: Event) -> Any:
        """Return the state after `event`. Raises ReducerFailed naming the reducer and the event."""
        try:
            return self.function(state, event)
        except (Exception, SystemExit) as error:
            raise ReducerFailed(f"{self._at(event)}: {_reason(error)}") from error

    def keep(self, state: Any) -> Any:
        """Return a copy that later events do not change. Raises ReducerFailed if there can be none."""
        if self.pure:
            return state
        try:
            return copy.deepcopy(state)
        except (Exception, SystemExit) as error:
            raise ReducerFailed(f"the state of reducer {self.name} cannot be copied: {_reason(error)}") from error

    def to_json(self, state: Any, event: Event) -> str:
        """Return the state after `event` as JSON text. Raises ReducerFailed if it has no such form."""
        try:
            return dump(state)
        except (Exception, SystemExit) as error:
            raise ReducerFailed(f"{self._at(event, 'made a state that is not JSON at')}: {_reason(error)}") from error

    def _at(self, event: Event, did: str = "failed at") -> str:
        return (
            f"reducer {visible(self.name, limit=100)} {did} event {event.global_seq} "
            f"({visible(event.stream_id, limit=100)}@{event.stream_seq}, {visible(event.event_type, limit=100)})"
        )


def _reason(error: BaseException) -> str:
    return visible(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__, limit=300)


def merge(state: Any, event: Event) -> Any:
    """Merge an event's data into the state as RFC 7386 says, leaving the state that was given as it is.

    Members replace members of the same name, objects are merged with objects, and null removes a member. Data that is
    no object replaces the state; null as the whole of the data changes nothing.
    """
    data = parse(event.data_json)
    if data is None:
        return state
    if not isinstance(data, dict):
        return data
    # What is merged is copied, everything else shared with the state before.
    merged: dict[str, Any] = dict(state) if isinstance(state, dict) else {}
    todo = [(merged, data)]
    while todo:
        target, patch = todo.pop()
        for name, value in patch.items():
            if value is None:
                target.pop(name, None)
            elif isinstance(value, dict):
                there = target.get(name)
                target[name] = part = dict(there) if isinstance(there, dict) else {}
                todo.append((part, value))
            else:
                target[name] = value
    return merged


MERGE = Reducer("JSON merge", merge, pure=True)


def load_reducer(text: str) -> Reducer:
    """Return the reducer written as ``module:function``, looked for in the current directory and on ``sys.path``.

    An attribute `initial` of the function is the state before the first event, else it is None. Raises ReducerFailed
    naming what is wrong.
    """
    module_name, colon, attribute = text.partition(":")
    if not colon or not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise ReducerFailed(f"{text!r} does not name a reducer: use module:function, as in billing.states:invoice")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        function: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            function = getattr(function, name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ReducerFailed(f"reducer {text} could not be loaded: {_reason(error)}") from error
        raise ReducerFailed(f"reducer {text}: there is no module {error.name} in {here} or on Python's path") from None
    except AttributeError as error:
        raise ReducerFailed(f"reducer {text} could not be loaded: {_reason(error)}") from error
    except (Exception, SystemExit) as error:
        raise ReducerFailed(f"reducer {text} could not be loaded: {_reason(error)}") from error
    if not callable(function):
        raise ReducerFailed(f"reducer {text} is a {type(function).__name__}, not a function(state, event)")
    return Reducer(text, function, getattr(function, "initial", None))
