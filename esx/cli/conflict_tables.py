"""Conflicts as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esx.cli.compact import Column, CompactCell, CompactTable
from esx.cli.output import OutputTable
from esx.cli.style import MUTED, hue
from esx.text import ago, sparkline, visible
from esx.times import clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esx.cli.forms import Form
    from esx.cli.output import OutputLines
    from esx.store.conflicts.conflict import ConflictPair, RecordedConflict

_PAIRS = ("LOST", "WON", "CONFLICTS", "STREAMS", "MOST ON", "WHEN", "LAST", "COMMUTES")
_EACH = ("AT", "STREAM", "EXPECTED", "ACTUAL", "LOST", "BY", "WON", "BY", "EVENT", "COMMUTES")
_TYPE = 120
_WHEN = 12


def print_pairs(lines: OutputLines, form: Form, pairs: Sequence[ConflictPair]) -> None:
    """Print a line for each pair of types."""
    if form.compact:
        told = any(pair.commuting is not None for pair in pairs)
        titles = [title for title in _PAIRS if title != "COMMUTES" or told]
        columns = [
            Column(title, right=title in ("CONFLICTS", "STREAMS", "LAST"), yields=title in ("LOST", "WON", "MOST ON"))
            for title in titles
        ]
        compact = CompactTable(lines, form, columns)
        for pair in pairs:
            stream = pair.streams[0][0] if pair.streams else ""
            cells = [
                CompactCell(visible(pair.lost, limit=_TYPE), hue(stream, pair.lost)),
                CompactCell(won_text(pair.won), hue(stream, pair.won) if pair.won else MUTED),
                CompactCell(_count(pair)),
                CompactCell(f"{pair.stream_count:,}", MUTED),
                CompactCell(_most_on(pair)),
                CompactCell(sparkline(pair.times, _WHEN), MUTED),
                CompactCell(ago(pair.last_at), MUTED),
            ]
            compact.add([*cells, CompactCell(commutes_text(pair))] if told else cells)
        compact.flush()
        return
    table = OutputTable(lines, _PAIRS, {2, 3})
    for pair in pairs:
        table.add(
            (
                visible(pair.lost, limit=_TYPE),
                won_text(pair.won),
                _count(pair),
                f"{pair.stream_count:,}",
                _most_on(pair),
                sparkline(pair.times, _WHEN),
                clock(pair.last_at),
                commutes_text(pair),
            )
        )
    table.flush()


def print_conflicts(lines: OutputLines, form: Form, conflicts: Sequence[RecordedConflict]) -> None:
    """Print a line for each conflict."""
    if form.compact:
        columns = [
            Column("AT"),
            Column("STREAM", yields=True),
            Column("VERSION", right=True),
            Column("LOST", yields=True),
            Column("WON"),
        ]
        compact = CompactTable(lines, form, columns)
        for one in conflicts:
            lost, won = _types(one.lost_types), _types(one.won_types) or "nothing"
            compact.add(
                (
                    CompactCell(clock(one.at).partition(" ")[2], MUTED),
                    CompactCell(visible(one.stream_id, limit=200)),
                    CompactCell(f"{_expected(one)} → {one.actual}", MUTED),
                    CompactCell(lost + _by(one.lost_user), hue(one.stream_id, lost)),
                    CompactCell(won + _by(one.won_user), hue(one.stream_id, won)),
                )
            )
        compact.flush()
        return
    table = OutputTable(lines, _EACH, {2, 3, 8})
    for one in conflicts:
        table.add(
            (
                clock(one.at),
                visible(one.stream_id, limit=200),
                _expected(one),
                str(one.actual),
                _types(one.lost_types),
                _who(one.lost_user, one.lost_correlation),
                _types(one.won_types) or "nothing",
                _who(one.won_user, one.won_correlation),
                "" if one.won_seq is None else str(one.won_seq),
                "" if one.commutes is None else "yes" if one.commutes else "no",
            )
        )
    table.flush()


def won_text(won: str) -> str:
    """Return the type that won, or that none did."""
    return visible(won, limit=_TYPE) if won else "nothing: the stream was behind"


def commutes_text(pair: ConflictPair) -> str:
    """Return whether a pair commutes, with the share where only some of its conflicts do; "" without rules."""
    if pair.commuting is None:
        return ""
    if pair.commutes is not None:
        return "yes" if pair.commutes else "no"
    return f"{pair.commuting / max(pair.conflicts, 1):.0%}"


def _count(pair: ConflictPair) -> str:
    return f"{'' if pair.exact else '~'}{pair.conflicts:,}"


def _most_on(pair: ConflictPair) -> str:
    if not pair.streams:
        return ""
    stream_id, count = pair.streams[0]
    share = "" if pair.stream_count == 1 else f" {count / max(pair.conflicts, 1):.0%}"
    return visible(stream_id, limit=200) + share


def _types(types: Sequence[str]) -> str:
    return ", ".join(visible(name, limit=_TYPE) for name in types)


def _expected(one: RecordedConflict) -> str:
    return "exists" if one.expected is None else "none" if one.expected < 0 else str(one.expected)


def _by(user: str | None) -> str:
    return "" if user is None else f" by {visible(user, limit=40)}"


def _who(user: str | None, correlation: str | None) -> str:
    return " ".join(visible(each, limit=80) for each in (user, correlation) if each is not None) or "-"
