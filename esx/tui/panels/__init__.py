"""The parts of the screens: a list or an event with its frame, its keys, and its queries."""
