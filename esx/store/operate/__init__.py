"""Operating consumers: listing them, and pausing, moving and repairing them from outside."""
