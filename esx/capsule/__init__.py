"""Capsules: a slice of a store's events, and what was seen of the store meanwhile, in one file to take along.

`format` says what is in the file, `recorder` makes one, `reading` reads one from anybody within bounds, `masking` puts
pseudonyms in the place of values, `recording` and `store` show a store as it was at a moment.
"""
