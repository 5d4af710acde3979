"""The tables of tools of which no database is at hand, as the tools' own sources make them, with a few events."""

from __future__ import annotations

JOINED = {
    "castore": (
        "CREATE TABLE event (id bigserial PRIMARY KEY, aggregate_name varchar(64) NOT NULL, aggregate_id uuid NOT NULL,"
        " version bigint NOT NULL, type varchar(64) NOT NULL, data jsonb, metadata jsonb, timestamp timestamptz(3) "
        "NOT NULL DEFAULT now(), UNIQUE (aggregate_name, aggregate_id, version));"
        "INSERT INTO event (aggregate_name, aggregate_id, version, type, data, timestamp) "
        "SELECT 'CART', ('00000000-0000-4000-8000-00000000000' || n % 3)::uuid, 1 + n / 3, 'COUNTED', "
        """CASE WHEN n > 0 THEN jsonb_build_object('n', n) END, '2026-03-28 21:05:14.714Z' """
        "FROM generate_series(0, 8) n",
        "CART/00000000-0000-4000-8000-00000000000",
        1,
    ),
    "acuris": (
        "CREATE TABLE event (position int8 PRIMARY KEY, stream_category text NOT NULL, stream_id text NOT NULL, "
        "event_number int NOT NULL, event_type text NOT NULL, timestamp timestamp NOT NULL, data jsonb NOT NULL, "
        "metadata jsonb, UNIQUE (stream_category, stream_id, event_number));"
        "INSERT INTO event SELECT 1 + n, 'CART', 'a/' || n % 3, n / 3, 'COUNTED', '2026-03-28 21:05:14.714', "
        "CASE WHEN n > 0 THEN jsonb_build_object('n', n) ELSE 'null' END FROM generate_series(0, 8) n",
        "CART/a/",
        0,
    ),
    "evtstore": (
        "CREATE TABLE log (position bigserial PRIMARY KEY, version integer, stream text, aggregate_id text, "
        "timestamp timestamptz, event text); CREATE UNIQUE INDEX ON log (stream, position);"
        "CREATE UNIQUE INDEX ON log (stream, aggregate_id, version);"
        "INSERT INTO log (version, stream, aggregate_id, timestamp, event) "
        "SELECT 1 + n / 3, 'CART', n % 3, '2026-03-28 21:05:14.714Z', CASE WHEN n > 0 THEN "
        """'{"type": "COUNTED", "n": ' || n || '}' ELSE 'no JSON' END FROM generate_series(0, 8) n""",
        "CART/",
        1,
    ),
}
"""The tables that these tools make, with nine events in three streams, of which the first has no data."""

EVENTUOUS = """
    CREATE SCHEMA eventuous;
    CREATE TABLE eventuous.streams (
        stream_name varchar(1000) NOT NULL UNIQUE, stream_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
        version integer NOT NULL DEFAULT (-1));
    CREATE TABLE eventuous.messages (
        message_id uuid NOT NULL, message_type varchar NOT NULL, stream_id integer NOT NULL,
        stream_position integer NOT NULL, global_position bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
        json_data jsonb NOT NULL, json_metadata jsonb, created timestamp NOT NULL,
        UNIQUE (stream_id, stream_position), UNIQUE (stream_id, message_id));
    INSERT INTO eventuous.streams (stream_name, version) VALUES ('cart-2', 2), ('cart-1', 2), ('empty-1', -1);
    INSERT INTO eventuous.messages
        (message_id, message_type, stream_id, stream_position, json_data, json_metadata, created)
    SELECT gen_random_uuid(), 'V1.Counted', 1 + n % 2, n / 2, jsonb_build_object('n', n),
           '{"eventuous.correlation-id": "c"}', '2026-03-28 21:05:14.714114'
    FROM generate_series(0, 5) n;
"""

