"""Sweeps: the same load test with other settings."""
