"""Files that commands write where the user says."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from esx.files import InTheWay, check_target, new_file

FILE = click.Path(dir_okay=False, path_type=Path)
"""The type of an option that names such a file."""
force_option = click.option("--force", is_flag=True, help="Replace FILE if it is there already.")


@contextlib.contextmanager
def target(path: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """Open a file for writing, which takes its name once complete; see `esx.files.new_file`.

    Raises UsageError where something is in the way, and FileError.
    """
    with contextlib.ExitStack() as stack:
        with _told(path):
            file = stack.enter_context(new_file(path, force=force))
        yield file


def check(path: Path, *, force: bool) -> None:
    """Raise what `target` would, before any work is done."""
    with _told(path):
        check_target(path, force=force)


def write_text(path: Path, text: str, *, force: bool) -> None:
    """Write a text file, whole or not at all; raises as `target` does."""
    with target(path, force=force) as file:
        file.write(text.encode("utf-8"))


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except InTheWay as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise click.FileError(str(path), error.strerror or str(error)) from None
