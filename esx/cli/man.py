"""esx man."""

from __future__ import annotations

import shutil
import subprocess
import sys

import click


@click.command(name="man")
def command() -> None:
    """Show the manual page of esx with all its commands; into a file or a pipe, print its source.

    To let `man esx` find it: esx man > ~/.local/share/man/man1/esx.1
    """
    from esx.cli.main import cli
    from esx.cli.manpage import manual

    page = manual(cli)
    if sys.stdout.isatty() and shutil.which("man"):
        subprocess.run(["man", "-l", "-"], input=page, encoding="utf-8", check=False)
    else:
        sys.stdout.write(page)
