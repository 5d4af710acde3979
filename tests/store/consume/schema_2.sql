DO $$
DECLARE
    found INT;
BEGIN
    IF to_regclass('esx_schema') IS NOT NULL THEN
        SELECT max(version) INTO found FROM esx_schema;
        IF found > 2 THEN
            RAISE EXCEPTION 'the schema has version %, and this esx knows it up to 2: nothing was changed, use the esx '
                            'that made it, or a newer one', found;
        END IF;
    END IF;
END
$$;
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
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'events'::regclass AND attname = 'event_id') THEN
        ALTER TABLE events ADD COLUMN event_id UUID NOT NULL DEFAULT gen_random_uuid();
    END IF;
END
$$;
DO $$
BEGIN
    IF to_regclass('events_correlation_id_idx') IS NULL THEN
        CREATE INDEX events_correlation_id_idx
            ON events ((metadata ->> 'correlation_id'), global_seq)
            WHERE (metadata ->> 'correlation_id') IS NOT NULL;
    END IF;
END
$$;
CREATE OR REPLACE FUNCTION esx_ring_doorbell() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    mode TEXT := current_setting('esx.notification', true);
BEGIN
    IF mode = 'off' THEN
        RETURN NULL;
    END IF;
    IF mode = 'every' OR (
        pg_try_advisory_xact_lock(1702066232, TG_RELID::int)
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
CREATE TABLE IF NOT EXISTS stream_locks (
    stream_id TEXT COLLATE "C" PRIMARY KEY
);
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
DO $$
DECLARE
    here    TEXT := quote_ident(current_schema()) || '.';
    ours    REGCLASS := to_regclass(here || 'consumers');
    wanted  TEXT[] := '{name,id,position,paused,last_error,updated_at,kind,history}';
    missing TEXT;
BEGIN
    IF ours IS NULL THEN
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
    history     JSONB
);
DO $$
BEGIN
    IF to_regclass(quote_ident(current_schema()) || '.projections') IS NULL THEN
        CREATE VIEW projections AS
            SELECT name, id, position, paused, last_error, updated_at, history FROM consumers WHERE kind = 'projection'
            WITH CASCADED CHECK OPTION;
        EXECUTE format('ALTER VIEW projections OWNER TO %I',
                       (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'consumers'::regclass));
    END IF;
END
$$;
CREATE TABLE IF NOT EXISTS parked_events (
    consumer    TEXT        NOT NULL REFERENCES consumers (name) ON UPDATE CASCADE ON DELETE CASCADE,
    global_seq  BIGINT      NOT NULL,
    stream_id   TEXT        COLLATE "C" NOT NULL,
    event_type  TEXT        NOT NULL,
    error       TEXT        NOT NULL,
    attempts    INT         NOT NULL DEFAULT 1,
    parked_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, global_seq)
);
CREATE TABLE IF NOT EXISTS feed_fence (
    one         BOOLEAN     PRIMARY KEY DEFAULT true CHECK (one),
    position    BIGINT      NOT NULL,
    history     JSONB       NOT NULL,
    advanced_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS erased_events (
    last        BIGINT      NOT NULL,
    id          BIGINT      NOT NULL GENERATED ALWAYS AS IDENTITY,
    first       BIGINT      NOT NULL,
    numbers     INT8MULTIRANGE NOT NULL,
    erased_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (last, id)
);
DO $$
DECLARE
    given RECORD;
BEGIN
    FOR given IN
        SELECT acl.privilege_type AS what, made.name, acl.is_grantable AS further,
               CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS whom
        FROM (VALUES ('projections', 'consumers', '{SELECT,INSERT,UPDATE,DELETE}'::text[]),
                     ('erased_events', 'events', '{SELECT}'), ('feed_fence', 'events', '{SELECT}')) made (name, older, rights)
        JOIN pg_class c ON c.oid = made.older::regclass
        JOIN pg_class n ON n.oid = made.name::regclass AND n.relacl IS NULL
        CROSS JOIN aclexplode(c.relacl) acl
        WHERE acl.privilege_type = ANY (made.rights) AND acl.grantee <> c.relowner
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
INSERT INTO esx_schema (version) VALUES (2) ON CONFLICT (one) DO UPDATE SET version = 2 WHERE esx_schema.version < 2;
