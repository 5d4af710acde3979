"""A capsule comes from anybody: what is no capsule is refused, within bounds, and nothing is written or run."""

from __future__ import annotations

import json
import os
import re
import struct
import tracemalloc
import zipfile
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from esx.capsule.format import (
    CONTENTS,
    EVENTS,
    FEED,
    HEALTH,
    LOAD,
    MEMBERS,
    SUMS,
    BadCapsule,
    CapsuleBounds,
    LoadSecond,
    encode,
)
from esx.capsule.reading import Capsule
from esx.capsule.timeline import Timeline
from esx.store.feed.batch import Gap, Writer
from tests.capsule.made import BEGUN, line, make, members_of, moment, rewritten

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return make(tmp_path / "whole.esx", [line(1), line(2), line(5, "s-2", 0)], [moment(0, 2), moment(1, 5)])


def refusal(path: Path, bounds: CapsuleBounds | None = None) -> str:
    """Read all of a file, and return why that is refused: one line that names the file."""
    with pytest.raises(BadCapsule) as refused, Capsule(path, bounds=bounds) as capsule:
        capsule.verify()
    told = str(refused.value)
    assert str(path) in told
    assert "\n" not in told
    return told


def test_a_whole_capsule_is_read(whole: Path) -> None:
    with Capsule(whole) as capsule:
        assert capsule.verify() == []
        assert [event.global_seq for few in capsule.events() for event, _ in few] == [1, 2, 5]
        assert list(capsule.records(FEED)) == [moment(0, 2), moment(1, 5)]
        assert (capsule.info.events, capsule.info.first, capsule.info.last) == (3, 1, 5)
    assert set(members_of(whole)) == {*MEMBERS, CONTENTS, SUMS}


