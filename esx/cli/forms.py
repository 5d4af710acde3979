"""The forms in which commands print rows: a table, JSON or CSV; and the options that choose one.

A table on a terminal is compact: its lines fit the width. In a pipe, and with --wide, it has everything, as scripts
rely on.
"""

from __future__ import annotations

import functools
import json
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from esx.cli.options import json_option
from esx.cli.style import coloured
from esx.text import as_written, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Command = TypeVar("Command", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True)
class Form:
    """How rows are printed. `kind` is table, json or csv; `width` is that of the terminal in cells.

    `compact` tables fit that width. `paged` output goes through a pager where it is longer than the screen.
    """

    kind: str = "table"
    compact: bool = False
    colour: bool = False
    paged: bool = False
    width: int = 80

    @property
    def as_json(self) -> bool:
        """Whether to print NDJSON."""
        return self.kind == "json"

    @property
    def as_csv(self) -> bool:
        """Whether to print CSV."""
        return self.kind == "csv"


def output_options(command: Command) -> Command:
    """Add --as, --json, --wide, --color and --no-pager, which the command receives as one `form`."""

    @functools.wraps(command)
    def inner(
        *arguments: Any, as_json: bool, kind: str | None, wide: bool, color: str, no_pager: bool, **options: Any
    ) -> Any:
        return command(*arguments, form=_form(as_json, kind, wide, color, no_pager), **options)

    for option in reversed(_OPTIONS):
        option(inner)
    return inner  # type: ignore[return-value]


_OPTIONS = (
    click.option("--as", "kind", type=click.Choice(["table", "json", "csv"]), help="The form of what is printed."),
    json_option,
    click.option("--wide", is_flag=True, help="On a terminal too, print everything, as into a pipe."),
    click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=True,
        help="Colours; auto: on a terminal, unless NO_COLOR is set.",
    ),
    click.option("--no-pager", is_flag=True, help="Do not use a pager where the output is longer than the screen."),
)


def _form(as_json: bool, kind: str | None, wide: bool, color: str, no_pager: bool) -> Form:
    if as_json and kind not in (None, "json"):
        raise click.UsageError(f"--json and --as {kind} name two forms: give one of them")
    kind = "json" if as_json else kind or "table"
    terminal = sys.stdout.isatty()
    return Form(
        kind,
        compact=terminal and kind == "table" and not wide,
        colour=kind == "table" and coloured(color),
        paged=terminal and kind == "table" and not no_pager,
        width=max(shutil.get_terminal_size().columns, 40),
    )


class CsvLines:
    """Prints rows as CSV (RFC 4180), with the names of the columns in the first line."""

    def __init__(self) -> None:
        self._headed = False
        self._terminal = sys.stdout.isatty()

    def row(self, values: Mapping[str, Any]) -> None:
        """Print a row. None is empty; lists and objects are JSON."""
        if not self._headed:
            self._headed = True
            self._print(list(values))
        self._print([_csv_text(value) for value in values.values()])

    def json(self, line: str) -> None:
        """Print the members of a JSON object as a row."""
        from esx.fold.value import parse

        self.row(parse(line))

    def _print(self, cells: Sequence[str]) -> None:
        shown = (visible(cell) if self._terminal else as_written(cell) for cell in cells)
        sys.stdout.write(",".join(map(_quoted, shown)) + "\n")


def _csv_text(value: Any) -> str:
    from esx.fold.value import dump

    if value is None:
        return ""
    if isinstance(value, bool):
        return json.dumps(value)
    return str(value) if isinstance(value, str | int | float) else dump(value)


def _quoted(cell: str) -> str:
    if any(char in cell for char in ',"\r\n') or cell != cell.strip():
        return '"' + cell.replace('"', '""') + '"'
    return cell
