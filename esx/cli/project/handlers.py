"""The handler of a projection, by the name that the user gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable


def handler_of(text: str, *, batch: bool) -> Callable[..., Any]:
    """Return the handler written as ``module:function``; see `load_handler`. Raises UsageError."""
    from esx.fold.named import HandlerFailed, load_handler

    try:
        return load_handler(text, batch=batch)
    except HandlerFailed as error:
        raise click.UsageError(str(error)) from error
