"""Searching events by type, JSONPath and time."""
