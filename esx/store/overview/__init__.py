"""What is in a store at a glance: its event types, and what happened in a time window."""
