"""The manual page, made of what `--help` says of each command."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from esx import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENVIRONMENT = {
    "ESX_DSN, DATABASE_URL, PGHOST, PGSERVICE, ...": "The database, where --dsn does not name one.",
    "ESX_CONFIG": "The config file, in place of the one that `esx config` names.",
    "ESX_DATA_DIR": "Where the PostgreSQL that comes with esx keeps its data, and saved runs are.",
    "NO_COLOR": "No colours, if it is set and not empty.",
    "PAGER, LESS": "The program for output that is longer than the screen (less), and its options (FRX).",
}


def manual(root: click.Group) -> str:
    """Return the page of `root` and all its commands, in the language of man(7)."""
    context = click.Context(root, info_name="esx", max_content_width=100)
    lines = [
        f'.TH ESX 1 "" "esx {__version__}" "esx"',
        ".SH NAME",
        r"esx \- the terminal tool for event stores kept in PostgreSQL",
        ".SH SYNOPSIS",
        ".B esx",
        r"[\fIOPTIONS\fR] [\fICOMMAND\fR [\fIARGUMENTS\fR]]",
        ".SH DESCRIPTION",
        *_paragraphs(root.help or ""),
        ".SH OPTIONS",
        *_options(root, context),
        ".SH COMMANDS",
    ]
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        assert command is not None
        lines += _command(command, context, name)
    lines.append(".SH ENVIRONMENT")
    for name, meaning in _ENVIRONMENT.items():
        lines += [".TP", f".B {_text(name)}", _text(meaning)]
    return "\n".join(lines) + "\n"


def _command(command: click.Command, above: click.Context, name: str) -> Iterator[str]:
    context = click.Context(command, above, info_name=name)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f".SS {_text(usage)}"
    yield from _paragraphs(command.help or "")
    yield from _options(command, context)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from _command(found, context, below)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            yield from (".TP", f".B {_text(record[0])}", _text(record[1]))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        yield from (".PP", _text(" ".join(paragraph.replace("\b", "").split())))


def _text(text: str) -> str:
    """Return text that roff shows as it is."""
    shown = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{shown}" if shown.startswith((".", "'")) else shown
