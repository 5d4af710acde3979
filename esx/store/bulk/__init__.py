"""Many events at once: import, export, deletion."""
