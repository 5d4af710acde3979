"""`esx load` as a command with subcommands: ``esx load --users 20`` runs a test, ``esx load report RUN`` looks back."""

from __future__ import annotations

import importlib

import click
from click.core import ParameterSource

_SUBCOMMANDS = {
    "runs": "List the runs that were saved.",
    "report": "Write a run as one HTML page with plots.",
    "compare": "Put two or more runs side by side.",
    "sweep": "Turn knobs, and see where optimistic concurrency bends.",
    "clean": "Delete the events of a run from the store.",
}
_INHERITED = frozenset({"dsn"})
"""What may be given before the name of a subcommand."""


class LoadGroup(click.Group):
    """Runs the test when no subcommand is named. Subcommands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the subcommands in the order in which they are told."""
        return list(_SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a subcommand, None if there is none of that name."""
        if cmd_name not in _SUBCOMMANDS:
            return None
        command = importlib.import_module(f"esx.cli.load_{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand; an option of the test before its name would be lost, so that is refused."""
        for parameter in self.get_params(ctx):
            name = parameter.name or ""
            if name not in _INHERITED and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(
                    f"{parameter.opts[0]} stands before {args[0]!r}, where it would have no effect: put it after", ctx
                )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the subcommands without importing them."""
        with formatter.section("Looking back, and several runs"):
            formatter.write_dl(list(_SUBCOMMANDS.items()))
