"""Faults on purpose, under load: nothing may be lost, stored twice or handed out in another order.

`cluster` is a primary and a standby behind one address; `schedule` does them harm. `clients` append and `readers`
follow meanwhile, and both write down in a `history` what they did and what they were told. `check` compares that with
what the servers hold in the end.
"""
