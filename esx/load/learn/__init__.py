"""Load tests that are a store's own traffic: learning it from the history, and keeping it in a file."""
