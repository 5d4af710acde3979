"""What holds for every store that can be read, whatever its tables look like: one suite for all layouts.

A layout is an entry of `LAYOUTS` in `layouts.py`: how its tables are made, and how events are put into them.
"""
