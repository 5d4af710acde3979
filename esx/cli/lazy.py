"""Groups of commands that are imported when they are used, so that `--help` and `--version` answer at once."""

import importlib
from collections.abc import Mapping
from typing import ClassVar

import click


class LazyGroup(click.Group):
    """A group whose commands are the `command` of a module each."""

    package: ClassVar[str]
    listed: ClassVar[Mapping[str, str]]
    """What `--help` says about each command, in the order in which they are listed."""
    modules: ClassVar[Mapping[str, str]] = {}
    """The module of each command that is not called like its module."""
    heading: ClassVar[str] = "Commands"

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of the commands."""
        return list(self.listed)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a command, None if there is none of that name."""
        if cmd_name not in self.listed:
            return None
        command = importlib.import_module(f"{self.package}.{self.modules.get(cmd_name, cmd_name)}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section(self.heading):
            formatter.write_dl(list(self.listed.items()))
