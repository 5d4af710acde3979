"""The two statements of a read-decide-append as the store sends them, for other clients to do the same."""

VERSION = "SELECT coalesce(max(stream_seq), -1) AS version FROM events WHERE stream_id = {}"
APPEND = """
WITH stream AS MATERIALIZED (
    SELECT coalesce(max(stream_seq), -1) AS version FROM events WHERE stream_id = {stream}
), appended AS (
    INSERT INTO events (stream_id, stream_seq, event_type, data, metadata, event_id)
    SELECT {stream}, stream.version + 1, 'LoadTested', {data}::jsonb, {metadata}::jsonb, {id}
    FROM stream WHERE stream.version BETWEEN {version} AND {version}
    RETURNING global_seq
)
SELECT stream.version, appended.global_seq, CASE WHEN appended.global_seq IS NULL THEN
    (SELECT e.event_id FROM events e WHERE e.stream_id = {stream} AND e.stream_seq = {version} + 1) END
FROM stream LEFT JOIN (SELECT max(global_seq) AS global_seq FROM appended) appended ON true
"""
