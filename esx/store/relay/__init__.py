"""Relays: consumers of the feed that hand events to something outside of the database."""
