"""Widgets of the explorer. None of them talks to a database."""
