-- The event store: one append-only table, and a doorbell that wakes its readers.
-- Safe to apply again, with `psql -f schema.sql` or `esx init`.  PostgreSQL 14 or later.

-- One row per event.
--   global_seq  the order of all events; drawn from a sequence, so numbers can be missing (a rolled-back
--               append burns its number) and can become visible out of order (see docs/feed.md).
--   stream_id   COLLATE "C": a prefix search is then a range scan on the unique index, and comparing is cheap.
--   stream_seq  0, 1, 2, ... within a stream.
--   event_id    the client's own id of the event, so that a retry after a lost connection can be recognised.
--               It has a default: a plain INSERT by someone who has never heard of it keeps working.
-- PRIMARY KEY and UNIQUE already are the two indexes that readers need; further indexes on (global_seq) or
-- (stream_id, stream_seq) would only slow writing down.  UNIQUE is also the final judge of optimistic
-- concurrency: of two writers at one version, one gets a unique violation on it.
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
-- Asked first, here and below: a statement that finds nothing to do would still lock everybody out for a moment.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'events'::regclass AND attname = 'event_id') THEN
        ALTER TABLE events ADD COLUMN event_id UUID NOT NULL DEFAULT gen_random_uuid();
    END IF;
END
$$;

-- Everything that one request caused, in order.  Partial: events without a correlation id cost nothing.
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
-- notifies; the others, arriving while it is still open, skip it.  That is safe because a reader, once woken,
-- keeps reading until no writer is left in flight.  The setting, local to the transaction, makes a batch ring once.
-- The payload is a hint only: read the table for the events.
-- A session that sets esx.notification to 'every' notifies for each event, with 'off' not at all: for comparing.
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

-- Row-level locking, the other strategy of appending: a row per stream to queue on, made when first needed.
-- (Locking the newest event of a stream would not do: who waited for it goes on with the row first found.)
CREATE TABLE IF NOT EXISTS stream_locks (
    stream_id TEXT COLLATE "C" PRIMARY KEY
);

-- Locks the stream until the end of the transaction and returns its version, -1 if it has no events.  A function,
-- because each of its queries sees what was committed before it began, and so also while the lock was waited for.
-- A session keeps the plans of a function: one made while the tables were small must not scan them when they are not.
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

-- Projections: how far each read model has come.  The row is updated in the transaction that changes the read
-- model, so both advance together or not at all.
--   id          what its one active instance takes an advisory lock on; a hash of the name could collide.
--   position    everything up to this global_seq has been handled, or did not pass the filter, or is dead.
--   last_error  what the handler died of at the event after `position`; cleared when the position moves on.
--   updated_at  when the position last moved.
-- Who runs a projection is not stored: the lock tells, and it goes away with its owner.
CREATE TABLE IF NOT EXISTS projections (
    name        TEXT        PRIMARY KEY,
    id          INT         NOT NULL GENERATED ALWAYS AS IDENTITY,
    position    BIGINT      NOT NULL DEFAULT 0 CHECK (position >= 0),
    paused      BOOLEAN     NOT NULL DEFAULT false,
    last_error  TEXT,
    updated_at  TIMESTAMPTZ NOT NULL DEFAULT now()
);
