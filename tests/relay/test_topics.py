"""Categories and topics: one topic for each category, and always a legal name."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from esx import InvalidQuery
from esx.relay.topics import Subjects, Topics, escaped


@given(st.text(max_size=20), st.booleans())
@example("a_5F", True)
@example("_C3_B6", True)
@example("__5F5F", True)
@example("_5ö", True)
@example("a.b", False)
def test_two_categories_never_get_one_name(category: str, points: bool) -> None:
    """The name can be turned back into the category, so no other category has it."""
    name = escaped(category, points=points)
    assert re.fullmatch(r"[A-Za-z0-9._-]*" if points else "[A-Za-z0-9_-]*", name)
    back = re.sub(rb"_([0-9A-F]{2})", lambda found: bytes.fromhex(found[1].decode()), name.encode())
    assert back.decode("utf-8", "surrogateescape") == category


def test_a_topic_follows_the_category_and_a_changed_name_is_told_once() -> None:
    told: list[tuple[str, str]] = []
    topics = Topics("shop.{category}.v1", lambda *each: told.append(each))
    assert topics.of("order-1-2") == "shop.order.v1"
    assert [topics.of(stream) for stream in ("ö-1", "ö-2")] == ["shop._C3_B6.v1"] * 2
    assert told == [("ö", "shop._C3_B6.v1")]
    with pytest.raises(ValueError, match="makes no legal topic name"):
        topics.of("x" * 300)


@pytest.mark.parametrize("template", ["", ".", "..", "a b", "{stream}", "ö.{category}"])
def test_a_template_that_names_no_topic_is_refused(template: str) -> None:
    with pytest.raises(InvalidQuery, match="is no name of a topic"):
        Topics(template)


def test_a_category_is_one_part_of_a_subject() -> None:
    subjects = Subjects("shop.{category}.v1")
    assert [subjects.of(stream) for stream in ("a.b-1", "*-1", ">-1")] == [
        "shop.a_2Eb.v1",
        "shop._2A.v1",
        "shop._3E.v1",
    ]
    with pytest.raises(ValueError, match="makes no legal subject name"):
        subjects.of("-1")
    for template in ("a..{category}", ".a", "a.", "a.*", "a.>", ""):
        with pytest.raises(InvalidQuery, match="is no name of a subject"):
            Subjects(template)
