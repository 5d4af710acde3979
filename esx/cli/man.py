"""esx man."""

from __future__ import annotations

import shutil
import subprocess
import sys

import click


@click.command(name="man")
def command() -> None:
    """Show the manual page of esx with all its commands; into a file or a pipe, print its source.

    A package has it, so that `man esx` finds it where its esx is in PATH. Elsewhere:
    esx man > ~/.local/share/man/man1/esx.1
    """
    from esx.cli.main import cli
    from esx.cli.manpage import manual

    page = manual(cli)
    if sys.stdout.isatty() and shutil.which("man"):
        subprocess.run(["man", "-l", "-"], input=page, encoding="utf-8", check=False)
    else:
        sys.stdout.write(page)
