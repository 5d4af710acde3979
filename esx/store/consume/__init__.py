"""Consumers of the feed that keep a checkpoint: projections."""
