"""The load test that comes with esx, for plain Locust: ``locust -f loadtest/locustfile.py``."""

from esx.loadtest.locustfile import StreamWriter

__all__ = ["StreamWriter"]
