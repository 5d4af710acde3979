"""The option --reducer: what folds a stream to its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from esx.fold.reducer import Reducer

Command = TypeVar("Command", bound="Callable[..., Any]")


def reducer_option(command: Command) -> Command:
    """Add --reducer, which the command receives as `reducer`: the text for `reducer_of`."""
    return click.option(
        "--reducer",
        metavar="MODULE:FUNCTION",
        help="Fold streams with function(state, event) instead of merging JSON.",
    )(command)


def reducer_of(text: str | None) -> Reducer:
    """Return the reducer that is named, by `text` or else the config file, or JSON merge.

    Raises UsageError if it cannot be loaded.
    """
    from esx.cli.common import config
    from esx.fold.reducer import MERGE, ReducerFailed, load_reducer

    text = text or config().reducer
    if text is None:
        return MERGE
    try:
        return load_reducer(text)
    except ReducerFailed as error:
        raise click.UsageError(str(error)) from error
