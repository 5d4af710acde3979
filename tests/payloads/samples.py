"""Payloads of many formats, and a store with them."""

from __future__ import annotations

import gzip
import zlib

import asyncpg

YAML = b'---\n:owner: "Ann"\n:currency: "EUR"\n:limit: \n'
PROTOBUF = bytes.fromhex("08960112076d65737361676521000000000000f03f1a03089601")
ERLANG = b"\x83t\x00\x00\x00\x01w\x06amount\x62\x00\x00\x01\x00"
JAVA = b"\xac\xed\x00\x05sr\x00\x0ecom.shop.Order\x8c\x01\x02\x03"
CIPHER = bytes(range(255, 0, -7))

PAYLOADS = {
    "json": b'{"amount": 1.50}',
    "zlib": zlib.compress(b'{"amount": 1.50}'),
    "gzip": gzip.compress(YAML),
    "yaml": YAML,
    "messagepack": b"\x82\xa6amount\xcb?\xf8\x00\x00\x00\x00\x00\x00\xa4tags\x91\xa3new",
    "protobuf": PROTOBUF,
    "erlang": ERLANG,
    "xml": b"<order>\n  <!ENTITY x SYSTEM 'file:///etc/passwd'><total>&x;</total>\n</order>",
    "java": JAVA,
    "cipher": CIPHER,
}
"""By the type of their event."""


async def make_store(connection: asyncpg.Connection) -> None:
    """Make a store of Message DB whose payloads are bytes: one event of each format in the stream ``pay-1``."""
    await connection.execute(
        "CREATE SCHEMA message_store; CREATE TABLE message_store.messages (global_position bigserial PRIMARY KEY, "
        "position bigint NOT NULL, time timestamp NOT NULL DEFAULT '2026-08-07', stream_name text NOT NULL, "
        "type text NOT NULL, data bytea, metadata bytea, id uuid NOT NULL DEFAULT gen_random_uuid());"
        "CREATE UNIQUE INDEX messages_stream ON message_store.messages (stream_name, position)"
    )
    await connection.executemany(
        "INSERT INTO message_store.messages (position, stream_name, type, data, metadata) "
        "VALUES ($1, 'pay-1', $2, $3, $4)",
        [(at, name, raw, YAML if name == "yaml" else None) for at, (name, raw) in enumerate(PAYLOADS.items())],
    )
