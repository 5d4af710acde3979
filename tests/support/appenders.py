"""What other stores have in the database to append with, and appenders with a fault, for load tests."""

from __future__ import annotations

WRITE_MESSAGE = """
    -- As Message DB's function of that name: it names its table without the schema, locks the category, and refuses a
    -- wrong version by its message.
    CREATE FUNCTION message_store.write_message(
        id varchar, stream_name varchar, type varchar, data jsonb, metadata jsonb DEFAULT NULL,
        expected_version bigint DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE
        at bigint;
    BEGIN
        PERFORM pg_advisory_xact_lock(hashtext(category(write_message.stream_name)));
        SELECT coalesce(max(m.position), -1) INTO at FROM messages m WHERE m.stream_name = write_message.stream_name;
        IF at <> expected_version THEN
            RAISE EXCEPTION 'Wrong expected version: % (Stream: %, Stream Version: %)', expected_version,
                write_message.stream_name, at;
        END IF;
        INSERT INTO messages (id, stream_name, position, type, data, metadata)
        VALUES (write_message.id::uuid, write_message.stream_name, at + 1, write_message.type, write_message.data,
                write_message.metadata);
        RETURN at + 1;
    END $$;
"""

# Marten as it is with stream ids of type varchar, a header in each event, and one tenant.
MARTEN = """
    CREATE TABLE mt_streams (id varchar PRIMARY KEY, type varchar, version bigint,
        timestamp timestamptz NOT NULL DEFAULT now(), tenant_id varchar DEFAULT '*DEFAULT*',
        is_archived boolean DEFAULT false);
    CREATE TABLE mt_events (seq_id bigint PRIMARY KEY, id uuid NOT NULL,
        stream_id varchar REFERENCES mt_streams (id), version bigint NOT NULL, data jsonb NOT NULL,
        type varchar(500) NOT NULL, timestamp timestamptz NOT NULL DEFAULT now(),
        tenant_id varchar DEFAULT '*DEFAULT*', mt_dotnet_type varchar, headers jsonb,
        is_archived boolean DEFAULT false);
    CREATE UNIQUE INDEX pk_mt_events_stream_and_version ON mt_events (stream_id, version);
    CREATE SEQUENCE mt_events_sequence OWNED BY mt_events.seq_id;
"""
QUICK_APPEND = """
    -- As Marten's function of that name: it reads the version without a lock, and the unique index decides.
    CREATE FUNCTION mt_quick_append_events(
        stream varchar, stream_type varchar, tenantid varchar, event_ids uuid[], event_types varchar[],
        dotnet_types varchar[], bodies jsonb[], headers jsonb[]) RETURNS int[] LANGUAGE plpgsql AS $$
    DECLARE
        at int;
        seq int;
        told int[];
    BEGIN
        SELECT s.version INTO at FROM mt_streams s WHERE s.id = stream;
        IF at IS NULL THEN
            at := 0;
            INSERT INTO mt_streams (id, type, version, tenant_id) VALUES (stream, stream_type, 0, tenantid);
        END IF;
        told := ARRAY[at + cardinality(event_ids)];
        FOR n IN 1 .. cardinality(event_ids) LOOP
            seq := nextval('mt_events_sequence');
            told := told || seq;
            at := at + 1;
            INSERT INTO mt_events (seq_id, id, stream_id, version, data, type, tenant_id, mt_dotnet_type, headers)
            VALUES (seq, event_ids[n], stream, at, bodies[n], event_types[n], tenantid, dotnet_types[n], headers[n]);
        END LOOP;
        UPDATE mt_streams s SET version = at, timestamp = now() WHERE s.id = stream;
        RETURN told;
    END $$;
"""
