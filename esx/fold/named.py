"""Loading a Python function that the user names: a reducer, a decoder of payloads, or the handler of a projection."""

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from esx.errors import EsxError
from esx.text import visible


class HandlerFailed(EsxError):
    """The named function cannot be used as a handler. The message is one line."""


def load_handler(text: str, *, batch: bool) -> Callable[..., Any]:
    """Return the handler written as ``module:function``; with `batch` it takes the events of a batch.

    Raises HandlerFailed if it cannot be loaded, or is no async function of two arguments.
    """
    arguments = "connection, events" if batch else "connection, event"
    function = load_function(text, "handler", "billing.balances:handle", arguments, HandlerFailed)
    called = function if inspect.isfunction(function) or inspect.ismethod(function) else type(function).__call__
    if not inspect.iscoroutinefunction(called):
        raise HandlerFailed(f"handler {visible(text, limit=200)} is not async: write async def function({arguments})")
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise HandlerFailed(f"handler {visible(text, limit=200)} has to take ({arguments})") from None
    return function


def load_function(
    text: str, what: str, example: str, arguments: str, failed: Callable[[str], EsxError]
) -> Callable[..., Any]:
    """Return the function written as ``module:function``, looked for in the current directory and on ``sys.path``.

    `what` is what the function is for. Raises the error that `failed` makes of a message, which names what is wrong.
    """
    module_name, colon, attribute = text.partition(":")
    if not colon or not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise failed(f"{text!r} does not name a {what}: use module:function, as in {example}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        function: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            function = getattr(function, name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise failed(f"{what} {text} could not be loaded: {reason_of(error)}") from error
        raise failed(f"{what} {text}: there is no module {error.name} in {here} or on Python's path") from None
    except (Exception, SystemExit) as error:
        raise failed(f"{what} {text} could not be loaded: {reason_of(error)}") from error
    if not callable(function):
        raise failed(f"{what} {text} is a {type(function).__name__}, not a function({arguments})")
    loaded: Callable[..., Any] = function
    return loaded


def reason_of(error: BaseException) -> str:
    """Return an error of the user's code in one line."""
    return visible(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__, limit=300)
