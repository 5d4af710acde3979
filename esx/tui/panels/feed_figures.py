"""The figures above the feed: how many events come, of which types, and what holds them back."""

from rich.cells import cell_len
from textual.content import Content

from esx.store.feed.batch import Gap, Writer
from esx.text import ago, sparkline, visible
from esx.tui.cells import MUTED, fit, tint_colour, tint_of, wrap_words
from esx.tui.session.feedlog import TypeRate, current
from esx.tui.session.follower import Follower

Piece = str | tuple[str, str]


def figures(follower: Follower, now: float, *, width: int, types: int, ground: str) -> Content:
    """Return the figures in lines of `width` cells: totals, what holds the feed back, and `types` lines of types."""
    text, style = state_line(follower)
    if follower.orderless is not None:  # there is nothing that could be counted
        return Content("\n".join(wrap_words(text, width)))
    lines: list[list[Piece]] = [_totals(follower, now, width)]
    lines += [[(line, style)] for line in wrap_words(text, width)]
    if follower.missed:
        lines += [[(line, "$text-error")] for line in wrap_words(missed_line(follower), width)]
    across = max(width // 46, 1)
    top = follower.log.rates.top(across * types, now)
    if not top:
        known = follower.log.rates.known(now)
        lines.append([(f"no events in the last {'minute' if known >= 60 else f'{known} s'}", MUTED)])
    # Types have the colours of their categories, which the latest events tell.
    streams = {row.event_type: row.stream for row in follower.log.rows[-500:]} if top else {}
    # Down the columns, so that the most frequent are together.
    for row in range(min(types, len(top))):
        cells = top[row :: min(types, len(top))]
        line: list[Piece] = []
        for rate in cells:
            line += [*_type_cell(rate, streams.get(rate.name, ""), width // across - 2, ground), "  "]
        lines.append(line[:-1])
    joined: list[Piece] = []
    for line in lines:
        joined += [*line, "\n"]
    return Content.assemble(*joined[:-1])


def _totals(follower: Follower, now: float, width: int) -> list[Piece]:
    log = follower.log
    series = log.rates.series(now)
    # In a narrow terminal the figures matter more than their full names.
    narrow = width < 100
    pieces: list[Piece] = [
        (f"{current(series):,.1f}", "bold"),
        "/s ",
        ("", "$text-primary"),
        "  ",
        (f"{log.received:,}", "bold"),
        " received",
    ]
    if follower.where:
        pieces += [" of ", (f"{follower.counts.looked:,}", "bold"), "" if narrow else " looked at"]
    safe = f"{follower.position:,}" if follower.unrecorded is None else "not recorded"
    pieces += ["  safe " if narrow else "  safe position ", (safe, "bold")]
    if follower.counts.late:
        pieces += ["  ", (f"{follower.counts.late:,}", "bold"), " late"]
    if follower.counts.dead:
        pieces.append((f"  {follower.counts.dead:,} dead", MUTED))
    used = sum(cell_len(piece if isinstance(piece, str) else piece[0]) for piece in pieces)
    room = min(width - used, 60)
    pieces[2] = (sparkline(series, room) if room >= 8 else "", "$text-primary")
    return pieces


def _type_cell(rate: TypeRate, stream: str, width: int, ground: str) -> list[Piece]:
    colour = tint_colour(tint_of(rate.name, stream), ground)
    name = min(max(width // 2 - 4, 10), 26)
    bars = width - name - 11
    return [
        (fit(rate.name, name), colour),
        fit(f"{rate.current:,.1f}/s", 10, right=True),
        " ",
        (sparkline(rate.series, bars), colour),
    ]


def state_line(follower: Follower) -> tuple[str, str]:
    """Return a text on whether the feed goes on and what holds it back, and its style."""
    if follower.orderless is not None:
        return f"no feed: {visible(follower.orderless)}", ""
    if follower.failure is not None:
        goes_on = "r restarts it, near the present" if follower.ended else "it is tried again"
        return f"{'ended' if follower.ended else 'waiting'}: {visible(follower.failure)} · {goes_on}", "$text-error"
    if not follower.started:
        return "starting …", MUTED
    if follower.unrecorded is not None:
        return follower.unrecorded, "$text-warning"
    gap = follower.gap
    if gap is None and follower.caution is not None:
        return f"complete and in order up to there, as far as is known: {visible(follower.caution)}", "$text-warning"
    if gap is None:
        return "complete and in order up to there", "$text-success"
    return _gap_text(gap), "$text-warning"


def missed_line(follower: Follower) -> str:
    """Return a text on which event was missed last, and how many were missed."""
    last = follower.missed[-1]
    others = follower.counts.missed - 1
    more = f" and {others:,} more" if others > 0 else ""
    name, kind = visible(last.stream_id, limit=60), visible(last.event_type, limit=60)
    return f"missed {last.global_seq:,} ({name}, {kind}){more}: appeared below the safe position · 4 doctor says why"


def _gap_text(gap: Gap) -> str:
    numbers = f"{gap.first:,}" if gap.first == gap.last else f"{gap.first:,}–{gap.last:,}"
    # The writer of the number may have ended: PostgreSQL shows only who can hold it.
    holders = ", ".join(writer_text(writer) for writer in gap.writers[:3])
    more = f" and {len(gap.writers) - 3} more" if len(gap.writers) > 3 else ""
    return f"waiting for {numbers}" + (f", may be held by {holders}{more}" if holders else "")


def writer_text(writer: Writer) -> str:
    """Return a text on a writer: its process, how long it has been open, and its state."""
    since = "" if writer.since is None else f", open {ago(writer.since)}"
    state = f", {visible(writer.state, limit=40)}" if writer.state else ""
    application = f", {visible(writer.application, limit=40)}" if writer.application else ""
    return f"{writer.who}{since}{state}{application}"
