"""The parts of an event in full: foldable JSON, search in it, differences, and states."""
