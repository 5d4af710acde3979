"""The two statements of a read-decide-append as the store sends them, for other clients to do the same."""

VERSION = "SELECT coalesce(max(stream_seq), -1) AS version FROM events WHERE stream_id = {}"
APPEND = """
INSERT INTO events (stream_id, stream_seq, event_type, data, metadata, event_id)
SELECT {stream}, stream.version + 1, 'LoadTested', {data}::jsonb, {metadata}::jsonb, {id}
FROM (SELECT coalesce(max(stream_seq), -1) AS version FROM events WHERE stream_id = {stream}) stream
WHERE stream.version BETWEEN {version} AND {version}
RETURNING stream_seq - 1, global_seq
"""
