"""The indexes: those that readers and the expected version need, and those that only cost."""

from collections.abc import Iterator, Sequence

from esx.doctor.finding import About, Finding, quoted, shown
from esx.doctor.index_facts import STREAM_KEY, Index, Indexes, read_indexes
from esx.doctor.topic import Topic
from esx.postgres.literals import identifier
from esx.text import size_of

_GLOBAL_KEY = ["global_seq"]
_UNIQUE = "events_stream_id_stream_seq_key"
_CORRELATION = "correlation_id"
_CORRELATION_INDEX = "events_correlation_id_idx"
_NAMED = 3


def unique_key(indexes: Indexes) -> Iterator[Finding]:
    """Check that the constraint that decides between two writers at one version is there."""
    if indexes.key is not None:
        yield from _unique_in_partitions(indexes)
        return
    found = About("unique-stream-seq")
    if indexes.children:
        yield found.error(
            f"{quoted(indexes.children[:_NAMED])} inherit from {shown(indexes.table)}: no unique index spans both, so "
            "two writers can take one version of a stream (partitions are kept apart, children are not)"
        )
        return
    candidates = [
        index for index in indexes.found if index.unique and index.keys == STREAM_KEY and index.method == "btree"
    ]
    constraint = next((index for index in candidates if index.constraint_type == "u"), None)
    plain = next((index for index in candidates if index.adoptable), None)
    add = f"ALTER TABLE {indexes.table} ADD CONSTRAINT {_UNIQUE} UNIQUE (stream_id, stream_seq);"
    if constraint is not None and not constraint.valid:
        yield found.error(
            f"the unique index {shown(constraint.name)} is invalid", f"REINDEX INDEX CONCURRENTLY {constraint.name};"
        )
    elif constraint is not None and constraint.deferrable:
        yield found.warning(
            f"the unique constraint {shown(constraint.constraint)} can be deferred: a conflict may show only at commit",
            constraint.drop(indexes.table),
            add,
        )
    elif constraint is not None:
        yield found.ok(f"{shown(constraint.constraint)} decides between two writers at one version")
    elif plain is not None:
        yield found.error(
            f"(stream_id, stream_seq) is unique by the index {shown(plain.name)} only: without a constraint, "
            "a lost race is not told from other errors",
            f"ALTER TABLE {indexes.table} ADD CONSTRAINT {_UNIQUE} UNIQUE USING INDEX {identifier(plain.bare_name)};",
        )
    else:
        yield found.error(
            "there is no unique constraint on (stream_id, stream_seq), which decides between two writers at one "
            "version (adding it fails if both have taken one: `esx doctor --full` finds these)",
            add,
        )


def _unique_in_partitions(indexes: Indexes) -> Iterator[Finding]:
    """Check that one of two writers at one version fails, although each partition has indexes of its own."""
    found = About("unique-stream-seq")
    guard = indexes.guard()
    by = ", ".join(indexes.key or ())
    if guard is not None:
        yield found.ok(f"{shown(guard.name)} decides between two writers at one version, in all partitions")
    elif indexes.unguarded:
        add = (
            [f"ALTER TABLE {indexes.table} ADD CONSTRAINT {_UNIQUE} UNIQUE (stream_id, stream_seq);"]
            if list(indexes.key or ()) == ["stream_id"] and not indexes.by_expression
            else [f"ALTER TABLE {part} ADD UNIQUE (stream_id, stream_seq);" for part in indexes.unguarded]
        )
        yield found.error(
            f"{quoted(indexes.unguarded[:_NAMED])} has no unique constraint on (stream_id, stream_seq), which decides "
            "between two writers at one version",
            *add,
        )
    elif indexes.by_stream:
        yield found.ok("each partition decides between two writers at one version, and a stream is in one partition")
    else:
        yield found.error(
            f"{shown(indexes.table)} is partitioned by {shown(by)}, so two writers can take one version of a stream in "
            "two partitions: what is promised of expected versions holds within a partition only, and for writers that "
            "all lock the stream (partitioned by stream_id it would hold)"
        )


def primary_key(indexes: Indexes) -> Iterator[Finding]:
    """Check that global_seq is the primary key, and so has the index that the feed reads by."""
    found = About("primary-key")
    table = indexes.table
    make = f"CREATE UNIQUE INDEX CONCURRENTLY events_global_seq_key ON {table} (global_seq);"
    primary = next((index for index in indexes.found if index.primary), None)
    if primary is not None and primary.keys == _GLOBAL_KEY and primary.valid:
        yield found.ok("global_seq is the primary key")
        return
    others = [index for index in indexes.found if index.whole and index.keys[:1] == _GLOBAL_KEY]
    if indexes.key is not None and "global_seq" not in indexes.key:
        # No index can keep it unique in all partitions; the sequence has to do.
        if others:
            yield found.ok(f"global_seq has the index {shown(others[0].name)} in all partitions")
        else:
            yield found.error(
                "global_seq has no index in all partitions: the feed scans the table",
                f"CREATE INDEX ON {table} (global_seq);",
            )
        return
    if primary is not None:
        if any(index.unique and index.keys == _GLOBAL_KEY for index in others):
            yield found.ok(f"the primary key is {shown(primary.name)}, and global_seq is unique too")
        elif others:
            yield found.info(f"the primary key is {shown(primary.name)}: nothing keeps global_seq unique", make)
        else:
            yield found.error(
                f"the primary key is {shown(primary.name)}, and global_seq has no index: the feed scans the table", make
            )
        return
    ready = next((index for index in indexes.found if index.adoptable and index.keys == _GLOBAL_KEY), None)
    if ready is not None and indexes.key is None:
        yield found.warning(
            f"there is no primary key; global_seq is unique by the index {shown(ready.name)}",
            f"ALTER TABLE {table} ADD CONSTRAINT events_pkey PRIMARY KEY USING INDEX {identifier(ready.bare_name)};",
        )
    else:
        yield found.error(
            "there is no primary key: nothing keeps global_seq unique, and the feed may scan the table (adding it "
            "fails if two events have one number: `esx doctor --full` finds these)",
            f"ALTER TABLE {table} ADD PRIMARY KEY (global_seq);",
        )


