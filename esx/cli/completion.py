"""esx completion."""

from __future__ import annotations

import sys

import click

from esx.cli.completing import register
from esx.cli.options import COMPLETE


@click.command(name="completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print what makes a shell complete esx: commands, options, and names of streams, types and connections.

    bash, in ~/.bashrc: eval "$(esx completion bash)".  zsh, in ~/.zshrc: eval "$(esx completion zsh)".
    fish: esx completion fish > ~/.config/fish/completions/esx.fish

    Names come from the database that the command line or the environment names, if it answers within a second. A
    PostgreSQL that comes with esx is asked only while it runs. Names with characters that shells obey are left out.
    """
    from click.shell_completion import get_completion_class

    from esx.cli.main import cli

    register()
    found = get_completion_class(shell)
    assert found is not None
    sys.stdout.write(found(cli, {}, "esx", COMPLETE).source().lstrip())
