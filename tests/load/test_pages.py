"""Pages and pictures of runs: whole, harmless whatever a run is called, and reaching for nothing elsewhere."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hdrh.histogram import HdrHistogram

from esx.load.archive import Header, SavedRun
from esx.load.model import DatabaseFigures, LoadCounts, LoadOptions, LoadProgress, LoadSummary, PairCounts, StreamCounts
from esx.load.report.pages.run import run_page
from esx.load.report.pages.scale import Axis, scale
from esx.load.report.pages.svg import Series, heat_map, line_chart, standalone
from esx.load.report.series import conflicts_by_stream, latency_curve, over_time

HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202e"


def histogram(*microseconds: int) -> str:
    recorded = HdrHistogram(1, 600_000_000, 3)
    for value in microseconds:
        recorded.record_value(value)
    encoded: bytes = recorded.encode()
    return encoded.decode()


def saved(seconds: int = 5, **changes: object) -> SavedRun:
    lines = tuple(
        LoadProgress(
            float(at), 4, LoadCounts(150 * at, 100 * at, 50 * at), 100.0, 1 / 3, 1.0, 2.0, 3.0,
            streams=(StreamCounts(0, 60, 45), StreamCounts(7, 40, 5)),
            database=DatabaseFigures(1e6, 100, 50, {HOSTILE: 2.0}),
        )
        for at in range(1, seconds + 1)
    )  # fmt: skip
    summary = LoadSummary(
        "r1", 5.0, 4, LoadCounts(750, 500, 250), 100.0, 1 / 3, {"p50": 1.0, "p99": 3.0}, 500, "pass", ("all there",),
        histograms={"success": histogram(*range(500, 5000)), "conflict": "not a histogram"},
        environment={"postgresql": "18.4"}, recording=f"9 of 9 conflicts recorded {HOSTILE}",
        pairs=(PairCounts("Withdrawn", "Deposited", 6, 2, "s-1", 4), PairCounts(HOSTILE, "", 3, 1, HOSTILE, 3)),
    )  # fmt: skip
    header = Header(datetime(2026, 8, 7, tzinfo=UTC), "ann@host/shop", LoadOptions(users=4, on_conflict="backoff"))
    return replace(SavedRun("r1", header, lines, summary), **changes)  # type: ignore[arg-type]


class Tags(HTMLParser):
    """Checks that tags are closed in order, and remembers what there was."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()
        assert self.opened == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag not in self.VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def check(page: str) -> Tags:
    tags = Tags(page)
    assert not tags.seen & {"script", "link", "img", "iframe", "object"}
    assert not {name for name in tags.attributes if name.startswith("on") or name in ("src", "href")}
    assert "url(" not in page
    assert "@import" not in page
    assert not re.search(r"https?://", page)
    return tags


def test_a_page_is_whole_and_says_what_came_of_the_run() -> None:
    shown = check(run_page(saved())).text
    for piece in (
        "r1",
        "Verdict: PASS, stored exactly once;",
        "100/s",
        "all there",
        "stream 7",
        "18.4",
        "--users 4 --on-conflict backoff",
        "Which types collided",
        "9 of 9 conflicts recorded",
        "Withdrawn",
        "s-1 (67%)",
        "nothing",
    ):
        assert piece in shown, piece


def test_hostile_text_is_text() -> None:
    run = saved()
    assert run.summary is not None
    nasty = replace(
        run.summary, evidence=(HOSTILE,), last_error=HOSTILE, verdict=HOSTILE, environment={HOSTILE: HOSTILE}
    )
    page = run_page(replace(run, header=replace(run.header, database=HOSTILE, esx=HOSTILE), summary=nasty))
    check(page)
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_run_that_was_broken_off_and_one_without_a_line_have_pages() -> None:
    assert "ended without a summary" in check(run_page(saved(summary=None))).text
    assert "nothing to show" in check(run_page(saved(series=(), summary=None))).text


def test_pictures_are_whole_xml_for_light_and_dark() -> None:
    chart = line_chart(HOSTILE, [Series(HOSTILE, [(1, 10), (100, 0.1)], dots=True)], Axis("x", log=True), Axis("y"))
    empty = line_chart("", [Series("none", [])], Axis(log=True), Axis())
    heat = heat_map("h", [("stream 0", [0.0, 5.0]), (HOSTILE, [1.0, 2.0])], ["1 s", "2 s"], unit="conflicts/s")
    picture = standalone([[chart, empty], [heat]], title="all of it")
    root = ElementTree.fromstring(picture)
    numbers = [float(number) for number in re.findall(r'(?:[xy][12]?|c[xy]|width|height)="([-\d.]+)"', picture)]
    assert all(math.isfinite(number) for number in numbers)
    assert "prefers-color-scheme:dark" in picture
    assert next(each.text for each in root.iter("{http://www.w3.org/2000/svg}title")) == "all of it"
    # The hotter cell is the darker one, and a cell without conflicts is empty.
    cells = re.findall(r'class="f2" opacity="([\d.]+)" x="[^"]+" y="[^"]+" width="[^"]+" height="15"', heat.body)
    assert len(cells) == 3
    assert max(cells) == cells[0] == "1.00"


@pytest.mark.parametrize(
    ("axis", "values", "ticks"),
    [
        (Axis(low=0), [3, 870], ["0", "200", "400", "600", "800", "1,000"]),
        (Axis(low=0, tight=True), [3, 870], ["0", "200", "400", "600", "800"]),
        (Axis(), [5, 5], ["5", "6", "7", "8", "9", "10"]),
        (Axis(low=0), [], ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (Axis(log=True), [0.4, 800], ["0.1", "1", "10", "100", "1,000"]),
        (Axis(log=True), [2, 30], ["1", "2", "5", "10", "20", "50", "100"]),
        (Axis(log=True), [7], ["1", "2", "5", "10"]),
        (Axis(ticks=[(1, "one"), (10, "ten")], log=True), [1, 10], ["one", "ten"]),
    ],
)
def test_axes_name_round_values(axis: Axis, values: list[float], ticks: list[str]) -> None:
    found = scale(axis, values)
    assert [text for _, text in found.ticks] == ticks
    assert all(0 <= found.place(value) <= 1 for value in values)


def test_series_are_thinned_and_conflicts_told_by_stream() -> None:
    lines = saved(1000).series
    points = over_time(lines, lambda line: line.elapsed, limit=100)
    assert len(points) == 100
    assert points[0] == (10.0, 5.5)
    assert over_time(lines, lambda line: line.elapsed, worst=True, limit=100)[0] == (10.0, 10.0)
    rows, columns = conflicts_by_stream(lines, None)
    assert [name for name, _ in rows] == ["stream 0", "stream 7"]
    assert len(columns) == len(rows[0][1]) <= 120
    assert rows[0][1][0] == 45


def test_the_latency_curve_says_what_the_histogram_holds() -> None:
    curve = latency_curve(histogram(*[1000] * 90, *[50_000] * 9, 400_000))
    assert curve[0] == pytest.approx((10.0, 1.0), rel=0.01)
    assert curve[1] == pytest.approx((100.0, 50.0), rel=0.01)
    assert curve[-1] == pytest.approx((200.0, 400.0), rel=0.01)
    assert latency_curve("nonsense") == []
