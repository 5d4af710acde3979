"""The shape of JSON from samples: paths, types, presence, what appeared or vanished, and drift from a saved shape."""

from __future__ import annotations

import json
from typing import Any

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
