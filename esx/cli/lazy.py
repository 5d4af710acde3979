"""Groups of commands that are imported when they are used, so that `--help` and `--version` answer at once."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. Raises UsageError with the names that are like a wrong one."""
        name = args[0]
        if name not in self.listed and not name.startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            from esx.text import either

            near = get_close_matches(name, self.listed) or [one for one in self.listed if one.startswith(name)]
            hint = f": did you mean {either(near)}?" if near else ""
            raise click.UsageError(f"no such command {name!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands that begin so, without importing them, and the options."""
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name, help=text) for name, text in self.listed.items() if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section(self.heading):
            formatter.write_dl(list(self.listed.items()))
