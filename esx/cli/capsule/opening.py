"""Opening a capsule for a command."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from esx.cli.options import complete_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esx.capsule.reading import Capsule

capsule_argument = click.argument("path", metavar="FILE", shell_complete=complete_file)
"""The file, which the command receives as `path`."""


@contextlib.contextmanager
def opened(path: str) -> Iterator[Capsule]:
    """Open a capsule. Raises BadCapsule, and FileError where it cannot be read."""
    from esx.capsule.reading import Capsule

    try:
        capsule = Capsule(Path(path))
    except OSError as error:
        raise click.FileError(path, error.strerror or str(error)) from None
    with capsule:
        yield capsule
