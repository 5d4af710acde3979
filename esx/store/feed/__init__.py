"""The ordered feed of all events."""
