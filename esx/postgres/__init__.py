"""Talking to PostgreSQL by the driver, asyncpg: sessions and their pool, listening, the watchdog, values, errors."""
