"""The explorer's databases, its connection to one of them, and the feed that it follows there. Plain asyncio code."""
