"""Trails: the events that share a correlation id."""