def redundant(indexes: Indexes) -> Iterator[Finding]:
    """Check that no index repeats what another already gives."""
    found = About("redundant-index")
    surplus = _redundant(indexes.found)
    for index, served_by in surplus:
        yield found.warning(
            f"index {shown(index.name)} ({quoted(index.columns)}), {size_of(index.bytes)}, repeats "
            f"{shown(served_by.name)} and slows every append",
            index.drop(indexes.table),
        )
    if not surplus:
        yield found.ok("no index repeats another")


def _redundant(indexes: Sequence[Index]) -> list[tuple[Index, Index]]:
    """Return the indexes that another one can replace, each with that one."""
    surplus: list[tuple[Index, Index]] = []
    for index in indexes:
        if index.primary or index.pinned or index.building or index.deferrable or index.constraint_type == "x":
            continue
        serving = [
            other
            for other in indexes
            if other is not index
            and other.serves(index)
            and (not index.serves(other) or _worth(other) < _worth(index))  # of two that are equal, one stays
        ]
        if serving:
            surplus.append((index, min(serving, key=_worth)))
    return surplus


def _worth(index: Index) -> tuple[bool, bool, bool, bool, int]:
    """Return the sort key that puts the index to keep first: primary key, constraint, usual name, age."""
    usual = index.bare_name in (_UNIQUE, _CORRELATION_INDEX)
    return not index.primary, index.constraint is None, not usual, not index.pinned, index.oid


def invalid(indexes: Indexes) -> Iterator[Finding]:
    """Check that there are no invalid indexes: appends maintain them, but no query uses them."""
    found = About("invalid-index")
    surplus = {index.name for index, _ in _redundant(indexes.found)}
    broken = [index for index in indexes.found if not index.valid and index.name not in surplus]
    for index in broken:
        if index.building:
            yield found.info(f"index {shown(index.name)} is being built")
        elif index.unique and index.keys == STREAM_KEY and index.constraint is not None and not index.spread:
            continue  # unique_key reports it
        elif index.spread:
            # Its definition has ONLY, as some partitions have no part of it.
            made = index.definition.replace(" ON ONLY ", " ON ", 1)
            yield found.warning(
                f"index {shown(index.name)} is not on all partitions: no query of the whole uses it",
                index.drop(indexes.table),
                f"{made};",
            )
        else:
            leftover = "_ccnew" in index.bare_name or "_ccold" in index.bare_name
            yield found.warning(
                f"index {shown(index.name)}, {size_of(index.bytes)}, is invalid: no query uses it",
                index.drop(indexes.table) if leftover else f"REINDEX INDEX CONCURRENTLY {index.name};",
            )
    for name in indexes.broken:
        yield found.warning(f"index {shown(name)} is invalid: no query uses it", f"REINDEX INDEX CONCURRENTLY {name};")
    if not broken and not indexes.broken:
        yield found.ok("all indexes are valid")


def correlation(indexes: Indexes) -> Iterator[Finding]:
    """Check that following a correlation id has an index."""
    found = About("correlation-index")
    if any(_CORRELATION in (index.expressions or "") for index in indexes.found):
        yield found.ok("correlation ids are indexed")
    else:
        yield found.info(
            "there is no index on the correlation id: following one scans the table",
            f"CREATE {indexes.make} IF NOT EXISTS {_CORRELATION_INDEX} ON {indexes.table} "
            "((metadata ->> 'correlation_id'), global_seq) WHERE (metadata ->> 'correlation_id') IS NOT NULL;",
        )


def others(indexes: Indexes) -> Iterator[Finding]:
    """Report unique indexes that schema.sql does not have, as they can refuse events."""
    found = About("other-unique-indexes")
    ours = (_GLOBAL_KEY, STREAM_KEY, ["event_id"])
    theirs = [
        index
        for index in indexes.found
        if index.unique and index.valid and not index.primary and index.keys not in ours
    ]
    for index in theirs:
        yield found.info(
            f"index {shown(index.name)} keeps {quoted(index.columns)} unique: it refuses appends that esx would take"
        )
    if not theirs:
        yield found.ok("no other unique index refuses appends")


TOPIC = Topic("indexes", read_indexes, (unique_key, primary_key, redundant, invalid, correlation, others))