def test_the_sums_are_those_that_sha256sum_checks(whole: Path) -> None:
    sums = members_of(whole)[SUMS].decode()
    assert all(re.fullmatch(r"[0-9a-f]{64}  [a-zA-Z.]+", each) for each in sums.splitlines())
    assert len(sums.splitlines()) == len(MEMBERS) + 1


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", "C:\\x", "\x1b[2J"])
def test_a_member_that_no_capsule_has_is_refused(whole: Path, name: str) -> None:
    def add(members: dict[str, bytes]) -> None:
        del members[LOAD]
        members[name] = b"x"

    told = refusal(rewritten(whole, add))
    assert "which capsules do not have" in told or "missing" in told
    assert "\x1b" not in told


def test_what_is_no_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.esx"
    for content in (b"", b"PK\x05\x06", b"not a zip" * 1000, b"PK\x05\x06" + b"\xff" * 18):
        path.write_bytes(content)
        assert "no zip" in refusal(path) or "list of members" in refusal(path)


def test_a_capsule_that_was_cut_short_is_refused(whole: Path) -> None:
    content = whole.read_bytes()
    for kept in range(0, len(content), 50):
        whole.write_bytes(content[:kept])
        refusal(whole)


def test_each_byte_that_is_changed_is_found_or_does_not_matter(whole: Path) -> None:
    content = whole.read_bytes()
    with Capsule(whole) as capsule:
        before = (capsule.info, [text for few in capsule.events() for _, text in few])
    for at in range(len(content)):
        whole.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        try:
            with Capsule(whole) as capsule:
                if capsule.verify() == []:
                    assert (capsule.info, [text for few in capsule.events() for _, text in few]) == before, at
        except BadCapsule:
            pass


def test_a_bomb_is_not_unpacked(whole: Path) -> None:
    """Fifty megabytes of spaces take 50 kB."""
    rewritten(whole, lambda members: members.update({EVENTS: b" " * 50_000_000}))
    assert whole.stat().st_size < 100_000
    assert "times as large as it is packed" in refusal(whole)


def test_a_size_that_is_a_lie_does_not_help_a_bomb(whole: Path) -> None:
    rewritten(whole, lambda members: members.update({EVENTS: b" " * 50_000_000}))
    content = whole.read_bytes()
    # In both places where the zip tells it.
    whole.write_bytes(content.replace(struct.pack("<L", 50_000_000), struct.pack("<L", 1000)))
    assert "damaged" in refusal(whole)


def test_large_members_are_refused_by_what_they_have(whole: Path) -> None:
    small = replace(CapsuleBounds(), events=200)
    assert "at most 200 are read" in refusal(whole, small)
    assert "at most 10 are read" in refusal(whole, replace(CapsuleBounds(), member=10))
    assert "more than 1 lines" in refusal(whole, replace(CapsuleBounds(), lines=1))
    assert "at most 100 are read" in refusal(whole, replace(CapsuleBounds(), file=100))


def test_a_line_without_end_is_not_kept(whole: Path) -> None:
    rewritten(whole, lambda members: members.update({EVENTS: b"x" * 3_000_000}))
    assert "more than 1,000,000 bytes" in refusal(whole, replace(CapsuleBounds(), line=1_000_000))
    assert "ends within a line" in refusal(whole)


def test_a_member_may_be_there_once(whole: Path) -> None:
    with zipfile.ZipFile(whole, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(LOAD, b"")
    assert "list of members" in refusal(whole) or "twice" in refusal(whole)

    def twice(members: dict[str, bytes]) -> None:
        members.pop(LOAD)

    rewritten(whole, twice)
    with zipfile.ZipFile(whole, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(HEALTH, b"")
    assert "twice" in refusal(whole)


def test_what_is_encrypted_or_packed_otherwise_is_refused(whole: Path) -> None:
    members = members_of(whole)
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_LZMA) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert "packed in a way" in refusal(whole)


def test_a_long_list_of_members_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.esx"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(1000):
            archive.writestr(f"{number}.ndjson", b"")
    assert "list of members" in refusal(path)


def test_a_second_list_of_members_is_not_followed(whole: Path) -> None:
    """Python's zipfile goes where a record of the wide format leads, whatever the usual record says."""
    content = whole.read_bytes()
    at = content.rfind(b"PK\x05\x06")
    wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**6, 10**6, 10**8, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)
    whole.write_bytes(content[:at] + wide + locator + content[at:])
    assert "list of members" in refusal(whole)


def test_nothing_stands_before_or_behind(whole: Path) -> None:
    content = whole.read_bytes()
    whole.write_bytes(b"#!/bin/sh\nexit\n" + content)
    assert "something before it" in refusal(whole)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (EVENTS, "{", "line 1 of events.ndjson"),
        (EVENTS, "[1]", "line 1 of events.ndjson"),
        (EVENTS, line(2) + "\n" + line(1), "line 2 of events.ndjson: global_seq 1 does not ascend"),
        (EVENTS, line(-1), "line 1 of events.ndjson"),
        (EVENTS, line(2**63), "line 1 of events.ndjson"),
        (EVENTS, line(1, stream=5), "line 1 of events.ndjson"),  # type: ignore[arg-type]
        (EVENTS, '{"global_seq": 1, "data": ' + "[" * 100_000, "line 1 of events.ndjson"),
        (EVENTS, '{"global_seq": ' + "[" * 5000 + "]" * 5000 + ', "data": 1}', "line 1 of events.ndjson"),
        (EVENTS, "\xff", "line 1 of events.ndjson"),
        (FEED, "{}", "line 1 of feed.ndjson"),
        (FEED, '{"at": "2026-08-07T14:00:00Z", "counts": [9223372036854775808]}', "a number that is too large"),
        (FEED, '{"at": "2026-08-07T14:00:00Z", "counts": [1], "late": {"1": 1e300}}', "a number that is too large"),
        (FEED, '{"at": "0001-01-01T00:00:00Z", "counts": [1]}', "line 1 of feed.ndjson is of another age"),
        (FEED, '{"at": "\\u0030001-01-01T00:00:00Z", "counts": [1]}', "line 1 of feed.ndjson is of another age"),
        (FEED, '{"at": "2026-08-07T14:00:00", "counts": [1]}', "line 1 of feed.ndjson"),
        (HEALTH, '{"at": "2026-08-07T14:00:00Z", "health": {"at": 1}}', "line 1 of health.ndjson"),
        (LOAD, '{"at": "2026-08-07T14:00:00Z", "run": "r", "line": ' + '{"a":' * 100_000, "line 1 of load.ndjson"),
        (CONTENTS, "[]", "not that of a capsule"),
        (CONTENTS, '{"kind": "run"}', "not that of a capsule"),
        (CONTENTS, "[" * 100_000, CONTENTS),
        (CONTENTS, '{"kind": "capsule", "format": 2}', "its format is 2, and this esx reads 1: use the esx that made"),
    ],
)
def test_what_cannot_be_read_is_named(whole: Path, name: str, text: str, told: str) -> None:
    content = text.encode("latin-1" if text == "\xff" else "utf-8") + b"\n"
    assert told in refusal(rewritten(whole, lambda members: members.update({name: content})))


