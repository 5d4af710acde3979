"""esx doctor."""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING

import click

from esx.cli.common import Lines, ProgressLine, database, database_option, json_option, run, store_on
from esx.cli.partial import incomplete, partial_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esx.database import Database
    from esx.store import Finding


@click.command(name="doctor")
@click.option("--full", is_flag=True, help="Look at every event too; Ctrl-C ends it.")
@json_option
@partial_option
@database_option
def command(dsn: str | None, full: bool, as_json: bool) -> int:
    """Look for what is wrong with the store, and say what to do about it.

    Quick at any size, unless --full is given. It only reads. The exit code is 1 if there is an error or a warning, else
    4 if a check could not be made.
    """

    async def inside(opened: Database) -> tuple[list[Finding], float]:
        async with store_on(opened, application_name="esx", read_only=True) as store:
            begun = time.monotonic()
            with ProgressLine() as progress:
                found = await store.doctor(full=full, on_progress=progress)
            return found, time.monotonic() - begun

    with database(dsn) as opened:
        findings, took = run(inside(opened))
    lines = Lines()
    if as_json:
        for finding in findings:
            lines.json(finding.to_json())
    else:
        _print(lines, findings, took)
    unmade = {finding.check: None for finding in findings if not finding.made}
    if unmade:
        incomplete(f"not checked: {', '.join(unmade)}; the remedies say what it takes")
    return 1 if any(finding.severity.wrong for finding in findings) else 0


def _print(lines: Lines, findings: Sequence[Finding], took: float) -> None:
    """Print the findings, the worst last, next to the counts."""
    from esx.store import Severity

    ranks = list(Severity)
    ranked = sorted(findings, key=lambda finding: ranks.index(finding.severity))
    width = max((len(finding.check) for finding in ranked), default=0)
    label = max(len(str(severity)) for severity in ranks)
    for _, group in groupby(ranked, key=lambda finding: finding.severity):
        for finding in group:
            lines.text(f"{finding.severity!s:<{label}}  {finding.check:<{width}}  {finding.message}")
            for step in finding.remedy:
                lines.text(" " * (label + width + 4) + step)
        lines.text("")
    errors, warnings = (
        sum(finding.severity is severity for finding in findings) for severity in (Severity.ERROR, Severity.WARNING)
    )
    wrong = {finding.check for finding in findings if finding.severity.wrong}
    passed = len({finding.check for finding in findings} - wrong)
    lines.text(
        f"{_counted(errors, 'error')}, {_counted(warnings, 'warning')}, {_counted(passed, 'check')} passed "
        f"in {f'{took:.1f} s' if took >= 1 else f'{took * 1000:.0f} ms'}"
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
