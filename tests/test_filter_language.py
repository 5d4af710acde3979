"""The language of filters: what each form means, what an error names, and that a filter is read back as it was."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esx.errors import InvalidQuery
from esx.filter_language import Dialect, FilterError, filter_text, parse_filter
from esx.filters import CORRELATION_NAMES, USER_NAMES, Filter, MetadataMatch
from esx.glob import glob_to_regex

NOW = datetime(2026, 8, 7, 14, tzinfo=UTC)
EXACT = Dialect(any_case=False, parse_time=lambda _text: NOW)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", Filter()),
        ("orders-*", Filter("orders-*")),
        ("stream:orders-* type:Order*Placed", Filter("orders-*", "Order*Placed")),
        ('"tenant:orders 1" type:"Order placed"', Filter("tenant:orders 1", "Order placed")),
        ("$.total > 100", Filter(where="$.total > 100")),
        ("$.total>=1.50", Filter(where="$.total >= 1.50")),
        ("$.city = Ulm", Filter(where='$.city == "Ulm"')),
        ("$.city <> 'New York' type:X", Filter(event_type="X", where='$.city != "New York"')),
        ('$.a."b c"[0].d == null', Filter(where='$.a."b c"[0].d == null')),
        ("$.zip == 00123", Filter(where='$.zip == "00123"')),
        ("$.paid", Filter(where="$.paid")),
        ('$metadata.user == "ann"', Filter(where='$metadata.user == "ann"')),
        ("$.city ~ U*", Filter(where='$.city like_regex "^U.*$"')),
        ("$.city ~ ulm", Filter(where='$.city like_regex "^ulm$" flag "i"')),
        ("$.a > 1 $.b < 2", Filter(where="$.a > 1", also=("$.b < 2",))),
        ("where:'$.a > 1 && $.b' orders-1", Filter("orders-1", where="$.a > 1 && $.b")),
        ("type:T where:$.a > 1 || $.b", Filter(event_type="T", where="$.a > 1 || $.b")),
        # What is longer than a comparison takes the rest.
        ("orders-* $.a > 1 && $.b < 2", Filter("orders-*", where="$.a > 1 && $.b < 2")),
        ("$.a ? (@ > 1)", Filter(where="$.a ? (@ > 1)")),
        ("$.tags.size() > 3", Filter(where="$.tags.size() > 3")),
        ("$.a > 1 + 2", Filter(where="$.a > 1 + 2")),
        ("$.a == $.b", Filter(where="$.a == $.b")),
        ('$.a starts with "x"', Filter(where='$.a starts with "x"')),
        ("type:T exists($.a)", Filter(event_type="T", where="exists($.a)")),
        ("!exists($metadata.user)", Filter(where="!exists($metadata.user)")),
        ("strict $.a", Filter(where="strict $.a")),
        ("strict type:T", Filter("strict", "T")),
        ("$.a > 1 *-x", Filter("*-x", where="$.a > 1")),
        ("$.a > .5", Filter(where="$.a > .5")),
        ("mentions:1092 mentions:'a b'", Filter(mentions=("1092", "a b"))),
        ("since:-2h", Filter(since=NOW)),
        ("user:ann", Filter(members=(MetadataMatch("user", USER_NAMES, "ann"),))),
        ('corr:"a b"', Filter(members=(MetadataMatch("corr", CORRELATION_NAMES, "a b"),))),
    ],
)
def test_forms(text: str, chosen: Filter) -> None:
    assert parse_filter(text, EXACT) == chosen


def test_the_example_of_the_docs() -> None:
    chosen = parse_filter("orders-* type:Order*Placed $.total > 100 since:-2h user:ann corr:ID")
    assert (chosen.stream, chosen.event_type, chosen.where) == ("orders-*", "Order*Placed", "$.total > 100")
    assert [member.glob for member in chosen.members] == ["ann", "ID"]
    assert chosen.since is not None
    assert chosen.any_case


def test_lower_case_means_any_case() -> None:
    chosen = parse_filter("type:order*placed orders-*")
    assert chosen.type_pattern is not None
    assert chosen.type_pattern.regex == "(?i)^order.*placed$"
    assert chosen.stream_pattern is not None
    assert chosen.stream_pattern.regex.startswith("(?i)")
    for exact in ("type:Order*", "orders-42"):
        found = parse_filter(exact)
        pattern = found.type_pattern or found.stream_pattern
        assert pattern is not None
        assert not pattern.regex.startswith("(?i)")


@pytest.mark.parametrize(
    ("text", "place", "remedy"),
    [
        ("typ:Order*", "at 'typ:Order*' (character 1)", "did you mean type:?"),
        ("orders-* tenant:7", "(character 10)", "the keys are stream:, type:,"),
        ("orders-* carts-*", "at 'carts-*' (character 10)", "a second stream"),
        ("a-1 $.a > 100 b", "at 'b' (character 15)", "'b' is not a JSONPath"),
        ("mentions:' '", "(character 1)", "such as mentions:1092"),
        ("$.a >", "(character 1)", "$.a > 100"),
        ("$all", "(character 1)", "a path is $.member"),
        ("$ type:X", "(character 1)", "a path goes on after $"),
        ('type:"Order', "(character 6)", "the quote is not closed"),
        ('"a"b', "(character 4)", "a space is missing"),
        ("type:", "(character 1)", "needs a value, such as type:Order*"),
        ("where:", "(character 1)", "needs a JSONPath"),
        ("type:[a", "(character 6)", "without its ]"),
        ("since:soon", "(character 7)", "is not a time"),
        ("since:14:00 until:13:00", "at its end", "since: is not before until:"),
    ],
)
def test_an_error_names_the_place_and_the_remedy(text: str, place: str, remedy: str) -> None:
    with pytest.raises(FilterError) as refused:
        parse_filter(text)
    assert place in str(refused.value)
    assert remedy in str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.text())
def test_any_text_is_a_filter_or_an_error_of_one_line(text: str) -> None:
    error = ""
    try:
        parse_filter(text)
    except FilterError as refused:
        error = str(refused)
    assert len(error.splitlines()) <= 1


def is_glob(text: str) -> bool:
    try:
        glob_to_regex(text)
    except InvalidQuery:
        return False
    return True


GLOB = st.text(min_size=1).filter(is_glob)
PATH = st.text(min_size=1).filter(lambda text: text == text.strip() != "")
CONDITIONS = st.lists(
    st.builds(lambda glob: MetadataMatch("user", USER_NAMES, glob), GLOB)
    | st.builds(lambda glob: MetadataMatch("corr", CORRELATION_NAMES, glob), GLOB)
)
TEXT = st.text(min_size=1).filter(str.strip)
MOMENT = st.none() | st.just(NOW)


def test_among_the_events_of_one_stream_a_word_without_a_key_is_a_type() -> None:
    of_one = Dialect(bare="type", any_case=False)
    assert parse_filter("Order* $.a > 1", of_one) == Filter(event_type="Order*", where="$.a > 1")
    with pytest.raises(FilterError, match="a second type"):
        parse_filter("Order* amount > 100", of_one)


def test_a_path_is_shown_as_it_is_typed() -> None:
    for text in ("$.a > 1", "type:T $.a > 1 $.b", "$.a > 1 && $.b", "$.a exists($.b)", 'where:"$.a && $.b" $.c'):
        assert filter_text(parse_filter(text, EXACT)) == text


# Most of what hypothesis makes of any characters is no path; these nearly are.
PIECES = st.lists(st.sampled_from(["$", ".a", "$.a", " ", ">", "==", "&&", "x", "'", '"', "(", ")", "type:", "1", "*"]))
PATHS = PATH | PIECES.map("".join).map(str.strip).filter(bool)


@given(st.none() | GLOB, st.none() | GLOB, st.lists(PATHS), CONDITIONS, MOMENT, st.lists(TEXT), st.booleans())
def test_a_filter_is_read_back_as_it_was(
    stream: str | None,
    kind: str | None,
    paths: list[str],
    matches: list[MetadataMatch],
    since: datetime | None,
    mentions: list[str],
    of_one: bool,
) -> None:
    where, also = (paths[0], tuple(paths[1:])) if paths else (None, ())
    chosen = Filter(stream, kind, where, also, tuple(matches), since, mentions=tuple(mentions))
    assert parse_filter(filter_text(chosen), Dialect(bare="type" if of_one else "stream", any_case=False)) == chosen
