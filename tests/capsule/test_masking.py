"""Masking: pseudonyms for values, the same for the same value, and nothing of a value left in the file."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esx import EventStore, InvalidQuery, NewEvent
from esx.capsule.format import CONTENTS, EVENTS, FEED, encode
from esx.capsule.masking import Masker, MaskRefused
from esx.capsule.paths import find, parse_path
from esx.capsule.reading import Capsule
from esx.capsule.recorder import CapsuleRecorder, RecordOptions
from esx.capsule.spellings import Spellings, spellings
from esx.store.feed.batch import Missed
from tests.capsule.made import line, moment

if TYPE_CHECKING:
    from pathlib import Path

ANN = "ann.smith@example.com"


def masker(*paths: str, ids: bool = False) -> Masker:
    return Masker([parse_path(path) for path in paths], ids=ids)


def masked(masker: Masker, *lines: str) -> list[dict[str, Any]]:
    """Mask events, with both passes."""
    first = masker.first("".join(f"{each}\n" for each in lines).encode())
    masker.settle()
    done = masker.second(EVENTS, first.splitlines())
    return [json.loads(each) for each in done.splitlines()]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$.email", ["a"]),
        ("$.card.*", ["1", "2"]),
        ("$.items[*].name", ["x", "y"]),
        ("$.items.name", ["x", "y"]),
        ("$.items[1].name", ["y"]),
        ('$."odd name"', ["o"]),
        ("$.**.name", ["x", "y"]),
        ("$..name", ["x", "y"]),
        ("$.email[*]", ["a"]),
        ("$ . card . number", ["1"]),
        ("$.nothing", []),
        ("$.items[7].name", []),
        ("$.email.x", []),
    ],
)
def test_paths_lead_where_postgresql_leads_them(path: str, found: list[str]) -> None:
    data = {
        "email": "a",
        "card": {"number": "1", "name2": "2"},
        "items": [{"name": "x"}, {"name": "y"}, 3],
        "odd name": "o",
    }
    root = {"": data}
    assert [holder[key] for holder, key in find(root, parse_path(path).steps)] == found


@pytest.mark.parametrize("path", ["email", "$", "$metadata", "$.a ? (@ > 1)", "$.a[0 to 2]", "$.", "$.a.size()", ""])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidQuery, match=r"\$\.email"):
        parse_path(path)


def test_the_same_value_has_the_same_pseudonym_in_one_capsule_only() -> None:
    lines = [line(1, data={"email": ANN, "other": [ANN, 5]}), line(2, data={"mail": ANN})]
    one, other = masked(masker("$.email"), *lines), masked(masker("$.email"), *lines)
    name = one[0]["data"]["email"]
    assert name != ANN
    assert one[0]["data"]["other"] == [name, 5]
    assert one[1]["data"]["mail"] == name
    assert other[0]["data"]["email"] != name


def test_values_keep_their_kind() -> None:
    data = {"secret": {"text": "a long text", "number": 12345678.90, "truth": True, "none": None, "list": [1, "x"]}}
    identity = "3F0b1c9e-52a7-4c39-a6f3-0e5f4a0f9c11"
    [event] = masked(masker("$.secret", "$.id"), line(1, data={**data, "id": identity, "kept": 1.5}))
    secret = event["data"]["secret"]
    assert isinstance(secret["text"], str)
    assert secret["text"] != "a long text"
    assert isinstance(secret["number"], int)
    assert secret["number"] >= 10**14
    assert isinstance(secret["truth"], bool)
    assert secret["none"] is None
    assert secret["list"] != [1, "x"]
    assert len(event["data"]["id"]) == 36
    assert event["data"]["id"] != identity
    assert event["data"]["kept"] == 1.5


SPELLED = [
    ("Ann.Smith@Example.com", "mail to ann.smith@example.COM"),
    ('Zoë "Ünal"', json.dumps({"name": 'Zoë "Ünal"'})),
    ('Zoë "Ünal"', json.dumps({"name": 'Zoë "Ünal"'}, ensure_ascii=False)),
    ("a/b/c/d/e", r'{"path":"a\/b\/c\/d\/e"}'),
    ("ann smith/é@x.com", "q=ann%20smith%2f%c3%a9%40x.com&x=1"),
    ("ann smith/é@x.com", "q=ann+smith%2F%C3%A9%40x.com"),
    ("3F0b1c9e-52a7-4c39-a6f3-0e5f4a0f9c11", "order 3f0b1c9e-52a7-4c39-a6f3-0e5f4a0f9c11"),
    ("3f0b1c9e-52a7-4c39-a6f3-0e5f4a0f9c11", "3f0b1c9e52a74c39a6f30e5f4a0f9c11.pdf"),
    ("4111111111111111", "card 4111111111111111"),
]


@pytest.mark.parametrize(("value", "text"), SPELLED)
def test_other_usual_spellings_of_a_value_are_masked_too(value: str, text: str) -> None:
    one, two = masked(masker("$.x"), line(1, data={"x": value}), line(2, data={"y": text}, event_id=None))
    assert one["data"]["x"] in two["data"]["y"]
    assert len(two["data"]["y"]) == len(text) - min(len(each) for each in _standing(value, text)) + len(
        one["data"]["x"]
    )


def _standing(value: str, text: str) -> list[str]:
    return [each for each in spellings(value) if each.lower() in text.lower()]


def test_a_number_is_the_same_however_it_is_written() -> None:
    text = line(1, data="@").replace('"@"', '{"x": 12345678.90, "a": 12345678.9, "b": 1.23456789e7, "c": "12345678.9"}')
    [event] = masked(masker("$.x"), text)
    assert {int(each) for each in event["data"].values()} == {event["data"]["x"]}


def test_a_number_and_its_text_have_one_pseudonym() -> None:
    one, two = masked(masker("$.x"), line(1, data={"x": 4711}), line(2, data={"x": "4711"}))
    assert two["data"]["x"] == str(one["data"]["x"])


def test_values_that_differ_in_case_only_keep_their_own_pseudonyms() -> None:
    data = {"x": ["Abcdef", "aBCDEF"], "y": "Abcdef aBCDEF abcdef"}
    [event] = masked(masker("$.x"), line(1, data=data))
    one, two = event["data"]["x"]
    assert one != two
    assert event["data"]["y"] in (f"{one} {two} {one}", f"{one} {two} {two}")


@pytest.mark.parametrize("other", [str, int])
def test_a_pseudonym_that_has_a_value_by_chance_is_made_anew(other: type) -> None:
    """A number of 15 digits has ten of six digits."""
    values = list(range(100_000, 200_000, 51))
    events = masked(masker("$.x"), *(line(number, data={"x": other(value)}) for number, value in enumerate(values, 1)))
    text = json.dumps([event["data"] for event in events])
    sought = {str(value) for value in values}
    assert not any(text[at : at + 6] in sought for at in range(len(text) - 5))
    assert len({event["data"]["x"] for event in events}) == len(values)


def test_where_nearly_every_number_is_a_value_pseudonyms_may_have_some() -> None:
    values = range(0, 40_000, 2)
    done = masker("$.x")
    lines = [
        line(number, data={"x": [f"{each:06}" for each in values[at : at + 1000]]})
        for number, at in enumerate(range(0, len(values), 1000), 1)
    ]
    first = done.first("".join(f"{each}\n" for each in lines).encode())
    done.settle()
    assert len(done.second(EVENTS, first.splitlines()).splitlines()) == 20


def test_many_values_that_begin_alike_are_looked_for_in_time() -> None:
    lines = [line(number, data={"x": f"https:{number:06}", "y": "https:" * 50}) for number in range(1, 1500)]
    events = masked(masker("$.x"), *lines)
    assert all(event["data"]["y"] == "https:" * 50 for event in events)


def test_a_text_with_the_beginning_of_a_long_value_is_masked_as_a_whole() -> None:
    value = "a long story, " * 50
    one, two, three = masked(
        masker("$.x"),
        line(1, data={"x": value}),
        line(2, data={"y": f"so: {value}."}),
        line(3, data={"y": f"so: {value[:99]}"}),
    )
    assert len(two["data"]["y"]) < 30
    assert one["data"]["x"] not in two["data"]["y"]
    assert three["data"]["y"] == f"so: {value[:99]}"


def test_a_line_of_any_length_is_searched_a_piece_at_a_time() -> None:
    sought = Spellings()
    sought.add("needle in it", "needle in it")
    for at in (0, 2**14 - 3, 2**14, 2**15 - 6, 50_000):
        assert sought.may_stand_in(b"x" * at + b"Needle in it")
        assert not sought.may_stand_in(b"x" * at + b"Needl")


def test_ids_of_events_are_masked_and_what_names_them() -> None:
    number = 4111111111111111
    identity = "00000000-0000-4000-8000-411111111111"
    one, two = masked(
        masker("$.x"),
        line(1, data={"x": number}, event_id=f"paid-{number}"),
        line(2, data={"x": 411111111111}, event_id=identity, causation_id=f"paid-{number}", metadata={"of": identity}),
    )
    assert one["event_id"] == f"paid-{one['data']['x']}" == two["causation_id"]
    assert identity not in json.dumps(two)
    assert two["metadata"]["of"] == two["event_id"]
    assert len(two["event_id"]) == 36


def test_text_that_is_no_unicode_is_masked() -> None:
    """A column of type json has it as it was sent."""
    text = line(1, data="@").replace('"@"', r'{"x": "abc\ud800def", "y": "see abc\ud800def", "z": "\udfff"}')
    [event] = masked(masker("$.x"), text)
    assert event["data"] == {"x": event["data"]["x"], "y": f"see {event['data']['x']}", "z": "\udfff"}


def test_ids_of_streams_that_only_missed_events_tell_are_masked() -> None:
    done = masker(ids=True)
    done.first(line(1, "order-7", data={}).encode())
    done.settle()
    missed = encode(moment(1, 5, missed=(Missed(3, f"customer-{ANN}", "T"), Missed(4, "alone", "T"))))
    [seen] = done.second(FEED, missed.splitlines()).splitlines()
    ids = [stream for _, stream, _ in json.loads(seen)["missed"]]
    assert ids[0].startswith("customer-x")
    assert ids[1].startswith("x")


def test_sums_may_have_figures_by_chance() -> None:
    done = masker("$.x")
    done.first(line(1, data={"x": "123456"}).encode())
    done.settle()
    contents = {"database": "shop", "filter": None, "notes": ["see 123456"], "members": {"x": "a123456b" * 8}}
    changed = json.loads(done.second(CONTENTS, [json.dumps(contents).encode()]))
    assert changed["members"] == contents["members"]
    assert "123456" not in changed["notes"][0]


def test_a_value_within_other_texts_and_numbers_is_masked_too() -> None:
    data = {"email": ANN, "card": 4111111111111111}
    said = f"Paid by {ANN}, with 4111111111111111. {ANN}"
    one, two = masked(
        masker("$.email", "$.card"),
        line(1, data={"said": said, "n": 4111111111111111, "longer": 94111111111111111}),
        line(2, data=data, metadata={"user": ANN}),
    )
    text = json.dumps([one, two])
    assert ANN not in text
    assert "4111111111111111" not in text
    name, card = two["data"]["email"], two["data"]["card"]
    assert two["metadata"]["user"] == name
    assert one["data"]["said"] == f"Paid by {name}, with {card}. {name}"
    assert one["data"]["n"] == card


def test_short_values_are_masked_where_they_are_only() -> None:
    [event] = masked(masker("$.pin"), line(1, data={"pin": "4711", "other": "4711"}))
    assert event["data"]["pin"] != "4711"
    assert event["data"]["other"] == "4711"


def test_ids_are_masked_if_asked() -> None:
    request = {"correlation_id": "request-77"}
    lines = [
        line(
            1,
            f"customer-{ANN}",
            data={"email": ANN, "of": f"customer-{ANN}"},
            metadata=request,
        ),
        line(2, "alone", data={}, metadata={"causation_id": "x", "note": "see request-77"}),
    ]
    one, two = masked(masker("$.email", ids=True), *lines)
    name = one["data"]["email"]
    assert one["stream_id"] == f"customer-{name}"
    assert one["data"]["of"] == f"customer-{name}"
    assert two["stream_id"] not in ("", "alone")
    assert "request-77" not in json.dumps([one, two])
    assert one["metadata"]["correlation_id"] in two["metadata"]["note"]


def test_a_masked_id_is_masked_where_other_events_name_it() -> None:
    lines = [line(1, "order-42", data={}), line(2, "cart-7", data={"of": "order-42", "n": 42, "text": "see order-42."})]
    one, two = masked(masker(ids=True), *lines)
    assert "order-42" not in json.dumps([one, two])
    assert two["data"] == {"of": one["stream_id"], "n": 42, "text": f"see {one['stream_id']}."}
    assert one["stream_id"].startswith("order-")


def test_a_value_that_stands_in_an_id_asks_for_masked_ids() -> None:
    with pytest.raises(MaskRefused, match=r"\$\.email stands in stream_id of event 1, too: mask ids with --mask-ids"):
        masked(masker("$.email"), line(1, f"customer-{ANN}", data={"email": ANN}))


@pytest.mark.parametrize(
    "odd",
    [
        line(2, data={ANN: 1}),
        line(2, data={"deep": [{"x": {ANN + "2": 1}}]}),
        line(2, data={}, event_type=f"T{ANN}"),
    ],
)
def test_a_value_where_no_pseudonym_can_be_is_refused_without_telling_it(odd: str) -> None:
    with pytest.raises(MaskRefused) as refused:
        masked(masker("$.email"), line(1, data={"email": ANN}), odd)
    assert "$.email" in str(refused.value)
    assert ANN not in str(refused.value)


async def test_a_word_that_the_contents_need_is_refused(store18: EventStore, tmp_path: Path) -> None:
    await store18.append("s", [NewEvent("T", {"word": "capsule"})])
    path = tmp_path / "x.esx"
    with path.open("wb") as file, pytest.raises(MaskRefused, match=r"capsule\.json"):
        await CapsuleRecorder(store18, RecordOptions(), masker=masker("$.word")).run(file)


def test_all_of_data_and_metadata_can_be_masked() -> None:
    lines = [line(1, data="a secret", metadata={"a": ["another one"]}), line(2, data=[[{"x": "a third"}]], metadata=7)]
    text = json.dumps(masked(masker("$.**", "$metadata.**"), *lines))
    assert not any(secret in text for secret in ("a secret", "another one", "a third"))


def test_letters_that_figures_can_have_are_no_figures() -> None:
    [event] = masked(masker("$.x"), line(1, data={"x": "TEETEE", "y": "a TEETEE b"}))
    assert "TEETEE" not in json.dumps(event)


def test_figures_may_be_equal_to_numbers_and_times_of_the_store() -> None:
    [event] = masked(masker("$.n", "$.day"), line(123456, data={"n": 123456, "day": "2026-08-07"}))
    assert (event["global_seq"], event["created_at"][:10]) == (123456, "2026-08-07")
    assert event["data"]["n"] != 123456
    assert event["data"]["day"] != "2026-08-07"


def test_deep_json_is_masked_too() -> None:
    deep = '{"a":' * 3000 + f'"{ANN}"' + "}" * 3000
    text = line(1, data="@").replace('"@"', deep)
    done = masker("$.**.a")
    first = done.first(text.encode() + b"\n")
    done.settle()
    assert ANN.encode() not in done.second(EVENTS, first.splitlines())


VALUES = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(
        [ANN, 'quote"and\\slash', "line\nfeed", "Zoë Ünal", "\u2028\u2029abcd", "abcdef", "bcdefg", "aaaaaaaa"]
    ),
    st.integers(-(10**20), 10**20),
    st.booleans(),
    st.none(),
)
DOCUMENTS = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(DOCUMENTS, VALUES), min_size=1, max_size=6))
def test_no_masked_value_is_left_in_any_line(events: list[tuple[Any, Any]]) -> None:
    lines = [line(number, data={"secret": secret, "other": data}) for number, (data, secret) in enumerate(events, 1)]
    try:
        done = masked(masker("$.secret"), *lines)
    except MaskRefused:
        return
    for event in done:
        for _, secret in events:
            if (isinstance(secret, str) and len(secret) >= 6) or (type(secret) is int and len(str(secret)) >= 6):
                assert str(secret) not in _all_text(event["data"])


def _all_text(value: Any) -> str:
    if isinstance(value, dict):
        return "\0".join(map(_all_text, value.values()))
    if isinstance(value, list):
        return "\0".join(map(_all_text, value))
    return str(value)


async def test_no_value_is_in_the_unpacked_members_of_a_capsule(store18: EventStore, tmp_path: Path) -> None:
    people = [f"person{number}.of.{number}@example.com" for number in range(50)]
    cards = [f"4111-2222-3333-{number:04}" for number in range(50)]
    for number, (person, card) in enumerate(zip(people, cards, strict=True)):
        event = NewEvent(
            "Paid",
            {"email": person, "card": {"number": card, "owner": f"Owner Number {number}"}, "note": f"{person}: {card}"},
            metadata={"correlation_id": f"request-of-{person}", "user": person},
        )
        await store18.append(f"customer-{person}", [event])
    path = tmp_path / "masked.esx"
    with path.open("wb") as file:
        done = await CapsuleRecorder(store18, RecordOptions(), masker=masker("$.email", "$.card.*", ids=True)).run(file)
    with Capsule(path) as capsule:
        assert capsule.verify() == []
        assert capsule.info.masks == ("$.email", "$.card.*")
        assert (capsule.info.masked_ids, capsule.info.masked, capsule.info.events) == (True, 200, 50)
        assert done.info == capsule.info
    with zipfile.ZipFile(path) as archive:
        unpacked = b"\0".join(archive.read(name) for name in archive.namelist())
    for value in (*people, *cards, *(f"Owner Number {number}" for number in range(50))):
        assert value.encode() not in unpacked
    # Those who came together still do.
    with Capsule(path) as capsule:
        for few in capsule.events():
            for _, text in few:
                event_ = json.loads(text)
                assert event_["stream_id"] == f"customer-{event_['data']['email']}"
                assert event_["metadata"]["user"] == event_["data"]["email"]


async def test_what_was_seen_beside_is_masked_as_well(store18: EventStore, sql18: Any, tmp_path: Path) -> None:
    await store18.append("s", [NewEvent("T", {"email": ANN})])
    await sql18.execute("INSERT INTO consumers (name, last_error) VALUES ('p', $1)", f"no mail to {ANN}")
    path = tmp_path / "masked.esx"
    with path.open("wb") as file:
        await CapsuleRecorder(store18, RecordOptions(), masker=masker("$.email")).run(file)
    with zipfile.ZipFile(path) as archive:
        assert b"no mail to x" in archive.read("consumers.ndjson")
        assert all(ANN.encode() not in archive.read(name) for name in archive.namelist())