def test_payloads_of_any_depth_are_read(whole: Path) -> None:
    deep = b"[" * 5000 + b"]" * 5000
    text = line(1, data="@", metadata="@").encode().replace(b'"@"', deep) + b"\n"
    rewritten(whole, lambda members: members.update({EVENTS: text}))
    with Capsule(whole) as capsule:
        [[(event, _)]] = capsule.events()
    assert (event.global_seq, event.stream_id, bytes(event.data), bytes(event.metadata)) == (1, "s-1", deep, deep)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.esx")
    assert "no regular file" in refusal(tmp_path / "x.esx")


def test_a_time_without_a_zone_is_refused_also_within(whole: Path) -> None:
    def change(members: dict[str, bytes]) -> None:
        gap = {"first": 3, "last": 3, "writers": [["k", 1, "2026-08-07T14:00:00", None, None]]}
        members[FEED] = json.dumps({"at": "2026-08-07T14:00:00Z", "counts": [1], "gap": gap}).encode() + b"\n"

    assert "a time without a zone" in refusal(rewritten(whole, change))


def test_no_clock_of_another_age(tmp_path: Path) -> None:
    age = BEGUN.replace(year=9000)
    assert "another age" in refusal(make(tmp_path / "x.esx", begun=age, ended=age))


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_is_none_in_utc_is_refused(whole: Path, since: str) -> None:
    def change(members: dict[str, bytes]) -> None:
        gap = {"first": 3, "last": 3, "writers": [["k", 1, since, None, None]]}
        members[FEED] = json.dumps({"at": "2026-08-07T14:00:00Z", "counts": [1], "gap": gap}).encode() + b"\n"

    assert "a time that is none in UTC" in refusal(rewritten(whole, change))


def test_times_as_other_tools_write_them_for_none_are_read(tmp_path: Path) -> None:
    holder = Writer("k", 1, datetime.min.replace(tzinfo=UTC), None, None)
    with Capsule(make(tmp_path / "x.esx", [], [moment(0, 1, gap=Gap(2, 2, (holder,)))])) as capsule:
        assert capsule.verify() == []


def test_more_notes_than_a_recording_makes_are_refused(tmp_path: Path) -> None:
    assert CONTENTS in refusal(make(tmp_path / "x.esx", notes=tuple("ab" * 60)))


def test_many_moments_take_little_memory(tmp_path: Path) -> None:
    path = make(tmp_path / "x.esx")
    rewritten(path, lambda members: members.update({FEED: encode(moment(0, 1)) * 10_000}))
    with Capsule(path) as capsule:
        tracemalloc.start()
        try:
            timeline = Timeline(capsule)
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert kept < 4_000_000
    assert timeline.feed(BEGUN) == moment(0, 1)


def test_runs_of_visible_numbers_are_bounded(tmp_path: Path) -> None:
    moments = [moment(0, 1), moment(1, 1, visible=((3, 3), (5, 5), (7, 7)))]
    with (
        Capsule(make(tmp_path / "x.esx", [], moments), bounds=replace(CapsuleBounds(), runs=2)) as capsule,
        pytest.raises(BadCapsule, match="more than 2 runs"),
    ):
        Timeline(capsule)


def test_moments_do_not_go_back(tmp_path: Path) -> None:
    assert "earlier than the one before" in refusal(make(tmp_path / "x.esx", [], [moment(1, 1), moment(0, 1)]))


def test_other_events_than_were_recorded_are_found(whole: Path) -> None:
    """The zip itself is right, as the one who changed it packed it again."""

    def change(members: dict[str, bytes]) -> None:
        members[EVENTS] = members[EVENTS].replace(b'{"n": 2}', b'{"n": 3}')

    with Capsule(rewritten(whole, change)) as capsule:
        assert capsule.verify() == [
            "events.ndjson has another SHA-256 sum than SHA256SUMS says",
            "events.ndjson is not what capsule.json says",
        ]


def test_values_of_any_kind_come_back(tmp_path: Path) -> None:
    second = LoadSecond(BEGUN, "r", {"kind": "progress", "nested": [1, {"a": None}]})
    with Capsule(make(tmp_path / "x.esx", beside=[(LOAD, second)])) as capsule:
        assert list(capsule.records(LOAD)) == [second]
        assert zlib.crc32(b"".join(capsule.pieces(LOAD))) == zlib.crc32(members_of(capsule.path)[LOAD])
