"""The shape of JSON from samples: paths, types, presence, what appeared or vanished, and drift from a saved shape."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from esx.fold.shape import JsonShape, Sighting, drift, saved_of, shape_of


def shape(*values: Any) -> JsonShape:
    return shape_of([Sighting(n, None, json.dumps(value)) for n, value in enumerate(values)])


def test_paths_have_their_types_presence_and_an_example() -> None:
    found = shape(
        {"total": 1.5, "items": [{"sku": "a"}, {"sku": None}], "a b": {}},
        {"total": "2", "items": []},
    )
    assert [(path.path, dict(path.types), path.present) for path in found.paths] == [
        ('$."a b"', {"object": 1}, 1),
        ("$.items", {"array": 2}, 2),
        ("$.items[*]", {"object": 2}, 1),
        ("$.items[*].sku", {"string": 1, "null": 1}, 1),
        ("$.total", {"number": 1, "string": 1}, 2),
    ]
    assert {path.path: path.example for path in found.paths}["$.total"] == "1.5"


def test_a_path_that_appeared_or_vanished_is_told_from_one_that_comes_and_goes() -> None:
    old, new = {"id": 1, "coupon": "x"}, {"id": 1, "channel": "app"}
    found = {path.path: path for path in shape(*[old] * 30, *[new] * 30).paths}
    assert found["$.channel"].appeared is not None
    assert found["$.channel"].appeared.global_seq == 30
    assert found["$.channel"].vanished is None
    assert found["$.coupon"].vanished is not None
    assert found["$.coupon"].vanished.global_seq == 29
    assert found["$.id"].appeared is found["$.id"].vanished is None
    rare = [{"id": 1, **({"note": "x"} if n in (7, 40) else {})} for n in range(60)]
    note = {path.path: path for path in shape(*rare).paths}["$.note"]
    assert (note.present, note.appeared, note.vanished) == (2, None, None)


@pytest.mark.parametrize("present", [1, 2, 3, 8])
def test_a_path_that_is_merely_rare_has_not_changed(present: int) -> None:
    dice = Random(present)
    told = 0
    for _ in range(500):
        chosen = set(dice.sample(range(100), present))
        found = shape_of(
            [Sighting(n, None, '{"id": 1, "note": "x"}' if n in chosen else '{"id": 1}', f"s-{n}") for n in range(100)]
        )
        told += sum(path.appeared is not None or path.vanished is not None for path in found.paths)
    # One in a hundred by the rule, fourteen by chance in hardly any run.
    assert told < 14
    # Whatever comes last of the samples has not appeared then.
    last = shape(*[{"id": 1}] * 99, {"id": 1, "note": "x"})
    assert all(path.appeared is None for path in last.paths)


def test_of_many_types_with_many_paths_hardly_one_changes_by_chance() -> None:
    dice = Random(7)
    told = 0
    for _ in range(40):
        for _type in range(10):
            rows = [{f"p{k}": 1 for k in range(8) if dice.random() < (k + 1) / 40} for _ in range(60)]
            sightings = [Sighting(n, None, json.dumps(row), f"s-{n}") for n, row in enumerate(rows)]
            paths = shape_of(sightings, of_types=10).paths
            told += sum(path.appeared is not None or path.vanished is not None for path in paths)
    assert told <= 3, "40 surveys of 80 paths each"


def test_what_belongs_to_one_busy_stream_has_not_changed_but_what_a_stream_gets_has() -> None:
    def appeared(*streams: str) -> bool:
        data = ['{"vat": "x"}' if n >= 60 else "{}" for n in range(80)]
        names = [streams[n // 60] if len(streams) == 2 else f"{streams[0]}-{n}" for n in range(80)]
        [path] = shape_of([Sighting(n, None, data[n], names[n]) for n in range(80)]).paths
        return path.appeared is not None

    assert not appeared("others", "busy")
    assert appeared("ledger", "ledger")
    assert appeared("order")


@pytest.mark.parametrize(("old", "new"), [(97, 3), (50, 50), (7, 7), (3, 97)])
def test_a_path_that_came_for_good_is_told(old: int, new: int) -> None:
    found = {path.path: path for path in shape(*[{"id": 1}] * old, *[{"id": 1, "channel": "app"}] * new).paths}
    assert found["$.channel"].appeared is not None
    gone = {path.path: path for path in shape(*[{"id": 1, "x": 1}] * old, *[{"id": 1}] * new).paths}
    assert gone["$.x"].vanished is not None


def test_an_object_whose_keys_are_ids_is_one_path() -> None:
    found = shape(*({"by": {f"id-{n}-{k}": k for k in range(3)}} for n in range(20)))
    assert [path.path for path in found.paths] == ["$.by", "$.by.*"]


def test_what_is_no_json_is_counted_and_many_paths_are_cut() -> None:
    found = shape_of([Sighting(0, None, "not JSON"), Sighting(1, None, '{"a": 1}')])
    assert (found.samples, found.unread) == (1, 1)
    assert shape({f"k{n}": n for n in range(2000)}).cut
    deep: Any = 1
    for _ in range(50):
        deep = {"a": deep}
    assert len(shape(deep).paths) == 12


def test_drift_names_what_changed() -> None:
    saved = saved_of(shape({"a": 1, "b": "x", "l": [1]}, {"a": 1, "b": "x", "l": [1], "opt": 1}))
    assert drift("T", saved, shape({"a": 2, "b": "y", "l": []}, {"a": 2, "b": "y", "l": [], "opt": 1})) == []
    assert drift("T", saved, JsonShape(0)) == []
    assert drift("T", saved, shape({"a": "1", "c": True, "l": [1]}, {"a": 1, "l": [1], "c": True})) == [
        "T $.a is now also string, it was number",
        "T $.c is new: boolean, in 2 of 2",
        "T $.b is gone: it was in all, and is in none of 2",
    ]
    assert drift("T", saved, shape({"a": 1, "b": "x", "l": [1]}, {"b": "x", "l": [1]})) == [
        "T $.a is missing in 1 of 2, it was in all"
    ]
