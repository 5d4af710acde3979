-- The event store: one append-only table, and a doorbell that wakes its readers.
-- Safe to apply again, with `psql -f schema.sql` or `esx init`.  PostgreSQL 14 or later.
-- This is version 3.  docs/schema.md says which rights each role needs, and what an older esx does on it.

-- This esx does not change what a newer esx made.
DO $$
DECLARE
    found INT;
BEGIN
    IF to_regclass('esx_schema') IS NOT NULL THEN
        SELECT max(version) INTO found FROM esx_schema;
        IF found > 3 THEN
            RAISE EXCEPTION 'the schema has version %, and this esx knows it up to 3: nothing was changed, use the esx '
                            'that made it, or a newer one', found;
        END IF;
    END IF;
END
$$;

-- One row per event.
--   global_seq  the order of all events; drawn from a sequence, so numbers can be missing (a rolled-back
--               append burns its number) and can become visible out of order (see docs/feed.md).
--   stream_id   COLLATE "C": a prefix search is then a range scan on the unique index, and comparing is cheap.
--   stream_seq  0, 1, 2, ... within a stream.
--   event_id    the client's own id of the event, so that a retry after a lost connection can be recognised.
--               It has a default: a plain INSERT by a program that does not know it keeps working.
-- PRIMARY KEY and UNIQUE already are the two indexes that readers need.  Further indexes on (global_seq) or
-- (stream_id, stream_seq) would only slow down writing.  UNIQUE also decides optimistic concurrency:
-- of two writers at one version, one gets a unique violation on it.
CREATE TABLE IF NOT EXISTS events (
    global_seq  BIGSERIAL   PRIMARY KEY,
    stream_id   TEXT        COLLATE "C" NOT NULL,
    stream_seq  BIGINT      NOT NULL,
    event_type  TEXT        NOT NULL,
    data        JSONB       NOT NULL,
    metadata    JSONB,
    created_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
    event_id    UUID        NOT NULL DEFAULT gen_random_uuid(),
    CONSTRAINT events_stream_id_stream_seq_key UNIQUE (stream_id, stream_seq)
);

-- A classic table made without it gets the column (this rewrites the table once).
-- The check comes first, here and below: a statement that finds nothing to do would still lock out all other sessions
-- for a moment.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'events'::regclass AND attname = 'event_id') THEN
        ALTER TABLE events ADD COLUMN event_id UUID NOT NULL DEFAULT gen_random_uuid();
    END IF;
END
$$;

-- Everything that one request caused, in order.  The index is partial: events without a correlation id cost nothing.
DO $$
BEGIN
    IF to_regclass('events_correlation_id_idx') IS NULL THEN
        CREATE INDEX events_correlation_id_idx
            ON events ((metadata ->> 'correlation_id'), global_seq)
            WHERE (metadata ->> 'correlation_id') IS NOT NULL;
    END IF;
END
$$;

-- The doorbell.  Committing a NOTIFY takes a lock that is shared by the whole cluster, so one NOTIFY per append
-- would make all appends commit one after the other.  Here only the transaction that gets the advisory lock
-- notifies.  Transactions that arrive while it is still open skip it.  That is safe because a reader that was woken
-- keeps reading until no writer is left in flight.  The setting, local to the transaction, makes a batch ring once.
-- The payload is only a hint: read the table for the events.
-- For comparisons, a session can set esx.notification to 'every' (it notifies for each event) or 'off' (never).
CREATE OR REPLACE FUNCTION esx_ring_doorbell() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    mode TEXT := current_setting('esx.notification', true);
BEGIN
    IF mode = 'off' THEN
        RETURN NULL;
    END IF;
    IF mode = 'every' OR (
        pg_try_advisory_xact_lock(1702066232, TG_RELID::int)         -- 1702066232 spells "esx8" in ASCII
        AND coalesce(current_setting('esx.doorbell_rung', true), '') = ''
    ) THEN
        PERFORM set_config('esx.doorbell_rung', '1', true),
                pg_notify('new_events', '{"global_seq": ' || NEW.global_seq || '}');
    END IF;
    RETURN NULL;
