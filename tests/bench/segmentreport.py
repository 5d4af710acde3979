"""What the segment file and the table cost, as a Markdown table and as a picture."""

from __future__ import annotations

from esx.load.report.pages.svg import Drawing, escape, standalone

# https://github.com/kurrent-io/KurrentDB: docs/server/features/indexes/secondary.md
_EVENTS, _LOG, _INDEX = 130e6, 48e9, 3.2e9
_LEFT, _BAR, _WIDTH = 150, 26, 720


class Figures(dict[str, float]):
    """The figures of a run by name: bytes of an event, bytes for a byte of payload, rates a second, seconds."""

    @property
    def heap(self) -> float:
        """Bytes of the table for an event."""
        return self["table heap"]

    @property
    def indexes(self) -> float:
        """Bytes of the table's indexes for an event."""
        return sum(value for name, value in self.items() if name.startswith("table ") and name != "table heap")


def table(found: Figures) -> str:
    """Return the figures as a table in Markdown."""
    many = int(found["writers"])
    log = found["file log"] + found["file index"]
    payload = found["events"] * found["payload"]
    freed = f"{_size(max(found['vacuum freed'], 0))} freed, the rest can be used again"
    rows = [
        ("log, bytes an event", f"{found['file log']:.0f}", f"{found.heap:.0f}", f"{_LOG / _EVENTS:.0f}"),
        (
            "index, bytes an event",
            f"{found['file index']:.1f}",
            f"{found.indexes:.0f}: {found['table events_pkey']:.0f} for the global order, "
            f"{found['table events_stream_id_stream_seq_key']:.0f} for the streams",
            f"{_INDEX / _EVENTS:.1f}",
        ),
        (
            "both, for a byte of payload",
            f"{log / found['payload']:.2f}",
            f"{(found.heap + found.indexes) / found['payload']:.2f}",
            "",
        ),
        (
            "written for a byte of payload, in bulk",
            f"{found['file written']:.2f}: log, index, merges of the index",
            f"{found['copy wal'] + found['copy files']:.2f}: WAL {found['copy wal']:.2f}, "
            f"table and indexes {found['copy files']:.2f}; then {found['copy vacuum']:.2f} of WAL by the first VACUUM",
            "",
        ),
        (
            "written for a byte of payload, one by one to streams all over it, after a checkpoint",
            f"{found['spread file']:.2f}: there is no WAL, the log is the data",
            f"{found['spread wal']:.2f}: WAL alone",
            "",
        ),
        (
            "the same, to a few streams",
            "the same",
            f"{found['wal append table 1']:.2f} by one writer, {found[f'wal append table {many}']:.2f} by {many}",
            "",
        ),
        (
            "all events in order, events a second",
            f"{found['read file']:,.0f} parsed and checked in Python; a plain file of the same size "
            f"{found['read plain']:,.0f}",
            f"{found['read copy']:,.0f} by COPY, {found['read library']:,.0f} by `read_all`",
            "",
        ),
        (
            f"a stream of some {found['events'] / found['streams']:.0f} events",
            f"{found['stream file']:.2f} ms",
            f"{found['stream table']:.2f} ms",
            "",
        ),
        (
            "appends a second, one writer, each with an fsync",
            f"{found['append file 1']:,.0f}",
            f"{found['append table 1']:,.0f}",
            "",
        ),
        (
            f"appends a second, {many} writers who share an fsync",
            f"{found[f'append file {many}']:,.0f}",
            f"{found[f'append table {many}']:,.0f}",
            "",
        ),
        (
            "to make the indexes anew",
            f"{found['rebuild file']:.1f} s, in Python",
            f"{found['rebuild table']:.1f} s (REINDEX), {_size(found['rebuild wal'])} of WAL",
            "",
        ),
        (
            f"to delete {found['gone']:.0%} of the events, every tenth stream",
            f"scavenge: {found['scavenge']:.1f} s, in Python; {_size(found['scavenge written'])} written, "
            f"{_size(found['scavenge freed'])} freed",
            f"DELETE {found['delete']:.1f} s, {_size(found['delete wal'])} of WAL; VACUUM {found['vacuum']:.1f} s, "
            f"{_size(found['vacuum wal'])} of WAL; {freed}",
            "",
        ),
        (
            "to give the space back too",
            "that is the scavenge",
            f"VACUUM FULL {found['full']:.1f} s, {_size(found['full wal'])} of WAL, "
            f"{_size(found['full freed'])} freed; it locks the table",
            "",
        ),
    ]
    head = (
        f"{found['events']:,.0f} events with {found['payload']:.0f} bytes of JSON each ({_size(payload)}), in "
        f"{found['streams']:,.0f} streams:\n\n"
        "| what | segment file | esx's table | published for KurrentDB |\n| --- | --- | --- | --- |\n"
    )
    return head + "".join(f"| {' | '.join(row)} |\n".replace("|  |", "| |") for row in rows)


def picture(found: Figures) -> str:
    """Return two charts as SVG: bytes an event, and bytes written for a byte of payload."""
    sizes = [
        ("KurrentDB, published", [("log", _LOG / _EVENTS, 1), ("index", _INDEX / _EVENTS, 2)]),
        ("segment file", [("log", found["file log"], 1), ("index", found["file index"], 2)]),
        ("esx's table", [("log", found.heap, 1), ("index", found.indexes, 2)]),
    ]
    written = [
        ("segment file", [("log and index", found["file written"], 1)]),
        ("table, by COPY", [("WAL", found["copy wal"], 3), ("table and indexes", found["copy files"], 1)]),
        ("one by one: WAL alone", [("WAL", found["spread wal"], 3)]),
        ("to few streams: WAL", [("WAL", found["wal append table 1"], 3)]),
    ]
    keys = [("log, or the table", 1), ("index", 2)]
    others = [("log, table and indexes", 1), ("WAL", 3)]
    return standalone(
        [
            [_bars("Bytes an event", sizes, keys, "{:,.0f}")],
            [_bars("Bytes written for a byte of payload", written, others, "{:.2f}")],
        ],
        title="The same events in a segment file and in PostgreSQL",
    )


def _bars(
    title: str, bars: list[tuple[str, list[tuple[str, float, int]]]], keys: list[tuple[str, int]], form: str
) -> Drawing:
    """Return stacked bars from left to right, with the sum behind each."""
    highest = max(sum(value for _, value, _ in parts) for _, parts in bars)
    scale = (_WIDTH - _LEFT - 70) / highest
    body = [f'<text class="title" x="0" y="13">{escape(title)}</text>']
    at = float(_LEFT)
    for name, tone in keys:
        body.append(f'<rect class="f{tone}" x="{at}" y="24" width="12" height="9"/>')
        body.append(f'<text class="legend" x="{at + 17}" y="33">{escape(name)}</text>')
        at += 40 + 6.1 * len(name)
    y = 44
    for name, parts in bars:
        x = float(_LEFT)
        body.append(f'<text class="legend" x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        for _, value, tone in parts:
            body.append(f'<rect class="f{tone}" x="{x:.1f}" y="{y}" width="{value * scale:.1f}" height="18"/>')
            x += value * scale
        total = form.format(sum(value for _, value, _ in parts))
        body.append(f'<text x="{x + 6:.1f}" y="{y + 13}">{total}</text>')
        y += _BAR
    return Drawing(_WIDTH, y + 4, "".join(body), title)


def _size(count: float) -> str:
    """Return bytes in a unit that suits them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"
