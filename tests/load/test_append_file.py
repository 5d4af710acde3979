"""The file of --append-sql: what is a parameter in it, what a conflict is, and what is said of a file that is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from esx.store.appenders.append_file import BadAppendFile, parse_append_file, read_append_file
from esx.store.appenders.protocol import Conflicts

if TYPE_CHECKING:
    from pathlib import Path

_CALL = "SELECT append(:stream, :event_id)"


def test_parameters_are_places_and_nothing_else_in_the_text_is() -> None:
    text = """-- conflict: none
/* :nothing /* :nested */ ; */ SELECT f(:stream::varchar, :version + 1, ':data;', E'it\\'s :data', ":type",
  $t$ :type; $t$, id => :event_id, again := :stream, part[1:2]) -- :metadata ;
;
-- the end
"""
    file = parse_append_file("f.sql", text)
    assert file.parameters == ("stream", "version", "event_id")
    assert file.sql == text.replace(":stream", "$1::text").replace(":version", "$2::bigint").replace(
        ":event_id", "$3::uuid"
    ).replace("\n;\n", "\n\n"), "the lines are those of the file"


@pytest.mark.parametrize(
    ("lines", "conflicts"),
    [
        ("-- conflict: none", Conflicts()),
        ("--CONFLICT: No Row", Conflicts(no_row=True)),
        ("-- conflict: sqlstate 23505 | sqlstate 40001", Conflicts(states=frozenset({"23505", "40001"}))),
        (
            '-- conflict: no row\n-- conflict: message "a | b" | message "Wrong"',
            Conflicts(no_row=True, messages=("a | b", "Wrong")),
        ),
    ],
)
def test_the_file_says_what_a_conflict_is(lines: str, conflicts: Conflicts) -> None:
    assert parse_append_file("f.sql", f"{lines}\n{_CALL}").conflicts == conflicts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-- conflict: none\n", "holds no statement"),
        (f"{_CALL}", "does not say what a conflict is: add a line"),
        (f"-- conflict:\n{_CALL}", "line 1: nothing is no sign of a conflict: use -- conflict: no row"),
        (f"\n-- conflict: sqlstate 235\n{_CALL}", "line 2: sqlstate 235 is no sign"),
        (f"-- conflict: none | no row\n{_CALL}", "leave one out"),
        (f"-- conflict: none\n{_CALL}\n, :kind", "line 3: :kind is no parameter: use :stream, :version"),
        (f"-- conflict: none\n{_CALL}, $1", "line 2: $1 is no parameter here"),
        (f"-- conflict: none\n{_CALL};\n\nSELECT 2", "line 4: a second statement begins"),
        (f"-- conflict: none\n{_CALL};'x'", "line 2: a second statement begins"),
        ("-- conflict: none\nSELECT f(:stream)", "does not use :event_id"),
        (f"-- conflict: none\n{_CALL}, 'open", "line 2: ' is opened and not closed"),
        (f"-- conflict: none\n{_CALL} $a$ open $b$", "line 2: $a$ is opened"),
        (f"-- conflict: none\n{_CALL} /* /* */", "line 2: /* is opened"),
    ],
)
def test_a_file_that_is_wrong_is_one_line_with_the_remedy(text: str, said: str) -> None:
    with pytest.raises(BadAppendFile) as error:
        parse_append_file("f.sql", text)
    assert said in str(error.value)
    assert str(error.value).startswith("--append-sql f.sql")
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadAppendFile, match=r"no\.sql cannot be read: No such file"):
        read_append_file(str(tmp_path / "no.sql"))
    bad = tmp_path / "bad.sql"
    bad.write_bytes(b"-- conflict: none\nSELECT '\xff'")
    with pytest.raises(BadAppendFile, match="is not UTF-8"):
        read_append_file(str(bad))
