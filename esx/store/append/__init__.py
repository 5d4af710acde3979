"""Appending with an expected version."""