END
$$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'events'::regclass AND tgname = 'events_doorbell'
                   AND tgfoid = 'esx_ring_doorbell()'::regprocedure AND tgtype = 5 AND tgqual IS NULL) THEN
        CREATE OR REPLACE TRIGGER events_doorbell
            AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION esx_ring_doorbell();
    END IF;
END
$$;

-- Row-level locking, the other strategy of appending: writers queue on a row per stream, made when first needed.
-- (To lock the newest event of a stream is not enough: a writer that waited for it goes on with the row it first found.)
CREATE TABLE IF NOT EXISTS stream_locks (
    stream_id TEXT COLLATE "C" PRIMARY KEY
);

-- Locks the stream until the end of the transaction and returns its version, -1 if it has no events.  It is a
-- function because each of its queries sees what was committed before that query began, and so also what was committed
-- during the wait for the lock.
-- A session keeps the plans of a function: a plan made while the tables were small must not scan them when they are large.
-- All names are qualified: the table may have a column called id.
CREATE OR REPLACE FUNCTION esx_lock_stream(id TEXT) RETURNS BIGINT LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    PERFORM 1 FROM stream_locks l WHERE l.stream_id = esx_lock_stream.id FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO stream_locks VALUES (esx_lock_stream.id) ON CONFLICT DO NOTHING;
        PERFORM 1 FROM stream_locks l WHERE l.stream_id = esx_lock_stream.id FOR UPDATE;
    END IF;
    RETURN (SELECT coalesce(max(e.stream_seq), -1) FROM events e WHERE e.stream_id = esx_lock_stream.id);
END
$$;

-- Consumers: how far each projection and each relay has come.  The row of a projection is updated in the transaction that
-- changes the read model, so both advance together or not at all.
--   name        unique over all kinds, so that a name always means one consumer.
--   id          what its one active instance takes an advisory lock on; a hash of the name could collide.
--   position    everything up to this global_seq has been handled, or put aside, or did not pass the filter, or is dead.
--   last_error  the error that stopped it at the event after `position`; cleared when the position moves on.
--   error_seq   the global_seq of the event that it is about, if it is about one; failed_at is when it was noted.
--   updated_at  when the position last moved; rate is how many events a second it handled until then.
--   history     what was read up to there, to recognise it later: see docs/consumers.md.  NULL: nothing is known.
--   host, pid   the machine and the process of the instance that began to run it last, at `since`, in the session of the
--               server's process `backend`.  They are true while that session has the lock, which ends with it.  Behind a
--               connection pooler there is no lock: `backend` is NULL there, and seen_at says when it was last there.
--   start       the position that it began at, and filter is what it wants: to make the same read model again.
-- Version 1 had a table of projections only: it becomes this one, with its rows, its grants and the locks on it.
DO $$
DECLARE
    here    TEXT := quote_ident(current_schema()) || '.';
    ours    REGCLASS := to_regclass(here || 'consumers');
    wanted  TEXT[] := '{name,id,position,paused,last_error,updated_at,kind,history}';
    missing TEXT;
BEGIN
    IF ours IS NULL THEN
        -- A table without these two is somebody else's, and stays what it is.
        SELECT c.oid INTO ours FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
        WHERE c.oid = to_regclass(here || 'projections') AND c.relkind IN ('r', 'p') AND a.attname IN ('name', 'position')
        GROUP BY c.oid HAVING count(*) = 2;
        wanted := wanted[:6];
    END IF;
    SELECT string_agg(name, ', ' ORDER BY name) INTO missing FROM unnest(wanted) name
    WHERE ours IS NOT NULL
      AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = ours AND attname = name AND NOT attisdropped);
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'table % has no column %: esx doctor tells what to do about it', ours, missing;
    END IF;
    IF ours IS NOT NULL AND to_regclass(here || 'consumers') IS NULL THEN
        ALTER TABLE projections RENAME TO consumers;
        ALTER TABLE consumers
            ADD COLUMN kind TEXT NOT NULL DEFAULT 'projection' CHECK (kind IN ('projection', 'relay')),
            ADD COLUMN history JSONB;
    END IF;
    -- Since version 3.
    IF to_regclass(here || 'consumers') IS NOT NULL AND 10 > (
        SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass(here || 'consumers') AND NOT attisdropped
           AND attname IN ('error_seq', 'failed_at', 'rate', 'host', 'pid', 'since', 'backend', 'seen_at', 'start', 'filter')
    ) THEN
        ALTER TABLE consumers
            ADD COLUMN IF NOT EXISTS error_seq BIGINT,
            ADD COLUMN IF NOT EXISTS failed_at TIMESTAMPTZ,
            ADD COLUMN IF NOT EXISTS rate REAL NOT NULL DEFAULT 0,
            ADD COLUMN IF NOT EXISTS host TEXT,
            ADD COLUMN IF NOT EXISTS pid INT,
            ADD COLUMN IF NOT EXISTS since TIMESTAMPTZ,
            ADD COLUMN IF NOT EXISTS backend INT,
            ADD COLUMN IF NOT EXISTS seen_at TIMESTAMPTZ,
            ADD COLUMN IF NOT EXISTS start BIGINT NOT NULL DEFAULT 0,
            ADD COLUMN IF NOT EXISTS filter JSONB;
    END IF;
