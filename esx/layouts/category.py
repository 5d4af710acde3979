"""The category of a stream: what its id begins with. An id that is a UUID has none."""

import re

from esx.layouts.layout import Layout
from esx.layouts.stream_keys import ID
from esx.postgres.literals import literal

_UUID = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"


def column_category(layout: Layout, stream: str) -> str:
    """Return the expression for the category that a column has of the stream with the id `stream`; "" for none."""
    assert layout.category is not None
    return f"coalesce({layout.category.replace(ID, f'{stream}::text')}::text, '')"


def category_sql(layout: Layout, stream: str) -> str:
    """Return the expression for the category of a stream's id; "" where it has none."""
    start = f"split_part({stream}, {literal(layout.separator)}, 1)"
    return f"CASE WHEN length({stream}) = 36 AND {stream} ~ '{_UUID}' THEN '' ELSE {start} END"


def category_of(layout: Layout, stream_id: str) -> str:
    """Return the category of a stream, as `category_sql` does."""
    return "" if re.fullmatch(_UUID, stream_id) else stream_id.partition(layout.separator)[0]


def without_category(separator: str, stream_id: str) -> str:
    """Return what a stream's id has after its category, all of it where it has none: ``1092`` of ``accounts-1092``."""
    return stream_id if re.fullmatch(_UUID, stream_id) else stream_id.partition(separator)[2] or stream_id
