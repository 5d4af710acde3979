"""Folding a stream to its state: by JSON merge, or by a function that the user names."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from esx.errors import EsxError
from esx.fold.named import load_function, reason_of
from esx.fold.value import dump, parse
from esx.model import Event
from esx.payload import Undecoded
from esx.text import visible


class ReducerFailed(EsxError):
    """A reducer could not be loaded, raised an error at an event, or returned a value that is not JSON."""


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
            raise ReducerFailed(f"{self._at(event)}: {reason_of(error)}") from error

    def keep(self, state: Any) -> Any:
        """Return a copy that later events do not change. Raises ReducerFailed if it cannot be copied."""
        if self.pure:
            return state
        try:
            return copy.deepcopy(state)
        except (Exception, SystemExit) as error:
            raise ReducerFailed(f"the state of reducer {self.name} cannot be copied: {reason_of(error)}") from error

    def to_json(self, state: Any, event: Event) -> str:
        """Return the state after `event` as JSON text. Raises ReducerFailed if that is not possible."""
        try:
            return dump(state)
        except (Exception, SystemExit) as error:
            raise ReducerFailed(f"{self._at(event, 'made a state that is not JSON at')}: {reason_of(error)}") from error

    def _at(self, event: Event, did: str = "failed at") -> str:
        return (
            f"reducer {visible(self.name, limit=100)} {did} event {event.global_seq} "
            f"({visible(event.stream_id, limit=100)}@{event.stream_seq}, {visible(event.event_type, limit=100)})"
        )


def merge(state: Any, event: Event) -> Any:
    """Return the state with an event's data merged into it by RFC 7386; the given state does not change.

    Members replace members of the same name, objects are merged with objects, and null removes a member. Data that is
    not an object replaces the state; null as the whole data changes nothing.
    """
    if isinstance(event.data_json, Undecoded):
        raise ValueError(f"its data are {event.data_json.note}: a decoder or another reducer may know them")
    data = parse(event.data_json)
    if data is None:
        return state
    if not isinstance(data, dict):
        return data
    # Merged objects are copied, all others are shared with the state before.
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

    The function's attribute `initial` is the state before the first event (default: None). Raises ReducerFailed, which
    names what is wrong.
    """
    function = load_function(text, "reducer", "billing.states:invoice", "state, event", ReducerFailed)
    return Reducer(text, function, getattr(function, "initial", None))