END
$$;

CREATE TABLE IF NOT EXISTS consumers (
    name        TEXT        PRIMARY KEY,
    id          INT         NOT NULL GENERATED ALWAYS AS IDENTITY,
    position    BIGINT      NOT NULL DEFAULT 0 CHECK (position >= 0),
    paused      BOOLEAN     NOT NULL DEFAULT false,
    last_error  TEXT,
    updated_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
    kind        TEXT        NOT NULL DEFAULT 'projection' CHECK (kind IN ('projection', 'relay')),
    history     JSONB,
    error_seq   BIGINT,
    failed_at   TIMESTAMPTZ,
    rate        REAL        NOT NULL DEFAULT 0,
    host        TEXT,
    pid         INT,
    since       TIMESTAMPTZ,
    backend     INT,
    seen_at     TIMESTAMPTZ,
    start       BIGINT      NOT NULL DEFAULT 0,
    filter      JSONB
);

-- The projections among them, under the name that they have always had: for roles that have rights to it, and for an
-- older esx.  It can be written to like a table, with the rights that its owner has to the table.
DO $$
DECLARE
    ours REGCLASS := to_regclass(quote_ident(current_schema()) || '.projections');
BEGIN
    -- That of version 2 has fewer columns.
    IF ours IS NULL OR EXISTS (
        SELECT FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
        WHERE c.oid = ours AND c.relkind = 'v' AND a.attname IN ('history', 'filter')
        HAVING string_agg(a.attname, ',') = 'history'
    ) THEN
        CREATE OR REPLACE VIEW projections AS
            SELECT name, id, position, paused, last_error, updated_at, history, error_seq, failed_at, rate, host, pid,
                   since, backend, seen_at, start, filter
            FROM consumers WHERE kind = 'projection'
            WITH CASCADED CHECK OPTION;
        EXECUTE format('ALTER VIEW projections OWNER TO %I',
                       (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'consumers'::regclass));
    END IF;
END
$$;

-- Events that a consumer has put aside, to go on without them until a user has looked at them: the event that failed, and
-- the later ones of its stream, which have to wait for it.
--   state  parked: it waits for a user; retry: the instance that runs the consumer is to handle it now; skipped: it was
--          given up, by a user or by the consumer's own rule, and is kept as a record.
CREATE TABLE IF NOT EXISTS parked_events (
    consumer    TEXT        NOT NULL REFERENCES consumers (name) ON UPDATE CASCADE ON DELETE CASCADE,
    global_seq  BIGINT      NOT NULL,
    stream_id   TEXT        COLLATE "C" NOT NULL,
    event_type  TEXT        NOT NULL,
    error       TEXT        NOT NULL,
    attempts    INT         NOT NULL DEFAULT 1,
    parked_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    state       TEXT        NOT NULL DEFAULT 'parked' CHECK (state IN ('parked', 'retry', 'skipped')),
    PRIMARY KEY (consumer, global_seq)
);

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'parked_events'::regclass AND attname = 'state'
                   AND NOT attisdropped) THEN
        ALTER TABLE parked_events
            ADD COLUMN state TEXT NOT NULL DEFAULT 'parked' CHECK (state IN ('parked', 'retry', 'skipped'));
    END IF;
