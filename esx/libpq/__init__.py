"""How libpq, and so psql, finds out where a database is and how to connect to it: addresses, variables, files."""
