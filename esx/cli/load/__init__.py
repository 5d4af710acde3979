"""The commands of the load test."""
