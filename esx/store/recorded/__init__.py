"""A recording in PostgreSQL: a database of its own, and a table that shows what had appeared by a moment."""
