"""The handler of a projection, by the name that the user gives."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import click

from esx.errors import EsxError
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable


class HandlerFailed(EsxError):
    """The named function cannot be used as a handler. The message is one line."""


def handler_of(text: str, *, batch: bool) -> Callable[..., Any]:
    """Return the handler written as ``module:function``; with `batch` it takes the events of a batch.

    Raises UsageError if it cannot be loaded, or is no async function of two arguments.
    """
    from esx.fold.named import load_function

    arguments = "connection, events" if batch else "connection, event"
    try:
        function = load_function(text, "handler", "billing.balances:handle", arguments, HandlerFailed)
    except HandlerFailed as error:
        raise click.UsageError(str(error)) from error
    called = function if inspect.isfunction(function) or inspect.ismethod(function) else type(function).__call__
    if not inspect.iscoroutinefunction(called):
        raise click.UsageError(
            f"handler {visible(text, limit=200)} is not async: write async def function({arguments})"
        )
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise click.UsageError(f"handler {visible(text, limit=200)} has to take ({arguments})") from None
    return function
