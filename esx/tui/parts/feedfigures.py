"""What the Feed screen says above the events: how many come, of which types, and what holds them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.content import Content

from esx.text import ago, visible
from esx.tui.cells import MUTED, fit, spark, tint_colour, wrap_words

if TYPE_CHECKING:
    from esx.store.barrier import Gap, Writer
    from esx.tui.feedlog import TypeRate
    from esx.tui.follower import Follower

_CELL = 46
"""How wide a type with its rate and its bars is, at least."""
_MINUTE = 60

Piece = str | tuple[str, str]


def figures(follower: Follower, now: float, *, width: int, types: int, dark: bool) -> Content:
    """Return the figures in lines of `width` cells: the totals, what holds the feed, and `types` lines of types."""
    text, style = state_line(follower)
    lines: list[list[Piece]] = [_totals(follower, now, width)]
    lines += [[(line, style)] for line in wrap_words(text, width)]
    across = max(width // _CELL, 1)
    top = follower.log.types.top(across * types, now)
    if not top:
        lines.append([("no events in the last minute", MUTED)])
    # Down the columns, so that the most frequent stand together.
    for row in range(min(types, len(top))):
        cells = top[row :: min(types, len(top))]
        line: list[Piece] = []
        for rate in cells:
            line += [*_type_cell(rate, width // across - 2, dark), "  "]
        lines.append(line[:-1])
    joined: list[Piece] = []
    for line in lines:
        joined += [*line, "\n"]
    return Content.assemble(*joined[:-1])


def _totals(follower: Follower, now: float, width: int) -> list[Piece]:
    log = follower.log
    # In a narrow terminal the figures matter more than their full names.
    narrow = width < 100
    pieces: list[Piece] = [
        (f"{log.rate.current(now):,.1f}", "bold"),
        "/s ",
        ("", "$text-primary"),
        "  ",
        (f"{log.received:,}", "bold"),
        " received",
    ]
    if follower.where:
        pieces += [" of ", (f"{follower.looked:,}", "bold"), "" if narrow else " looked at"]
    pieces += ["  safe " if narrow else "  safe position ", (f"{follower.position:,}", "bold")]
    if follower.late:
        pieces += ["  ", (f"{follower.late:,}", "bold"), " late"]
    if follower.dead:
        pieces.append((f"  {follower.dead:,} dead", MUTED))
    used = sum(cell_len(piece if isinstance(piece, str) else piece[0]) for piece in pieces)
    room = min(width - used, _MINUTE)
    pieces[2] = (spark(log.rate.series(now)[-_MINUTE:], room) if room >= 8 else "", "$text-primary")
    return pieces


def _type_cell(rate: TypeRate, width: int, dark: bool) -> list[Piece]:
    colour = tint_colour(rate.name, dark)
    name = min(max(width // 2 - 4, 10), 26)
    bars = width - name - 11
    return [
        (fit(rate.name, name), colour),
        fit(f"{rate.current:,.1f}/s", 10, right=True),
        " ",
        (spark(rate.series, bars), colour),
    ]


def state_line(follower: Follower) -> tuple[str, str]:
    """Return what says whether the feed goes on, and what holds it, and its style."""
    if follower.failure is not None:
        goes_on = "r begins anew, near the present" if follower.ended else "it is tried again"
        return f"{'ended' if follower.ended else 'waiting'}: {visible(follower.failure)} · {goes_on}", "$text-error"
    if not follower.started:
        return "starting …", MUTED
    gap = follower.gap
    if gap is None:
        return "complete and in order up to there", "$text-success"
    return _gap_text(gap), "$text-warning"


def _gap_text(gap: Gap) -> str:
    numbers = f"{gap.first:,}" if gap.first == gap.last else f"{gap.first:,}–{gap.last:,}"
    # Whoever drew the number may have ended since: nothing tells who it was, only who it can be.
    holders = ", ".join(writer_text(writer) for writer in gap.writers[:3])
    more = f" and {len(gap.writers) - 3} more" if len(gap.writers) > 3 else ""
    return f"waiting for {numbers}" + (f", may be held by {holders}{more}" if holders else "")


def short_delay(seconds: float) -> str:
    """Return a delay in at most six characters: ``4ms``, ``1.2s``, ``12m``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 99.95:
        return f"{seconds:.1f}s"
    return f"{seconds / 60:.0f}m"


def writer_text(writer: Writer) -> str:
    """Return who a writer is: its process, for how long, what it does."""
    since = "" if writer.since is None else f", open {ago(writer.since)}"
    state = f", {visible(writer.state, limit=40)}" if writer.state else ""
    application = f", {visible(writer.application, limit=40)}" if writer.application else ""
    return f"{writer.who}{since}{state}{application}"