PG_EVENTSTORE = """
    CREATE TABLE partitions (id bigserial, context varchar, stream_name varchar, table_name varchar);
    CREATE TABLE events (
        id uuid DEFAULT gen_random_uuid() NOT NULL, context varchar COLLATE "POSIX" NOT NULL,
        stream_name varchar COLLATE "POSIX" NOT NULL, stream_id varchar COLLATE "POSIX" NOT NULL,
        global_position bigserial NOT NULL, stream_revision integer NOT NULL,
        data jsonb DEFAULT '{}' NOT NULL, metadata jsonb DEFAULT '{}' NOT NULL, link_global_position bigint,
        created_at timestamp DEFAULT now() NOT NULL, type varchar COLLATE "POSIX" NOT NULL,
        PRIMARY KEY (context, stream_name, type, global_position)) PARTITION BY LIST (context);
    CREATE INDEX ON events (stream_id, stream_revision);
    CREATE INDEX ON events (global_position);
    CREATE TABLE shop PARTITION OF events FOR VALUES IN ('Shop') PARTITION BY LIST (stream_name);
    CREATE TABLE shop_cart PARTITION OF shop FOR VALUES IN ('Cart');
    CREATE TABLE bank PARTITION OF events FOR VALUES IN ('Bank');
    INSERT INTO events (context, stream_name, stream_id, stream_revision, type, data)
    SELECT c[1], c[2], n::text, r, 'Counted', jsonb_build_object('r', r)
    FROM generate_series(0, 2) r, generate_series(1, 2) n,
         (VALUES ('{Shop,Cart}'::text[]), ('{Bank,Account}')) v (c)
"""

AXON_JPA = """
    CREATE SEQUENCE domain_event_entry_seq INCREMENT BY {step};
    CREATE TABLE domain_event_entry (
        global_index bigint PRIMARY KEY, aggregate_identifier varchar(255) NOT NULL, sequence_number bigint NOT NULL,
        type varchar(255), event_identifier varchar(255) UNIQUE NOT NULL, meta_data oid, payload oid NOT NULL,
        payload_revision varchar(255), payload_type varchar(255) NOT NULL, time_stamp varchar(255) NOT NULL,
        UNIQUE (aggregate_identifier, sequence_number));
    INSERT INTO domain_event_entry
    SELECT nextval('domain_event_entry_seq'), 'cart', n, 'Cart', gen_random_uuid(),
           lo_from_bytea(0, '{{"traceId": "t"}}'), lo_from_bytea(0, convert_to('{{"n": ' || n || '}}', 'UTF8')),
           NULL, 'com.example.Counted', '2026-03-28T21:05:14.714Z' FROM generate_series(0, 3) n;
    SELECT lo_unlink(payload) FROM domain_event_entry WHERE sequence_number = 1;
"""

_ACT_PG = """
    CREATE TABLE events (id serial PRIMARY KEY, name varchar(100) NOT NULL, data jsonb, stream varchar(100) NOT NULL,
        version int NOT NULL, created timestamptz NOT NULL DEFAULT now(), meta jsonb);
    CREATE UNIQUE INDEX ON events (stream, version);
    INSERT INTO events (name, data, stream, version, meta)
    SELECT 'Counted', '{"n": 1}', 'counter-' || n % 3, n / 3, '{"correlation": "c"}' FROM generate_series(0, 8) n;
"""
_PATCHLEVEL = """
    CREATE TABLE event_store (id bigserial PRIMARY KEY, stream varchar(255) NOT NULL, playhead int,
        event varchar(255) NOT NULL, payload json NOT NULL, recorded_on timestamptz(0) NOT NULL,
        archived boolean NOT NULL DEFAULT false, custom_headers json NOT NULL, UNIQUE (stream, playhead));
    INSERT INTO event_store (stream, playhead, event, payload, recorded_on, custom_headers)
    SELECT 'cart-' || n % 3, 1 + n / 3, 'counted', '{}', now(), '[]' FROM generate_series(0, 8) n;
"""
MADE = {
    "act_pg": _ACT_PG,
    "axon_jpa": AXON_JPA.format(step=1),
    "eventuous": EVENTUOUS,
    "patchlevel_stream": _PATCHLEVEL,
    "pg_eventstore": PG_EVENTSTORE,
    **{kind: statements for kind, (statements, _, _) in JOINED.items()},
}
"""By the names of their kinds."""

WITHOUT_NUMBERS = """
    CREATE TABLE event_store (id bigserial PRIMARY KEY, stream varchar(255) NOT NULL, playhead int,
        event varchar(255) NOT NULL, payload json NOT NULL, recorded_on timestamptz(0) NOT NULL,
        archived boolean NOT NULL DEFAULT false, custom_headers json NOT NULL, UNIQUE (stream, playhead));
    INSERT INTO event_store (stream, playhead, event, payload, recorded_on, custom_headers)
    SELECT 'cart-1', CASE WHEN n <> 2 THEN n END, 'counted', '{"n": 1.50}', now(), '[]' FROM generate_series(1, 3) n
"""
"""One of Patchlevel's tables, in which the second event of a stream has no number."""