END
$$;

-- The highest number known such that no transaction can still write it or a lower one: see docs/feed.md.  One row.
CREATE TABLE IF NOT EXISTS feed_fence (
    one         BOOLEAN     PRIMARY KEY DEFAULT true CHECK (one),
    position    BIGINT      NOT NULL,
    history     JSONB       NOT NULL,
    advanced_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- What esx itself has erased (`esx load clean`), one row per batch: readers that were given these events do not miss them.
CREATE TABLE IF NOT EXISTS erased_events (
    last        BIGINT      NOT NULL,
    id          BIGINT      NOT NULL GENERATED ALWAYS AS IDENTITY,
    first       BIGINT      NOT NULL,
    numbers     INT8MULTIRANGE NOT NULL,
    erased_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (last, id)
);

-- Why appends conflicted: rows of applications that ask for it, `EventStore.connect(record_conflicts=True)`, and of load
-- tests.  It is a sample and no ledger: each writer keeps the newest 100,000 rows and deletes older ones, and nothing else
-- depends on it.
--   expected    the version that the refused append expected: -1 for none, NULL for any but none.  actual: what it was.
--   lost_types  the types of its events, each once; won_types those of the events that were stored after `expected`, the
--               first of them at global_seq won_seq.  The users and correlation ids are those of the first event of each.
--   stands_for  how many conflicts the row stands for: more than 1 where there were too many to record each.
CREATE TABLE IF NOT EXISTS conflicts (
    id               BIGINT      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at               TIMESTAMPTZ NOT NULL DEFAULT now(),
    stream_id        TEXT        COLLATE "C" NOT NULL,
    expected         BIGINT,
    actual           BIGINT      NOT NULL,
    lost_types       TEXT[]      NOT NULL,
    lost_user        TEXT,
    lost_correlation TEXT,
    won_types        TEXT[]      NOT NULL,
    won_seq          BIGINT,
    won_user         TEXT,
    won_correlation  TEXT,
    stands_for       REAL        NOT NULL DEFAULT 1
);

-- New tables begin with the rights to the older ones, so that each role can go on with what it does.
DO $$
DECLARE
    given RECORD;
BEGIN
    FOR given IN
        SELECT coalesce(made.instead, acl.privilege_type) AS what, made.name, acl.is_grantable AS further,
               CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS whom
        -- Who moves a consumer may also forget what it has put aside.
        FROM (VALUES ('projections', 'consumers', '{SELECT,INSERT,UPDATE,DELETE}'::text[], NULL),
                     ('projections', 'parked_events', '{SELECT,INSERT,UPDATE}', NULL),
                     ('projections', 'parked_events', '{UPDATE}', 'DELETE'),
                     ('erased_events', 'events', '{SELECT}', NULL),
                     ('conflicts', 'events', '{SELECT,INSERT}', NULL),
                     ('conflicts', 'events', '{INSERT}', 'DELETE'),
                     ('feed_fence', 'events', '{SELECT}', NULL)) made (name, older, rights, instead)
        JOIN pg_class c ON c.oid = made.older::regclass
        JOIN pg_class n ON n.oid = made.name::regclass AND n.relacl IS NULL
        CROSS JOIN aclexplode(c.relacl) acl
        WHERE acl.privilege_type = ANY (made.rights) AND acl.grantee <> c.relowner
          -- A table conflicts may be somebody else's, and policies hide events whose streams and users it names.
          AND (made.name <> 'conflicts' OR NOT c.relrowsecurity AND EXISTS (
               SELECT FROM pg_attribute WHERE attrelid = n.oid AND attname = 'stands_for' AND NOT attisdropped))
    LOOP
        EXECUTE format('GRANT %s ON %I TO %s', given.what, given.name, given.whom)
                || CASE WHEN given.further THEN ' WITH GRANT OPTION' ELSE '' END;
    END LOOP;
END
$$;

CREATE TABLE IF NOT EXISTS esx_schema (
    one         BOOLEAN     PRIMARY KEY DEFAULT true CHECK (one),
    version     INT         NOT NULL
);
INSERT INTO esx_schema (version) VALUES (3) ON CONFLICT (one) DO UPDATE SET version = 3 WHERE esx_schema.version < 3;
