"""The tables of other event stores: how each is recognised, and how its columns are read."""
